/** Size limits of topics and requests: those that Kafka lets this service read, and those learned from its refusals. */
import {
  createRequestLimit,
  forgetRefusedRequests,
  type RequestLimit,
  recordRequestBytes,
} from '../client/request-limit.ts';
import { recordBatchBytesOfRequest, requestBytesOfRecordBatch } from './produce-request.ts';

/** Size of a batch of one record, its header included, in bytes. */
export interface RecordBatchSize {
  /** Uncompressed */
  readonly plainBytes: number;
  /** On the wire; `plainBytes` without compression */
  readonly wireBytes: number;
}

/** What is known about the limits of a Kafka client, in bytes, those of topics by topic. A slot keeps it from session to session. */
export interface SizeLimits {
  /** `max.message.bytes`, the largest batch; missing where this service may not read it */
  readonly maxMessageBytes: Map<string, number>;
  /** Sizes at which batches are closed because Kafka refused larger ones */
  readonly learnedBatchBytes: Map<string, number>;
  /** Sizes of the smallest batch of one record that Kafka refused as too large; see `noteRefusedRecord` */
  readonly refusedRecords: Map<string, RecordBatchSize>;
  /** Of the brokers, whatever the topic */
  readonly request: RequestLimit;
}

/** Limits before anything is known but the setting `max_request_bytes`. */
export function createSizeLimits(maxRequestBytes: number): SizeLimits {
  return {
    maxMessageBytes: new Map(),
    learnedBatchBytes: new Map(),
    refusedRecords: new Map(),
    request: createRequestLimit(maxRequestBytes),
  };
}

/** Stores limits that were read. What was learned under a lower limit is void. */
export function updateLimits(limits: SizeLimits, found: ReadonlyMap<string, number>): void {
  const { maxMessageBytes, learnedBatchBytes, refusedRecords } = limits;
  for (const [topic, bytes] of found) {
    if (bytes > (maxMessageBytes.get(topic) ?? bytes)) {
      learnedBatchBytes.delete(topic);
      refusedRecords.delete(topic);
    }
    maxMessageBytes.set(topic, bytes);
  }
}

/** Size of a batch that Kafka refused, as `RecordBatch` has it. */
export interface RefusedBatch {
  readonly topic: string;
  readonly recordCount: number;
  readonly plainLength: number;
  /** On the wire */
  readonly length: number;
}

/**
 * Learns from a batch that Kafka refused as too large. With several records in it, no record is to blame yet: the topic's
 * limit is lower than assumed, and this service may not read it, so batches are closed at half the size.
 */
export function noteRefusedBatch(limits: SizeLimits, { topic, recordCount, plainLength, length }: RefusedBatch): void {
  if (recordCount > 1) limits.learnedBatchBytes.set(topic, Math.ceil(plainLength / 2));
  else noteRefusedRecord(limits, topic, { plainBytes: plainLength, wireBytes: length });
}

/**
 * Learns from a record that Kafka refused: until this is forgotten, no record as large by both measures is sent. The
 * broker holds the topic's limit against what is sent, and, where the topic's `compression.type` differs, against what it
 * makes of it; its answer does not show which of the two was too large.
 */
export function noteRefusedRecord({ refusedRecords }: SizeLimits, topic: string, size: RecordBatchSize): void {
  const known = refusedRecords.get(topic) ?? size;
  refusedRecords.set(topic, {
    plainBytes: Math.min(known.plainBytes, size.plainBytes),
    wireBytes: Math.min(known.wireBytes, size.wireBytes),
  });
}

/** Forgets which records were refused, so that the next ones show whether a limit was raised. */
export function forgetRefusedRecords({ refusedRecords, request }: SizeLimits): void {
  refusedRecords.clear();
  forgetRefusedRequests(request);
}

/** The limit that a record exceeds. */
export interface ExceededLimit {
  readonly of: 'topic' | 'request';
  readonly limitBytes: number;
  /** The lowest limit that is certain to admit the record */
  readonly neededBytes: number;
}

/** The limit that a batch of one record exceeds; undefined if the topic may accept it, as far as its limits are known. */
export function exceededLimit(
  { maxMessageBytes, refusedRecords, request }: SizeLimits,
  topic: string,
  { plainBytes, wireBytes }: RecordBatchSize,
): ExceededLimit | undefined {
  const limitBytes = maxMessageBytes.get(topic);
  if (limitBytes !== undefined && wireBytes > limitBytes) return { of: 'topic', limitBytes, neededBytes: wireBytes };
  const requestBytes = recordRequestBytes(request);
  if (wireBytes > recordBatchBytesOfRequest(requestBytes)) {
    return { of: 'request', limitBytes: requestBytes, neededBytes: requestBytesOfRecordBatch(wireBytes) };
  }
  const refused = refusedRecords.get(topic);
  if (refused === undefined || plainBytes < refused.plainBytes || wireBytes < refused.wireBytes) return undefined;
  // It is unknown which measure was too large, so only the larger one is certain to be enough.
  return { of: 'topic', limitBytes: refused.plainBytes - 1, neededBytes: plainBytes };
}
