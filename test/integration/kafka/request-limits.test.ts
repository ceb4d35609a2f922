/** Brokers that close the connection on requests above their `socket.request.max.bytes`: it is found out, and nothing is lost. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { ByteWriter } from '../../../src/bytes/writer.ts';
import { RecordTooLargeError } from '../../../src/errors.ts';
import { createSizeLimits } from '../../../src/kafka/produce/size-limits.ts';
import * as support from '../../support/kafka/open-producer.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';

const TIMEOUT_MS = 120_000;
const BROKER_LIMIT_BYTES = 300_000;

let kafka: KafkaServer;

beforeAll(async () => {
  kafka = await startKafka({ proxied: true, settings: { 'socket.request.max.bytes': String(BROKER_LIMIT_BYTES) } });
}, TIMEOUT_MS);

afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
}, 30_000);

/** A client without retries: every failure that costs one ends the producer. */
function openProducer(
  topic: string,
  change: Parameters<typeof support.openProducer>[2] = {},
  maxRequestBytes?: number,
) {
  const client = support.clientConfig([kafka.port], maxRequestBytes === undefined ? {} : { maxRequestBytes });
  return support.openProducer(client, [topic], { maxRetries: 0, ...change });
}

/** So many keys that every one of a few partitions gets some of them. */
const records = (count: number, valueBytes: number): support.TextRecord[] =>
  Array.from({ length: count }, (_, index) => [`key ${index}`, 'x'.repeat(valueBytes)]);

async function storedCount(topic: string): Promise<number> {
  return (await kafka.readTopic(topic)).length;
}

describe('a round that is larger than the brokers take', () => {
  test('a round that is larger than the brokers take is sent in smaller requests at once', async () => {
    await kafka.createTopic('wide', { partitions: 8 });
    const log = recordingLogger();
    await using open = await openProducer('wide', { log: log.logger });
    open.send('wide', records(80, 10_000));
    await open.waitUntilAcknowledged();
    open.send('wide', records(80, 10_000));
    await open.waitUntilAcknowledged();
    expect(open.resends).toEqual([]);
    expect(await storedCount('wide')).toBe(160);
    expect(open.answers.every(({ bytes }) => bytes < BROKER_LIMIT_BYTES)).toBe(true);
    const learned = log.lines.filter(({ event }) => event === 'kafka_request_too_large');
    expect(learned).toHaveLength(1);
    expect(learned[0]).toMatchObject({
      level: 'warn',
      kafkaClient: 'main',
      takenBytes: open.limits.request.takenBytes,
    });
  }, 120_000);

  test('a batch of several records is smaller after the next start', async () => {
    await kafka.createTopic('deep', { partitions: 1 });
    const limits = createSizeLimits(104_857_600);
    {
      await using open = await openProducer('deep', { limits });
      open.send('deep', records(60, 10_000));
      expect(await open.waitForFailure()).toMatchObject({
        code: 'batch_too_large',
        retriable: false,
        advice: expect.stringContaining('socket.request.max.bytes'),
        place: { topic: 'deep', partition: 0, key: undefined },
      });
    }
    await using open = await openProducer('deep', { limits });
    open.send('deep', records(60, 10_000));
    await open.waitUntilAcknowledged();
    expect(await storedCount('deep')).toBe(60);
  }, 120_000);

  test('with max_request_bytes as the brokers have it, no connection is closed', async () => {
    await kafka.createTopic('suited', { partitions: 8 });
    const log = recordingLogger();
    await using open = await openProducer('suited', { log: log.logger }, BROKER_LIMIT_BYTES);
    open.send('suited', records(160, 10_000));
    await open.waitUntilAcknowledged();
    expect(open.answers.length).toBeGreaterThan(4);
    expect(log.lines.map(({ event }) => event)).not.toContain('kafka_request_too_large');
    expect(await storedCount('suited')).toBe(160);
    const key = new ByteWriter().copy(Buffer.from('key'));
    const value = new ByteWriter().copy(Buffer.alloc(BROKER_LIMIT_BYTES));
    const { queues } = open.producer;
    expect(() => queues.check(queues.topic('suited'), key, value)).toThrow(RecordTooLargeError);
  }, 120_000);
});

test('a record that is larger than the brokers take is refused by name, and smaller ones are delivered', async () => {
  await kafka.createTopic('heavy', { partitions: 1 });
  const limits = createSizeLimits(104_857_600);
  const heavy: support.TextRecord = ['heavy key', 'x'.repeat(400_000)];
  {
    await using open = await openProducer('heavy', { limits });
    open.send('heavy', [heavy]);
    expect(await open.waitForFailure()).toMatchObject({
      code: 'record_too_large',
      retriable: false,
      place: { topic: 'heavy', partition: 0, key: 'heavy key' },
    });
  }
  await using open = await openProducer('heavy', { limits });
  let refusal: unknown;
  try {
    open.send('heavy', [heavy]);
  } catch (error) {
    refusal = error;
  }
  expect(refusal).toBeInstanceOf(RecordTooLargeError);
  expect((refusal as RecordTooLargeError).advice).toContain('max_request_bytes');
  open.send('heavy', [['light key', 'x'.repeat(250_000)]]);
  await open.waitUntilAcknowledged();
  expect(await storedCount('heavy')).toBe(1);
}, 120_000);

test('a connection that is lost on a large request teaches nothing about its size', async () => {
  await kafka.createTopic('unlucky', { partitions: 1 });
  const { port, resetAfter } = kafka.proxy!;
  await using open = await support.openProducer(support.clientConfig([port]), ['unlucky']);
  const reset = resetAfter(100_000, 'toServer');
  open.send('unlucky', records(25, 10_000));
  await reset;
  await open.waitUntilAcknowledged();
  expect(open.resends).toHaveLength(1);
  expect(open.limits.request.refusedBytes).toBe(Number.POSITIVE_INFINITY);
  expect(await storedCount('unlucky')).toBe(25);
}, 120_000);
