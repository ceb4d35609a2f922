import { MalformedError } from '../errors.ts';

/**
 * Big-endian cursor over `bytes[start..end)`, for all decoders. A read past the end throws MalformedError with its offset;
 * it never returns `undefined` or bytes of the next message. A failed read leaves `offset` unchanged.
 */
export class ByteReader {
  /** Name of the format, for the error text */
  readonly format: string;
  readonly buffer: Buffer;
  /** Index into `buffer` of the first byte of the message; offsets in errors are relative to it */
  readonly start: number;
  /** Index into `buffer` after the last byte of the message */
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

  /** Number of bytes left. */
  get remaining(): number {
    return this.end - this.offset;
  }

  /** Throws MalformedError for the byte at `at`, an index into `buffer`; default: the current offset. */
  fail(detail: string, at = this.offset): never {
    throw new MalformedError(this.format, at - this.start, detail);
  }

  /** Throws MalformedError when fewer than `count` bytes are left. */
  need(count: number): void {
    if (count > this.end - this.offset) this.fail(`needs ${count} more bytes, ${this.end - this.offset} left`);
  }

  /** Unsigned byte. */
  u8(): number {
    this.need(1);
    return this.buffer[this.offset++]!;
  }

  /** Unsigned 16 bits. */
  u16(): number {
    this.need(2);
    const at = this.offset;
    this.offset = at + 2;
    return (this.buffer[at]! << 8) | this.buffer[at + 1]!;
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

  /** Skips `count` bytes; also refuses a negative count, which is a corrupt length. */
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

  /** UTF-8 text up to a zero byte, which is consumed but not returned. */
  cstring(): string {
    const at = this.offset;
    const zero = this.buffer.indexOf(0, at);
    if (zero < 0 || zero >= this.end) this.fail('string without its final zero byte');
    this.offset = zero + 1;
    return this.buffer.toString('utf8', at, zero);
  }
}
