import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { SinkError } from '../../errors.ts';
import { isTooLarge, isTooLargeForTopic } from '../../failure-policy.ts';
import type { Cluster, ProducerIdentity } from '../client/cluster.ts';
import type { DeliveryTrial } from './delivery-trial.ts';
import { PartitionQueues, type PartitionQueuesOptions } from './partition-queues.ts';
import { deliveryError } from './produce-errors.ts';
import type { RecordBatch } from './record-batch.ts';
import { type LeaderAnswer, leaderOf, RoundAttempt } from './round-attempt.ts';
import { decideRound, type RoundFailure } from './round-policy.ts';
import { noteRefusedBatch } from './size-limits.ts';
import { type TopicChange, TopicWatch, type WatchedCluster } from './topic-watch.ts';

/** Options of `Producer.open`. */
export interface ProducerOptions extends PartitionQueuesOptions {
  readonly resendTimeoutMs: number;
  readonly maxRetries: number;
  readonly requestTimeoutMs: number;
  /** Interval at which topics and brokers are looked at again */
  readonly metadataMaxAgeMs: number;
  /** Name of the client in the configuration, for errors and the log */
  readonly kafkaClient: string;
  /** Of the slot: while it is active, one partition alone is sent to */
  readonly trial: DeliveryTrial;
  readonly log: Logger;
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

/** An answer to a Produce request, with or without error codes. */
export interface ProduceAnswer {
  readonly roundTripMs: number;
  readonly batchCount: number;
  /** Size of its batches on the wire, headers included */
  readonly bytes: number;
}

/** The part of `Cluster` that a producer needs. */
export type ProducerCluster = WatchedCluster &
  Pick<Cluster, 'initProducerId' | 'metadata' | 'produce' | 'takesRequestOf'>;

/**
 * Sends the records of one slot to one Kafka cluster: acks=all, idempotent, in order within each partition.
 *
 * Records are appended to the queues while a round is in flight; when it is done, the next round takes the first batch
 * of every partition. So batches form by themselves, latency is one round trip, and at most one batch of a partition is
 * in flight: no retry can change the order, and a request of an earlier session that is still in the network can only
 * hold the very first records that were not yet acknowledged.
 *
 * Leaders that have moved are followed.
 */
export class Producer {
  /** Where records are appended */
  readonly queues: PartitionQueues;
  readonly #cluster: ProducerCluster;
  readonly #identity: ProducerIdentity;
  readonly #options: ProducerOptions;
  readonly #watch: TopicWatch;
  readonly #stopping = new AbortController();
  #listener = NO_LISTENER;
  /** Kafka asked for a pause until then; performance.now() */
  #throttledUntilMs = 0;
  /** True while rounds are in flight, and before `start`: `flush` then has nothing to do */
  #isRunning = true;
  #isStopped = false;

  private constructor(cluster: ProducerCluster, identity: ProducerIdentity, options: ProducerOptions) {
    this.queues = new PartitionQueues(cluster.metadata.topics.values(), options);
    this.#cluster = cluster;
    this.#identity = identity;
    this.#options = options;
    const { kafkaClient, metadataMaxAgeMs, limits, log } = options;
    this.#watch = new TopicWatch(cluster, this.queues, {
      kafkaClient,
      metadataMaxAgeMs,
      limits,
      log,
      signal: this.#stopping.signal,
      onTopicChanged: (change) => this.#listener.onTopicChanged(change),
    });
  }

  /**
   * Gets a producer id. The cluster's metadata must hold every topic that will be used. Nothing is sent before `start`.
   * @throws SinkError, SecretError
   */
  static async open(cluster: ProducerCluster, options: ProducerOptions): Promise<Producer> {
    return new Producer(cluster, await cluster.initProducerId(), options);
  }

  /** Begins to watch the topics, and sends what was appended before. Called once. */
  start(listener: ProducerListener): void {
    this.#listener = listener;
    this.#watch.run().catch((error: unknown) => this.#fail(error));
    this.#isRunning = false;
    this.flush();
  }

  /** True when the last contact with the cluster succeeded. */
  get isReachable(): boolean {
    return this.#cluster.isReachable;
  }

  /** Starts to send what was appended. Does nothing while a round is in flight, because the next one follows it. */
  flush(): void {
    if (this.#isRunning || this.#isStopped || this.queues.bufferedBytes === 0) return;
    this.#isRunning = true;
    this.#sendRounds().catch((error: unknown) => this.#fail(error));
  }

  /** Sends nothing more. What is in flight may still reach Kafka; its outcome is not reported. */
  stop(): void {
    this.#isStopped = true;
    this.#stopping.abort();
  }

  /** @throws AbortError when the producer is stopped meanwhile */
  async #pause(delayMs: number): Promise<void> {
    await sleep(delayMs, undefined, { signal: this.#stopping.signal });
  }

  async #sendRounds(): Promise<void> {
    while (!this.#isStopped) {
      // Before the round is put together, so that its batches grow meanwhile.
      const throttleMs = this.#throttledUntilMs - performance.now();
      if (throttleMs > 0) await this.#pause(throttleMs);
      const round = this.queues.nextRound(this.#identity, this.#selection());
      if (round.length === 0) {
        // Here and not in a later microtask: a flush in between would be lost.
        this.#isRunning = false;
        return;
      }
      await this.#sendRound(round);
    }
  }

  /** Which partitions may be sent to; undefined = all. */
  #selection(): ((topic: string, partition: number) => boolean) | undefined {
    const { kafkaClient, trial } = this.#options;
    return trial.isActive ? (topic, partition) => trial.admits({ kafkaClient, topic, partition }) : undefined;
  }

  async #sendRound(round: readonly RecordBatch[]): Promise<void> {
    const { kafkaClient, trial, limits, maxRetries, resendTimeoutMs } = this.#options;
    let pending = round;
    let retryCount = 0;
    let hasFollowed = false;
    for (;;) {
      const failures = await this.#attempt().run(pending);
      if (failures.size > 0) await this.#watch.refresh();
      if (this.#isStopped) return;
      const judged = Array.from(failures, ([batch, sent]) => ({ ...sent, leader: leaderOf(this.#cluster, batch) }));
      const decision = decideRound(judged, { retryCount, maxRetries, hasFollowed });
      pending = [...failures.keys()];
      if (decision.action === 'done') return;
      if (decision.action === 'give-up') {
        const [batch, { failure }] = [pending[decision.index]!, judged[decision.index]!];
        if (isTooLargeForTopic(failure)) noteRefusedBatch(limits, batch);
        else if (!isTooLarge(failure))
          trial.noteRefused({ kafkaClient, topic: batch.topic, partition: batch.partition });
        throw deliveryError(batch, failure, { kafkaClient, attemptCount: retryCount + 1 });
      }
      hasFollowed = decision.action === 'follow';
      if (!hasFollowed) retryCount++;
      this.#logResend(pending, judged[0]!, { hasFollowed, retryCount });
      this.#listener.onResend(judged[0]!.failure.id);
      if (hasFollowed) continue;
      await this.#pause(resendTimeoutMs);
      // Leaders may have moved meanwhile. If no broker answers, the send itself reports why.
      if (this.isReachable) await this.#watch.refresh();
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
      log.warn(
        { event: 'produce_follow_leaders', ...facts },
        'Kafka did not acknowledge, sending the same batches to the new leaders of their partitions',
      );
    } else {
      log.warn(
        { event: 'produce_resend', ...facts, retry: retryCount, maxRetries, resendTimeoutMs },
        'Kafka did not acknowledge, sending the same batches again after resend_timeout',
      );
    }
  }

  #attempt(): RoundAttempt {
    return new RoundAttempt({
      cluster: this.#cluster,
      limit: this.#options.limits.request,
      requestTimeoutMs: this.#options.requestTimeoutMs,
      refreshMetadata: () => this.#watch.refresh(),
      onAnswer: (answer) => this.#noteAnswer(answer),
      onAcknowledged: (acknowledged) => {
        for (const batch of acknowledged) this.#acknowledge(batch);
        this.#listener.onAcknowledged();
      },
      onLimitLearned: (requestBytes) => this.#noteRequestLimit(requestBytes),
      signal: this.#stopping.signal,
    });
  }

  #acknowledge(batch: RecordBatch): void {
    const { kafkaClient, trial } = this.#options;
    this.queues.acknowledge(batch);
    if (trial.isActive) trial.noteAcknowledged({ kafkaClient, topic: batch.topic, partition: batch.partition });
  }

  #noteRequestLimit(requestBytes: number): void {
    const { kafkaClient, limits, log } = this.#options;
    this.queues.applyLimits();
    log.warn(
      { event: 'kafka_request_too_large', kafkaClient, requestBytes, takenBytes: limits.request.takenBytes },
      'the brokers close the connection on large requests, sending smaller ones: raise socket.request.max.bytes of the brokers, or lower max_request_bytes',
    );
  }

  #noteAnswer({ roundTripMs, batches, throttleTimeMs }: LeaderAnswer): void {
    const { kafkaClient, log, requestTimeoutMs } = this.#options;
    const bytes = batches.reduce((sum, batch) => sum + batch.length, 0);
    this.#listener.onProduced({ roundTripMs, batchCount: batches.length, bytes });
    if (throttleTimeMs <= 0) return;
    if (this.#throttledUntilMs === 0) {
      log.warn(
        { event: 'kafka_throttles', kafkaClient, throttleTimeMs },
        'Kafka throttles this client: it has reached its quota',
      );
    }
    // The broker itself delays clients that do not wait, so no answer can make this producer pause for days.
    this.#throttledUntilMs = Math.max(
      this.#throttledUntilMs,
      performance.now() + Math.min(throttleTimeMs, requestTimeoutMs),
    );
  }

  #fail(error: unknown): void {
    if (this.#isStopped) return; // stopped on purpose: the outcome is not reported
    this.stop();
    this.#listener.onFailed(
      error instanceof SinkError
        ? error
        : new SinkError('Cannot produce: unexpected error', {
            code: 'produce_unexpected',
            retriable: false,
            advice: 'This is a bug of the service: report it with this log entry',
            cause: error,
            place: { kafkaClient: this.#options.kafkaClient },
          }),
    );
  }
}
