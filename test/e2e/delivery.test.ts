/** Delivery by the compiled program, undisturbed and with stops, kills and restarts under load. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { codecOf } from '../../src/kafka/produce/compression.ts';
import { type KafkaServer, startKafka } from '../support/kafka/server.ts';
import { storedBatches } from '../support/kafka/stored-batches.ts';
import type { PostgresServer } from '../support/postgres/server.ts';
import { waitFor } from '../support/process/wait.ts';
import { expectCleanLogs, isFailure, openBinaryFixture, startServer } from '../support/service/binary-fixture.ts';

let server: PostgresServer;
let kafka: KafkaServer;

beforeAll(async () => {
  [server, kafka] = await Promise.all([startServer(), startKafka()]);
}, 120_000);

afterAll(async () => {
  await Promise.all([server?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
}, 30_000);

afterEach(expectCleanLogs);

describe('cdc-notifier', () => {
  test('delivers every written record once, in order, to its partition, for any names of namespaces and processes', async () => {
    await using fixture = await openBinaryFixture({
      server,
      kafka,
      namespaces: { 'default/default': 'new', invoice: 'old', 'Счёт "A"/\'b\' \\': 'new', a_b: 'old' },
      settings: { log: { level: 'trace' } },
    });
    await using service = await fixture.start();
    await fixture.writer.write(600);
    await fixture.confirmed();
    const verdict = await fixture.expectAllArrived();
    expect(verdict.duplicates).toBe(0);
    expect(await service.stop()).toBe(0);
  }, 30_000);

  test.each(['gzip', 'snappy', 'lz4', 'zstd'] as const)(
    'delivers the same when compressed with %s',
    async (compression) => {
      await using fixture = await openBinaryFixture({ server, kafka, kafkaClient: { compression } });
      await using service = await fixture.start();
      await fixture.writer.write(200);
      await fixture.confirmed();
      expect((await fixture.expectAllArrived()).duplicates).toBe(0);
      for (const { eventsinkTopic } of fixture.namespaces) {
        const codecs = storedBatches(kafka.dataDirectory, eventsinkTopic).map(({ codec }) => codec);
        expect(codecs).toContain(codecOf(compression)!.attributes);
      }
      expect(await service.stop()).toBe(0);
    },
    30_000,
  );

  test('does not repeat transactions that were acknowledged before a graceful stop', async () => {
    await using fixture = await openBinaryFixture({ server, kafka });
    for (let run = 0; run < 3; run++) {
      await using service = await fixture.start();
      await fixture.writer.write(60);
      await fixture.confirmed();
      expect(await service.stop()).toBe(0);
    }
    expect((await fixture.expectAllArrived()).duplicates).toBe(0);
  }, 30_000);

  test('stops with exit code 0 on SIGTERM under load, and the next start loses and repeats nothing', async () => {
    await using fixture = await openBinaryFixture({ server, kafka });
    const { writer } = fixture;
    for (let run = 0; run < 2; run++) {
      await using service = await fixture.start();
      if (run === 0) writer.start();
      const enough = writer.transactionCount + 150;
      await waitFor('load', () => writer.transactionCount >= enough);
      expect(await service.stop()).toBe(0);
      expect(service.lines.at(-1)).toMatchObject({ level: 'info', msg: 'cdc-notifier stopped' });
      expect(service.lines.filter(({ level }) => level === 'error' || level === 'warn')).toEqual([]);
    }
    await writer.stop();
    await using service = await fixture.start();
    await fixture.confirmed();
    expect((await fixture.expectAllArrived()).duplicates).toBe(0);
    expect(await service.stop()).toBe(0);
  }, 60_000);

  test('loses nothing when it is killed under load and started again', async () => {
    await using fixture = await openBinaryFixture({ server, kafka });
    const { writer } = fixture;
    for (let run = 0; run < 2; run++) {
      await using service = await fixture.start();
      if (run === 0) writer.start();
      const enough = writer.transactionCount + 150;
      await waitFor('load', () => writer.transactionCount >= enough);
      await service.kill();
    }
    await writer.stop();
    await using service = await fixture.start();
    await fixture.confirmed();
    await fixture.expectAllArrived();
    expect(await service.stop()).toBe(0);
  }, 60_000);

  test('loses nothing when PostgreSQL stops or crashes under load and starts again', async () => {
    await using fixture = await openBinaryFixture({ server, kafka });
    const { writer, slot } = fixture;
    await using service = await fixture.start();
    writer.start();
    for (const mode of ['fast', 'immediate'] as const) {
      const enough = writer.transactionCount + 200;
      await waitFor('load', () => writer.transactionCount >= enough);
      const from = service.lines.length;
      await server.restart(mode);
      const again = await service.waitForLine('a new start', (line) => line.msg === 'replication started', { from });
      expect(again).toMatchObject({ slot });
      expect(again.reconnectCount).toBeGreaterThan(0);
      expect(service.lines.slice(from).find(isFailure(slot))?.error).toMatchObject({
        name: 'SourceError',
        place: { database: 'db', slot },
      });
    }
    await writer.stop();
    await fixture.confirmed();
    await fixture.expectAllArrived();
    expect(await service.stop()).toBe(0);
  }, 60_000);

  test('loses nothing when Kafka is down for longer than all retries, and logs the reason and what to do', async () => {
    await using fixture = await openBinaryFixture({ server, kafka, kafkaClient: { request_timeout: 2000 } });
    const { writer, slot } = fixture;
    await using service = await fixture.start();
    writer.start();
    await waitFor('load', () => writer.transactionCount >= 200);
    await kafka.stop();
    // First the producer gives up, then new sessions cannot connect
    const gaveUp = await service.waitForLine('the end of the retries', isFailure(slot));
    expect(gaveUp).toMatchObject({
      error: { name: 'SinkError', place: { database: 'db', slot, kafkaClient: 'main' } },
      reconnectCount: 1,
      reconnectTimeoutMs: 200,
    });
    const still = await service.waitForLine(
      'another failure',
      (line) => isFailure(slot)(line) && line.reconnectCount === 3,
    );
    expect(still.error?.message).toContain('ECONNREFUSED');
    expect(still.error?.advice).toContain('kafka_clients');
    const missed = writer.transactionCount + 100;
    await waitFor('load', () => writer.transactionCount >= missed);
    const from = service.lines.length;
    await kafka.start();
    const again = await service.waitForLine('a new start', (line) => line.msg === 'replication started', { from });
    expect(again.reconnectCount).toBeGreaterThanOrEqual(3);
    expect(again.reconnectReason).toBeString();
    expect(again.fromLsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/);
    await writer.stop();
    await fixture.confirmed();
    await fixture.expectAllArrived();
    expect(await service.stop()).toBe(0);
  }, 60_000);
});
