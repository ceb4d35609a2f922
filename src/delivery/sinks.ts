/** The Kafka side of one session: a producer for each Kafka client that the slot's namespaces use. */
import type { Logger } from 'pino';
import type { ByteWriter } from '../bytes/writer.ts';
import type { KafkaClientConfig, NamespaceConfig } from '../config/config.ts';
import type { SinkError } from '../errors.ts';
import { BatchBuffers } from '../kafka/batch-buffers.ts';
import { Cluster } from '../kafka/cluster.ts';
import { Producer, type ProducerTopic } from '../kafka/producer.ts';
import type { RecordKind } from '../progressor/convert.ts';

/** Unused batch buffers that a slot keeps for its next batches. */
const KEPT_BUFFER_BYTES = 8 * 1024 * 1024;

/** What a slot sends, where to, and how stubbornly. */
export interface SinksOptions {
  readonly namespaces: ReadonlyMap<string, NamespaceConfig>;
  readonly kafkaClients: ReadonlyMap<string, KafkaClientConfig>;
  readonly resendTimeoutMs: number;
  readonly maxRetries: number;
  /** Kept by the slot from session to session, see ProducerOptions */
  readonly learnedBatchBytes: Map<string, number>;
  readonly log: Logger;
  readonly onAcknowledged: () => void;
  readonly onFailed: (error: SinkError) => void;
}

/** Where the records of one namespace go. */
export interface Route {
  readonly namespace: string;
  readonly onMissingOldTuple: NamespaceConfig['onMissingOldTuple'];
  readonly producer: Producer;
  readonly topics: Readonly<Record<RecordKind, ProducerTopic>>;
}

/** See the head of this file. */
export class Sinks {
  readonly #clusters: readonly Cluster[];
  readonly #producers: readonly Producer[];
  readonly #routes: ReadonlyMap<string, Route>;

  private constructor(
    clusters: readonly Cluster[],
    producers: readonly Producer[],
    routes: ReadonlyMap<string, Route>,
  ) {
    this.#clusters = clusters;
    this.#producers = producers;
    this.#routes = routes;
  }

  /**
   * Connects to every cluster and checks that every topic is there.
   * @throws SinkError, SecretError
   */
  static async open(options: SinksOptions): Promise<Sinks> {
    const clusters: Cluster[] = [];
    try {
      const producers = new Map<string, Producer>();
      const byClient = Map.groupBy(options.namespaces.values(), (namespace) => namespace.kafkaClient);
      for (const [clientName, namespaces] of byClient) {
        const client = options.kafkaClients.get(clientName)!; // the configuration's references are checked
        const cluster = new Cluster(client, options.log);
        clusters.push(cluster);
        const topics = [...new Set(namespaces.flatMap((one) => [one.eventsinkTopic, one.lifecycleTopic]))];
        await cluster.refreshMetadata(topics);
        const producer = await Producer.open(cluster, {
          kafkaClient: clientName,
          resendTimeoutMs: options.resendTimeoutMs,
          maxRetries: options.maxRetries,
          requestTimeoutMs: client.requestTimeoutMs,
          buffers: new BatchBuffers(KEPT_BUFFER_BYTES / byClient.size),
          maxMessageBytes: await cluster.maxMessageBytes(topics),
          learnedBatchBytes: options.learnedBatchBytes,
          log: options.log,
          onAcknowledged: options.onAcknowledged,
          onFailed: options.onFailed,
        });
        producers.set(clientName, producer);
      }
      const routes = [...options.namespaces].map(([namespace, config]): [string, Route] => {
        const producer = producers.get(config.kafkaClient)!;
        const topics = {
          event: producer.topic(config.eventsinkTopic),
          lifecycle: producer.topic(config.lifecycleTopic),
        };
        return [namespace, { namespace, onMissingOldTuple: config.onMissingOldTuple, producer, topics }];
      });
      return new Sinks(clusters, [...producers.values()], new Map(routes));
    } catch (error) {
      for (const cluster of clusters) cluster.close();
      throw error;
    }
  }

  /** Route of a namespace of the slot. */
  route(namespace: string): Route {
    return this.#routes.get(namespace)!;
  }

  /** Appends a record to the queue of its partition. Nothing is sent before `flush`. */
  append(route: Route, kind: RecordKind, record: { key: ByteWriter; value: ByteWriter; ordinal: number }): void {
    route.producer.append(route.topics[kind], record.key, record.value, record.ordinal);
  }

  /** Lets every producer send what it has. */
  flush(): void {
    for (const producer of this.#producers) producer.flush();
  }

  /** Bytes that Kafka has not acknowledged. */
  get bufferedBytes(): number {
    let sum = 0;
    for (const producer of this.#producers) sum += producer.bufferedBytes;
    return sum;
  }

  /** Lowest ordinal that some cluster has not acknowledged, Infinity when there is none. */
  get lowestUnacknowledged(): number {
    let lowest = Number.POSITIVE_INFINITY;
    for (const producer of this.#producers) lowest = Math.min(lowest, producer.lowestUnacknowledged());
    return lowest;
  }

  /** Records that Kafka has acknowledged in this session. */
  get acknowledgedRecordCount(): number {
    return this.#producers.reduce((sum, producer) => sum + producer.acknowledgedRecordCount, 0);
  }

  /** Sends nothing more and drops the connections. */
  close(): void {
    for (const producer of this.#producers) producer.stop();
    for (const cluster of this.#clusters) cluster.close();
  }
}
