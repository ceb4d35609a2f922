import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Cluster, TopicMetadata } from '../client/cluster.ts';
import type { PartitionQueues } from './partition-queues.ts';
import { type SizeLimits, updateLimits } from './size-limits.ts';

/** Kafka's error code for a topic that does not exist */
const UNKNOWN_TOPIC_OR_PARTITION = 3;

/** Options of `TopicWatch`. */
export interface TopicWatchOptions {
  /** Name of the client in the configuration, for the log */
  readonly kafkaClient: string;
  /** Interval at which metadata and limits are read again */
  readonly metadataMaxAgeMs: number;
  readonly limits: SizeLimits;
  readonly log: Logger;
  /** Ends the watch */
  readonly signal: AbortSignal;
  /** Called once for a topic, when its partition count is another than that of its queues */
  readonly onTopicChanged: (change: TopicChange) => void;
}

/** A topic whose partition count has changed since the producer was opened. */
export interface TopicChange {
  readonly topic: string;
  readonly fromPartitions: number;
  /** 0 = the topic no longer exists */
  readonly toPartitions: number;
}

/** The part of `Cluster` that a watch needs. */
export type WatchedCluster = Pick<Cluster, 'isClosed' | 'isReachable' | 'maxMessageBytes' | 'readMetadata'>;

/**
 * Reads the topics of a producer again: at intervals, and whenever a send has failed. The cluster then knows the new
 * leaders. A change of a partition count is only reported, because the modulus may change only where nothing is in
 * flight, and the producer cannot know where that is.
 */
export class TopicWatch {
  readonly #cluster: WatchedCluster;
  readonly #queues: PartitionQueues;
  readonly #options: TopicWatchOptions;
  /** Topics whose change was reported */
  readonly #changedTopics = new Set<string>();
  #refreshing: Promise<void> | undefined;

  constructor(cluster: WatchedCluster, queues: PartitionQueues, options: TopicWatchOptions) {
    this.#cluster = cluster;
    this.#queues = queues;
    this.#options = options;
  }

  /**
   * Reads topics and limits at intervals, also while nothing is sent, until the cluster is closed.
   * @throws AbortError when the signal is given
   */
  async run(): Promise<void> {
    const { metadataMaxAgeMs, signal } = this.#options;
    while (!this.#cluster.isClosed) {
      await sleep(metadataMaxAgeMs, undefined, { ref: false, signal });
      await this.refresh();
      await this.#readLimits();
    }
  }

  /** Reads which broker leads which partition. Calls at the same time share one request. Never rejects: see `isReachable`. */
  refresh(): Promise<void> {
    this.#refreshing ??= this.#readTopics().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #readTopics(): Promise<void> {
    const { kafkaClient, log, onTopicChanged, signal } = this.#options;
    const wasReachable = this.#cluster.isReachable;
    const metadata = await this.#cluster.readMetadata(this.#topicNames()).catch((error: unknown) => {
      if (wasReachable && !signal.aborted) {
        log.warn({ event: 'kafka_metadata_unreadable', kafkaClient, error }, 'cannot read the metadata of the topics');
      }
      return undefined;
    });
    if (metadata === undefined || signal.aborted) return;
    for (const { name, partitions } of this.#queues.topics) {
      const toPartitions = countPartitions(metadata.topics.get(name));
      if (toPartitions === undefined || toPartitions === partitions.length || this.#changedTopics.has(name)) continue;
      this.#changedTopics.add(name);
      onTopicChanged({ topic: name, fromPartitions: partitions.length, toPartitions });
    }
  }

  /** Reads the size limits of the topics. Never rejects: limits that cannot be read stay as they were. */
  async #readLimits(): Promise<void> {
    const found = await this.#cluster.maxMessageBytes(this.#topicNames()).catch(() => undefined);
    if (found === undefined || this.#options.signal.aborted) return;
    updateLimits(this.#options.limits, found);
    this.#queues.applyLimits();
  }

  #topicNames(): string[] {
    return Array.from(this.#queues.topics, ({ name }) => name);
  }
}

/** Partition count of a topic, 0 if it does not exist; undefined if the metadata does not show it. */
function countPartitions(topic: TopicMetadata | undefined): number | undefined {
  if (topic === undefined) return undefined;
  if (topic.errorCode === 0) return topic.leaders.length;
  return topic.errorCode === UNKNOWN_TOPIC_OR_PARTITION ? 0 : undefined;
}
