/**
 * CRC-32C (Castagnoli), the checksum of Kafka's record batches, in memory that does not depend on the length. The library's
 * checksum runs in WebAssembly and copies its whole input there, into memory that is never given back.
 * Source: RFC 3720, appendix B.4; crc32_combine of zlib for the sum of two parts.
 */
import { crc32c as libraryCrc32c } from '@platformatic/kafka';

/** The polynomial, lowest bit first */
const POLYNOMIAL = 0x82f6_3b78;
const PIECE_BITS = 20;
const PIECE_BYTES = 1 << PIECE_BITS;

/** A linear operator on 32 bits: what becomes of each single bit. */
type Operator = Uint32Array;

/** Appends the zeros of one piece to what a checksum was made of. */
const appendPiece = zeros(PIECE_BITS + 3);

/** The checksum of all bytes, as an unsigned number. */
export function crc32c(bytes: Buffer): number {
  if (bytes.length <= PIECE_BYTES) return libraryCrc32c(bytes);
  // The first piece is the odd one, so that each of the others has the same length.
  let end = bytes.length % PIECE_BYTES || PIECE_BYTES;
  let sum = libraryCrc32c(bytes.subarray(0, end));
  while (end < bytes.length) {
    const piece = bytes.subarray(end, end + PIECE_BYTES);
    sum = (apply(appendPiece, sum) ^ libraryCrc32c(piece)) >>> 0;
    end += PIECE_BYTES;
  }
  return sum;
}

/** The operator that appends 2^power zero bits. */
function zeros(power: number): Operator {
  let operator: Operator = Uint32Array.from({ length: 32 }, (_, bit) => (bit === 0 ? POLYNOMIAL : 1 << (bit - 1)));
  for (let count = 0; count < power; count++) {
    const once = operator;
    operator = Uint32Array.from(once, (column) => apply(once, column));
  }
  return operator;
}

function apply(operator: Operator, value: number): number {
  let result = 0;
  for (let bit = 0, rest = value; rest !== 0; bit++, rest >>>= 1) if (rest & 1) result ^= operator[bit]!;
  return result >>> 0;
}
