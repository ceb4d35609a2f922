/**
 * Sends the records of one slot to one Kafka cluster: acks=all, idempotent, in order within each partition.
 *
 * Records are appended to the open batch of their partition while the last round is in flight; when it is done, the
 * next round takes the first batch of every partition. So batches form by themselves, latency is one round trip, and
 * at most one batch of a partition is in flight: no retry can change the order, and a request that an earlier session
 * left behind in the network can only hold the very first records that were not acknowledged yet.
 *
 * A sealed batch keeps its producer id, epoch and sequence through all resends: the broker stores it once.
 *
 * The cluster is looked at again at intervals and whenever a send fails. Leaders that have moved are followed; a change
 * of partition counts is only reported, for the modulus may change where nothing is in flight, and that is not for the
 * producer to know.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { ByteWriter } from '../../bytes/writer.ts';
import { NotifierError, RecordTooLargeError, SinkError } from '../../errors.ts';
import { isTooLarge, judgeKafkaError, type KafkaFailure } from '../../failure-policy.ts';
import type { ProduceResponse } from '../client/api-versions.ts';
import type { Cluster, ProducerIdentity, TopicMetadata } from '../client/cluster.ts';
import { identify, identifyCode } from '../client/errors.ts';
import type { BatchBuffers } from './batch-buffers.ts';
import type { Codec } from './compression.ts';
import { phash2 } from './partitioner.ts';
import { encodeProduceRequest, errorCodesByBatch } from './produce-request.ts';
import { BATCH_HEADER_BYTES, RecordBatch, type RecordTally, singleRecordBatchBytes } from './record-batch.ts';
import { decideRound, type RoundFailure } from './round-policy.ts';
import { exceededLimit, noteRefusedRecord, type TopicLimits, takeUpLimits } from './topic-limits.ts';

/** A batch is closed at this size even where the topic would take more: it bounds what one resend costs. */
const BATCH_TARGET_BYTES = 900_000;
/** Kafka's error codes for a partition without a leader, and for a topic that does not exist */
const LEADER_NOT_AVAILABLE = 5;
const UNKNOWN_TOPIC_OR_PARTITION = 3;
/** Sequences are i32 and wrap to 0 (Kafka, `DefaultRecordBatch.incrementSequence`). */
const SEQUENCE_MODULUS = 0x8000_0000;

export type { RecordTally } from './record-batch.ts';

/** Options of `Producer.open`. */
export interface ProducerOptions {
  readonly resendTimeoutMs: number;
  readonly maxRetries: number;
  readonly requestTimeoutMs: number;
  /** How often topics and brokers are looked at again */
  readonly metadataMaxAgeMs: number;
  /** Name of the client in the configuration, for errors */
  readonly kafkaClient: string;
  /** What batches are compressed by; undefined = not at all */
  readonly codec: Codec | undefined;
  readonly buffers: BatchBuffers;
  readonly log: Logger;
  /** Kept by the slot from session to session; the producer adds what it learns */
  readonly limits: TopicLimits;
}

/** What a producer reports. */
export interface ProducerListener {
  /** Kafka has acknowledged something: `lowestUnacknowledged` may have risen */
  readonly onAcknowledged: () => void;
  /** Batches that Kafka did not acknowledge are sent again; `reason` is Kafka's name of the error */
  readonly onResend: (reason: string) => void;
  /** A broker has answered a Produce request */
  readonly onProduced: (answer: ProduceAnswer) => void;
  /** A topic has another partition count than `open` found; called once for a topic. The producer keeps the old count */
  readonly onTopicChanged: (change: TopicChange) => void;
  /** The retries are used up or cannot help; called once, and the producer sends nothing after it */
  readonly onFailed: (error: SinkError) => void;
}

/** Until `start` nothing is sent and nothing is watched, so there is nothing to report. */
const NO_LISTENER: ProducerListener = {
  onAcknowledged() {},
  onResend() {},
  onProduced() {},
  onTopicChanged() {},
  onFailed() {},
};

/** A Produce request that was answered, whatever the answer. */
export interface ProduceAnswer {
  readonly roundTripMs: number;
  readonly batchCount: number;
  /** Of its batches as they went over the wire, headers included */
  readonly bytes: number;
}

/** A topic that is not what it was. */
export interface TopicChange {
  readonly topic: string;
  readonly fromPartitions: number;
  /** 0 = the topic does not exist any more */
  readonly toPartitions: number;
}

/** What a record is numbered and counted by. */
export interface RecordAccount {
  /** Number of the record within the session (delivery/progress.ts), rising from record to record */
  readonly ordinal: number;
  readonly tally: RecordTally;
}

/** Where records of one kind of one namespace go. */
export interface ProducerTopic {
  readonly name: string;
  /** Largest batch of one record, uncompressed, that is sent without a closer look; Infinity where we may not know */
  readonly maxRecordBatchBytes: number;
  /** Size, uncompressed, at which a batch of several records is closed: compression never makes it larger */
  readonly maxBatchBytes: number;
  readonly partitions: readonly PartitionQueue[];
}

/** A topic with the limits that the producer changes when the topic's do. */
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

/** See the head of this file. */
export class Producer {
  readonly #cluster: Cluster;
  readonly #identity: ProducerIdentity;
  readonly #options: ProducerOptions;
  readonly #topics: ReadonlyMap<string, OpenTopic>;
  /** Topics that were reported to have changed */
  readonly #changedTopics = new Set<string>();
  readonly #stopped = new AbortController();
  #refreshing: Promise<void> | undefined;
  /** Kafka asked to be sent nothing until then; performance.now() */
  #throttledUntilMs = 0;
  #bufferedBytes = 0;
  /** True while rounds are in flight, and before `start`: `flush` then has nothing to do */
  #running = true;
  #listener = NO_LISTENER;
  #failed = false;
  #acknowledgedRecordCount = 0;

  private constructor(cluster: Cluster, identity: ProducerIdentity, options: ProducerOptions) {
    this.#cluster = cluster;
    this.#identity = identity;
    this.#options = options;
    this.#topics = new Map(
      Array.from(cluster.metadata.topics.values(), ({ name, leaders }) => {
        const partitions = leaders.map((_, index) => ({ index, batches: [], nextSequence: 0 }));
        return [name, { name, partitions, maxRecordBatchBytes: 0, maxBatchBytes: 0 }];
      }),
    );
    this.#setLimits();
  }

  /** Gets a producer id. The cluster's metadata must hold every topic that will be used. Nothing is sent before `start`. */
  static async open(cluster: Cluster, options: ProducerOptions): Promise<Producer> {
    return new Producer(cluster, await cluster.initProducerId(), options);
  }

  /** Begins to watch the topics, and sends what was appended and flushed. Called once. */
  start(listener: ProducerListener): void {
    this.#listener = listener;
    this.#watchTopics().catch((error: unknown) => this.#fail(error));
    this.#running = false;
    this.flush();
  }

  /** A topic of the cluster's metadata at the time of `open`; its partition count does not change within a session. */
  topic(name: string): ProducerTopic {
    const topic = this.#topics.get(name);
    if (topic === undefined) throw new Error(`Topic "${name}" was not asked for when the producer was opened`);
    return topic;
  }

  /** Bytes of batches that Kafka has not acknowledged, as they were before compression: that is the memory they take. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  get acknowledgedRecordCount(): number {
    return this.#acknowledgedRecordCount;
  }

  /** True when the last contact with the cluster succeeded. */
  get reachable(): boolean {
    return this.#cluster.isReachable;
  }

  /** When the oldest batch was begun that Kafka has not acknowledged, by performance.now(); undefined without one. */
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
   * Holds a record against what its topic takes, as `append` does, and appends nothing.
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
    throw new RecordTooLargeError(
      `Cannot produce a record of ${size}: the topic takes at most ${exceeded.limitBytes}`,
      {
        place: { topic: topic.name, key: key.view().toString() },
        advice: `Raise max.message.bytes of topic "${topic.name}" to ${exceeded.neededBytes} or more (and replica.fetch.max.bytes of the brokers)`,
      },
    );
  }

  /**
   * Puts a record at the end of its partition's queue; `flush` sends it.
   * @throws RecordTooLargeError when the record alone is larger than the topic takes
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
    batch.append(key, value, tally);
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
        if (first !== undefined && first.beginning.firstOrdinal < lowest) lowest = first.beginning.firstOrdinal;
      }
    }
    return lowest;
  }

  /** Sends nothing more. What is in flight may still reach Kafka; nobody will know. */
  stop(): void {
    this.#failed = true;
    this.#stopped.abort();
  }

  /** Size of a batch of this record alone as it would be sent: only a trial can tell. */
  #compressedBytes(codec: Codec, key: ByteWriter, value: ByteWriter): number {
    const { buffers } = this.#options;
    const beginning = { firstOrdinal: 0, timestampMs: 0, begunMs: 0 };
    const trial = new RecordBatch({ topic: '', partition: 0 }, buffers.take(), beginning);
    trial.append(key, value, { producedCount: 0 });
    const length = trial.sealedLength(codec);
    buffers.give(trial.bytes);
    return length;
  }

  /** Looks at topics and brokers again and again, also when nothing is sent. */
  async #watchTopics(): Promise<void> {
    // The cluster is closed without us when the session cannot be opened whole.
    while (!this.#cluster.isClosed) {
      await this.#pause(this.#options.metadataMaxAgeMs, { ref: false });
      await this.#refresh();
      await this.#readLimits();
    }
  }

  /** Reads again who leads the partitions. Never rejects: `reachable` tells. */
  #refresh(): Promise<void> {
    this.#refreshing ??= this.#readTopics().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #readTopics(): Promise<void> {
    const { kafkaClient, log } = this.#options;
    const wasReachable = this.reachable;
    const metadata = await this.#cluster.readMetadata([...this.#topics.keys()]).catch((error: unknown) => {
      if (wasReachable && !this.#failed) log.warn({ kafkaClient, error }, 'kafka cannot be asked about its topics');
      return undefined;
    });
    if (metadata === undefined || this.#failed) return;
    for (const { name, partitions } of this.#topics.values()) {
      const toPartitions = countPartitions(metadata.topics.get(name));
      if (toPartitions === undefined || toPartitions === partitions.length || this.#changedTopics.has(name)) continue;
      this.#changedTopics.add(name);
      this.#listener.onTopicChanged({ topic: name, fromPartitions: partitions.length, toPartitions });
    }
  }

  /** Reads again what the topics take. Never rejects: what cannot be read stays as it was. */
  async #readLimits(): Promise<void> {
    const found = await this.#cluster.maxMessageBytes([...this.#topics.keys()]).catch(() => undefined);
    if (found === undefined || this.#failed) return;
    takeUpLimits(this.#options.limits, found);
    this.#setLimits();
  }

  #setLimits(): void {
    const { maxMessageBytes, learnedBatchBytes, refusedRecords } = this.#options.limits;
    for (const topic of this.#topics.values()) {
      const known = maxMessageBytes.get(topic.name) ?? Number.POSITIVE_INFINITY;
      const refused = refusedRecords.get(topic.name);
      topic.maxRecordBatchBytes = refused === undefined ? known : Math.min(known, refused.plainBytes - 1);
      topic.maxBatchBytes = Math.min(
        topic.maxRecordBatchBytes,
        learnedBatchBytes.get(topic.name) ?? BATCH_TARGET_BYTES,
      );
    }
  }

  /** @throws AbortError when the producer is stopped meanwhile */
  async #pause(delayMs: number, options: { readonly ref?: boolean } = {}): Promise<void> {
    await sleep(delayMs, undefined, { ...options, signal: this.#stopped.signal });
  }

  async #sendRounds(): Promise<void> {
    while (!this.#failed) {
      // Before a round is made up, so that its batches grow meanwhile.
      const throttleMs = this.#throttledUntilMs - performance.now();
      if (throttleMs > 0) await this.#pause(throttleMs);
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
          batch.seal(this.#identity, queue.nextSequence, this.#options.codec);
          queue.nextSequence = (queue.nextSequence + batch.recordCount) % SEQUENCE_MODULUS;
        }
        round.push(batch);
      }
    }
    return round;
  }

  async #sendRound(round: readonly RecordBatch[]): Promise<void> {
    let pending = round;
    let retryCount = 0;
    let hasFollowed = false;
    for (;;) {
      const failures = await this.#sendToLeaders(pending);
      if (failures.size > 0) await this.#refresh();
      if (this.#failed) return;
      const { maxRetries } = this.#options;
      const judged = Array.from(failures, ([batch, sent]) => ({ ...sent, leader: this.#leaderOf(batch) }));
      const decision = decideRound(judged, { retryCount, maxRetries, hasFollowed });
      pending = [...failures.keys()];
      if (decision.action === 'done') return;
      if (decision.action === 'give-up') {
        throw this.#sinkError(pending[decision.index]!, judged[decision.index]!.failure, retryCount);
      }
      hasFollowed = decision.action === 'follow';
      if (!hasFollowed) retryCount++;
      this.#logResend(pending, judged[0]!, { hasFollowed, retryCount });
      this.#listener.onResend(judged[0]!.failure.id);
      if (hasFollowed) continue;
      await this.#pause(this.#options.resendTimeoutMs);
      // Leaders may have moved meanwhile; when nobody answers, the send itself tells why.
      if (this.reachable) await this.#refresh();
    }
  }

  #logResend(
    batches: readonly RecordBatch[],
    { failure }: RoundFailure,
    { hasFollowed, retryCount }: { readonly hasFollowed: boolean; readonly retryCount: number },
  ): void {
    const { kafkaClient, log, maxRetries, resendTimeoutMs } = this.#options;
    const [{ topic, partition }] = batches as [RecordBatch];
    const facts = { kafkaClient, topic, partition, reason: failure.id, batchCount: batches.length };
    if (hasFollowed) {
      log.warn(facts, 'kafka did not acknowledge, the same batches are sent to the new leaders of their partitions');
    } else {
      log.warn(
        { ...facts, retry: retryCount, maxRetries, resendTimeoutMs },
        'kafka did not acknowledge, the same batches will be sent again',
      );
    }
  }

  /** Broker id of the leader of a batch's partition, -1 while there is none. */
  #leaderOf({ topic, partition }: RecordBatch): number {
    return this.#cluster.metadata.topics.get(topic)?.leaders[partition] ?? -1;
  }

  /** One request to each leader, all at once. Settles acknowledged batches and returns the others. */
  async #sendToLeaders(batches: readonly RecordBatch[]): Promise<Map<RecordBatch, Omit<RoundFailure, 'leader'>>> {
    const byLeader = Map.groupBy(batches, (batch) => this.#leaderOf(batch));
    const failures = new Map<RecordBatch, Omit<RoundFailure, 'leader'>>();
    await Promise.all(
      [...byLeader].map(async ([sentTo, leaderBatches]) => {
        const judge = await this.#sendToLeader(sentTo, leaderBatches);
        if (this.#failed) return;
        for (const batch of leaderBatches) {
          const failure = judge(batch);
          if (failure === undefined) this.#acknowledge(batch);
          else failures.set(batch, { failure, sentTo });
        }
        this.#listener.onAcknowledged();
      }),
    );
    return failures;
  }

  /** Returns what became of each batch: undefined for one that is acknowledged. Does not reject. */
  async #sendToLeader(
    leader: number,
    batches: readonly RecordBatch[],
  ): Promise<(batch: RecordBatch) => KafkaFailure | undefined> {
    if (leader < 0) return (batch) => this.#judgeLeaderless(batch);
    const { requestTimeoutMs } = this.#options;
    const startMs = performance.now();
    let answer: ProduceResponse;
    try {
      answer = await this.#cluster.produce(leader, () => encodeProduceRequest(batches, requestTimeoutMs));
    } catch (error) {
      const failure = judgeSendError(error);
      return () => failure;
    }
    if (!this.#failed) this.#noteAnswer(batches, { startMs, throttleTimeMs: answer.throttleTimeMs });
    const codes = errorCodesByBatch(batches, answer);
    return (batch) => judgeAnswer(codes.get(batch));
  }

  #noteAnswer(
    batches: readonly RecordBatch[],
    { startMs, throttleTimeMs }: { readonly startMs: number; readonly throttleTimeMs: number },
  ): void {
    const { kafkaClient, log, requestTimeoutMs } = this.#options;
    const nowMs = performance.now();
    const bytes = batches.reduce((sum, batch) => sum + batch.length, 0);
    this.#listener.onProduced({ roundTripMs: nowMs - startMs, batchCount: batches.length, bytes });
    if (throttleTimeMs <= 0) return;
    if (this.#throttledUntilMs === 0) {
      log.warn({ kafkaClient, throttleTimeMs }, 'kafka throttles this client: it has reached its quota');
    }
    // The broker holds back those who do not wait by themselves: no answer is worth a silence of days.
    this.#throttledUntilMs = Math.max(this.#throttledUntilMs, nowMs + Math.min(throttleTimeMs, requestTimeoutMs));
  }

  /** Why nobody leads the partition of a batch: the topic itself may be gone. */
  #judgeLeaderless({ topic }: RecordBatch): KafkaFailure {
    const code = this.#cluster.metadata.topics.get(topic)?.errorCode || LEADER_NOT_AVAILABLE;
    return judgeKafkaError(identifyCode(code));
  }

  #acknowledge(batch: RecordBatch): void {
    const queue = this.topic(batch.topic).partitions[batch.partition]!;
    queue.batches.shift();
    this.#bufferedBytes -= batch.plainLength - BATCH_HEADER_BYTES;
    this.#acknowledgedRecordCount += batch.recordCount;
    batch.settle();
    this.#options.buffers.give(batch.bytes);
  }

  #fail(error: unknown): void {
    if (this.#failed) return; // stopped on purpose: nobody waits for the outcome
    this.stop();
    this.#listener.onFailed(
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
    const { limits } = this.#options;
    const tooLarge = isTooLarge(failure);
    if (tooLarge && batch.recordCount > 1) {
      // Not a poison row yet: the topic's limit is below what we assumed, and we were not allowed to read it.
      limits.learnedBatchBytes.set(batch.topic, Math.ceil(batch.plainLength / 2));
    } else if (tooLarge) {
      noteRefusedRecord(limits, batch.topic, { plainBytes: batch.plainLength, wireBytes: batch.length });
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

function judgeSendError(error: unknown): KafkaFailure {
  // One without a cause was raised by us, and its words are the best that there are.
  if (!(error instanceof NotifierError) || error.cause !== undefined) {
    return judgeKafkaError(identify(error instanceof SinkError ? error.cause : error));
  }
  const verdict = error instanceof SinkError && error.retriable ? 'resend' : 'refused';
  return { verdict, id: error.message, advice: error.advice };
}

function judgeAnswer(code: number | undefined): KafkaFailure | undefined {
  if (code === 0) return undefined;
  if (code === undefined) return { verdict: 'resend', id: 'NO_ANSWER' };
  const failure = judgeKafkaError(identifyCode(code));
  return failure.verdict === 'acknowledged' ? undefined : failure;
}

/** Partitions of a topic by what the cluster says, 0 when it has no such topic; undefined when it does not say. */
function countPartitions(topic: TopicMetadata | undefined): number | undefined {
  if (topic === undefined) return undefined;
  if (topic.errorCode === 0) return topic.leaders.length;
  return topic.errorCode === UNKNOWN_TOPIC_OR_PARTITION ? 0 : undefined;
}
