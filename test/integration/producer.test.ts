import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { setImmediate } from 'node:timers/promises';
import pino from 'pino';
import { ByteWriter } from '../../src/bytes/writer.ts';
import type { KafkaClientConfig } from '../../src/config/config.ts';
import { InvalidRowError, type SinkError } from '../../src/errors.ts';
import { BatchBuffers } from '../../src/kafka/batch-buffers.ts';
import { Cluster } from '../../src/kafka/cluster.ts';
import { phash2 } from '../../src/kafka/phash2.ts';
import { Producer, type ProducerOptions } from '../../src/kafka/producer.ts';
import { type KafkaServer, startKafka } from '../support/kafka.ts';
import { recordingLogger } from '../support/recording-logger.ts';
import { waitFor } from '../support/wait.ts';

const SILENT = pino({ level: 'silent' });

let kafka: KafkaServer;

beforeAll(async () => {
  kafka = await startKafka();
}, 120_000);

afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
}, 30_000);

function clientConfig(change: Partial<KafkaClientConfig> = {}): KafkaClientConfig {
  return {
    name: 'main',
    brokers: [{ host: '127.0.0.1', port: kafka.port }],
    clientId: 'test',
    tls: undefined,
    sasl: undefined,
    connectTimeoutMs: 5_000,
    requestTimeoutMs: 30_000,
    ...change,
  };
}

interface OpenProducer extends AsyncDisposable {
  readonly producer: Producer;
  readonly failures: SinkError[];
  readonly learnedBatchBytes: Map<string, number>;
  send(topic: string, records: readonly (readonly [key: string, value: string])[]): void;
  waitUntilAcknowledged(): Promise<void>;
}

async function openProducer(
  topics: readonly string[],
  change: Partial<ProducerOptions> = {},
  client: KafkaClientConfig = clientConfig(),
): Promise<OpenProducer> {
  const cluster = new Cluster(client, SILENT);
  await cluster.refreshMetadata(topics);
  const failures: SinkError[] = [];
  const learnedBatchBytes = new Map<string, number>();
  const producer = await Producer.open(cluster, {
    kafkaClient: 'main',
    resendTimeoutMs: 200,
    maxRetries: 3,
    requestTimeoutMs: client.requestTimeoutMs,
    buffers: new BatchBuffers(1_000_000),
    log: SILENT,
    maxMessageBytes: await cluster.maxMessageBytes(topics),
    learnedBatchBytes,
    onAcknowledged: () => {},
    onFailed: (error) => failures.push(error),
    ...change,
  });
  let ordinal = 0;
  return {
    producer,
    failures,
    learnedBatchBytes,
    send(topic, records) {
      for (const [key, value] of records) {
        const bytes = (text: string) => new ByteWriter(16).copy(Buffer.from(text));
        producer.append(producer.topic(topic), bytes(key), bytes(value), ++ordinal);
      }
      producer.flush();
    },
    async waitUntilAcknowledged() {
      await waitFor('all records acknowledged', () => producer.lowestUnacknowledged() === Number.POSITIVE_INFINITY);
    },
    async [Symbol.asyncDispose]() {
      producer.stop();
      cluster.close();
    },
  };
}

const numbered = (count: number, from = 0): [string, string][] =>
  Array.from({ length: count }, (_, index) => [`key ${(from + index) % 50}`, `value ${from + index}`]);

/** Values of a topic by key, in the order of offsets. */
async function valuesByKey(topic: string): Promise<Map<string, string[]>> {
  const records = await kafka.readTopic(topic);
  return new Map(
    [...Map.groupBy(records, (record) => record.key.toString())].map(([key, group]) => [
      key,
      group.map((record) => record.value.toString()),
    ]),
  );
}

function expectedByKey(records: readonly [string, string][]): Map<string, string[]> {
  return new Map(
    [...Map.groupBy(records, ([key]) => key)].map(([key, group]) => [key, group.map(([, value]) => value)]),
  );
}

describe('Producer', () => {
  test('stores each record once, in order by key, at the partition that phash2 gives', async () => {
    await kafka.createTopic('plain', { partitions: 7 });
    await using open = await openProducer(['plain']);
    const records = numbered(5_000);
    for (let from = 0; from < records.length; from += 500) {
      open.send('plain', records.slice(from, from + 500));
      await setImmediate(); // lets rounds of different sizes form
    }
    await open.waitUntilAcknowledged();
    expect(await valuesByKey('plain')).toEqual(expectedByKey(records));
    for (const record of await kafka.readTopic('plain')) {
      expect(record.partition).toBe(phash2(record.key, 0, record.key.length) % 7);
    }
    expect(open.producer.bufferedBytes).toBe(0);
    expect(open.producer.acknowledgedRecordCount).toBe(5_000);
  });

  test('splits a backlog into batches that the topic takes', async () => {
    await kafka.createTopic('small', { partitions: 2, config: { 'max.message.bytes': '2000' } });
    await using open = await openProducer(['small']);
    const records = numbered(2_000);
    open.send('small', records);
    await open.waitUntilAcknowledged();
    expect(await valuesByKey('small')).toEqual(expectedByKey(records));
  });

  test('refuses a record that alone is larger than the topic takes, and names its key and the setting', async () => {
    await kafka.createTopic('narrow', { config: { 'max.message.bytes': '1000' } });
    await using open = await openProducer(['narrow']);
    const refuse = () => open.send('narrow', [['ns process', 'x'.repeat(1_000)]]);
    expect(refuse).toThrow(InvalidRowError);
    try {
      refuse();
    } catch (error) {
      expect(error).toMatchObject({ place: { topic: 'narrow', key: 'ns process' } });
      expect((error as InvalidRowError).advice).toContain('max.message.bytes');
    }
  });

  test('learns a limit that it may not read from the refusal of a batch', async () => {
    await kafka.createTopic('secretive', { config: { 'max.message.bytes': '2000' } });
    await using open = await openProducer(['secretive'], { maxMessageBytes: new Map() });
    open.send('secretive', numbered(500));
    await waitFor('the refusal', () => open.failures.length > 0);
    expect(open.failures[0]).toMatchObject({ retriable: false, place: { topic: 'secretive', partition: 0 } });
    expect(open.failures[0]!.message).toContain('MESSAGE_TOO_LARGE');
    expect(open.failures[0]!.place.key).toBeUndefined();
    expect(open.learnedBatchBytes.get('secretive')).toBeLessThan(10_000);
  });

  test('sends the same batches again over a restart of the broker: nothing lost, doubled or out of order', async () => {
    await kafka.createTopic('restarted', { partitions: 3 });
    await using open = await openProducer(['restarted'], { maxRetries: 100 });
    const records = numbered(3_000);
    open.send('restarted', records.slice(0, 1_000));
    await open.waitUntilAcknowledged();
    await kafka.stop();
    open.send('restarted', records.slice(1_000, 2_000));
    open.send('restarted', records.slice(2_000));
    await kafka.start();
    await open.waitUntilAcknowledged();
    expect(open.failures).toEqual([]);
    expect(await valuesByKey('restarted')).toEqual(expectedByKey(records));
  }, 60_000);

  test('a batch that was stored, and whose answer was lost, is not stored again', async () => {
    await kafka.createTopic('unanswered', { partitions: 1 });
    // The broker is frozen for longer than a request may take: the first attempt is stored when it wakes up.
    const log = recordingLogger();
    await using open = await openProducer(
      ['unanswered'],
      { maxRetries: 100, log: log.logger },
      clientConfig({ requestTimeoutMs: 1_000, connectTimeoutMs: 1_000 }),
    );
    open.send('unanswered', numbered(10));
    await open.waitUntilAcknowledged();
    kafka.pause();
    try {
      open.send('unanswered', numbered(10, 10));
      await waitFor('the timeout of the request', () =>
        log.lines.some(({ msg }) => String(msg).startsWith('kafka did not acknowledge')),
      );
    } finally {
      kafka.resume();
    }
    await open.waitUntilAcknowledged();
    expect((await kafka.readTopic('unanswered')).map((record) => record.value.toString())).toEqual(
      numbered(20).map(([, value]) => value),
    );
  }, 30_000);

  test('gives up after max_retries repeats, resend_timeout apart, and says where and why', async () => {
    await kafka.createTopic('hopeless');
    await using open = await openProducer(['hopeless'], { maxRetries: 2, resendTimeoutMs: 150 });
    await kafka.kill();
    try {
      const startMs = performance.now();
      open.send('hopeless', numbered(1));
      await waitFor('the failure', () => open.failures.length > 0, { timeoutMs: 20_000 });
      expect(performance.now() - startMs).toBeGreaterThanOrEqual(300);
      expect(open.failures).toHaveLength(1);
      expect(open.failures[0]).toMatchObject({ retriable: true, place: { kafkaClient: 'main', topic: 'hopeless' } });
      expect(open.failures[0]!.message).toContain('after 3 attempts');
      expect(open.producer.lowestUnacknowledged()).toBe(1);
    } finally {
      await kafka.start();
    }
  }, 60_000);

  test('when no broker can be reached, the error says why for each of them', async () => {
    const unreachable = [1, 2].map((port) => ({ host: '127.0.0.1', port }));
    const cluster = new Cluster(clientConfig({ brokers: unreachable }), SILENT);
    const failure = await cluster.refreshMetadata(['plain']).catch((error: unknown) => error);
    expect(failure).toMatchObject({ message: 'Cannot connect to any of 2 brokers', retriable: true });
    const { errors } = (failure as SinkError).cause as AggregateError;
    expect(errors.map(({ message }) => message)).toEqual([
      'Cannot connect to broker 127.0.0.1:1: ECONNREFUSED',
      'Cannot connect to broker 127.0.0.1:2: ECONNREFUSED',
    ]);
  });

  test('a topic that does not exist is an error with advice, and is not created', async () => {
    const cluster = new Cluster(clientConfig(), SILENT);
    try {
      await expect(cluster.refreshMetadata(['nowhere'])).rejects.toMatchObject({
        name: 'SinkError',
        place: { kafkaClient: 'main', topic: 'nowhere' },
        advice: expect.stringContaining('Create the topic'),
      });
      await expect(cluster.refreshMetadata(['nowhere'])).rejects.toThrow('UNKNOWN_TOPIC_OR_PARTITION');
    } finally {
      cluster.close();
    }
  });
});
