/**
 * Compression of record batches, with the codecs of the library at their default levels: gzip and zstd are those of the
 * runtime, LZ4 (frames with independent blocks, all that Java reads) and Snappy are WebAssembly.
 */
import { compressionsAlgorithms } from '@platformatic/kafka';
import type { CompressionType } from '../../config/config.ts';

/** A compression method. The same bytes always give the same result. */
export interface Codec {
  /** Its number in the attributes of a batch, bits 0 to 2 */
  readonly attributes: number;
  readonly compress: (bytes: Buffer) => Buffer;
}

/** Block size of Java's producer, which every Kafka client can read */
const SNAPPY_BLOCK_BYTES = 32 * 1024;
/** Magic, version 1, readable from version 1 on (snappy-java, `SnappyCodec`) */
const SNAPPY_HEADER = Buffer.from('82534e4150505900' + '00000001' + '00000001', 'hex');

const CODECS: Readonly<Record<Exclude<CompressionType, 'none'>, Codec>> = {
  gzip: libraryCodec('gzip'),
  snappy: { attributes: compressionsAlgorithms.snappy.bitmask, compress: compressSnappy },
  lz4: libraryCodec('lz4'),
  zstd: libraryCodec('zstd'),
};

/** The codec for a setting `compression`; undefined for `none`. */
export function codecOf(type: CompressionType): Codec | undefined {
  return type === 'none' ? undefined : CODECS[type];
}

function libraryCodec(name: 'gzip' | 'lz4' | 'zstd'): Codec {
  const { bitmask, compressSync } = compressionsAlgorithms[name];
  return { attributes: bitmask, compress: compressSync };
}

/**
 * Writes snappy-java's framing: a header, then blocks with their lengths. The library (@platformatic/kafka 2.12.1) writes
 * one bare block, which Java can read, but some other clients read only what Java writes.
 */
function compressSnappy(bytes: Buffer): Buffer {
  const parts: Buffer[] = [SNAPPY_HEADER];
  for (let at = 0; at < bytes.length; at += SNAPPY_BLOCK_BYTES) {
    const block = compressionsAlgorithms.snappy.compressSync(bytes.subarray(at, at + SNAPPY_BLOCK_BYTES));
    const length = Buffer.allocUnsafe(4);
    length.writeInt32BE(block.length);
    parts.push(length, block);
  }
  return Buffer.concat(parts);
}
