import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ByteWriter } from '../../../src/bytes/writer.ts';
import type { CompressionType, KafkaClientConfig } from '../../../src/config/config.ts';
import { RecordTooLargeError } from '../../../src/errors.ts';
import { RecordBatch } from '../../../src/kafka/produce/record-batch.ts';
import { createSizeLimits } from '../../../src/kafka/produce/size-limits.ts';
import { seededRandom } from '../../support/codecs/etf.ts';
import { fetchKafka, javaProgram } from '../../support/kafka/node/storage.ts';
import * as support from '../../support/kafka/open-producer.ts';
import {
  type KafkaServer,
  NEWEST_KAFKA_VERSION,
  OLDEST_KAFKA_VERSION,
  startKafka,
} from '../../support/kafka/server.ts';
import { runProgram } from '../../support/process/run-program.ts';
import { waitFor } from '../../support/process/wait.ts';

const TYPES = ['gzip', 'snappy', 'lz4', 'zstd'] as const;

let newest: KafkaServer;
let oldest: KafkaServer;

beforeAll(async () => {
  [newest, oldest] = await Promise.all([
    startKafka({ version: NEWEST_KAFKA_VERSION }),
    startKafka({ version: OLDEST_KAFKA_VERSION }),
  ]);
}, 120_000);

afterAll(async () => {
  await newest?.[Symbol.asyncDispose]();
  await oldest?.[Symbol.asyncDispose]();
}, 30_000);

function clientConfig(compression: CompressionType, change: Partial<KafkaClientConfig> = {}): KafkaClientConfig {
  return support.clientConfig([newest.port], { compression, ...change });
}

const numbered = (count: number, from = 0): support.TextRecord[] =>
  Array.from({ length: count }, (_, index) => [`key ${(from + index) % 5}`, `value of number ${from + index}`]);

/** Text that no codec makes smaller by half. */
function noise(length: number): string {
  const random = seededRandom(length);
  return Buffer.from(Array.from({ length }, () => Math.floor(random() * 256)))
    .toString('base64')
    .slice(0, length);
}

/** Size of one batch of these records, not compressed. */
function plainBatchBytes(records: readonly support.TextRecord[]): number {
  const beginning = { firstOrdinal: 0, timestampMs: 0, begunMs: 0 };
  const batch = new RecordBatch({ topic: 'plain', partition: 0 }, Buffer.alloc(64), beginning);
  const bytes = (text: string) => new ByteWriter(16).copy(Buffer.from(text));
  for (const [key, value] of records) batch.append(bytes(key), bytes(value), { producedCount: 0 });
  return batch.length;
}

async function textsOf(kafka: KafkaServer, topic: string): Promise<support.TextRecord[]> {
  return (await kafka.readTopic(topic)).map(({ key, value }) => [key.toString(), value.toString()]);
}

/** Kafka's own account of what is stored in partition 0 of a topic, with each record decompressed by Java. */
async function dumpOf(kafka: KafkaServer, topic: string): Promise<string> {
  const directory = join(kafka.dataDirectory, `${topic}-0`);
  const segments = readdirSync(directory).filter((name) => name.endsWith('.log'));
  const jars = await fetchKafka(OLDEST_KAFKA_VERSION);
  const files = segments.map((name) => join(directory, name)).join(',');
  const program = ['kafka.tools.DumpLogSegments', '--print-data-log', '--files', files];
  return await runProgram(javaProgram(), ['-XX:TieredStopAtLevel=1', '-cp', `${jars}/*`, ...program]);
}

describe.each(TYPES)('records compressed by %s', (compression) => {
  test('are read by clients unchanged, and take less on the wire', async () => {
    await newest.createTopic(`read-${compression}`);
    await using open = await support.openProducer(clientConfig(compression), [`read-${compression}`]);
    const records = numbered(20_000);
    open.send(`read-${compression}`, records);
    await open.waitUntilAcknowledged();
    open.send(`read-${compression}`, numbered(1, 20_000));
    await open.waitUntilAcknowledged();
    expect(await textsOf(newest, `read-${compression}`)).toEqual([...records, ...numbered(1, 20_000)]);
    expect(open.tally.producedCount).toBe(20_001);
    const wireBytes = open.answers.reduce((sum, { bytes }) => sum + bytes, 0);
    expect(wireBytes).toBeLessThan(plainBatchBytes(records) / 3);
    expect(open.producer.queues.bufferedBytes).toBe(0);
  }, 60_000);

  test('are stored unchanged by the oldest Kafka, whose own Java code reads them', async () => {
    await oldest.createTopic(`stored-${compression}`);
    const client = clientConfig(compression, { brokers: [{ host: '127.0.0.1', port: oldest.port }] });
    await using open = await support.openProducer(client, [`stored-${compression}`]);
    const records = numbered(1_000);
    open.send(`stored-${compression}`, records);
    await open.waitUntilAcknowledged();
    const lines = (await dumpOf(oldest, `stored-${compression}`)).split('\n');
    expect(lines.filter((line) => line.includes(`compresscodec: ${compression} `))).toHaveLength(1);
    expect(lines.flatMap((line) => /payload: (.*)$/.exec(line)?.[1] ?? [])).toEqual(records.map(([, value]) => value));
  }, 60_000);

  test('are delivered if compression makes them small enough for their topic, and refused if it does not', async () => {
    const topic = `narrow-${compression}`;
    await newest.createTopic(topic, { config: { 'max.message.bytes': '20000' } });
    await using open = await support.openProducer(clientConfig(compression), [topic]);
    const small: support.TextRecord = ['key', 'small'];
    const large: support.TextRecord = ['key', 'large '.repeat(20_000)];
    open.send(topic, [small, large, small]);
    await open.waitUntilAcknowledged();
    expect(await textsOf(newest, topic)).toEqual([small, large, small]);
    const refuse = () => open.send(topic, [['key', noise(60_000)]]);
    expect(refuse).toThrow(RecordTooLargeError);
    expect(refuse).toThrow(/of 6\d{4} bytes, \d+ compressed: the topic takes at most 20000/);
  }, 60_000);
});

test('a compressed batch that was stored, and whose answer was lost, is recognized when it is resent', async () => {
  await newest.createTopic('unanswered');
  const client = clientConfig('zstd', { requestTimeoutMs: 1_000, connectTimeoutMs: 1_000 });
  await using open = await support.openProducer(client, ['unanswered'], { maxRetries: 100 });
  open.send('unanswered', numbered(100));
  await open.waitUntilAcknowledged();
  newest.pause();
  try {
    open.send('unanswered', numbered(100, 100));
    await waitFor('the timeout of the request', () => open.resends.length > 0);
  } finally {
    newest.resume();
  }
  await open.waitUntilAcknowledged();
  expect(await textsOf(newest, 'unanswered')).toEqual(numbered(200));
}, 60_000);

test('a topic that is stored uncompressed refuses what fits only compressed: exactly that is learned', async () => {
  const config = { 'max.message.bytes': '20000', 'compression.type': 'uncompressed' };
  await newest.createTopic('unpacked', { config });
  const large: support.TextRecord = ['key', 'large '.repeat(20_000)];
  const limits = createSizeLimits(104_857_600);
  limits.maxMessageBytes.set('unpacked', 20_000);
  {
    await using open = await support.openProducer(clientConfig('zstd'), ['unpacked'], { limits });
    open.send('unpacked', [large]);
    expect(await open.waitForFailure()).toMatchObject({ retriable: false, place: { topic: 'unpacked', key: 'key' } });
  }
  await using open = await support.openProducer(clientConfig('zstd'), ['unpacked'], { limits });
  expect(() => open.send('unpacked', [large])).toThrow(RecordTooLargeError);
  const fitting = [['key', noise(15_000)], ...numbered(500)] as const;
  open.send('unpacked', fitting);
  await open.waitUntilAcknowledged();
  expect(await textsOf(newest, 'unpacked')).toEqual([...fitting]);
}, 60_000);

test('a limit that may not be read is learned from the refusal of a compressed batch', async () => {
  await newest.createTopic('secretive', { config: { 'max.message.bytes': '2000' } });
  const limits = createSizeLimits(104_857_600);
  const records: support.TextRecord[] = Array.from({ length: 50 }, (_, index) => ['key', noise(400 + index).repeat(2)]);
  for (let attempt = 1; ; attempt++) {
    await using open = await support.openProducer(clientConfig('lz4'), ['secretive'], { limits });
    open.send('secretive', records);
    const failed = await Promise.race([open.waitForFailure(), open.waitUntilAcknowledged().catch((error) => error)]);
    if (failed === undefined) break;
    expect(failed.message).toContain('MESSAGE_TOO_LARGE');
    expect(attempt).toBeLessThan(10);
  }
  expect(limits.learnedBatchBytes.get('secretive')).toBeLessThan(4_000);
  expect(limits.refusedRecords.size).toBe(0);
}, 60_000);
