import type { KafkaClientConfig, NamespaceConfig } from '../config/config.ts';
import type { RecordKind } from '../conversion/convert.ts';
import { Cluster } from '../kafka/client/cluster.ts';
import { ClusterIdentity } from '../kafka/client/cluster-identity.ts';
import { BatchBuffers } from '../kafka/produce/batch-buffers.ts';
import { codecOf } from '../kafka/produce/compression.ts';
import type { PartitionQueues, ProducerTopic } from '../kafka/produce/partition-queues.ts';
import { Producer, type ProducerListener, type ProducerOptions } from '../kafka/produce/producer.ts';
import type { RecordTally } from '../kafka/produce/record-batch.ts';
import { createSizeLimits, type SizeLimits, updateLimits } from '../kafka/produce/size-limits.ts';
import type { KindCounts, NamespaceCounts } from '../status/slot-status.ts';

/** Options of Sinks. */
export interface SinksOptions extends Pick<ProducerOptions, 'resendTimeoutMs' | 'maxRetries' | 'trial' | 'log'> {
  readonly namespaces: ReadonlyMap<string, NamespaceConfig>;
  readonly kafkaClients: ReadonlyMap<string, KafkaClientConfig>;
  /** Kept by the slot from session to session, by Kafka client */
  readonly sizeLimits: Map<string, SizeLimits>;
  /** Ids of the clusters that the slot delivers to, by Kafka client; kept likewise */
  readonly clusterIds: Map<string, string>;
  /** Bytes of unused batch buffers that the slot keeps for its next batches */
  readonly keptBufferBytes: number;
  /** By namespace: outcomes of its rows */
  readonly counts: ReadonlyMap<string, NamespaceCounts>;
  /** Ends the opening, and drops its connections */
  readonly signal: AbortSignal;
}

/** One topic, the queues that its records go to, and the counter of its acknowledged records. */
export interface Outlet {
  readonly queues: PartitionQueues;
  readonly topic: ProducerTopic;
  readonly tally: RecordTally;
}

/** Where the records of one namespace go. */
export interface Route {
  readonly namespace: string;
  readonly onMissingOldTuple: NamespaceConfig['onMissingOldTuple'];
  readonly counts: NamespaceCounts;
  readonly records: Readonly<Record<RecordKind, Outlet>>;
  /** For rows that cannot be delivered; undefined where those end the stream */
  readonly parking: Readonly<Record<RecordKind, Outlet>> | undefined;
}

/** Everything that a slot sends to: one producer per Kafka client, one route per namespace. */
export class Sinks {
  readonly #options: SinksOptions;
  readonly #clusters: readonly Cluster[];
  readonly #producers: readonly Producer[];
  readonly #routes: ReadonlyMap<string, Route>;

  private constructor(
    options: SinksOptions,
    clusters: readonly Cluster[],
    producers: readonly Producer[],
    routes: ReadonlyMap<string, Route>,
  ) {
    this.#options = options;
    this.#clusters = clusters;
    this.#producers = producers;
    this.#routes = routes;
  }

  /**
   * Connects to every cluster and checks that every topic exists. Nothing is watched or sent before `start`.
   * @throws SinkError, SecretError, and the reason of the signal
   */
  static async open(options: SinksOptions): Promise<Sinks> {
    const { signal } = options;
    const clusters: Cluster[] = [];
    const producers = new Map<string, Producer>();
    const close = () => {
      for (const producer of producers.values()) producer.stop();
      for (const cluster of clusters) cluster.close();
    };
    signal.addEventListener('abort', close);
    try {
      const byClient = topicsByClient(options.namespaces.values());
      for (const [clientName, topics] of byClient) {
        signal.throwIfAborted();
        const client = options.kafkaClients.get(clientName)!; // the configuration's references are checked
        const cluster = new Cluster(client, options.log, new ClusterIdentity(client, options.clusterIds, options.log));
        clusters.push(cluster);
        await cluster.refreshMetadata(topics);
        const limits = options.sizeLimits.get(clientName) ?? createSizeLimits(client.maxRequestBytes);
        options.sizeLimits.set(clientName, limits);
        updateLimits(limits, await cluster.maxMessageBytes(topics));
        const producer = await Producer.open(cluster, {
          ...options,
          kafkaClient: clientName,
          requestTimeoutMs: client.requestTimeoutMs,
          metadataMaxAgeMs: client.metadataMaxAgeMs,
          limits,
          codec: codecOf(client.compression),
          buffers: new BatchBuffers(options.keptBufferBytes / byClient.size),
        });
        producers.set(clientName, producer);
      }
      const routes = Array.from(options.namespaces, ([namespace, config]): [string, Route] => {
        const { queues } = producers.get(config.kafkaClient)!;
        return [namespace, createRoute(namespace, { config, queues, counts: options.counts.get(namespace)! })];
      });
      return new Sinks(options, clusters, [...producers.values()], new Map(routes));
    } catch (error) {
      close();
      throw error;
    } finally {
      signal.removeEventListener('abort', close);
    }
  }

  /** Begins to watch the topics and to send. To be called once. */
  start(listener: ProducerListener): void {
    const { trial, log } = this.#options;
    trial.begin(log, () => this.flush());
    for (const producer of this.#producers) producer.start(listener);
  }

  /** Route of a namespace of the slot. */
  route(namespace: string): Route {
    return this.#routes.get(namespace)!;
  }

  /** Sends everything that was appended. */
  flush(): void {
    for (const producer of this.#producers) producer.flush();
  }

  /** Bytes that Kafka has not acknowledged. */
  get bufferedBytes(): number {
    let sum = 0;
    for (const producer of this.#producers) sum += producer.queues.bufferedBytes;
    return sum;
  }

  /** Lowest unacknowledged ordinal over all clusters, Infinity when there is none. */
  get lowestUnacknowledged(): number {
    let lowest = Number.POSITIVE_INFINITY;
    for (const producer of this.#producers) lowest = Math.min(lowest, producer.queues.lowestUnacknowledged);
    return lowest;
  }

  /** When the oldest unacknowledged record was appended, by performance.now(); undefined without one. */
  get inFlightSinceMs(): number | undefined {
    let oldest: number | undefined;
    for (const { queues } of this.#producers) {
      const since = queues.oldestUnacknowledgedSinceMs;
      if (since !== undefined && (oldest === undefined || since < oldest)) oldest = since;
    }
    return oldest;
  }

  /** True when the last contact with each cluster succeeded. */
  get areBrokersReachable(): boolean {
    return this.#producers.every((producer) => producer.isReachable);
  }

  /** Records that Kafka has acknowledged in this session. */
  get acknowledgedRecordCount(): number {
    return this.#producers.reduce((sum, producer) => sum + producer.queues.acknowledgedRecordCount, 0);
  }

  /** Ends all sending and drops the connections. */
  close(): void {
    this.#options.trial.stop();
    for (const producer of this.#producers) producer.stop();
    for (const cluster of this.#clusters) cluster.close();
  }
}

function createRoute(
  namespace: string,
  {
    config,
    queues,
    counts,
  }: { readonly config: NamespaceConfig; readonly queues: PartitionQueues; readonly counts: NamespaceCounts },
): Route {
  const outlets = (topics: Readonly<Record<RecordKind, string>>, kindCounts: KindCounts) => {
    const outlet = (kind: RecordKind): Outlet => ({
      queues,
      topic: queues.topic(topics[kind]),
      tally: tallyOf(kindCounts, kind),
    });
    return { event: outlet('event'), lifecycle: outlet('lifecycle') };
  };
  const { parkingTopic, eventsinkTopic, lifecycleTopic } = config;
  return {
    namespace,
    onMissingOldTuple: config.onMissingOldTuple,
    counts,
    records: outlets({ event: eventsinkTopic, lifecycle: lifecycleTopic }, counts.produced),
    parking:
      parkingTopic === undefined ? undefined : outlets({ event: parkingTopic, lifecycle: parkingTopic }, counts.parked),
  };
}

/** The topics that these namespaces need, by Kafka client. */
export function topicsByClient(namespaces: Iterable<NamespaceConfig>): ReadonlyMap<string, readonly string[]> {
  const byClient = Map.groupBy(namespaces, ({ kafkaClient }) => kafkaClient);
  return new Map(Array.from(byClient, ([client, its]) => [client, [...new Set(its.flatMap(topicsOf))]]));
}

function topicsOf({ eventsinkTopic, lifecycleTopic, parkingTopic }: NamespaceConfig): string[] {
  return [eventsinkTopic, lifecycleTopic, ...(parkingTopic === undefined ? [] : [parkingTopic])];
}

/** Counts acknowledged records directly in the status. */
function tallyOf(counts: KindCounts, kind: RecordKind): RecordTally {
  return {
    get producedCount() {
      return counts[kind];
    },
    set producedCount(count) {
      counts[kind] = count;
    },
  };
}
