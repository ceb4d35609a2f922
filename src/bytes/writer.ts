/** Below this many bytes a loop is faster than a call into the runtime's memcpy (measured on Bun). */
const SHORT_COPY_BYTES = 24;

const FIRST_CAPACITY_BYTES = 256;
/** Beside a large value: room for what stands around it where it is given to */
const SPARE_BYTES = 4096;

/**
 * Growable append-only buffer that all encoders write to. Big-endian, as Thrift's binary protocol, PostgreSQL's protocol
 * and Kafka's record batches all are.
 *
 * `bytes`, `data` and `length` are public so that a hot path may write without a call per byte: call `reserve` first, and
 * read `bytes` and `data` afterwards, because growing replaces them.
 */
export class ByteWriter {
  /** The storage; only the first `length` bytes are valid */
  bytes: Buffer;
  /** View of the storage for numbers of several bytes: one store each, which also keeps compiled code small */
  data: DataView;
  /** Number of bytes written so far: the index of the next one */
  length = 0;

  constructor(initialCapacityBytes = FIRST_CAPACITY_BYTES) {
    this.bytes = Buffer.allocUnsafeSlow(Math.max(initialCapacityBytes, 16));
    this.data = viewOf(this.bytes);
  }

  /** Empties the writer and keeps its storage, so that a reused writer stops allocating. */
  reset(): this {
    this.length = 0;
    return this;
  }

  /** Makes room for `count` more bytes; the capacity doubles, so that appending stays linear. */
  reserve(count: number): void {
    const needed = this.length + count;
    if (needed > this.bytes.length) this.#grow(needed);
  }

  /** Appends the low 8 bits of `v`. */
  u8(v: number): this {
    this.reserve(1);
    this.bytes[this.length++] = v;
    return this;
  }

  /** Appends the low 16 bits of `v`. */
  i16(v: number): this {
    this.reserve(2);
    const at = this.length;
    this.data.setInt16(at, v);
    this.length = at + 2;
    return this;
  }

  /** Appends the low 24 bits of `v`: a Thrift field header (type byte, i16 field id). */
  u24(v: number): this {
    // One store of four bytes; the next write replaces the last of them.
    this.reserve(4);
    const at = this.length;
    this.data.setInt32(at, v << 8);
    this.length = at + 3;
    return this;
  }

  /** Appends the low 32 bits of `v`, signed or unsigned. */
  i32(v: number): this {
    this.reserve(4);
    this.data.setInt32(this.length, v);
    this.length += 4;
    return this;
  }

  /** Appends a 64-bit two's complement integer; RangeError when `v` does not fit. */
  i64(v: bigint): this {
    this.reserve(8);
    if (BigInt.asIntN(64, v) !== v) throw new RangeError(`Cannot write ${v}: it does not fit 64 bits`);
    this.data.setBigInt64(this.length, v);
    this.length += 8;
    return this;
  }

  /** Appends an IEEE 754 double. */
  f64(v: number): this {
    this.reserve(8);
    this.data.setFloat64(this.length, v);
    this.length += 8;
    return this;
  }

  /** Appends `source[start..end)`. */
  copy(source: Uint8Array, start = 0, end = source.length): this {
    const count = end - start;
    this.reserve(count);
    const bytes = this.bytes;
    const at = this.length;
    if (count <= SHORT_COPY_BYTES) {
      for (let i = 0; i < count; i++) bytes[at + i] = source[start + i]!;
    } else if (start === 0 && end === source.length) {
      bytes.set(source, at);
    } else {
      // Buffer's copy takes a range, also of a Uint8Array: this saves the view that subarray would allocate.
      Buffer.prototype.copy.call(source, bytes, at, start, end);
    }
    this.length = at + count;
    return this;
  }

  /** Appends the length of `source` as i32, then its bytes: a Thrift string or binary. */
  sized(source: Uint8Array): this {
    return this.i32(source.length).copy(source);
  }

  /** Overwrites four bytes at `at`: a count or a length that was not known when they were written. */
  setI32(at: number, v: number): void {
    this.data.setInt32(at, v);
  }

  /** What was written, sharing memory: valid until the next write or reset. */
  view(): Buffer {
    return this.bytes.subarray(0, this.length);
  }

  /**
   * Detaches the storage, with what was written at `before` and room for `after` more bytes behind it, and begins with a
   * new one: a large value changes hands without a copy.
   */
  detach(before: number, after: number): Buffer {
    const { length } = this;
    this.reserve(before + after);
    const detached = this.bytes;
    detached.copyWithin(before, 0, length);
    this.#store(Buffer.allocUnsafeSlow(FIRST_CAPACITY_BYTES));
    this.length = 0;
    return detached;
  }

  /** A copy of what was written. */
  toBuffer(): Buffer {
    return Buffer.from(this.view());
  }

  #grow(needed: number): void {
    const grown = Buffer.allocUnsafeSlow(Math.max(needed + SPARE_BYTES, this.bytes.length * 2));
    this.bytes.copy(grown, 0, 0, this.length);
    this.#store(grown);
  }

  #store(bytes: Buffer): void {
    this.bytes = bytes;
    this.data = viewOf(bytes);
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
