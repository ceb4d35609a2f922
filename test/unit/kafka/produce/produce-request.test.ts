import { expect, test } from 'bun:test';
import { Reader, readRecordsBatch } from '@platformatic/kafka';
import { ByteWriter } from '../../../../src/bytes/writer.ts';
import { encodeProduceRequest, errorCodesByBatch } from '../../../../src/kafka/produce/produce-request.ts';
import { RecordBatch } from '../../../../src/kafka/produce/record-batch.ts';

function batch(topic: string, partition: number): RecordBatch {
  const made = new RecordBatch({ topic, partition }, Buffer.alloc(1024), {
    firstOrdinal: 1,
    timestampMs: 0,
    begunMs: 0,
  });
  const bytes = (text: string) => new ByteWriter(8).copy(Buffer.from(text));
  made.append(bytes('k'), bytes(`${topic}-${partition}`), { producedCount: 0 });
  made.seal({ producerId: 1n, producerEpoch: 0 }, 0);
  return made;
}

test('encodeProduceRequest writes acks=all, the timeout, and each batch under its topic and partition', () => {
  const reader = Reader.from(
    encodeProduceRequest([batch('a', 1), batch('b', 0), batch('a', 2)], { timeoutMs: 1234, isFlexible: true }).buffer,
  );
  expect(reader.readNullableString()).toBeNull();
  expect(reader.readInt16()).toBe(-1);
  expect(reader.readInt32()).toBe(1234);
  const topics = reader.readArray((topic) => ({
    name: topic.readString(),
    partitions: topic.readArray((partition) => {
      const index = partition.readInt32();
      const records = readRecordsBatch(Reader.from(partition.readBytes())).records;
      return { index, values: records.map((record) => record.value?.toString()) };
    }),
  }));
  reader.readTaggedFields();
  expect(topics).toEqual([
    {
      name: 'a',
      partitions: [
        { index: 1, values: ['a-1'] },
        { index: 2, values: ['a-2'] },
      ],
    },
    { name: 'b', partitions: [{ index: 0, values: ['b-0'] }] },
  ]);
  expect(reader.remaining).toBe(0);
});

test('errorCodesByBatch gives each batch its own code, and none if the answer does not mention it', () => {
  const batches = [batch('a', 0), batch('a', 1), batch('b', 0)];
  const partition = (index: number, errorCode: number) => ({
    index,
    errorCode,
    baseOffset: 0n,
    logAppendTimeMs: -1n,
    logStartOffset: 0n,
    recordErrors: [],
    errorMessage: null,
  });
  const codes = errorCodesByBatch(batches, {
    responses: [
      { name: 'a', partitionResponses: [partition(1, 6), partition(0, 0)] },
      { name: 'c', partitionResponses: [partition(0, 3)] },
    ],
    throttleTimeMs: 0,
  });
  expect(batches.map((one) => codes.get(one))).toEqual([0, 6, undefined]);
});
