import type { Logger } from 'pino';

/** After this time without a batch for the partition there is nothing to try: its row may be gone or parked. */
const ABANDON_AFTER_MS = 5_000;

/** One partition of one Kafka client. */
export interface TriedPartition {
  readonly kafkaClient: string;
  readonly topic: string;
  readonly partition: number;
}

/**
 * After a session that ended because a partition refused a batch, the next one tries this partition alone: the slot begins
 * again before that batch, so everything else that it sends was sent before. Without it, healthy partitions would collect the
 * same records with each attempt, for as long as one refuses. A slot keeps its trial from session to session.
 */
export class DeliveryTrial {
  #refused: TriedPartition | undefined;
  #isActive = false;
  #hasBatch = false;
  #timer: Timer | undefined;
  #onEnd = (): void => {};

  /** True while only one partition is sent to. */
  get isActive(): boolean {
    return this.#isActive;
  }

  /** Begins a session. @param onEnd called once the other partitions may be sent to */
  begin(log: Logger, onEnd: () => void): void {
    if (this.#refused === undefined) return;
    this.#isActive = true;
    this.#hasBatch = false;
    this.#onEnd = onEnd;
    this.#timer = setTimeout(() => {
      if (!this.#hasBatch) this.#end();
    }, ABANDON_AFTER_MS).unref();
    log.info(
      { event: 'partition_tried_alone', ...this.#refused },
      'the partition that refused is tried alone, before the others',
    );
  }

  /** Ends a session: its outcome does not count any more. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#isActive = false;
  }

  /** Whether a batch may be sent to this partition now. */
  admits(partition: TriedPartition): boolean {
    if (!this.#isActive) return true;
    const isTried = this.#isTried(partition);
    this.#hasBatch ||= isTried;
    return isTried;
  }

  /** A partition refused, and the session ends. */
  noteRefused({ kafkaClient, topic, partition }: TriedPartition): void {
    this.#refused = { kafkaClient, topic, partition };
  }

  /** Kafka has acknowledged a batch of this partition. */
  noteAcknowledged(partition: TriedPartition): void {
    if (!this.#isActive || !this.#isTried(partition)) return;
    this.#refused = undefined;
    this.#end();
  }

  #isTried({ kafkaClient, topic, partition }: TriedPartition): boolean {
    const tried = this.#refused;
    return tried?.kafkaClient === kafkaClient && tried.topic === topic && tried.partition === partition;
  }

  #end(): void {
    if (!this.#isActive) return;
    this.stop();
    this.#onEnd();
  }
}
