/**
 * One Kafka cluster as one session of a slot sees it: connections by broker, API versions, metadata.
 * Nothing here retries: a failure reaches the producer or the supervisor, which know when to try again.
 * A connection that a request failed on is dropped; each new one reads the secrets anew.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  apiVersionsV3,
  ConfigResourceTypes,
  Connection,
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
import { formatAddress, isLoopback } from '../../config/address.ts';
import type { KafkaClientConfig, ServerAddress } from '../../config/config.ts';
import { NotifierError, SecretError, SinkError } from '../../errors.ts';
import type { ProduceResponse } from '../produce/produce-request.ts';
import type { ProducerIdentity } from '../produce/record-batch.ts';
import { connectionOptions } from './connection-options.ts';
import { identify, identifyCode } from './errors.ts';
import './library-patches.ts';
import { connectAdvice, judgeKafkaError } from './verdicts.ts';

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
  /** Kafka's error code where the cluster does not describe it, 0 otherwise */
  readonly errorCode: number;
  /** Broker id of the leader by partition; -1 while there is none */
  readonly leaders: readonly number[];
}

/** Brokers by id, and the topics that were asked for. */
export interface ClusterMetadata {
  readonly brokers: ReadonlyMap<number, ServerAddress>;
  readonly topics: ReadonlyMap<string, TopicMetadata>;
}

/** See the head of this file. */
export class Cluster {
  readonly #config: KafkaClientConfig;
  readonly #log: Logger;
  readonly #connections = new Map<string, Promise<Connection>>();
  #metadata: ClusterMetadata = { brokers: new Map(), topics: new Map() };
  /** The newest that every broker seen so far knows: they may be of different versions */
  #produceVersion: ProduceVersion = 11;
  /** Every connection whose socket may be open, those that are still being made included */
  readonly #opened = new Set<Connection>();
  /** Addresses of brokers whose last request failed */
  readonly #failing = new Set<string>();
  #isReachable = false;
  #closed = false;

  /** Opens nothing yet. */
  constructor(config: KafkaClientConfig, log: Logger) {
    this.#config = config;
    this.#log = log;
  }

  get metadata(): ClusterMetadata {
    return this.#metadata;
  }

  /** True when the last contact succeeded: some broker has answered since none of them did. */
  get isReachable(): boolean {
    return this.#isReachable;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /**
   * Reads who leads the partitions of these topics.
   * @throws SinkError when no broker answers, or one of the topics cannot be used; none is ever created
   */
  async refreshMetadata(topics: readonly string[]): Promise<ClusterMetadata> {
    const metadata = await this.readMetadata(topics);
    for (const { name, errorCode } of metadata.topics.values()) {
      if (errorCode !== 0) this.#refuseTopic(name, errorCode);
    }
    return metadata;
  }

  /** As `refreshMetadata`, but takes topics that cannot be used as they are. */
  async readMetadata(topics: readonly string[]): Promise<ClusterMetadata> {
    const response = await this.#askAny('read the metadata', (connection) =>
      metadataV12.api
        .async(connection, [...topics], false, false)
        .catch(answerDespiteErrors<metadataV12.MetadataResponse>),
    );
    const byName = new Map<string, TopicMetadata>();
    for (const { name, errorCode, partitions } of response.topics) {
      const leaderByPartition = new Map(partitions.map((one) => [one.partitionIndex, one.leaderId]));
      const leaders = partitions.map((_, partition) => leaderByPartition.get(partition));
      // With a partition left out or made up, every key would go to another one.
      const isWhole = leaders.every((leader) => leader !== undefined) && (errorCode !== 0 || leaders.length > 0);
      if (isWhole) byName.set(name ?? '', { name: name ?? '', errorCode, leaders });
    }
    const absent = topics.find((topic) => !byName.has(topic));
    if (absent !== undefined) {
      throw new SinkError(
        `Cannot read the metadata: the answer does not describe topic "${absent}" and its partitions`,
        {
          retriable: true,
          place: { kafkaClient: this.#config.name, topic: absent },
        },
      );
    }
    this.#metadata = {
      brokers: new Map(response.brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }])),
      topics: byName,
    };
    return this.#metadata;
  }

  /** Asks for a producer id: without a transactional id the broker hands out a fresh one, epoch 0. */
  async initProducerId(): Promise<ProducerIdentity> {
    for (let attempt = 1; ; attempt++) {
      try {
        const { producerId, producerEpoch } = await this.#askAny('get a producer id', (connection) =>
          initProducerIdV4.api.async(connection, null, 0, -1n, -1),
        );
        return { producerId, producerEpoch };
      } catch (error) {
        // A broker that has just started says COORDINATOR_LOAD_IN_PROGRESS for a moment.
        const mayPass = error instanceof SinkError && error.retriable && error.cause instanceof ResponseError;
        if (!mayPass || attempt === PRODUCER_ID_ATTEMPTS) throw error;
        await sleep(PRODUCER_ID_RETRY_DELAY_MS);
      }
    }
  }

  /**
   * Largest record batch that each topic takes, in bytes. A topic whose configuration may not be read (DESCRIBE_CONFIGS
   * is a right of its own) is left out.
   */
  async maxMessageBytes(topics: readonly string[]): Promise<Map<string, number>> {
    const found = new Map<string, number>();
    const resources = topics.map((resourceName) => ({
      resourceType: ConfigResourceTypes.TOPIC,
      resourceName,
      configurationKeys: ['max.message.bytes'],
    }));
    const response = await this.#askAny('read the configuration of the topics', (connection) =>
      describeConfigsV4.api
        .async(connection, resources, false, false)
        .catch(answerDespiteErrors<describeConfigsV4.DescribeConfigsResponse>),
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
  async produce(brokerId: number, encode: () => Writer): Promise<ProduceResponse> {
    const broker = this.#metadata.brokers.get(brokerId);
    if (broker === undefined) {
      throw new SinkError(`Cannot reach broker ${brokerId}: the cluster's metadata does not list it`, {
        retriable: true,
        place: { kafkaClient: this.#config.name },
      });
    }
    return await this.#ask(broker, (connection) => {
      const version = this.#produceVersion;
      const parse = PRODUCE_APIS[version].parseResponse as typeof produceV11.parseResponse;
      return new Promise((resolve, reject) => {
        connection.send<ProduceResponse>(PRODUCE_API_KEY, version, encode, parse, true, true, (error, response) => {
          // The library's parser throws when any partition has an error code; the answer is in the error.
          if (error instanceof ResponseError) resolve(error.response as ProduceResponse);
          else if (error) reject(error);
          else resolve(response!);
        });
      });
    });
  }

  /** Drops every connection at once: a broker that does not answer any more must not hold anybody up. */
  close(): void {
    this.#closed = true;
    for (const connection of this.#opened) connection.socket?.destroy();
  }

  /** Asks one broker after the other until one answers; those that failed when they were asked last come last. */
  async #askAny<T>(action: string, request: (connection: Connection) => Promise<T>): Promise<T> {
    const brokers = new Map(
      [...this.#config.brokers, ...this.#metadata.brokers.values()].map((broker) => [formatAddress(broker), broker]),
    );
    const isFailing = (broker: ServerAddress) => Number(this.#failing.has(formatAddress(broker)));
    const errors: NotifierError[] = [];
    for (const broker of [...brokers.values()].sort((one, other) => isFailing(one) - isFailing(other))) {
      try {
        return await this.#ask(broker, request);
      } catch (error) {
        // An answer is an answer, and would be the same from the next one.
        if (error instanceof ResponseError) throw this.#failure(action, error);
        errors.push(error instanceof NotifierError ? error : this.#failure(action, error));
      }
      if (this.#closed) break;
    }
    this.#isReachable = false;
    const [first] = errors as [NotifierError];
    if (errors.length === 1 || first instanceof SecretError) throw first;
    throw new SinkError(`Cannot ${action}: each of ${errors.length} brokers failed`, {
      retriable: errors.some((error) => error instanceof SinkError && error.retriable),
      advice: first.advice,
      cause: new AggregateError(errors, 'what each of them said'),
      place: { kafkaClient: this.#config.name },
    });
  }

  /** Asks one broker. A connection that it does not answer on, or not in a way that can be read, is of no more use. */
  async #ask<T>(broker: ServerAddress, request: (connection: Connection) => Promise<T>): Promise<T> {
    const address = formatAddress(broker);
    const connection = this.#connect(broker);
    try {
      const answer = await request(await connection);
      this.#noteAnswer(address);
      return answer;
    } catch (error) {
      if (error instanceof ResponseError) {
        this.#noteAnswer(address);
      } else {
        this.#failing.add(address);
        this.#drop(address, connection);
      }
      throw error;
    }
  }

  #noteAnswer(address: string): void {
    this.#failing.delete(address);
    this.#isReachable = true;
  }

  /** Connection to a broker, made when it is first asked for and after it was lost. */
  #connect(broker: ServerAddress): Promise<Connection> {
    const address = formatAddress(broker);
    const known = this.#connections.get(address);
    if (known !== undefined) return known;
    const opening = this.#open(broker);
    this.#connections.set(address, opening);
    opening.then(
      (connection) => connection.once('close', () => this.#drop(address, opening)),
      () => this.#drop(address, opening),
    );
    return opening;
  }

  /** Forgets a connection at once: until its socket has told that it is closed, the next request would go there. */
  #drop(address: string, dropped: Promise<Connection>): void {
    if (this.#connections.get(address) === dropped) this.#connections.delete(address);
    dropped.then(({ socket }) => socket.destroy()).catch(() => {});
  }

  async #open(broker: ServerAddress): Promise<Connection> {
    const { host, port } = broker;
    if (this.#config.tls === undefined && !isLoopback(host)) {
      const where = { kafkaClient: this.#config.name, host, port };
      this.#log.warn(where, 'connection to Kafka is not encrypted, set tls of the client to encrypt it');
    }
    const connection = new Connection(this.#config.clientId, connectionOptions(this.#config));
    // The library emits 'error' beside rejecting; without a listener that would end the process.
    connection.on('error', () => {});
    this.#opened.add(connection);
    connection.once('close', () => this.#opened.delete(connection));
    try {
      const connected = connection.connect(host, port);
      destroyOnThrow(connection.socket);
      await connected;
      const { apiKeys } = await apiVersionsV3.api.async(connection, 'cdc-notifier', '1');
      const version = chooseProduceVersion(apiKeys);
      if (version < this.#produceVersion) this.#produceVersion = version;
      if (this.#closed) connection.socket.destroy();
      return connection;
    } catch (error) {
      connection.socket?.destroy();
      this.#opened.delete(connection);
      throw error instanceof SinkError ? error : this.#failure(`connect to broker ${formatAddress(broker)}`, error);
    }
  }

  #refuseTopic(topic: string, errorCode: number): never {
    const { id, advice, verdict } = judgeKafkaError(identifyCode(errorCode));
    throw new SinkError(`Cannot use topic "${topic}": ${id}`, {
      retriable: verdict === 'resend',
      advice,
      place: { kafkaClient: this.#config.name, topic },
    });
  }

  #failure(action: string, error: unknown): SinkError {
    const { id, advice, verdict } = judgeKafkaError(identify(error));
    return new SinkError(`Cannot ${action}: ${id}`, {
      retriable: verdict === 'resend',
      advice: advice ?? connectAdvice(id),
      cause: error,
      place: { kafkaClient: this.#config.name },
    });
  }
}

/**
 * Out of its listener the library throws at bytes that no broker sends: a frame shorter than its head, an answer to
 * SCRAM that is none. That is an end of this connection, not of the process.
 */
function destroyOnThrow(socket: Socket): void {
  const emit = socket.emit.bind(socket) as (event: string | symbol, ...values: unknown[]) => boolean;
  socket.emit = (event: string | symbol, ...values: unknown[]) => {
    try {
      return emit(event, ...values);
    } catch (error) {
      if (event !== 'data' || !(error instanceof Error)) throw error;
      socket.destroy(error);
      return true;
    }
  };
}

/** The library throws when any part of an answer carries an error code; the rest of the answer is still good. */
function answerDespiteErrors<T>(error: unknown): T {
  if (error instanceof ResponseError) return error.response as T;
  throw error;
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
