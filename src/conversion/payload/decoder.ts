import type { ByteReader } from '../../bytes/reader.ts';
import type { ByteWriter } from '../../bytes/writer.ts';
import {
  FIELD_STOP,
  VALUE_ARR,
  VALUE_ARR_TYPE,
  VALUE_B,
  VALUE_BIN,
  VALUE_FLT,
  VALUE_I,
  VALUE_NL,
  VALUE_OBJ,
  VALUE_OBJ_TYPES,
  VALUE_STR,
} from '../thrift/mg-proto.ts';
import { findMapKeyFault } from './map-keys.ts';
import { MAX_NESTING_DEPTH } from './nesting-limits.ts';
import {
  ARR,
  ATOM_EXT,
  ATOM_UTF8_EXT,
  B,
  BIN,
  BINARY_EXT,
  FLOAT_EXT,
  FLT,
  I,
  INTEGER_EXT,
  LARGE_BIG_EXT,
  LARGE_TUPLE_EXT,
  LIST_EXT,
  MAP_EXT,
  NEW_FLOAT_EXT,
  NIL_EXT,
  NIL_RECORD,
  NL,
  OBJ,
  SMALL_ATOM_EXT,
  SMALL_ATOM_UTF8_EXT,
  SMALL_BIG_EXT,
  SMALL_INTEGER_EXT,
  SMALL_TUPLE_EXT,
  STR,
} from './tags.ts';

/** Bytes of the shortest Value, `{i, 0}`: a count of elements is refused when even these would not fit. */
const MIN_VALUE_BYTES = 7;
const FLOAT_TEXT_BYTES = 31;
/** What `sprintf("%.20e")` writes and OTP reads: a point with digits on both sides; no infinity, no NaN, no hex. */
const FLOAT_TEXT = /^[+-]?[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?$/;

const TRUE = Buffer.from('true', 'latin1');
const FALSE = Buffer.from('false', 'latin1');

/**
 * Appends the Thrift encoding of the Value whose term begins at the reader's offset; ignores the bytes after the term.
 * @throws MalformedError, and then `out` holds a part of the Value
 */
export function decodeValue(reader: ByteReader, out: ByteWriter): void {
  new ValueDecoder(reader, out).run();
}

/**
 * One pass over a term: it knows every form that Erlang reads, and gives an error with its offset for everything else.
 * The input is not trusted: lengths and counts are compared with the bytes left before they are used, and open containers
 * are kept in parallel arrays, one entry a level, instead of on the call stack.
 */
class ValueDecoder {
  readonly #in: ByteReader;
  readonly #out: ByteWriter;
  /** Number of open containers */
  #depth = 0;
  /** Values still to come in the container: an entry of an obj is two */
  readonly #left: number[] = [];
  /** arr: offset of its count in `out`. obj: -1 - (length of #keys when it began) */
  readonly #place: number[] = [];
  /** Keys of all open objs, as `findMapKeyFault` reads them */
  readonly #keys: number[] = [];
  /** Number of Values so far whose equal terms may differ in bytes: -0.0, and an obj of two entries or more */
  #irregular = 0;
  /** #irregular at the start of each key that is being read */
  readonly #irregularBefore: number[] = [];

  constructor(reader: ByteReader, out: ByteWriter) {
    this.#in = reader;
    this.#out = out;
  }

  run(): void {
    this.#value();
    while (this.#depth > 0) {
      const top = this.#depth - 1;
      const left = this.#left[top]!;
      if (left === 0) {
        this.#close(top);
      } else {
        if (this.#place[top]! < 0) this.#markKey(left);
        this.#left[top] = left - 1;
        this.#value();
      }
    }
  }

  /** Reads one Value: writes a scalar whole, opens a container. */
  #value(): void {
    const reader: ByteReader = this.#in;
    const at = reader.offset;
    this.#tuple(2);
    switch (this.#shortAtom()) {
      case STR:
        this.#binary(VALUE_STR);
        break;
      case BIN:
        this.#binary(VALUE_BIN);
        break;
      case I:
        this.#integer();
        break;
      case OBJ:
        this.#openMap();
        break;
      case ARR:
        this.#openList();
        break;
      case B:
        this.#boolean();
        break;
      case NL:
        this.#nil();
        break;
      case FLT:
        this.#float();
        break;
      default:
        reader.fail('unknown variant of Value', at);
    }
  }

  #tuple(arity: number): void {
    const reader: ByteReader = this.#in;
    const at = reader.offset;
    const tag = reader.u8();
    let actual: number;
    if (tag === SMALL_TUPLE_EXT) actual = reader.u8();
    else if (tag === LARGE_TUPLE_EXT) actual = reader.u32();
    else reader.fail(`tuple expected, tag ${tag} met`, at);
    if (actual !== arity) reader.fail(`tuple of ${arity} expected, of ${actual} met`, at);
  }

  /** Skips an atom and returns the length of its name, which then ends at the current offset. */
  #atom(): number {
    const reader: ByteReader = this.#in;
    const at = reader.offset;
    const tag = reader.u8();
    let length: number;
    if (tag === SMALL_ATOM_UTF8_EXT || tag === SMALL_ATOM_EXT) length = reader.u8();
    else if (tag === ATOM_EXT || tag === ATOM_UTF8_EXT) length = reader.u16();
    else reader.fail(`atom expected, tag ${tag} met`, at);
    reader.skip(length);
    return length;
  }

  /** Reads an atom of one to three bytes as one number, its length first; 0 for any other atom. */
  #shortAtom(): number {
    const length = this.#atom();
    const { buffer, offset } = this.#in;
    switch (length) {
      case 3:
        return 0x03_00_00_00 | (buffer[offset - 3]! << 16) | (buffer[offset - 2]! << 8) | buffer[offset - 1]!;
      case 2:
        return 0x02_00_00 | (buffer[offset - 2]! << 8) | buffer[offset - 1]!;
      case 1:
        return 0x01_00 | buffer[offset - 1]!;
      default:
        return 0;
    }
  }

  /** True when the atom of `length` bytes that was just skipped is `name`. All names here are ASCII. */
  #atomIs(length: number, name: Buffer): boolean {
    if (length !== name.length) return false;
    const { buffer, offset } = this.#in;
    for (let i = 0; i < length; i++) if (buffer[offset - length + i] !== name[i]) return false;
    return true;
  }

  #binary(header: number): void {
    const reader: ByteReader = this.#in;
    const at = reader.offset;
    const tag = reader.u8();
    if (tag !== BINARY_EXT) reader.fail(`binary expected, tag ${tag} met`, at);
    const length = reader.u32();
    reader.skip(length);
    this.#out
      .u24(header)
      .i32(length)
      .copy(reader.buffer, reader.offset - length, reader.offset)
      .u8(FIELD_STOP);
  }

  #boolean(): void {
    const at = this.#in.offset;
    const length = this.#atom();
    const isTrue = this.#atomIs(length, TRUE);
    if (!isTrue && !this.#atomIs(length, FALSE)) this.#in.fail('neither true nor false', at);
    this.#out
      .u24(VALUE_B)
      .u8(isTrue ? 1 : 0)
      .u8(FIELD_STOP);
  }

  #nil(): void {
    this.#tuple(1);
    const at = this.#in.offset;
    if (!this.#atomIs(this.#atom(), NIL_RECORD)) this.#in.fail('nl is not a mg_msgpack_Nil', at);
    // One stop byte for the empty struct, one for the union.
    this.#out.u24(VALUE_NL).u8(FIELD_STOP).u8(FIELD_STOP);
  }

  #integer(): void {
    const reader: ByteReader = this.#in;
    const at = reader.offset;
    const tag = reader.u8();
    switch (tag) {
      case SMALL_INTEGER_EXT:
        this.#i64(0, reader.u8());
        break;
      case INTEGER_EXT: {
        const low = reader.i32();
        this.#i64(low >> 31, low);
        break;
      }
      case SMALL_BIG_EXT:
        this.#big(at, reader.u8());
        break;
      case LARGE_BIG_EXT:
        this.#big(at, reader.u32());
        break;
      default:
        reader.fail(`integer expected, tag ${tag} met`, at);
    }
  }

  /** A big integer after its tag and length: a sign byte, then the magnitude, least byte first. */
  #big(at: number, length: number): void {
    const reader: ByteReader = this.#in;
    const sign = reader.u8();
    if (sign > 1) reader.fail(`sign ${sign} of an integer is neither 0 nor 1`, reader.offset - 1);
    reader.skip(length);
    const from = reader.offset - length;
    const bytes = reader.buffer;
    let low = 0;
    let high = 0;
    for (let i = 0; i < length; i++) {
      const byte = bytes[from + i]!;
      if (i < 4) low |= byte << (i * 8);
      else if (i < 8) high |= byte << ((i - 4) * 8);
      else if (byte !== 0) reader.fail('integer does not fit 64 bits', at);
    }
    if (sign === 1) {
      low = -low | 0;
      high = low === 0 ? -high | 0 : ~high;
    }
    // Zero has no sign; every other number must still have the sign that was sent. This distinguishes 2^63 from -2^63.
    const negative = high < 0;
    if (negative !== (sign === 1) && (negative || (low | high) !== 0)) reader.fail('integer does not fit 64 bits', at);
    this.#i64(high, low);
  }

  #i64(high: number, low: number): void {
    this.#out.u24(VALUE_I).i32(high).i32(low).u8(FIELD_STOP);
  }

  #float(): void {
    const reader: ByteReader = this.#in;
    const at = reader.offset;
    const tag = reader.u8();
    if (tag === NEW_FLOAT_EXT) {
      const value = reader.f64();
      // Erlang has no such floats: binary_to_term refuses them too.
      if (!Number.isFinite(value)) reader.fail('float is not finite', at);
      this.#f64(value);
    } else if (tag === FLOAT_EXT) {
      const text = reader.bytes(FLOAT_TEXT_BYTES).toString('latin1');
      const zero = text.indexOf('\0');
      const number = zero < 0 ? '' : text.slice(0, zero);
      const value = FLOAT_TEXT.test(number) ? Number(number) : Number.NaN;
      if (!Number.isFinite(value)) reader.fail('text is not a finite float', at);
      this.#f64(value);
    } else {
      reader.fail(`float expected, tag ${tag} met`, at);
    }
  }

  #f64(value: number): void {
    if (Object.is(value, -0)) this.#irregular++;
    this.#out.u24(VALUE_FLT).f64(value).u8(FIELD_STOP);
  }

  #openMap(): void {
    const reader: ByteReader = this.#in;
    const at = reader.offset;
    const tag = reader.u8();
    if (tag !== MAP_EXT) reader.fail(`map expected, tag ${tag} met`, at);
    const arity = reader.u32();
    this.#checkCount(arity * 2, at);
    this.#out.u24(VALUE_OBJ).i16(VALUE_OBJ_TYPES).i32(arity);
    if (arity > 1) this.#irregular++;
    this.#open(arity * 2, -1 - this.#keys.length, at);
  }

  #openList(): void {
    const reader: ByteReader = this.#in;
    const at = reader.offset;
    const tag = reader.u8();
    this.#out.u24(VALUE_ARR).u8(VALUE_ARR_TYPE);
    if (tag === NIL_EXT) {
      this.#out.i32(0).u8(FIELD_STOP);
    } else if (tag === LIST_EXT) {
      const count = reader.u32();
      this.#checkCount(count, at);
      this.#out.i32(count);
      this.#open(count, this.#out.length - 4, at);
    } else {
      reader.fail(`list expected, tag ${tag} met`, at);
    }
  }

  #checkCount(values: number, at: number): void {
    if (values * MIN_VALUE_BYTES > this.#in.remaining) this.#in.fail(`${values} values cannot fit the bytes left`, at);
  }

  #open(values: number, place: number, at: number): void {
    const depth = this.#depth;
    if (depth === MAX_NESTING_DEPTH) this.#in.fail(`nested deeper than ${MAX_NESTING_DEPTH} levels`, at);
    this.#left[depth] = values;
    this.#place[depth] = place;
    this.#depth = depth + 1;
  }

  /** Called before each Value of an obj: records where keys begin and end in `out`. An even `left` means a key. */
  #markKey(left: number): void {
    const at = this.#out.length;
    if ((left & 1) === 0) {
      this.#irregularBefore.push(this.#irregular);
      this.#keys.push(at);
    } else {
      this.#keys.push(at, this.#irregularBefore.pop() === this.#irregular ? 0 : 1);
    }
  }

  #close(top: number): void {
    const place = this.#place[top]!;
    if (place < 0) {
      const from = -1 - place;
      const fault = findMapKeyFault(this.#out.bytes, this.#keys, from);
      if (fault !== undefined) this.#in.fail(fault);
      this.#keys.length = from;
    } else if (!this.#endList(top, place)) {
      return;
    }
    this.#out.u8(FIELD_STOP);
    this.#depth = top;
  }

  /** Reads the tail of a list. NIL ends it; a list as the tail continues it: Erlang's `[A | [B]]` is `[A, B]`. */
  #endList(top: number, countAt: number): boolean {
    const reader: ByteReader = this.#in;
    const at = reader.offset;
    const tag = reader.u8();
    if (tag === NIL_EXT) return true;
    if (tag !== LIST_EXT) reader.fail(`improper list, its tail has tag ${tag}`, at);
    const more = reader.u32();
    this.#checkCount(more, at);
    this.#left[top] = more;
    this.#out.setI32(countAt, this.#out.bytes.readInt32BE(countAt) + more);
    return false;
  }
}
