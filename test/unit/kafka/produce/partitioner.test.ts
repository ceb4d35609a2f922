import { describe, expect, test } from 'bun:test';
import { phash2 } from '../../../../src/kafka/produce/partitioner.ts';
import { readEventVectors, readLifecycleVectors, readPhash2Vectors } from '../../../support/codecs/vectors.ts';

describe('phash2', () => {
  const vectors = readPhash2Vectors();

  test('equals erlang:phash2/1 for binaries of every length from 0 to 300', () => {
    expect(vectors.map(({ key_hex }) => key_hex.length / 2).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 301 }, (_, length) => length),
    );
    for (const vector of vectors) {
      const hash = phash2(Buffer.from(vector.key_hex, 'hex'));
      expect({ ...vector, phash2: hash, partition_of_3: hash % 3, partition_of_64: hash % 64 }).toEqual(vector);
    }
  });

  test('equals it for the keys of all golden records', () => {
    const records = [...readEventVectors(), ...readLifecycleVectors()];
    expect(records.length).toBeGreaterThan(150);
    for (const { key, phash2: expected } of records) expect(phash2(Buffer.from(key))).toBe(expected);
  });

  test('hashes a range exactly as a binary of those bytes', () => {
    for (const { key_hex, phash2: expected } of vectors.slice(0, 40)) {
      const bytes = Buffer.from(`ffff${key_hex}ffffff`, 'hex');
      expect(phash2(bytes, 2, bytes.length - 3)).toBe(expected);
      expect(phash2(new Uint8Array(bytes), 2, bytes.length - 3)).toBe(expected);
    }
  });
});
