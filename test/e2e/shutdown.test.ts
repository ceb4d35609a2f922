/** Stopping the compiled program while the other side does not answer, and where an invalid row stops a slot. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { type KafkaServer, startKafka } from '../support/kafka/server.ts';
import type { PostgresServer } from '../support/postgres/server.ts';
import { waitFor } from '../support/process/wait.ts';
import {
  type BinaryFixture,
  expectCleanLogs,
  insertInvalidEvent,
  isFailure,
  openBinaryFixture,
  startServer,
  startService,
} from '../support/service/binary-fixture.ts';

let server: PostgresServer;
let kafka: KafkaServer;

beforeAll(async () => {
  [server, kafka] = await Promise.all([startServer(), startKafka()]);
}, 120_000);

afterAll(async () => {
  await Promise.all([server?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
}, 30_000);

afterEach(() => {
  kafka.resume();
  expectCleanLogs();
});

/** Maximum of a stop in addition to shutdown_timeout: the end of a process on a busy machine. */
const SPARE_MS = 3_000;

function quickFixture(settings: object): Promise<BinaryFixture> {
  return openBinaryFixture({ server, kafka, settings });
}

async function expectNothingLost(fixture: BinaryFixture): Promise<void> {
  kafka.resume();
  await using service = await fixture.start();
  await fixture.confirmed();
  await fixture.expectAllArrived();
  expect(await service.stop()).toBe(0);
}

describe('a stop while Kafka does not answer', () => {
  test('exits 0 within shutdown_timeout, of which Kafka has three quarters, and the next start delivers what was in flight', async () => {
    await using fixture = await quickFixture({ shutdown_timeout: 700 });
    await using service = await fixture.start();
    await fixture.writer.write(30);
    await fixture.confirmed();
    kafka.pause();
    await fixture.writer.write(60);
    const before = performance.now();
    expect(await service.stop(700 + SPARE_MS)).toBe(0);
    expect(performance.now() - before).toBeGreaterThanOrEqual(700 * 0.75);
    expect(service.lines.find(({ level }) => level === 'warn')).toMatchObject({ shutdownTimeoutMs: 700 });
    await expectNothingLost(fixture);
  }, 40_000);

  test('exits at once with the code of the signal when a second one arrives', async () => {
    await using fixture = await quickFixture({ shutdown_timeout: 600_000 });
    await using service = await fixture.start();
    kafka.pause();
    await fixture.writer.write(60);
    service.signal('SIGTERM');
    await service.waitForLine('the first signal', ({ msg }) => msg === 'stopping');
    const before = performance.now();
    service.signal('SIGINT');
    expect(await service.ended).toBe(130);
    // Far below shutdown_timeout, and enough for a busy machine
    expect(performance.now() - before).toBeLessThan(10_000);
    await expectNothingLost(fixture);
  }, 40_000);

  test('exits at once while it connects to Kafka', async () => {
    await using fixture = await quickFixture({ shutdown_timeout: 700 });
    await using former = await fixture.start();
    await former.stop();
    kafka.pause();
    await using service = await startService(fixture.config);
    // The slot is held before the service connects to Kafka.
    await waitFor('the walsender', async () => {
      const walsenders = await fixture.database.sql`
        SELECT FROM pg_stat_replication WHERE application_name = ${`cdc-notifier ${fixture.slot}`}`;
      return walsenders.length === 1;
    });
    expect(await service.stop(700 + SPARE_MS)).toBe(0);
  }, 60_000);
});

describe('a stop while PostgreSQL does not answer', () => {
  test.each([
    ['Kafka answers', false],
    ['Kafka does not answer either', true],
  ])(
    'exits 0 within shutdown_timeout, when %s',
    async (_, isKafkaSilent) => {
      await using fixture = await quickFixture({ shutdown_timeout: 700 });
      await using service = await fixture.start();
      await fixture.writer.write(30);
      await fixture.confirmed();
      if (isKafkaSilent) {
        kafka.pause();
        await fixture.writer.write(30);
      }
      const pids = await fixture.database.sql`
      SELECT pid FROM pg_stat_activity WHERE application_name LIKE ${`cdc-notifier ${fixture.slot}%`}`;
      expect(pids).toHaveLength(2);
      const signalBackends = (signal: NodeJS.Signals) => {
        for (const { pid } of pids) process.kill(pid, signal);
      };
      signalBackends('SIGSTOP');
      try {
        expect(await service.stop(700 + SPARE_MS)).toBe(0);
      } finally {
        signalBackends('SIGCONT');
      }
      await expectNothingLost(fixture);
    },
    60_000,
  );
});

describe('a row that cannot be converted', () => {
  test('stops its slot after everything before it is delivered once and confirmed', async () => {
    await using fixture = await openBinaryFixture({ server, kafka, namespaces: { invoice: 'new' } });
    const { database, writer, slot } = fixture;
    {
      await using service = await fixture.start();
      expect(await service.stop()).toBe(0);
    }
    await writer.write(20);
    const key = await insertInvalidEvent(database, 'invoice');
    await using service = await startService(fixture.config);
    const failure = await service.waitForLine('the failure', isFailure(slot));
    expect(failure.error).toMatchObject({
      place: { database: 'db', slot, namespace: 'invoice', table: 'invoice_events', key },
    });
    await service.waitForLine('three failures', (line) => isFailure(slot)(line) && line.reconnectCount === 4);
    const verdict = await fixture.expectAllArrived();
    expect(verdict.duplicates).toBe(0);
    expect(await service.stop()).toBe(0);
  }, 40_000);
});
