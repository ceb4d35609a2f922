/**
 * Sends the records of one slot to one Kafka cluster: acks=all, idempotent, in order within each partition.
 *
 * Records are appended to the open batch of their partition while the last round is in flight; when it is done, the
 * next round takes the first batch of every partition. So batches form by themselves, latency is one round trip, and
 * at most one batch of a partition is in flight: no retry can change the order, and a request that an earlier session
 * left behind in the network can only hold the very first records that were not acknowledged yet.
 *
 * A sealed batch keeps its producer id, epoch and sequence through all resends: the broker stores it once.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { ByteWriter } from '../bytes/writer.ts';
import { InvalidRowError, SinkError } from '../errors.ts';
import type { BatchBuffers } from './batch-buffers.ts';
import type { Cluster } from './cluster.ts';
import { judgeError, judgeErrorCode, type KafkaFailure } from './kafka-errors.ts';
import { phash2 } from './phash2.ts';
import { encodeProduceRequest, errorCodesByBatch } from './produce-request.ts';
import { BATCH_HEADER_BYTES, type ProducerIdentity, RecordBatch, singleRecordBatchBytes } from './record-batch.ts';
import { decideRound } from './resend-policy.ts';

/** A batch is closed at this size even where the topic would take more: it bounds what one resend costs. */
const BATCH_TARGET_BYTES = 900_000;
/** Sequences are i32 and wrap to 0 (Kafka, `DefaultRecordBatch.incrementSequence`). */
const SEQUENCE_MODULUS = 0x8000_0000;

/** How to send, and whom to tell. */
export interface ProducerOptions {
  readonly resendTimeoutMs: number;
  readonly maxRetries: number;
  readonly requestTimeoutMs: number;
  /** Name of the client in the configuration, for errors */
  readonly kafkaClient: string;
  readonly buffers: BatchBuffers;
  readonly log: Logger;
  /** Largest batch by topic, in bytes, as far as Kafka lets us read it */
  readonly maxMessageBytes: ReadonlyMap<string, number>;
  /**
   * Sizes at which batches are closed because Kafka refused larger ones, by topic. The producer adds to it; the slot
   * keeps it from session to session.
   */
  readonly learnedBatchBytes: Map<string, number>;
  /** Called whenever Kafka has acknowledged something: `lowestUnacknowledged` may have risen. */
  readonly onAcknowledged: () => void;
  /** Called once, when the retries are used up or cannot help. The producer sends nothing after it. */
  readonly onFailed: (error: SinkError) => void;
}

/** Where records of one kind of one namespace go. */
export interface ProducerTopic {
  readonly name: string;
  /** What the topic takes at most, Infinity where we may not know */
  readonly maxRecordBatchBytes: number;
  /** Size at which a batch of several records is closed */
  readonly maxBatchBytes: number;
  readonly partitions: readonly PartitionQueue[];
}

/** Unacknowledged batches of one partition, oldest first. Only the last may still be open. */
interface PartitionQueue {
  readonly index: number;
  readonly batches: RecordBatch[];
  nextSequence: number;
}

/** See the head of this file. */
export class Producer {
  readonly #cluster: Cluster;
  readonly #identity: ProducerIdentity;
  readonly #options: ProducerOptions;
  readonly #topics: ReadonlyMap<string, ProducerTopic>;
  readonly #stopped = new AbortController();
  #bufferedBytes = 0;
  #running = false;
  #failed = false;
  #acknowledgedRecordCount = 0;

  private constructor(cluster: Cluster, identity: ProducerIdentity, options: ProducerOptions) {
    this.#cluster = cluster;
    this.#identity = identity;
    this.#options = options;
    const topics = new Map<string, ProducerTopic>();
    for (const { name, leaders } of cluster.metadata.topics.values()) {
      const maxMessageBytes = options.maxMessageBytes.get(name) ?? Number.POSITIVE_INFINITY;
      topics.set(name, {
        name,
        maxRecordBatchBytes: maxMessageBytes,
        maxBatchBytes: Math.min(maxMessageBytes, options.learnedBatchBytes.get(name) ?? BATCH_TARGET_BYTES),
        partitions: leaders.map((_, index) => ({ index, batches: [], nextSequence: 0 })),
      });
    }
    this.#topics = topics;
  }

  /** Gets a producer id. The cluster's metadata must hold every topic that will be used. */
  static async open(cluster: Cluster, options: ProducerOptions): Promise<Producer> {
    return new Producer(cluster, await cluster.initProducerId(), options);
  }

  /** A topic of the cluster's metadata at the time of `open`; its partition count does not change within a session. */
  topic(name: string): ProducerTopic {
    const topic = this.#topics.get(name);
    if (topic === undefined) throw new Error(`Topic "${name}" was not asked for when the producer was opened`);
    return topic;
  }

  /** Bytes of batches that Kafka has not acknowledged. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  get acknowledgedRecordCount(): number {
    return this.#acknowledgedRecordCount;
  }

  /**
   * Puts a record at the end of its partition's queue; `flush` sends it.
   * @param ordinal number of the record within the session (delivery/progress.ts), rising from call to call
   * @throws InvalidRowError when the record alone is larger than the topic takes
   */
  append(topic: ProducerTopic, key: ByteWriter, value: ByteWriter, ordinal: number): void {
    const queue = topic.partitions[phash2(key.bytes, 0, key.length) % topic.partitions.length]!;
    let batch = queue.batches.at(-1);
    if (batch === undefined || batch.sealed || batch.lengthWith(key.length, value.length) > topic.maxBatchBytes) {
      refuseTooLarge(topic, key, value);
      batch = new RecordBatch(
        { topic: topic.name, partition: queue.index },
        this.#options.buffers.take(),
        ordinal,
        Date.now(),
      );
      queue.batches.push(batch);
    }
    const before = batch.length;
    batch.append(key, value);
    this.#bufferedBytes += batch.length - before;
  }

  /** Starts sending what was appended, unless a round is in flight: then that goes out right after it. */
  flush(): void {
    if (this.#running || this.#failed || this.#bufferedBytes === 0) return;
    this.#running = true;
    this.#sendRounds().catch((error: unknown) => this.#fail(error));
  }

  /** Ordinal of the oldest record that is not acknowledged, Infinity when there is none. */
  lowestUnacknowledged(): number {
    let lowest = Number.POSITIVE_INFINITY;
    for (const topic of this.#topics.values()) {
      for (const queue of topic.partitions) {
        const first = queue.batches[0];
        if (first !== undefined && first.firstOrdinal < lowest) lowest = first.firstOrdinal;
      }
    }
    return lowest;
  }

  /** Sends nothing more. What is in flight may still reach Kafka; nobody will know. */
  stop(): void {
    this.#failed = true;
    this.#stopped.abort();
  }

  async #sendRounds(): Promise<void> {
    while (!this.#failed) {
      const round = this.#nextRound();
      if (round.length === 0) {
        // Here and not in a later microtask: a flush in between would be lost.
        this.#running = false;
        return;
      }
      await this.#sendRound(round);
    }
  }

  /** Seals and takes the first batch of every partition; they stay in their queues until acknowledged. */
  #nextRound(): RecordBatch[] {
    const round: RecordBatch[] = [];
    for (const topic of this.#topics.values()) {
      for (const queue of topic.partitions) {
        const batch = queue.batches[0];
        if (batch === undefined) continue;
        if (!batch.sealed) {
          batch.seal(this.#identity, queue.nextSequence);
          queue.nextSequence = (queue.nextSequence + batch.recordCount) % SEQUENCE_MODULUS;
        }
        round.push(batch);
      }
    }
    return round;
  }

  async #sendRound(round: readonly RecordBatch[]): Promise<void> {
    let pending = round;
    for (let retryCount = 0; ; retryCount++) {
      const failures = await this.#sendToLeaders(pending);
      if (this.#failed) return;
      const entries = [...failures];
      const decision = decideRound([...failures.values()], retryCount, this.#options.maxRetries);
      if (decision.action === 'done') return;
      if (decision.action === 'give-up') throw this.#sinkError(...entries[decision.index]!, retryCount);
      const [batch, failure] = entries[0]!;
      this.#options.log.warn(
        {
          kafkaClient: this.#options.kafkaClient,
          topic: batch.topic,
          partition: batch.partition,
          reason: failure.id,
          batchCount: failures.size,
          retry: retryCount + 1,
          maxRetries: this.#options.maxRetries,
          resendTimeoutMs: this.#options.resendTimeoutMs,
        },
        'kafka did not acknowledge, the same batches will be sent again',
      );
      pending = [...failures.keys()];
      await sleep(this.#options.resendTimeoutMs, undefined, { signal: this.#stopped.signal });
      // Leaders may have moved; when even this fails, the send below tells why.
      await this.#cluster.refreshMetadata([...this.#topics.keys()]).catch(() => {});
    }
  }

  /** One request to each leader, all at once. Settles acknowledged batches and returns the others. */
  async #sendToLeaders(batches: readonly RecordBatch[]): Promise<Map<RecordBatch, KafkaFailure>> {
    const { topics } = this.#cluster.metadata;
    const byLeader = Map.groupBy(batches, (batch) => topics.get(batch.topic)?.leaders[batch.partition] ?? -1);
    const failures = new Map<RecordBatch, KafkaFailure>();
    await Promise.all(
      [...byLeader].map(async ([leader, leaderBatches]) => {
        const codes = await this.#sendToLeader(leader, leaderBatches);
        if (this.#failed) return;
        for (const batch of leaderBatches) {
          const failure = codes instanceof Map ? judgeAnswer(codes.get(batch)) : codes;
          if (failure === undefined) this.#acknowledge(batch);
          else failures.set(batch, failure);
        }
        this.#options.onAcknowledged();
      }),
    );
    return failures;
  }

  async #sendToLeader(
    leader: number,
    batches: readonly RecordBatch[],
  ): Promise<Map<RecordBatch, number> | KafkaFailure> {
    if (leader < 0) return judgeErrorCode(5); // LEADER_NOT_AVAILABLE
    try {
      const encode = () => encodeProduceRequest(batches, this.#options.requestTimeoutMs);
      return errorCodesByBatch(batches, await this.#cluster.produce(leader, encode));
    } catch (error) {
      return error instanceof SinkError && error.cause === undefined
        ? { verdict: error.retriable ? 'resend' : 'refused', id: error.message, advice: error.advice }
        : judgeError(error instanceof SinkError ? error.cause : error);
    }
  }

  #acknowledge(batch: RecordBatch): void {
    const queue = this.topic(batch.topic).partitions[batch.partition]!;
    queue.batches.shift();
    this.#bufferedBytes -= batch.length - BATCH_HEADER_BYTES;
    this.#acknowledgedRecordCount += batch.recordCount;
    this.#options.buffers.give(batch.bytes);
  }

  #fail(error: unknown): void {
    if (this.#failed) return; // stopped on purpose: nobody waits for the outcome
    this.#failed = true;
    this.#options.onFailed(
      error instanceof SinkError
        ? error
        : new SinkError('Cannot produce: unexpected error', {
            retriable: false,
            cause: error,
            place: { kafkaClient: this.#options.kafkaClient },
          }),
    );
  }

  #sinkError(batch: RecordBatch, failure: KafkaFailure, retryCount: number): SinkError {
    const tooLarge = failure.id === 'MESSAGE_TOO_LARGE';
    if (tooLarge && batch.recordCount > 1) {
      // Not a poison row yet: the topic's limit is below what we assumed, and we were not allowed to read it.
      this.#options.learnedBatchBytes.set(batch.topic, Math.ceil(batch.length / 2));
    }
    return new SinkError(
      `Cannot deliver a batch of ${batch.recordCount}: ${failure.id} after ${retryCount + 1} attempts`,
      {
        retriable: failure.verdict !== 'refused',
        advice: failure.advice,
        place: {
          kafkaClient: this.#options.kafkaClient,
          topic: batch.topic,
          partition: batch.partition,
          key: tooLarge && batch.recordCount === 1 ? batch.firstKey : undefined,
        },
      },
    );
  }
}

function judgeAnswer(code: number | undefined): KafkaFailure | undefined {
  if (code === 0) return undefined;
  if (code === undefined) return { verdict: 'resend', id: 'NO_ANSWER' };
  const failure = judgeErrorCode(code);
  return failure.verdict === 'acknowledged' ? undefined : failure;
}

/** A single row over the topic's limit would be refused for ever, and with it everything behind it. */
function refuseTooLarge(topic: ProducerTopic, key: ByteWriter, value: ByteWriter): void {
  const size = singleRecordBatchBytes(key.length, value.length);
  if (size <= topic.maxRecordBatchBytes) return;
  throw new InvalidRowError(`Cannot produce a record of ${size} bytes: the topic takes ${topic.maxRecordBatchBytes}`, {
    place: { topic: topic.name, key: key.view().toString() },
    advice: `Raise max.message.bytes of topic "${topic.name}" to ${size} or more (and replica.fetch.max.bytes of the brokers)`,
  });
}
