import type { ByteWriter } from '../../bytes/writer.ts';
import { RecordTooLargeError } from '../../errors.ts';
import type { ProducerIdentity, TopicMetadata } from '../client/cluster.ts';
import { recordRequestBytes, sharedRequestBytes } from '../client/request-limit.ts';
import type { BatchBuffers } from './batch-buffers.ts';
import type { Codec } from './compression.ts';
import { phash2 } from './partitioner.ts';
import { recordBatchBytesOfRequest } from './produce-request.ts';
import { BATCH_HEADER_BYTES, RecordBatch, type RecordTally, singleRecordBatchBytes } from './record-batch.ts';
import { type ExceededLimit, exceededLimit, type SizeLimits } from './size-limits.ts';

/** A batch is closed at this size even if the topic accepts a larger one: it bounds the cost of one resend. */
const BATCH_TARGET_BYTES = 900_000;
/** Sequences are i32 and wrap to 0 (Kafka, `DefaultRecordBatch.incrementSequence`). */
const SEQUENCE_MODULUS = 0x8000_0000;

/** Options of `PartitionQueues`. */
export interface PartitionQueuesOptions {
  /** Compresses batches; undefined = no compression */
  readonly codec: Codec | undefined;
  readonly buffers: BatchBuffers;
  /** Kept by the slot from session to session; the producer adds what it learns */
  readonly limits: SizeLimits;
}

/** A record's number, and the counter that it belongs to. */
export interface RecordAccount {
  /** Number of the record within the session (flow/progress.ts), rising from record to record */
  readonly ordinal: number;
  readonly tally: RecordTally;
}

/** A topic as records are appended to it. */
export interface ProducerTopic {
  readonly name: string;
  /** Largest batch of one record, uncompressed, that is appended without a check against `limits` */
  readonly maxRecordBatchBytes: number;
  /** Size, uncompressed, at which a batch of several records is closed; compression never makes it larger */
  readonly maxBatchBytes: number;
  readonly partitions: readonly PartitionQueue[];
}

/** A topic whose limits change with those that Kafka reports. */
interface OpenTopic extends ProducerTopic {
  maxRecordBatchBytes: number;
  maxBatchBytes: number;
}

/** Unacknowledged batches of one partition, oldest first. Only the last may still be open. */
interface PartitionQueue {
  readonly index: number;
  readonly batches: RecordBatch[];
  nextSequence: number;
}

/**
 * Records that wait for Kafka's acknowledgement, in batches by partition. A record goes to the end of its partition's
 * queue; only the first batch of a queue is ever in flight, and it stays in the queue until it is acknowledged.
 *
 * A sealed batch keeps its producer id, epoch and sequence through all resends, so the broker stores it once.
 */
export class PartitionQueues {
  readonly #options: PartitionQueuesOptions;
  readonly #topics: ReadonlyMap<string, OpenTopic>;
  #bufferedBytes = 0;
  #acknowledgedRecordCount = 0;

  /** @param topics their partition counts stay as they are here for the whole session */
  constructor(topics: Iterable<TopicMetadata>, options: PartitionQueuesOptions) {
    this.#options = options;
    this.#topics = new Map(
      Array.from(topics, ({ name, leaders }) => {
        const partitions = leaders.map((_, index) => ({ index, batches: [], nextSequence: 0 }));
        return [name, { name, partitions, maxRecordBatchBytes: 0, maxBatchBytes: 0 }];
      }),
    );
    this.applyLimits();
  }

  get topics(): Iterable<ProducerTopic> {
    return this.#topics.values();
  }

  /** @throws Error for a topic that the constructor did not get */
  topic(name: string): ProducerTopic {
    const topic = this.#topics.get(name);
    if (topic === undefined) throw new Error(`Topic "${name}" was not requested when the producer was opened`);
    return topic;
  }

  /** Size of all unacknowledged batches before compression, which is the memory they take. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  get acknowledgedRecordCount(): number {
    return this.#acknowledgedRecordCount;
  }

  /** Ordinal of the oldest unacknowledged record, Infinity if there is none. */
  get lowestUnacknowledged(): number {
    let lowest = Number.POSITIVE_INFINITY;
    for (const topic of this.#topics.values()) {
      for (const queue of topic.partitions) {
        const first = queue.batches[0];
        if (first !== undefined && first.beginning.firstOrdinal < lowest) lowest = first.beginning.firstOrdinal;
      }
    }
    return lowest;
  }

  /** When the oldest unacknowledged batch was begun (performance.now(), ms); undefined if there is none. */
  get oldestUnacknowledgedSinceMs(): number | undefined {
    let oldest: number | undefined;
    for (const topic of this.#topics.values()) {
      for (const queue of topic.partitions) {
        const begunMs = queue.batches[0]?.beginning.begunMs;
        if (begunMs !== undefined && (oldest === undefined || begunMs < oldest)) oldest = begunMs;
      }
    }
    return oldest;
  }

  /**
   * Checks a record against the topic's limits as `append` does, but does not append it.
   * @throws RecordTooLargeError
   */
  check(topic: ProducerTopic, key: ByteWriter, value: ByteWriter): void {
    const plainBytes = singleRecordBatchBytes(key.length, value.length);
    if (plainBytes <= topic.maxRecordBatchBytes) return;
    const { codec, limits } = this.#options;
    const wireBytes = codec === undefined ? plainBytes : this.#compressedBytes(codec, key, value);
    const exceeded = exceededLimit(limits, topic.name, { plainBytes, wireBytes });
    if (exceeded === undefined) return;
    const size = codec === undefined ? `${plainBytes} bytes` : `${plainBytes} bytes, ${wireBytes} compressed`;
    throw new RecordTooLargeError(`Cannot produce a record of ${size}: ${takesAtMost(exceeded)}`, {
      place: { topic: topic.name, key: key.view().toString() },
      advice: exceededAdvice(exceeded, topic.name),
    });
  }

  /**
   * Puts a record at the end of its partition's queue. The writer of the value may be empty afterwards.
   * @throws RecordTooLargeError when the record alone is larger than the topic accepts
   */
  append(topic: ProducerTopic, key: ByteWriter, value: ByteWriter, { ordinal, tally }: RecordAccount): void {
    const queue = topic.partitions[phash2(key.bytes, 0, key.length) % topic.partitions.length]!;
    let batch = queue.batches.at(-1);
    if (batch === undefined || batch.sealed || batch.lengthWith(key.length, value.length) > topic.maxBatchBytes) {
      this.check(topic, key, value);
      batch = new RecordBatch({ topic: topic.name, partition: queue.index }, this.#options.buffers.take(), {
        firstOrdinal: ordinal,
        timestampMs: Date.now(),
        begunMs: performance.now(),
      });
      queue.batches.push(batch);
    }
    const before = batch.length;
    batch.appendTaking(key, value, tally);
    this.#bufferedBytes += batch.length - before;
  }

  /**
   * Seals the first batch of every partition and returns them; they stay in their queues until acknowledged.
   * @param admits selects the partitions; undefined = all
   */
  nextRound(identity: ProducerIdentity, admits?: (topic: string, partition: number) => boolean): RecordBatch[] {
    const round: RecordBatch[] = [];
    for (const topic of this.#topics.values()) {
      for (const queue of topic.partitions) {
        const batch = queue.batches[0];
        if (batch === undefined || admits?.(topic.name, queue.index) === false) continue;
        if (!batch.sealed) {
          batch.seal(identity, queue.nextSequence, this.#options.codec);
          queue.nextSequence = (queue.nextSequence + batch.recordCount) % SEQUENCE_MODULUS;
        }
        round.push(batch);
      }
    }
    return round;
  }

  /** Removes a batch that Kafka has acknowledged, the first of its queue, and counts its records. */
  acknowledge(batch: RecordBatch): void {
    const queue = this.topic(batch.topic).partitions[batch.partition]!;
    queue.batches.shift();
    this.#bufferedBytes -= batch.plainLength - BATCH_HEADER_BYTES;
    this.#acknowledgedRecordCount += batch.recordCount;
    batch.settle();
    this.#options.buffers.give(batch.bytes);
  }

  /** Derives the limits of every topic again, after `limits` has changed. */
  applyLimits(): void {
    const { maxMessageBytes, learnedBatchBytes, refusedRecords, request } = this.#options.limits;
    const recordBytes = recordBatchBytesOfRequest(recordRequestBytes(request));
    const batchBytes = recordBatchBytesOfRequest(sharedRequestBytes(request));
    for (const topic of this.#topics.values()) {
      const known = Math.min(maxMessageBytes.get(topic.name) ?? Number.POSITIVE_INFINITY, recordBytes);
      const refused = refusedRecords.get(topic.name);
      topic.maxRecordBatchBytes = refused === undefined ? known : Math.min(known, refused.plainBytes - 1);
      topic.maxBatchBytes = Math.min(
        topic.maxRecordBatchBytes,
        batchBytes,
        learnedBatchBytes.get(topic.name) ?? BATCH_TARGET_BYTES,
      );
    }
  }

  /** Size of a compressed batch of this record alone, found by compressing it. */
  #compressedBytes(codec: Codec, key: ByteWriter, value: ByteWriter): number {
    const { buffers } = this.#options;
    const beginning = { firstOrdinal: 0, timestampMs: 0, begunMs: 0 };
    const trial = new RecordBatch({ topic: '', partition: 0 }, buffers.take(), beginning);
    trial.append(key, value, { producedCount: 0 });
    const length = trial.sealedLength(codec);
    buffers.give(trial.bytes);
    return length;
  }
}

function takesAtMost({ of, limitBytes }: ExceededLimit): string {
  return of === 'topic' ? `the topic takes at most ${limitBytes}` : `requests have at most ${limitBytes}`;
}

function exceededAdvice({ of, neededBytes }: ExceededLimit, topic: string): string {
  return of === 'topic'
    ? `Raise max.message.bytes of topic "${topic}" to ${neededBytes} or more (and replica.fetch.max.bytes of the brokers)`
    : `Raise max_request_bytes of the Kafka client, and socket.request.max.bytes of the brokers, to ${neededBytes} or more`;
}
