import { describe, expect, test } from 'bun:test';
import { Reader, readRecordsBatch } from '@platformatic/kafka';
import { ByteWriter } from '../../../../src/bytes/writer.ts';
import { RecordTooLargeError } from '../../../../src/errors.ts';
import { LARGE_PART_BYTES } from '../../../../src/kafka/client/large-requests.ts';
import { BatchBuffers } from '../../../../src/kafka/produce/batch-buffers.ts';
import { type Codec, codecOf } from '../../../../src/kafka/produce/compression.ts';
import { PartitionQueues } from '../../../../src/kafka/produce/partition-queues.ts';
import { phash2 } from '../../../../src/kafka/produce/partitioner.ts';
import { singleRecordBatchBytes } from '../../../../src/kafka/produce/record-batch.ts';
import { createSizeLimits } from '../../../../src/kafka/produce/size-limits.ts';

const IDENTITY = { producerId: 1n, producerEpoch: 0 };
const BASE_SEQUENCE_AT = 53;

function open(partitionCount: number, limits = createSizeLimits(104_857_600), codec?: Codec) {
  const leaders = Array.from({ length: partitionCount }, () => 1);
  const queues = new PartitionQueues([{ name: 'topic', errorCode: 0, leaders, mayWrite: undefined }], {
    codec,
    buffers: new BatchBuffers(1_000_000),
    limits,
  });
  const tally = { producedCount: 0 };
  const bytes = (text: string) => new ByteWriter(16).copy(Buffer.from(text));
  let ordinal = 0;
  return {
    queues,
    tally,
    append(key: string, value = 'value') {
      queues.append(queues.topic('topic'), bytes(key), bytes(value), { ordinal: ++ordinal, tally });
    },
    round: () => queues.nextRound(IDENTITY),
  };
}

describe('PartitionQueues', () => {
  test('append puts a record into the partition that phash2 gives', () => {
    const { append, round } = open(5);
    const keys = Array.from({ length: 20 }, (_, index) => `key ${index}`);
    for (const key of keys) append(key);
    const expected = Map.groupBy(keys, (key) => phash2(Buffer.from(key)) % 5);
    expect(new Map(round().map(({ partition, recordCount }) => [partition, recordCount]))).toEqual(
      new Map([...expected].map(([partition, { length }]) => [partition, length])),
    );
  });

  test.each(['gzip', 'snappy', 'lz4', 'zstd'] as const)(
    'a large value that its topic takes only when %s has compressed it is stored whole, after any number of checks',
    (compression) => {
      const limits = createSizeLimits(104_857_600);
      limits.maxMessageBytes.set('topic', 1_048_588);
      for (const size of [LARGE_PART_BYTES - 1, LARGE_PART_BYTES, 2 * LARGE_PART_BYTES]) {
        const { queues } = open(1, limits, codecOf(compression));
        const topic = queues.topic('topic');
        const key = new ByteWriter().copy(Buffer.from('key'));
        const value = new ByteWriter().copy(Buffer.alloc(size, 'a'));
        for (let count = 0; count < 2; count++) queues.check(topic, key, value);
        expect(value.length).toBe(size);
        queues.append(topic, key, value, { ordinal: 1, tally: { producedCount: 0 } });
        const [batch] = queues.nextRound(IDENTITY);
        expect(batch!.plainLength).toBe(singleRecordBatchBytes(3, size));
        const { records } = readRecordsBatch(Reader.from(batch!.view()));
        expect(records[0]!.value!.equals(Buffer.alloc(size, 'a'))).toBe(true);
      }
    },
  );

  test('a round is the first batch of each partition, and stays the same until it is acknowledged', () => {
    const { queues, append, round, tally } = open(1);
    append('one');
    append('two');
    const [first] = round();
    append('three');
    expect(first!.recordCount).toBe(2);
    expect(round()).toEqual([first!]);
    expect(queues.lowestUnacknowledged).toBe(1);
    expect(queues.oldestUnacknowledgedSinceMs).toBe(first!.beginning.begunMs);
    expect(tally.producedCount).toBe(0);
    queues.acknowledge(first!);
    expect(tally.producedCount).toBe(2);
    expect(queues.acknowledgedRecordCount).toBe(2);
    expect(queues.lowestUnacknowledged).toBe(3);
    const [second] = round();
    expect(second!.view().readInt32BE(BASE_SEQUENCE_AT)).toBe(2);
    queues.acknowledge(second!);
    expect(round()).toEqual([]);
    expect(queues.bufferedBytes).toBe(0);
    expect(queues.lowestUnacknowledged).toBe(Number.POSITIVE_INFINITY);
    expect(queues.oldestUnacknowledgedSinceMs).toBeUndefined();
  });

  test('a batch is closed at the size that was learned', () => {
    const limits = createSizeLimits(104_857_600);
    limits.learnedBatchBytes.set('topic', 300);
    const { queues, append, round } = open(1, limits);
    for (let index = 0; index < 10; index++) append('key', 'x'.repeat(100));
    const sizes: number[] = [];
    for (let [batch] = round(); batch !== undefined; [batch] = round()) {
      sizes.push(batch.recordCount);
      expect(batch.length).toBeLessThanOrEqual(300);
      queues.acknowledge(batch);
    }
    expect(sizes).toEqual([2, 2, 2, 2, 2]);
  });

  test('append and check refuse a record that is too large, and follow a limit that has changed', () => {
    const limits = createSizeLimits(104_857_600);
    limits.maxMessageBytes.set('topic', 200);
    const { queues, append } = open(1, limits);
    const large = () => append('key', 'x'.repeat(200));
    const check = () =>
      queues.check(
        queues.topic('topic'),
        new ByteWriter().copy(Buffer.alloc(3)),
        new ByteWriter().copy(Buffer.alloc(200)),
      );
    for (const refuse of [large, check]) {
      expect(refuse).toThrow(RecordTooLargeError);
      expect(refuse).toThrow(/^Cannot produce a record of \d+ bytes: the topic takes at most 200$/);
    }
    expect(queues.bufferedBytes).toBe(0);
    limits.maxMessageBytes.set('topic', 1_000);
    queues.applyLimits();
    large();
    check();
    expect(queues.bufferedBytes).toBeGreaterThan(200);
  });

  test('a topic that was not requested is an error', () => {
    expect(() => open(1).queues.topic('other')).toThrow('Topic "other" was not requested');
  });
});
