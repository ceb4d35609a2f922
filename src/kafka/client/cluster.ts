import { setTimeout as sleep } from 'node:timers/promises';
import {
  ConfigResourceTypes,
  describeConfigsV4,
  type metadataV12,
  ResponseError,
  type Writer,
} from '@platformatic/kafka';
import type { Logger } from 'pino';
import type { KafkaClientConfig, ServerAddress } from '../../config/config.ts';
import { NotifierError, SinkError } from '../../errors.ts';
import { judgeKafkaError } from '../../failure-policy.ts';
import { isFlexibleProduce, PRODUCE_API_KEY, type ProduceResponse, produceResponseParser } from './api-versions.ts';
import type { ClusterIdentity } from './cluster-identity.ts';
import { Connections, type KafkaRequest, type RequestName } from './connections.ts';
import { codeOf, type IdentifiedError, identifyCode, isConnectionLost } from './errors.ts';
import { answerDespiteErrors } from './library-patches.ts';
import { sendPaddedRequest } from './padded-request.ts';

const PRODUCER_ID_ATTEMPTS = 20;
const PRODUCER_ID_RETRY_DELAY_MS = 100;
/** So often a broker must close the connection on a large request: one time may be chance */
const SIZE_PROOFS = 3;

/** A topic as the cluster describes it. */
export interface TopicMetadata {
  readonly name: string;
  /** Kafka's error code when the topic cannot be used, 0 otherwise */
  readonly errorCode: number;
  /** Broker id of the leader by partition; -1 while there is none */
  readonly leaders: readonly number[];
  /** Whether this user may write to it; undefined when the broker does not say */
  readonly mayWrite: boolean | undefined;
}

/** By these two a broker recognizes a repeated batch of the same producer. */
export interface ProducerIdentity {
  readonly producerId: bigint;
  readonly producerEpoch: number;
}

/** Brokers by id, and the requested topics by name. */
export interface ClusterMetadata {
  readonly brokers: ReadonlyMap<number, ServerAddress>;
  readonly topics: ReadonlyMap<string, TopicMetadata>;
}

/** What one session of a slot asks of one Kafka cluster, and the cluster's metadata as last read. */
export class Cluster {
  readonly #kafkaClient: string;
  readonly #connections: Connections;
  readonly #log: Logger;
  #describesTopics = true;
  #metadata: ClusterMetadata = { brokers: new Map(), topics: new Map() };

  /** Opens no connection yet. @param identity checks the cluster of each connection */
  constructor(config: KafkaClientConfig, log: Logger, identity?: ClusterIdentity) {
    this.#kafkaClient = config.name;
    this.#connections = new Connections(config, log, identity);
    this.#log = log;
  }

  get metadata(): ClusterMetadata {
    return this.#metadata;
  }

  /** True when the last contact succeeded: a broker has answered since all of them failed. */
  get isReachable(): boolean {
    return this.#connections.isReachable;
  }

  get isClosed(): boolean {
    return this.#connections.isClosed;
  }

  /**
   * Reads which broker leads which partition of these topics. Never creates a topic.
   * @throws SinkError when no broker answers, or one of the topics cannot be used
   */
  async refreshMetadata(topics: readonly string[]): Promise<ClusterMetadata> {
    const metadata = await this.readMetadata(topics);
    for (const { name, errorCode, mayWrite } of metadata.topics.values()) {
      if (errorCode !== 0) this.#refuseTopic(name, identifyCode(errorCode));
      if (mayWrite === false) this.#refuseTopic(name, { id: 'TOPIC_AUTHORIZATION_FAILED', isRetriable: false });
    }
    return metadata;
  }

  /** Like `refreshMetadata`, but topics that cannot be used are part of the result, with their error codes. */
  async readMetadata(topics: readonly string[]): Promise<ClusterMetadata> {
    const response = await this.#askAny({ action: 'read the metadata', code: 'metadata_refused' }, (connection) =>
      this.#connections.versions.metadata
        .async(connection, [...topics], false, true)
        .catch(answerDespiteErrors<metadataV12.MetadataResponse>),
    );
    const byName = new Map<string, TopicMetadata>();
    for (const { name, errorCode, partitions, topicAuthorizedOperations } of response.topics) {
      const leaderByPartition = new Map(partitions.map((one) => [one.partitionIndex, one.leaderId]));
      const leaders = partitions.map((_, partition) => leaderByPartition.get(partition));
      // With a partition missing or invented, keys would go to other partitions.
      const isWhole = leaders.every((leader) => leader !== undefined) && (errorCode !== 0 || leaders.length > 0);
      if (isWhole)
        byName.set(name ?? '', { name: name ?? '', errorCode, leaders, mayWrite: mayWrite(topicAuthorizedOperations) });
    }
    const absent = topics.find((topic) => !byName.has(topic));
    if (absent !== undefined) {
      throw new SinkError(
        `Cannot read the metadata: the answer does not describe topic "${absent}" and its partitions`,
        {
          code: 'metadata_incomplete',
          retriable: true,
          advice: 'If it repeats, look into the logs of the brokers: their metadata is incomplete',
          place: { kafkaClient: this.#kafkaClient, topic: absent },
        },
      );
    }
    this.#metadata = {
      brokers: new Map(response.brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }])),
      topics: byName,
    };
    return this.#metadata;
  }

  /** Gets a producer id. Without a transactional id the broker assigns a new one, with epoch 0. */
  async initProducerId(): Promise<ProducerIdentity> {
    for (let attempt = 1; ; attempt++) {
      try {
        const { producerId, producerEpoch } = await this.#askAny(
          { action: 'get a producer id', code: 'producer_id_refused' },
          (connection) => this.#connections.versions.initProducerId.async(connection, null, 0, -1n, -1),
        );
        return { producerId, producerEpoch };
      } catch (error) {
        // A broker that has just started answers COORDINATOR_LOAD_IN_PROGRESS for a moment.
        const mayPass = error instanceof SinkError && error.retriable && error.cause instanceof ResponseError;
        if (!mayPass || attempt === PRODUCER_ID_ATTEMPTS) throw error;
        await sleep(PRODUCER_ID_RETRY_DELAY_MS);
      }
    }
  }

  /**
   * Largest record batch that each topic accepts, in bytes. The result lacks topics whose configuration this user may
   * not read (DESCRIBE_CONFIGS is a separate right), and is empty where no broker answers: some services and proxies do not
   * have this request. Limits are then learned from refusals.
   */
  async maxMessageBytes(topics: readonly string[]): Promise<Map<string, number>> {
    const found = new Map<string, number>();
    const response = this.#describesTopics ? await this.#describeTopics(topics) : undefined;
    for (const result of response?.results ?? []) {
      const bytes = Number(result.configs.find((config) => config.name === 'max.message.bytes')?.value);
      if (result.errorCode === 0 && Number.isSafeInteger(bytes)) found.set(result.resourceName, bytes);
    }
    return found;
  }

  /** Returns undefined when the brokers answer to other requests, and to this one not: it is not sent again then. */
  async #describeTopics(topics: readonly string[]): Promise<describeConfigsV4.DescribeConfigsResponse | undefined> {
    const resources = topics.map((resourceName) => ({
      resourceType: ConfigResourceTypes.TOPIC,
      resourceName,
      configurationKeys: ['max.message.bytes'],
    }));
    try {
      return await this.#askAny(
        { action: 'read the configuration of the topics', code: 'topic_configuration_refused' },
        (connection) =>
          describeConfigsV4.api
            .async(connection, resources, false, false)
            .catch(answerDespiteErrors<describeConfigsV4.DescribeConfigsResponse>),
      );
    } catch (error) {
      await this.readMetadata(topics);
      this.#describesTopics = false;
      this.#log.info(
        { event: 'topic_limits_unknown', kafkaClient: this.#kafkaClient, error },
        'the brokers do not describe the topics: size limits are learned from refusals',
      );
      return undefined;
    }
  }

  /**
   * Sends a Produce request to a broker and returns its answer, including any error codes of partitions.
   * @param encode writes the body, with flexible encoding or without
   * @throws SinkError when the broker cannot be reached, the library's error when it does not answer
   */
  async produce(brokerId: number, encode: (isFlexible: boolean) => Writer): Promise<ProduceResponse> {
    const broker = this.#metadata.brokers.get(brokerId);
    if (broker === undefined) {
      throw new SinkError(`Cannot reach broker ${brokerId}: the cluster's metadata does not list it`, {
        code: 'broker_unknown',
        retriable: true,
        advice: 'Check that this broker runs: the cluster has removed it from its metadata',
        place: { kafkaClient: this.#kafkaClient },
      });
    }
    return await this.#connections.ask(broker, (connection) => {
      const version = this.#connections.versions.produce;
      const parse = produceResponseParser(version);
      const isFlexible = isFlexibleProduce(version);
      const body = () => encode(isFlexible);
      return new Promise((resolve, reject) => {
        connection.send<ProduceResponse>(
          PRODUCE_API_KEY,
          version,
          body,
          parse,
          isFlexible,
          isFlexible,
          (error, response) => {
            // The library's parser throws when any partition has an error code; the error holds the answer.
            if (error instanceof ResponseError) resolve(error.response as ProduceResponse);
            else if (error) reject(error);
            else resolve(response!);
          },
        );
      });
    });
  }

  /**
   * Finds out whether a broker answers a request of this size: false when it closes the connection on each of several, and
   * answers a small one before each. Undefined when it fails in another way, which says nothing about the size.
   */
  async takesRequestOf(brokerId: number, bytes: number): Promise<boolean | undefined> {
    const broker = this.#metadata.brokers.get(brokerId);
    if (broker === undefined) return undefined;
    for (let proof = 1; proof <= SIZE_PROOFS; proof++) {
      try {
        // A connection that was closed is opened again, which includes a small request.
        await this.#connections.ask(broker, (connection) => sendPaddedRequest(connection, bytes));
        return true;
      } catch (error) {
        if (error instanceof NotifierError || !isConnectionLost(error)) return undefined;
      }
    }
    return false;
  }

  /** Closes every connection at once. */
  close(): void {
    this.#connections.close();
  }

  #askAny<T>(name: RequestName, request: KafkaRequest<T>): Promise<T> {
    return this.#connections.askAny(name, this.#metadata.brokers.values(), request);
  }

  #refuseTopic(topic: string, error: IdentifiedError): never {
    const { id, advice, verdict } = judgeKafkaError(error);
    throw new SinkError(`Cannot use topic "${topic}": ${id}`, {
      code: codeOf(id, 'topic_unusable'),
      retriable: verdict === 'resend',
      advice,
      place: { kafkaClient: this.#kafkaClient, topic },
    });
  }
}

/** Bits of the authorized operations are numbered as in Kafka's AclOperation. */
const WRITE_BIT = 1 << 4;
const DESCRIBE_BIT = 1 << 8;

/** A described topic without the right to describe it: the broker does not tell rights (it may answer INT32_MIN, or 0). */
function mayWrite(authorizedOperations: number): boolean | undefined {
  return authorizedOperations > 0 && (authorizedOperations & DESCRIBE_BIT) !== 0
    ? (authorizedOperations & WRITE_BIT) !== 0
    : undefined;
}
