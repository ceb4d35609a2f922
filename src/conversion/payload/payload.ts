import { inflateSync } from 'node:zlib';
import { ByteReader } from '../../bytes/reader.ts';
import type { ByteWriter } from '../../bytes/writer.ts';
import { MalformedError } from '../../errors.ts';
import { decodeValue } from './decoder.ts';
import { tryFastPath } from './fast-path.ts';
import { COMPRESSED, VERSION } from './tags.ts';

/** Largest size that a compressed payload may declare: far above any record that Kafka accepts. */
export const MAX_INFLATED_BYTES = 64 * 1024 * 1024;

/**
 * The event payload `bytes[start..end)`: `term_to_binary` of a Value, plain or compressed. Bytes after the term are
 * ignored, as Erlang ignores them. The terms are those of mg_proto's Erlang codec: `{nl, {mg_msgpack_Nil}}`,
 * `{b, Boolean}`, `{i, Integer}`, `{flt, Float}`, `{str | bin, Binary}`, `{obj, Map}`, `{arr, List}`.
 *
 * It is written as the Thrift encoding of msgpack.Value, in one pass and without a tree: in Erlang's External Term Format
 * as in Thrift, counts come before the elements. Two converters give the same bytes: the fast path (fast-path.ts) for the
 * usual forms, and the decoder (decoder.ts), which knows every form and reports every fault, for everything else.
 */
export class EventPayload {
  readonly #bytes: Buffer;
  readonly #start: number;
  readonly #end: number;

  constructor(bytes: Buffer, start: number, end: number) {
    this.#bytes = bytes;
    this.#start = start;
    this.#end = end;
  }

  /**
   * Appends the Thrift encoding of the Value.
   * @throws MalformedError with format 'ETF' and the offset within the payload; `out` is then unchanged
   */
  writeTo(out: ByteWriter): void {
    const start = this.#start;
    const end = this.#end;
    if (start < end && this.#bytes[start] === VERSION && tryFastPath(this.#bytes, start + 1, end, out)) return;
    const lengthBefore = out.length;
    try {
      writePayload(new ByteReader('ETF', this.#bytes, start, end), out);
    } catch (error) {
      out.length = lengthBefore;
      throw error;
    }
  }
}

function writePayload(reader: ByteReader, out: ByteWriter): void {
  if (reader.u8() !== VERSION) reader.fail('unknown version', reader.offset - 1);
  if (reader.remaining === 0 || reader.buffer[reader.offset] !== COMPRESSED) {
    decodeValue(reader, out);
    return;
  }
  const inflated = inflate(reader);
  if (tryFastPath(inflated, 0, inflated.length, out)) return;
  try {
    decodeValue(new ByteReader('ETF', inflated), out);
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    throw new MalformedError('ETF', error.offset, `in the inflated term, ${error.detail}`);
  }
}

/**
 * Compressed term: tag 80, u32 size of the inflated term (with its tag, without the version byte), zlib data. The declared
 * size also limits inflation: a zip bomb costs what it declares and no more.
 */
function inflate(reader: ByteReader): Buffer {
  reader.skip(1);
  const declared = reader.u32();
  if (declared === 0 || declared > MAX_INFLATED_BYTES) {
    reader.fail(`declared inflated size ${declared} is outside 1 to ${MAX_INFLATED_BYTES}`, reader.offset - 4);
  }
  let inflated: Buffer;
  try {
    const data = reader.buffer.subarray(reader.offset, reader.end);
    inflated = inflateSync(data, { maxOutputLength: declared });
  } catch {
    // zlib's own text does not help, and its error may keep the payload alive.
    reader.fail(`zlib data are damaged, cut off or longer than the declared ${declared} bytes`);
  }
  if (inflated.length !== declared) {
    reader.fail(`inflated to ${inflated.length} bytes where ${declared} are declared`);
  }
  return inflated;
}
