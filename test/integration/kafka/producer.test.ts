import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { setImmediate } from 'node:timers/promises';
import { ClientQuotaEntityTypes, ClientQuotaKeys } from '@platformatic/kafka';
import pino from 'pino';
import { ByteWriter } from '../../../src/bytes/writer.ts';
import type { KafkaClientConfig } from '../../../src/config/config.ts';
import { RecordTooLargeError, type SinkError } from '../../../src/errors.ts';
import { Cluster } from '../../../src/kafka/client/cluster.ts';
import { phash2 } from '../../../src/kafka/produce/partitioner.ts';
import type { ProduceAnswer, ProducerOptions } from '../../../src/kafka/produce/producer.ts';
import { singleRecordBatchBytes } from '../../../src/kafka/produce/record-batch.ts';
import { createSizeLimits } from '../../../src/kafka/produce/size-limits.ts';
import * as support from '../../support/kafka/open-producer.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { storedBatches } from '../../support/kafka/stored-batches.ts';
import { withAdmin } from '../../support/kafka/topics.ts';
import { waitFor } from '../../support/process/wait.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';

const SILENT = pino({ level: 'silent' });

let kafka: KafkaServer;

beforeAll(async () => {
  kafka = await startKafka();
}, 120_000);

afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
}, 30_000);

function clientConfig(change: Partial<KafkaClientConfig> = {}): KafkaClientConfig {
  return support.clientConfig([kafka.port], change);
}

function openProducer(
  topics: readonly string[],
  change: Partial<ProducerOptions> = {},
  client: KafkaClientConfig = clientConfig(),
): Promise<support.OpenProducer> {
  return support.openProducer(client, topics, change);
}

/** Limits what clients with this client id may produce. */
async function limitClient(clientId: string, bytesPerSecond: number): Promise<void> {
  const entities = [{ entityType: ClientQuotaEntityTypes.CLIENT_ID, entityName: clientId }];
  const ops = [{ key: ClientQuotaKeys.PRODUCER_BYTE_RATE, value: bytesPerSecond, remove: false as const }];
  await withAdmin([kafka.bootstrap], (admin) => admin.alterClientQuotas({ entries: [{ entities, ops }] }));
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
    expect(open.producer.queues.bufferedBytes).toBe(0);
    expect(open.producer.queues.acknowledgedRecordCount).toBe(5_000);
    expect(open.producer.queues.oldestUnacknowledgedSinceMs).toBeUndefined();
    expect(open.tally.producedCount).toBe(5_000);
    const sum = (read: (answer: ProduceAnswer) => number) =>
      open.answers.reduce((total, answer) => total + read(answer), 0);
    const stored = storedBatches(kafka.dataDirectory, 'plain');
    expect(sum(({ batchCount }) => batchCount)).toBe(stored.length);
    expect(sum(({ bytes }) => bytes)).toBe(stored.reduce((total, { bytes }) => total + bytes, 0));
    for (const { roundTripMs } of open.answers) expect(roundTripMs).toBeGreaterThan(0);
  });

  test('splits a backlog into batches that the topic accepts', async () => {
    await kafka.createTopic('small', { partitions: 2, config: { 'max.message.bytes': '2000' } });
    await using open = await openProducer(['small']);
    const records = numbered(2_000);
    open.send('small', records);
    await open.waitUntilAcknowledged();
    expect(await valuesByKey('small')).toEqual(expectedByKey(records));
  });

  test('refuses a record that alone is larger than the topic accepts, and names its key and the setting', async () => {
    await kafka.createTopic('narrow', { config: { 'max.message.bytes': '1000' } });
    await using open = await openProducer(['narrow']);
    const topic = open.producer.queues.topic('narrow');
    const bytes = (text: string) => new ByteWriter(16).copy(Buffer.from(text));
    for (const refuse of [
      () => open.send('narrow', [['ns process', 'x'.repeat(1_000)]]),
      () => open.producer.queues.check(topic, bytes('ns process'), bytes('x'.repeat(1_000))),
    ]) {
      expect(refuse).toThrow(RecordTooLargeError);
      try {
        refuse();
      } catch (error) {
        expect(error).toMatchObject({ place: { topic: 'narrow', key: 'ns process' } });
        expect((error as RecordTooLargeError).advice).toContain('max.message.bytes');
      }
    }
    open.producer.queues.check(topic, bytes('ns process'), bytes('x'.repeat(900)));
    expect(open.producer.queues.bufferedBytes).toBe(0);
  });

  test('applies larger and smaller limits of a topic while it runs', async () => {
    await kafka.createTopic('widened', { config: { 'max.message.bytes': '1000' } });
    await using open = await openProducer(['widened'], {}, clientConfig({ metadataMaxAgeMs: 50 }));
    const { maxMessageBytes, learnedBatchBytes, refusedRecords } = open.limits;
    learnedBatchBytes.set('widened', 500);
    refusedRecords.set('widened', { plainBytes: 900, wireBytes: 900 });
    await kafka.configureTopic('widened', { 'max.message.bytes': '5000' });
    await waitFor('the larger limit', () => maxMessageBytes.get('widened') === 5_000);
    expect([...learnedBatchBytes.keys(), ...refusedRecords.keys()]).toEqual([]);
    open.send('widened', [['key', 'x'.repeat(4_000)]]);
    await open.waitUntilAcknowledged();
    await kafka.configureTopic('widened', { 'max.message.bytes': '2000' });
    await waitFor('the smaller limit', () => maxMessageBytes.get('widened') === 2_000);
    expect(() => open.send('widened', [['key', 'x'.repeat(4_000)]])).toThrow(RecordTooLargeError);
  }, 120_000);

  test('a refused record is not sent again until the refusal is forgotten', async () => {
    await kafka.createTopic('guarded', { config: { 'max.message.bytes': '2000' } });
    const large: support.TextRecord = ['key', 'x'.repeat(3_000)];
    const unknown = { limits: createSizeLimits(104_857_600) };
    {
      await using open = await openProducer(['guarded'], unknown);
      open.send('guarded', [large]);
      const failure = await open.waitForFailure();
      expect(failure).toMatchObject({ retriable: false, place: { topic: 'guarded', partition: 0, key: 'key' } });
      const refusedBytes = singleRecordBatchBytes(3, 3_000);
      expect(unknown.limits.refusedRecords.get('guarded')).toEqual({
        plainBytes: refusedBytes,
        wireBytes: refusedBytes,
      });
      expect(open.limits.learnedBatchBytes.size).toBe(0);
    }
    {
      await using open = await openProducer(['guarded'], unknown);
      expect(() => open.send('guarded', [large])).toThrow(RecordTooLargeError);
      open.send('guarded', [['key', 'x'.repeat(1_500)]]);
      await open.waitUntilAcknowledged();
    }
    await kafka.configureTopic('guarded', { 'max.message.bytes': '4000' });
    unknown.limits.refusedRecords.clear();
    await using open = await openProducer(['guarded'], unknown);
    open.send('guarded', [large]);
    await open.waitUntilAcknowledged();
    expect((await kafka.readTopic('guarded')).map(({ value }) => value.length)).toEqual([1_500, 3_000]);
  }, 120_000);

  test('learns a limit that it may not read from the refusal of a batch', async () => {
    await kafka.createTopic('secretive', { config: { 'max.message.bytes': '2000' } });
    await using open = await openProducer(['secretive'], { limits: createSizeLimits(104_857_600) });
    open.send('secretive', numbered(500));
    await open.waitForFailure();
    expect(open.failures[0]).toMatchObject({ retriable: false, place: { topic: 'secretive', partition: 0 } });
    expect(open.failures[0]!.message).toContain('MESSAGE_TOO_LARGE');
    expect(open.failures[0]!.place.key).toBeUndefined();
    expect(open.limits.learnedBatchBytes.get('secretive')).toBeLessThan(10_000);
  });

  test('resends the same batches over a restart of the broker: nothing is lost, stored twice or out of order', async () => {
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
  }, 120_000);

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
      await waitFor('the timeout of the request', () => log.lines.some(({ event }) => event === 'produce_resend'));
    } finally {
      kafka.resume();
    }
    await open.waitUntilAcknowledged();
    expect((await kafka.readTopic('unanswered')).map((record) => record.value.toString())).toEqual(
      numbered(20).map(([, value]) => value),
    );
  }, 30_000);

  test('gives up after max_retries resends, resend_timeout apart, and reports where and why', async () => {
    await kafka.createTopic('hopeless');
    await using open = await openProducer(['hopeless'], { maxRetries: 2, resendTimeoutMs: 150 });
    await kafka.kill();
    try {
      const startMs = performance.now();
      open.send('hopeless', numbered(1));
      await open.waitForFailure();
      expect(performance.now() - startMs).toBeGreaterThanOrEqual(300);
      expect(open.failures).toHaveLength(1);
      expect(open.failures[0]).toMatchObject({ retriable: true, place: { kafkaClient: 'main', topic: 'hopeless' } });
      expect(open.failures[0]!.message).toContain('after 3 attempts');
      expect(open.producer.queues.lowestUnacknowledged).toBe(1);
    } finally {
      await kafka.start();
    }
  }, 120_000);

  test('reports once that a topic has more partitions, and keeps using the old ones', async () => {
    await kafka.createTopic('grown', { partitions: 3 });
    await using open = await openProducer(['grown'], {}, clientConfig({ metadataMaxAgeMs: 50 }));
    const records = numbered(100);
    open.send('grown', records.slice(0, 50));
    await open.waitUntilAcknowledged();
    await kafka.setPartitions('grown', 5);
    await waitFor('the change', () => open.changes.length > 0);
    open.send('grown', records.slice(50));
    await open.waitUntilAcknowledged();
    const stored = await kafka.readTopic('grown');
    expect(stored).toHaveLength(100);
    for (const { key, partition } of stored) expect(partition).toBe(phash2(key, 0, key.length) % 3);
    await kafka.deleteTopic('grown');
    open.send('grown', numbered(1));
    await open.waitForFailure(); // each of its attempts has looked at the topic
    expect(open.changes).toEqual([{ topic: 'grown', fromPartitions: 3, toPartitions: 5 }]);
  }, 120_000);

  test('reports that a topic is gone, and gives up on its records with advice', async () => {
    await kafka.createTopic('deleted');
    await using open = await openProducer(['deleted'], {}, clientConfig({ metadataMaxAgeMs: 600_000 }));
    open.send('deleted', numbered(1));
    await open.waitUntilAcknowledged();
    await kafka.deleteTopic('deleted');
    open.send('deleted', numbered(1));
    const failure = await open.waitForFailure();
    expect(failure.message).toContain('UNKNOWN_TOPIC_OR_PARTITION after 4 attempts');
    expect(failure).toMatchObject({ retriable: true, advice: expect.stringContaining('Create the topic') });
    expect(open.changes).toEqual([{ topic: 'deleted', fromPartitions: 1, toPartitions: 0 }]);
  }, 120_000);

  test('pauses for as long as the broker throttles it, instead of queueing requests', async () => {
    await kafka.createTopic('throttled');
    const log = recordingLogger();
    await limitClient('hasty', 50_000);
    await using open = await openProducer(['throttled'], { log: log.logger }, clientConfig({ clientId: 'hasty' }));
    const throttleTimes = () => log.lines.flatMap(({ throttleTimeMs }) => throttleTimeMs ?? []) as number[];
    let sentCount = 0;
    await waitFor('the throttling', async () => {
      open.send('throttled', [['key', 'x'.repeat(100_000)]]);
      sentCount++;
      await open.waitUntilAcknowledged();
      return throttleTimes().length > 0;
    });
    const [throttleTimeMs] = throttleTimes() as [number];
    const sentMs = performance.now();
    open.send('throttled', [['key', 'last']]);
    expect(open.producer.queues.oldestUnacknowledgedSinceMs).toBeGreaterThanOrEqual(sentMs);
    await open.waitUntilAcknowledged();
    const elapsedMs = performance.now() - sentMs;
    // A broker does not read a connection that it throttles: a request in that time would have waited for its end.
    expect(open.answers.at(-1)!.roundTripMs).toBeLessThan(throttleTimeMs / 2);
    expect(elapsedMs).toBeGreaterThan(throttleTimeMs / 2);
    expect(await kafka.readTopic('throttled')).toHaveLength(sentCount + 1);
  }, 120_000);

  test('notices that no broker can be reached, and that one can again, with nothing to send', async () => {
    await kafka.createTopic('quiet');
    const log = recordingLogger();
    await using open = await openProducer(['quiet'], { log: log.logger }, clientConfig({ metadataMaxAgeMs: 50 }));
    expect(open.producer.isReachable).toBe(true);
    await kafka.kill();
    try {
      await waitFor('the loss', () => !open.producer.isReachable);
    } finally {
      await kafka.start();
    }
    await waitFor('the return', () => open.producer.isReachable);
    expect(log.lines.filter(({ level }) => level === 'warn').map(({ event }) => event)).toEqual([
      'kafka_metadata_unreadable',
    ]);
    expect(open.failures).toEqual([]);
    expect(open.changes).toEqual([]);
  }, 120_000);

  test('when no broker can be reached, the error gives the reason for each of them', async () => {
    const unreachable = [1, 2].map((port) => ({ host: '127.0.0.1', port }));
    const cluster = new Cluster(clientConfig({ brokers: unreachable }), SILENT);
    const failure = await cluster.refreshMetadata(['plain']).catch((error: unknown) => error);
    expect(failure).toMatchObject({ message: 'Cannot read the metadata: each of 2 brokers failed', retriable: true });
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
