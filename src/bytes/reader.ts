/**
 * Bounds-checked big-endian cursor shared by all decoders: whatever is read past the end is a typed error with its
 * place, never `undefined`, never a byte of the neighbouring message.
 */
import { MalformedError } from '../errors.ts';

/** Cursor over `bytes[start..end)`. A failed read leaves `offset` where it was. */
export class ByteReader {
  /** Name of the format, for the error text */
  readonly format: string;
  readonly buffer: Buffer;
  /** Where reading began; offsets in errors are counted from here */
  readonly start: number;
  /** First byte that does not belong to the message (index into `buffer`) */
  readonly end: number;
  /** Index into `buffer` of the next byte to read */
  offset: number;

  constructor(format: string, bytes: Buffer, start = 0, end = bytes.length) {
    this.format = format;
    this.buffer = bytes;
    this.start = start;
    this.end = end;
    this.offset = start;
  }

  /** Bytes that are left. */
  get remaining(): number {
    return this.end - this.offset;
  }

  /** Throws {@link MalformedError} at `at` (index into `buffer`), which is the current offset unless given. */
  fail(detail: string, at = this.offset): never {
    throw new MalformedError(this.format, at - this.start, detail);
  }

  /** Throws unless `count` more bytes are there. */
  need(count: number): void {
    if (count > this.end - this.offset) this.fail(`needs ${count} more bytes, ${this.end - this.offset} left`);
  }

  /** Unsigned byte. */
  u8(): number {
    this.need(1);
    return this.buffer[this.offset++]!;
  }

  /** Signed byte. */
  i8(): number {
    return (this.u8() << 24) >> 24;
  }

  /** Unsigned 16 bits. */
  u16(): number {
    this.need(2);
    const at = this.offset;
    this.offset = at + 2;
    return (this.buffer[at]! << 8) | this.buffer[at + 1]!;
  }

  /** Signed 16 bits. */
  i16(): number {
    return (this.u16() << 16) >> 16;
  }

  /** Signed 32 bits. */
  i32(): number {
    this.need(4);
    const at = this.offset;
    const bytes = this.buffer;
    this.offset = at + 4;
    return (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
  }

  /** Unsigned 32 bits. */
  u32(): number {
    return this.i32() >>> 0;
  }

  /** Unsigned 64 bits. */
  u64(): bigint {
    this.need(8);
    const at = this.offset;
    this.offset = at + 8;
    return this.buffer.readBigUInt64BE(at);
  }

  /** Signed 64 bits. */
  i64(): bigint {
    this.need(8);
    const at = this.offset;
    this.offset = at + 8;
    return this.buffer.readBigInt64BE(at);
  }

  /** IEEE 754 double. */
  f64(): number {
    this.need(8);
    const at = this.offset;
    this.offset = at + 8;
    return this.buffer.readDoubleBE(at);
  }

  /** Steps over `count` bytes; a negative count (a corrupt length) is refused as well. */
  skip(count: number): void {
    if (count < 0) this.fail(`negative length ${count}`);
    this.need(count);
    this.offset += count;
  }

  /** The next `count` bytes, sharing memory. */
  bytes(count: number): Buffer {
    const at = this.offset;
    this.skip(count);
    return this.buffer.subarray(at, at + count);
  }

  /** UTF-8 text up to a zero byte, which is consumed and not returned. */
  cstring(): string {
    const at = this.offset;
    const zero = this.buffer.indexOf(0, at);
    if (zero < 0 || zero >= this.end) this.fail('string without its final zero byte');
    this.offset = zero + 1;
    return this.buffer.toString('utf8', at, zero);
  }
}
