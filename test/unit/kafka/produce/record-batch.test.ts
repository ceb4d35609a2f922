import { describe, expect, test } from 'bun:test';
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { Reader, readRecordsBatch } from '@platformatic/kafka';
import { ByteWriter } from '../../../../src/bytes/writer.ts';
import { LARGE_PART_BYTES } from '../../../../src/kafka/client/large-requests.ts';
import { codecOf } from '../../../../src/kafka/produce/compression.ts';
import {
  BATCH_HEADER_BYTES,
  RecordBatch,
  type RecordTally,
  singleRecordBatchBytes,
} from '../../../../src/kafka/produce/record-batch.ts';

const IDENTITY = { producerId: 0x0102_0304_0506_0708n, producerEpoch: 7 };

function writer(bytes: Uint8Array): ByteWriter {
  return new ByteWriter(16).copy(bytes);
}

const newTally = (): RecordTally => ({ producedCount: 0 });

function batchOf(records: readonly { key: Buffer; value: Buffer }[], bufferBytes = 64): RecordBatch {
  const beginning = { firstOrdinal: 1, timestampMs: 1_700_000_000_123, begunMs: 0 };
  const batch = new RecordBatch({ topic: 't', partition: 3 }, Buffer.alloc(bufferBytes, 0xaa), beginning);
  const tally = newTally();
  for (const { key, value } of records) batch.append(writer(key), writer(value), tally);
  return batch;
}

describe('RecordBatch', () => {
  test("is read back by the library's own reader: records, header and identity", () => {
    const records = [0, 1, 63, 64, 127, 128, 8191, 8192, 70_000].map((size, index) => ({
      key: Buffer.from(`key ${index}`),
      value: Buffer.alloc(size, index),
    }));
    const batch = batchOf(records);
    batch.seal(IDENTITY, 41);
    const read = readRecordsBatch(Reader.from(batch.view()));
    expect(read).toMatchObject({
      firstOffset: 0n,
      length: batch.length - 12,
      partitionLeaderEpoch: -1,
      magic: 2,
      attributes: 0,
      lastOffsetDelta: records.length - 1,
      firstTimestamp: 1_700_000_000_123n,
      maxTimestamp: 1_700_000_000_123n,
      producerId: IDENTITY.producerId,
      producerEpoch: IDENTITY.producerEpoch,
      firstSequence: 41,
    });
    expect(read.records.map(({ key, value, offsetDelta }) => ({ key, value, offsetDelta }))).toEqual(
      records.map(({ key, value }, offsetDelta) => ({ key, value, offsetDelta })),
    );
  });

  test('takes the storage of a large value, with and without records after it, and leaves its writer empty', () => {
    for (const spareBytes of [0, 10_000]) {
      const size = LARGE_PART_BYTES + 8;
      const large = new ByteWriter(size + spareBytes);
      for (let at = 0; at < size; at += 4) large.i32(at);
      const value = large.toBuffer();
      const storage = large.bytes.buffer;
      const batch = batchOf([]);
      batch.appendTaking(writer(Buffer.from('large')), large, newTally());
      expect([large.length, batch.bytes.buffer === storage]).toEqual([0, spareBytes > 0]);
      large.u8(1);
      batch.appendTaking(writer(Buffer.from('small')), large, newTally());
      batch.seal(IDENTITY, 0);
      const { records } = readRecordsBatch(Reader.from(batch.view()));
      expect(records.map((record) => record.key?.toString())).toEqual(['large', 'small']);
      expect(records[0]!.value!.equals(value)).toBe(true);
      expect(records[1]!.value).toEqual(Buffer.of(1));
      expect(batch.firstKey).toBe('large');
    }
  });

  test('firstKey is the key of the first record, also after the buffer has grown', () => {
    const records = ['первый', 'second', 'third'].map((key) => ({ key: Buffer.from(key), value: Buffer.alloc(500) }));
    expect(batchOf(records).firstKey).toBe('первый');
  });

  test('lengthWith returns the length that the batch has after append', () => {
    const batch = batchOf([]);
    for (let size = 0; size < 300; size += 7) {
      const key = writer(Buffer.alloc(size % 90, 1));
      const value = writer(Buffer.alloc(size, 2));
      const expected = batch.lengthWith(key.length, value.length);
      batch.append(key, value, newTally());
      expect(batch.length).toBe(expected);
    }
  });

  test('singleRecordBatchBytes is the length of a batch with that one record', () => {
    for (const size of [0, 1, 127, 128, 20_000, 3_000_000]) {
      const batch = batchOf([{ key: Buffer.from('k'), value: Buffer.alloc(size) }]);
      expect(singleRecordBatchBytes(1, size)).toBe(batch.length);
    }
  });

  test('settle adds to each tally the number of its own records, in any order of tallies', () => {
    const batch = batchOf([]);
    const [odd, even] = [newTally(), newTally()];
    for (let index = 0; index < 300; index++) {
      batch.append(writer(Buffer.from('k')), writer(Buffer.alloc(index)), index % 3 === 1 ? odd : even);
    }
    expect([odd, even]).toEqual([newTally(), newTally()]);
    batch.settle();
    expect([odd, even]).toEqual([{ producedCount: 100 }, { producedCount: 200 }]);
  });

  test('the CRC of a sealed batch covers every byte after it', () => {
    const batch = batchOf([{ key: Buffer.from('key'), value: Buffer.from('value') }]);
    batch.seal(IDENTITY, 0);
    const crc = batch.view().readUInt32BE(17);
    for (let at = 21; at < batch.length; at++) {
      const damaged = Buffer.from(batch.view());
      damaged[at] = damaged[at]! ^ 1;
      expect(crc32cOf(damaged.subarray(21))).not.toBe(crc);
    }
    expect(crc32cOf(batch.view().subarray(21))).toBe(crc);
  });
});

describe.each(['gzip', 'snappy', 'lz4', 'zstd'] as const)('RecordBatch compressed by %s', (type) => {
  const codec = codecOf(type)!;
  const records = Array.from({ length: 500 }, (_, index) => ({
    key: Buffer.from(`key ${index % 7}`),
    value: Buffer.from(`the text of number ${index}, and some more text`),
  }));

  test("is read back by the library's own reader, smaller, and whole under its CRC", () => {
    const batch = batchOf(records);
    const plainLength = batch.length;
    expect(batch.plainLength).toBe(plainLength);
    const sealedLength = batch.sealedLength(codec);
    batch.seal(IDENTITY, 41, codec);
    expect(batch.length).toBe(sealedLength);
    expect(batch.length).toBeLessThan(plainLength / 2);
    expect(batch.plainLength).toBe(plainLength);
    const view = batch.view();
    expect(view).toHaveLength(batch.length);
    expect(crc32cOf(view.subarray(21))).toBe(view.readUInt32BE(17));
    const read = readRecordsBatch(Reader.from(view));
    expect(read).toMatchObject({
      length: batch.length - 12,
      attributes: codec.attributes,
      lastOffsetDelta: records.length - 1,
      firstSequence: 41,
    });
    expect(read.records.map(({ key, value, offsetDelta }) => ({ key, value, offsetDelta }))).toEqual(
      records.map(({ key, value }, offsetDelta) => ({ key, value, offsetDelta })),
    );
  });

  test('keeps the key of its first record and the tallies of its records', () => {
    const batch = batchOf([]);
    const tally = newTally();
    for (const { key, value } of records) batch.append(writer(key), writer(value), tally);
    batch.seal(IDENTITY, 0, codec);
    batch.settle();
    expect(batch.firstKey).toBe('key 0');
    expect(tally).toEqual({ producedCount: 500 });
  });

  test('stays uncompressed if compression would not make it smaller', () => {
    const noise = Buffer.from(Array.from({ length: 64 }, (_, index) => (index * 2_654_435_761) >>> 24));
    const batch = batchOf([{ key: Buffer.from('k'), value: noise }]);
    const { length } = batch;
    expect(batch.sealedLength(codec)).toBe(length);
    batch.seal(IDENTITY, 0, codec);
    expect(batch.length).toBe(length);
    expect(readRecordsBatch(Reader.from(batch.view())).attributes).toBe(0);
  });
});

test('compression covers all records and nothing else, as zlib reads it', () => {
  const records = Array.from({ length: 100 }, (_, index) => ({
    key: Buffer.from('k'),
    value: Buffer.from(`value ${index}`),
  }));
  const plain = batchOf(records).view().subarray(BATCH_HEADER_BYTES);
  for (const [type, decompress] of [
    ['gzip', gunzipSync],
    ['zstd', zstdDecompressSync],
  ] as const) {
    const batch = batchOf(records);
    batch.seal(IDENTITY, 0, codecOf(type));
    expect(decompress(batch.view().subarray(BATCH_HEADER_BYTES)).equals(plain)).toBe(true);
  }
});

/** CRC-32C by its definition (polynomial 0x1EDC6F41, reflected), bit by bit. */
function crc32cOf(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
  }
  return (crc ^ 0xffff_ffff) >>> 0;
}
