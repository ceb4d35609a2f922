/**
 * One Kafka cluster as one session of a slot sees it: connections by broker, API versions, metadata.
 * Nothing here retries: a failure reaches the producer or the supervisor, which know when to try again.
 * A session opens its own cluster, so that changed secrets are read and no half-broken connection survives.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  apiVersionsV3,
  ConfigResourceTypes,
  Connection,
  type ConnectionOptions,
  describeConfigsV4,
  initProducerIdV4,
  metadataV12,
  produceV9,
  produceV10,
  produceV11,
  ResponseError,
  type Writer,
} from '@platformatic/kafka';
import type { Logger } from 'pino';
import type { KafkaClientConfig } from '../config/config.ts';
import { SinkError } from '../errors.ts';
import { isLoopback } from '../loopback.ts';
import { connectionOptions } from './connection-options.ts';
import { connectAdvice, judgeError, judgeErrorCode } from './kafka-errors.ts';
import type { ProducerIdentity } from './record-batch.ts';

const PRODUCE_API_KEY = 0;
const PRODUCER_ID_ATTEMPTS = 20;
const PRODUCER_ID_RETRY_DELAY_MS = 100;

/** Produce versions whose requests look alike: flexible encoding, no topic ids (Kafka 2.4 and newer). */
const PRODUCE_APIS = { 11: produceV11, 10: produceV10, 9: produceV9 } as const;
/** A version of the Produce request that this service can write. */
export type ProduceVersion = keyof typeof PRODUCE_APIS;

/** A topic as the cluster describes it. */
export interface TopicMetadata {
  readonly name: string;
  /** Broker id of the leader by partition; -1 while there is none */
  readonly leaders: readonly number[];
}

/** Brokers by id, and the topics that were asked for. */
export interface ClusterMetadata {
  readonly brokers: ReadonlyMap<number, { readonly host: string; readonly port: number }>;
  readonly topics: ReadonlyMap<string, TopicMetadata>;
}

/** See the head of this file. */
export class Cluster {
  readonly #config: KafkaClientConfig;
  readonly #log: Logger;
  readonly #options: ConnectionOptions;
  readonly #connections = new Map<string, Promise<Connection>>();
  #metadata: ClusterMetadata = { brokers: new Map(), topics: new Map() };
  /** The newest that every broker seen so far knows: they may be of different versions */
  #produceVersion: ProduceVersion = 11;
  /** Every connection whose socket may be open, those that are still being made included */
  readonly #opened = new Set<Connection>();
  #closed = false;

  /** Opens nothing yet. Reads the secrets once, so that a missing one is told apart from a refused one. */
  constructor(config: KafkaClientConfig, log: Logger) {
    this.#config = config;
    this.#log = log;
    this.#options = connectionOptions(config);
  }

  get metadata(): ClusterMetadata {
    return this.#metadata;
  }

  /**
   * Reads who leads the partitions of these topics. A topic that does not exist is a SinkError; it is never created.
   */
  async refreshMetadata(topics: readonly string[]): Promise<ClusterMetadata> {
    const connection = await this.#anyConnection();
    const response = await metadataV12.api
      .async(connection, [...topics], false, false)
      .catch((error: unknown) => this.#answerDespiteErrors<metadataV12.MetadataResponse>(error, 'read the metadata'));
    const byName = new Map<string, TopicMetadata>();
    for (const topic of response.topics) {
      const name = topic.name ?? '';
      if (topic.errorCode !== 0) this.#refuseTopic(name, topic.errorCode);
      const leaders = new Array<number>(topic.partitions.length).fill(-1);
      for (const partition of topic.partitions) leaders[partition.partitionIndex] = partition.leaderId;
      byName.set(name, { name, leaders });
    }
    this.#metadata = {
      brokers: new Map(response.brokers.map((broker) => [broker.nodeId, { host: broker.host, port: broker.port }])),
      topics: byName,
    };
    return this.#metadata;
  }

  /** Asks for a producer id: without a transactional id the broker hands out a fresh one, epoch 0. */
  async initProducerId(): Promise<ProducerIdentity> {
    const connection = await this.#anyConnection();
    for (let attempt = 1; ; attempt++) {
      try {
        const { producerId, producerEpoch } = await initProducerIdV4.api.async(connection, null, 0, -1n, -1);
        return { producerId, producerEpoch };
      } catch (error) {
        const failure = this.#failure('get a producer id', error);
        // A broker that has just started says COORDINATOR_LOAD_IN_PROGRESS for a moment.
        if (!failure.retriable || attempt === PRODUCER_ID_ATTEMPTS) throw failure;
        await sleep(PRODUCER_ID_RETRY_DELAY_MS);
      }
    }
  }

  /**
   * Largest record batch that each topic takes, in bytes. A topic whose configuration may not be read (DESCRIBE_CONFIGS
   * is a right of its own) is left out.
   */
  async maxMessageBytes(topics: readonly string[]): Promise<ReadonlyMap<string, number>> {
    const found = new Map<string, number>();
    const connection = await this.#anyConnection();
    const resources = topics.map((resourceName) => ({
      resourceType: ConfigResourceTypes.TOPIC,
      resourceName,
      configurationKeys: ['max.message.bytes'],
    }));
    const response = await describeConfigsV4.api
      .async(connection, resources, false, false)
      .catch((error: unknown) =>
        this.#answerDespiteErrors<describeConfigsV4.DescribeConfigsResponse>(
          error,
          'read the configuration of the topics',
        ),
      );
    for (const result of response.results) {
      const bytes = Number(result.configs.find((config) => config.name === 'max.message.bytes')?.value);
      if (result.errorCode === 0 && Number.isSafeInteger(bytes)) found.set(result.resourceName, bytes);
    }
    return found;
  }

  /**
   * Sends a Produce request to a broker. The answer is given whatever error codes its partitions carry.
   * @param encode writes the body; the versions in question look alike
   * @throws SinkError when the broker cannot be reached, and the library's error when it does not answer
   */
  async produce(brokerId: number, encode: () => Writer): Promise<produceV11.ProduceResponse> {
    const connection = await this.#brokerConnection(brokerId);
    const version = this.#produceVersion;
    const parse = PRODUCE_APIS[version].parseResponse as typeof produceV11.parseResponse;
    return await new Promise((resolve, reject) => {
      connection.send<produceV11.ProduceResponse>(
        PRODUCE_API_KEY,
        version,
        encode,
        parse,
        true,
        true,
        (error, response) => {
          // The library's parser throws when any partition has an error code; the answer is in the error.
          if (error instanceof ResponseError) resolve(error.response as produceV11.ProduceResponse);
          else if (error) reject(error);
          else resolve(response!);
        },
      );
    });
  }

  /** Connection to a broker by its id, made when it is first asked for and after it was lost. */
  async #brokerConnection(brokerId: number): Promise<Connection> {
    const broker = this.#metadata.brokers.get(brokerId);
    if (broker === undefined) {
      throw new SinkError(`Cannot reach broker ${brokerId}: the cluster's metadata does not list it`, {
        retriable: true,
        place: { kafkaClient: this.#config.name },
      });
    }
    return await this.#connect(broker.host, broker.port);
  }

  /** Drops every connection at once: a broker that does not answer any more must not hold anybody up. */
  close(): void {
    this.#closed = true;
    for (const connection of this.#opened) connection.socket?.destroy();
  }

  async #anyConnection(): Promise<Connection> {
    const brokers = new Map(
      [...this.#config.brokers, ...this.#metadata.brokers.values()].map((broker) => [
        `${broker.host}:${broker.port}`,
        broker,
      ]),
    );
    const errors: SinkError[] = [];
    for (const { host, port } of brokers.values()) {
      try {
        return await this.#connect(host, port);
      } catch (error) {
        if (!(error instanceof SinkError)) throw error;
        errors.push(error);
      }
    }
    const [first] = errors as [SinkError];
    if (errors.length === 1) throw first;
    throw new SinkError(`Cannot connect to any of ${errors.length} brokers`, {
      retriable: errors.some((error) => error.retriable),
      advice: first.advice,
      cause: new AggregateError(errors, 'each of them failed'),
      place: { kafkaClient: this.#config.name },
    });
  }

  #connect(host: string, port: number): Promise<Connection> {
    const address = `${host}:${port}`;
    const known = this.#connections.get(address);
    if (known !== undefined) return known;
    const opened = this.#open(host, port).then((connection) => {
      if (this.#closed) connection.socket.destroy();
      connection.once('close', () => this.#connections.delete(address));
      return connection;
    });
    this.#connections.set(address, opened);
    opened.catch(() => this.#connections.delete(address));
    return opened;
  }

  async #open(host: string, port: number): Promise<Connection> {
    if (this.#config.tls === undefined && !isLoopback(host)) {
      const where = { kafkaClient: this.#config.name, host, port };
      this.#log.warn(where, 'connection to Kafka is not encrypted, set tls of the client to encrypt it');
    }
    const connection = new Connection(this.#config.clientId, this.#options);
    // The library emits 'error' beside rejecting; without a listener that would end the process.
    connection.on('error', () => {});
    this.#opened.add(connection);
    connection.once('close', () => this.#opened.delete(connection));
    try {
      await connection.connect(host, port);
      const { apiKeys } = await apiVersionsV3.api.async(connection, 'cdc-notifier', '1');
      const version = chooseProduceVersion(apiKeys);
      if (version < this.#produceVersion) this.#produceVersion = version;
      return connection;
    } catch (error) {
      connection.socket?.destroy();
      this.#opened.delete(connection);
      throw this.#failure(`connect to broker ${host}:${port}`, error);
    }
  }

  #refuseTopic(topic: string, errorCode: number): never {
    const { id, advice, verdict } = judgeErrorCode(errorCode);
    throw new SinkError(`Cannot use topic "${topic}": ${id}`, {
      retriable: verdict === 'resend',
      advice,
      place: { kafkaClient: this.#config.name, topic },
    });
  }

  /** The library throws when any part of an answer carries an error code; the rest of the answer is still good. */
  #answerDespiteErrors<T>(error: unknown, action: string): T {
    if (error instanceof ResponseError) return error.response as T;
    throw this.#failure(action, error);
  }

  #failure(action: string, error: unknown): SinkError {
    const { id, advice, verdict } = judgeError(error);
    return new SinkError(`Cannot ${action}: ${id}`, {
      retriable: verdict === 'resend',
      advice: advice ?? connectAdvice(id),
      cause: error,
      place: { kafkaClient: this.#config.name },
    });
  }
}

/** Picks the newest Produce version that both sides know. */
export function chooseProduceVersion(apis: readonly apiVersionsV3.ApiVersionsResponseApi[]): ProduceVersion {
  const produce = apis.find((api) => api.apiKey === PRODUCE_API_KEY);
  for (const version of [11, 10, 9] as const) {
    if (produce !== undefined && produce.minVersion <= version && version <= produce.maxVersion) return version;
  }
  throw new SinkError('Cannot produce: the broker offers no Produce version from 9 to 11', {
    retriable: false,
    advice: 'Use Kafka 3.1 or newer',
  });
}
