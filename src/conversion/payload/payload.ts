/**
 * Payload of a progressor event to the Thrift encoding of msgpack.Value, in one pass and without a tree: arities in
 * Erlang's External Term Format stand before the elements, as counts do in Thrift, so every byte is written once.
 * Format: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html. The terms are those of mg_proto's Erlang codec:
 * `{nl, {mg_msgpack_Nil}}`, `{b, Boolean}`, `{i, Integer}`, `{flt, Float}`, `{str | bin, Binary}`, `{obj, Map}`,
 * `{arr, List}`.
 *
 * There are two ways to the same bytes: a quick one for what is usual (usual-value.ts), and one that knows every form and
 * every fault (careful-value.ts), for whatever the quick one leaves alone.
 */
import { inflateSync } from 'node:zlib';
import { ByteReader } from '../../bytes/reader.ts';
import type { ByteWriter } from '../../bytes/writer.ts';
import { MalformedError } from '../../errors.ts';
import { writeCarefulValue } from './decoder.ts';
import { writeUsualValue } from './fast-path.ts';

/** Largest size that a compressed payload may declare: far above any record that Kafka would take. */
export const MAX_INFLATED_BYTES = 64 * 1024 * 1024;

const VERSION = 131;
const COMPRESSED = 80; // 'P'

/**
 * The event payload `bytes[start..end)`: `term_to_binary` of a Value, plain or compressed. Bytes after the term are
 * ignored, as Erlang ignores them.
 */
export class EtfValue {
  readonly #bytes: Buffer;
  readonly #start: number;
  readonly #end: number;

  constructor(bytes: Buffer, start: number, end: number) {
    this.#bytes = bytes;
    this.#start = start;
    this.#end = end;
  }

  /**
   * Appends the Thrift encoding of the Value. Throws MalformedError('ETF', offset within the payload, ...) for
   * whatever is not such a payload, and leaves `out` as it was.
   */
  writeTo(out: ByteWriter): void {
    const start = this.#start;
    const end = this.#end;
    if (start < end && this.#bytes[start] === VERSION && writeUsualValue(this.#bytes, start + 1, end, out)) return;
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
    writeCarefulValue(reader, out);
    return;
  }
  const inflated = inflate(reader);
  if (writeUsualValue(inflated, 0, inflated.length, out)) return;
  try {
    writeCarefulValue(new ByteReader('ETF', inflated), out);
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    throw new MalformedError('ETF', error.offset, `in the inflated term, ${error.detail}`);
  }
}

/**
 * Compressed term: tag 80, u32 size of the inflated term (its tag included, the version byte not), zlib data. The
 * declared size is also the limit for inflating, so that a bomb costs what it declares and no more.
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
    // zlib's own text says nothing that helps, and its error may hold on to the payload
    reader.fail(`zlib data are damaged, cut off or longer than the declared ${declared} bytes`);
  }
  if (inflated.length !== declared) {
    reader.fail(`inflated to ${inflated.length} bytes where ${declared} are declared`);
  }
  return inflated;
}
