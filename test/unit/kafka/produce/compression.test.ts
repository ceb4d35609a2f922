import { describe, expect, test } from 'bun:test';
import { compressionsAlgorithms } from '@platformatic/kafka';
import { codecOf } from '../../../../src/kafka/produce/compression.ts';

const TYPES = ['gzip', 'snappy', 'lz4', 'zstd'] as const;

/** Bytes that compress in part, of a length that ends within a block of every codec. */
const BYTES = Buffer.concat(
  Array.from({ length: 5_000 }, (_, index) => Buffer.from(`${index} ${(index * 2_654_435_761) % 9_973}, `)),
);

test('none is no codec', () => {
  expect(codecOf('none')).toBeUndefined();
});

describe.each(TYPES)('%s', (type) => {
  const { attributes, compress } = codecOf(type)!;

  test("has Kafka's number", () => {
    expect(attributes).toBe(TYPES.indexOf(type) + 1);
  });

  test('decompresses to the original bytes, and compresses the same bytes the same way', () => {
    for (const bytes of [BYTES, BYTES.subarray(0, 1), BYTES.subarray(0, 32 * 1024)]) {
      const compressed = compress(bytes);
      expect(compressionsAlgorithms[type].decompressSync(compressed)).toEqual(bytes);
      expect(compress(bytes)).toEqual(compressed);
    }
    expect(compress(BYTES).length).toBeLessThan(BYTES.length);
  });

  test('does not change its input, also when the memory of its module grows', () => {
    const small = compress(BYTES);
    const copy = Buffer.from(BYTES);
    const large = Buffer.concat(Array.from({ length: 200 }, () => BYTES));
    expect(compressionsAlgorithms[type].decompressSync(compress(large))).toEqual(large);
    expect(BYTES).toEqual(copy);
    expect(compress(BYTES)).toEqual(small);
  });
});

test('snappy has the blocks of snappy-java, each with its length', () => {
  const compressed = codecOf('snappy')!.compress(BYTES);
  expect(compressed.subarray(0, 8).toString('latin1')).toBe('\x82SNAPPY\0');
  expect([compressed.readInt32BE(8), compressed.readInt32BE(12)]).toEqual([1, 1]);
  const blocks: Buffer[] = [];
  for (let at = 16; at < compressed.length; ) {
    const length = compressed.readInt32BE(at);
    blocks.push(compressionsAlgorithms.snappy.decompressSync(compressed.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  expect(blocks.slice(0, -1).every(({ length }) => length === 32 * 1024)).toBe(true);
  expect(Buffer.concat(blocks)).toEqual(BYTES);
});

test('lz4 has frames that Java reads: version 1, independent blocks', () => {
  const compressed = codecOf('lz4')!.compress(BYTES);
  expect(compressed.readUInt32LE(0)).toBe(0x18_4d_22_04);
  expect(compressed[4]! >> 6).toBe(1);
  expect(compressed[4]! & 0b0010_0000).toBe(0b0010_0000);
});
