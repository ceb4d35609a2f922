/** The service's own Kafka producer, opened as a slot's session opens it, and everything that it reports. */

import pino from 'pino';
import { ByteWriter } from '../../../src/bytes/writer.ts';
import type { KafkaClientConfig } from '../../../src/config/config.ts';
import type { SinkError } from '../../../src/errors.ts';
import { Cluster } from '../../../src/kafka/client/cluster.ts';
import { BatchBuffers } from '../../../src/kafka/produce/batch-buffers.ts';
import { codecOf } from '../../../src/kafka/produce/compression.ts';
import { DeliveryTrial } from '../../../src/kafka/produce/delivery-trial.ts';
import { type ProduceAnswer, Producer, type ProducerOptions } from '../../../src/kafka/produce/producer.ts';
import type { RecordTally } from '../../../src/kafka/produce/record-batch.ts';
import { createSizeLimits, type SizeLimits, updateLimits } from '../../../src/kafka/produce/size-limits.ts';
import type { TopicChange } from '../../../src/kafka/produce/topic-watch.ts';
import { waitFor } from '../process/wait.ts';

/** Key and value of a record as text. */
export type TextRecord = readonly [key: string, value: string];

/** A producer and everything that it has reported; disposal stops it and closes its connections. */
export interface OpenProducer extends AsyncDisposable {
  readonly producer: Producer;
  readonly failures: readonly SinkError[];
  readonly answers: readonly ProduceAnswer[];
  readonly changes: readonly TopicChange[];
  /** Why requests were repeated */
  readonly resends: readonly string[];
  readonly limits: SizeLimits;
  /** Counts all records that `send` was given */
  readonly tally: RecordTally;
  /** Appends the records and lets them go */
  send(topic: string, records: readonly TextRecord[]): void;
  /** Fails as soon as the producer has failed */
  waitUntilAcknowledged(): Promise<void>;
  /** Resolves with the error that the producer gave up with */
  waitForFailure(): Promise<SinkError>;
}

/** Settings of a client of the brokers at these ports of 127.0.0.1. */
export function clientConfig(ports: readonly number[], change: Partial<KafkaClientConfig> = {}): KafkaClientConfig {
  return {
    name: 'main',
    brokers: ports.map((port) => ({ host: '127.0.0.1', port })),
    clientId: 'test',
    tls: undefined,
    sasl: undefined,
    compression: 'none',
    acceptClusterId: undefined,
    connectTimeoutMs: 5_000,
    requestTimeoutMs: 30_000,
    maxRequestBytes: 104_857_600,
    metadataMaxAgeMs: 600_000,
    ...change,
  };
}

/** Opens a producer for these topics. It retries thrice, 200 ms apart, unless `change` says otherwise. */
export async function openProducer(
  client: KafkaClientConfig,
  topics: readonly string[],
  change: Partial<ProducerOptions> = {},
): Promise<OpenProducer> {
  const log = change.log ?? pino({ level: 'silent' });
  const cluster = new Cluster(client, log);
  const failures: SinkError[] = [];
  const answers: ProduceAnswer[] = [];
  const changes: TopicChange[] = [];
  const resends: string[] = [];
  const tally: RecordTally = { producedCount: 0 };
  const { limits = createSizeLimits(client.maxRequestBytes) } = change;
  let producer: Producer;
  try {
    await cluster.refreshMetadata(topics);
    if (change.limits === undefined) updateLimits(limits, await cluster.maxMessageBytes(topics));
    producer = await Producer.open(cluster, {
      kafkaClient: client.name,
      resendTimeoutMs: 200,
      maxRetries: 3,
      requestTimeoutMs: client.requestTimeoutMs,
      metadataMaxAgeMs: client.metadataMaxAgeMs,
      codec: codecOf(client.compression),
      buffers: new BatchBuffers(1_000_000),
      trial: new DeliveryTrial(),
      ...change,
      log,
      limits,
    });
    producer.start({
      onAcknowledged: () => {},
      onResend: (reason) => resends.push(reason),
      onProduced: (answer) => answers.push(answer),
      onTopicChanged: (topicChange) => changes.push(topicChange),
      onFailed: (error) => failures.push(error),
    });
  } catch (error) {
    cluster.close();
    throw error;
  }
  let ordinal = 0;
  return {
    producer,
    failures,
    answers,
    changes,
    resends,
    limits,
    tally,
    send(topic, records) {
      const { queues } = producer;
      const bytes = (text: string) => new ByteWriter(16).copy(Buffer.from(text));
      for (const [key, value] of records) {
        queues.append(queues.topic(topic), bytes(key), bytes(value), { ordinal: ++ordinal, tally });
      }
      producer.flush();
    },
    async waitUntilAcknowledged() {
      await waitFor(
        'all records acknowledged',
        () => {
          if (failures[0] !== undefined) throw failures[0];
          return producer.queues.lowestUnacknowledged === Number.POSITIVE_INFINITY;
        },
        { timeoutMs: 60_000 },
      );
    },
    waitForFailure: () => waitFor('the failure of the producer', () => failures[0], { timeoutMs: 60_000 }),
    async [Symbol.asyncDispose]() {
      producer.stop();
      cluster.close();
    },
  };
}
