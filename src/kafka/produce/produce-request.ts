/**
 * The Produce request, whose versions 9 to 11 are alike, and 8 without compact lengths and tags (Kafka protocol guide,
 * "Produce API"):
 *
 *     transactional_id compact nullable string | acks i16 | timeout_ms i32
 *     | [ name compact string | [ index i32 | records compact bytes | tags ] | tags ] | tags
 *
 * A partition appears once, with exactly one record batch: brokers accept nothing else.
 */
import { Writer } from '@platformatic/kafka';
import type { ProduceResponse } from '../client/api-versions.ts';
import type { RecordBatch } from './record-batch.ts';

/** acks=all: the leader answers once all in-sync replicas have the batch */
const ACKS_ALL = -1;

/** More than the frame and the head of a request take, with a client id of up to 255 bytes */
const REQUEST_HEAD_BYTES = 288;
/** More than what stands around a batch: topic, of at most 249 bytes, partition, lengths and tags */
const BATCH_FRAME_BYTES = 272;

/** Size of the request with a batch of this size alone, in bytes; the real one may be a few hundred bytes smaller. */
export function requestBytesOfRecordBatch(batchBytes: number): number {
  return REQUEST_HEAD_BYTES + BATCH_FRAME_BYTES + batchBytes;
}

/** Size of the largest batch that alone makes a request of this size. */
export function recordBatchBytesOfRequest(requestBytes: number): number {
  return requestBytes - REQUEST_HEAD_BYTES - BATCH_FRAME_BYTES;
}

/** Size of the request with these batches, reckoned as `requestBytesOfRecordBatch` does. */
export function requestBytesOf(batches: readonly RecordBatch[]): number {
  return batches.reduce((sum, batch) => sum + BATCH_FRAME_BYTES + batch.length, REQUEST_HEAD_BYTES);
}

/** Divides batches into requests of at most this size, in their order; a batch that is larger is a request of its own. */
export function divideIntoRequests(batches: readonly RecordBatch[], maxBytes: number): RecordBatch[][] {
  const requests: RecordBatch[][] = [];
  let roomBytes = 0;
  for (const batch of batches) {
    const bytes = BATCH_FRAME_BYTES + batch.length;
    if (requests.length === 0 || bytes > roomBytes) {
      requests.push([]);
      roomBytes = maxBytes - REQUEST_HEAD_BYTES;
    }
    requests.at(-1)!.push(batch);
    roomBytes -= bytes;
  }
  return requests;
}

/** Writes the body of a request for these batches, at most one of each partition. */
export function encodeProduceRequest(
  batches: readonly RecordBatch[],
  { timeoutMs, isFlexible }: { readonly timeoutMs: number; readonly isFlexible: boolean },
): Writer {
  const byTopic = Map.groupBy(batches, (batch) => batch.topic);
  const writeBatch = (writer: Writer, batch: RecordBatch) => {
    writer.appendInt32(batch.partition);
    if (isFlexible) writer.appendUnsignedVarInt(batch.length + 1);
    else writer.appendInt32(batch.length);
    writer.append(batch.view());
  };
  const writeTopic = (writer: Writer, [topic, topicBatches]: [string, readonly RecordBatch[]]) => {
    writer.appendString(topic, isFlexible).appendArray([...topicBatches], writeBatch, isFlexible, isFlexible);
  };
  const request = Writer.create()
    .appendString(null, isFlexible)
    .appendInt16(ACKS_ALL)
    .appendInt32(timeoutMs)
    .appendArray([...byTopic], writeTopic, isFlexible, isFlexible);
  return isFlexible ? request.appendTaggedFields() : request;
}

/** Error codes by batch, 0 = stored. A batch that the answer does not mention has no entry. */
export function errorCodesByBatch(
  batches: readonly RecordBatch[],
  response: ProduceResponse,
): Map<RecordBatch, number> {
  const codes = new Map<RecordBatch, number>();
  for (const topic of response.responses) {
    for (const answer of topic.partitionResponses) {
      const batch = batches.find((one) => one.topic === topic.name && one.partition === answer.index);
      if (batch !== undefined) codes.set(batch, answer.errorCode);
    }
  }
  return codes;
}
