/**
 * `erlang:phash2/1` of a binary, bit for bit: the partitioner of the Erlang service that this one replaces.
 * Bob Jenkins' 1996 lookup hash as `make_hash2` and `block_hash` of OTP's `erts/emulator/beam/utils.c` apply it.
 */

/** The golden ratio, OTP's `HCONST`. */
const HCONST = 0x9e3779b9;
/** `HCONST * 13` in 32 bits: initial value for a binary. */
const HCONST_13 = 0x08d12e65;
/** phash2/1 returns 27 bits. */
const RANGE_MASK = 0x7ffffff;

/**
 * Hash of `bytes[start..end)`, from 0 to 2^27 - 1. The partition of a record is the hash of its key modulo the number of
 * partitions.
 */
export function phash2(bytes: Uint8Array, start = 0, end = bytes.length): number {
  if (start === end) return HCONST_13 & RANGE_MASK;
  let a = HCONST | 0;
  let b = HCONST | 0;
  let c = HCONST_13;
  let at = start;
  for (;;) {
    const left = end - at;
    const last = left < 12;
    if (!last) {
      a = (a + word(bytes, at)) | 0;
      b = (b + word(bytes, at + 4)) | 0;
      c = (c + word(bytes, at + 8)) | 0;
      at += 12;
    } else {
      // the lowest byte of c holds the length, so the last (up to three) bytes are shifted up by one byte
      c = (c + (end - start)) | 0;
      for (let i = 8; i < left; i++) c = (c + (bytes[at + i]! << ((i - 7) * 8))) | 0;
      for (let i = Math.min(left, 8) - 1; i >= 4; i--) b = (b + (bytes[at + i]! << ((i - 4) * 8))) | 0;
      for (let i = Math.min(left, 4) - 1; i >= 0; i--) a = (a + (bytes[at + i]! << (i * 8))) | 0;
    }
    a = (a - b - c) ^ (c >>> 13);
    b = (b - c - a) ^ (a << 8);
    c = (c - a - b) ^ (b >>> 13);
    a = (a - b - c) ^ (c >>> 12);
    b = (b - c - a) ^ (a << 16);
    c = (c - a - b) ^ (b >>> 5);
    a = (a - b - c) ^ (c >>> 3);
    b = (b - c - a) ^ (a << 10);
    c = (c - a - b) ^ (b >>> 15);
    if (last) return c & RANGE_MASK;
  }
}

/** Little-endian 32 bits at `at`. */
function word(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}
