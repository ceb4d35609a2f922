/** Mistakes of an operator: the service names them and what to do, and continues by itself once they are corrected. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type KafkaServer, startKafka } from '../support/kafka/server.ts';
import type { PostgresServer } from '../support/postgres/server.ts';
import { temporaryDirectory } from '../support/process/temporary-directory.ts';
import { createNamespace, tablesOf } from '../support/progressor/tables.ts';
import { type BinaryLogLine, type RunningBinary, STARTED } from '../support/service/binary.ts';
import {
  type BinaryFixture,
  expectCleanLogs,
  isFailure,
  openBinaryFixture,
  PASSWORD,
  startServer,
  startService,
  WRONG_PASSWORD,
} from '../support/service/binary-fixture.ts';

let server: PostgresServer;
let kafka: KafkaServer;

beforeAll(async () => {
  [server, kafka] = await Promise.all([startServer(), startKafka()]);
}, 120_000);

afterAll(async () => {
  await Promise.all([server?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
}, 30_000);

afterEach(() => expectCleanLogs());

/** Waits until the slot has failed twice with the same error, and returns the first failure. */
async function failsRepeatedly(service: RunningBinary, { slot }: BinaryFixture): Promise<BinaryLogLine> {
  const first = await service.waitForLine('a failure', isFailure(slot));
  const second = await service.waitForLine('another', (line) => isFailure(slot)(line) && line.reconnectCount === 2);
  expect(second.error?.message).toBe(first.error?.message as string);
  expect(second.reconnectTimeoutMs).toBe(200);
  return first;
}

/** Waits for the start after the correction, and expects everything written meanwhile and afterwards. */
async function expectRecovery(service: RunningBinary, fixture: BinaryFixture, failuresBefore = 2): Promise<void> {
  const { slot, writer } = fixture;
  const start = await service.waitForLine('a start', (line) => line.msg === STARTED && line.slot === slot);
  expect(start.reconnectCount).toBeGreaterThanOrEqual(failuresBefore);
  await writer.write(30);
  await fixture.confirmed();
  expect((await fixture.expectAllArrived()).duplicates).toBe(0);
  expect(await service.stop()).toBe(0);
}

describe('corrected while the service runs', () => {
  test('a missing topic is named and not created, and what is written meanwhile is delivered', async () => {
    await using fixture = await openBinaryFixture({ server, kafka });
    const { slot, namespaces, writer } = fixture;
    // The slot exists: before that nothing is kept, and nothing is created while a topic is missing.
    await using former = await fixture.start();
    await former.stop();
    const topic = namespaces[1]!.lifecycleTopic;
    await kafka.deleteTopic(topic);
    await using service = await startService(fixture.config);
    expect(await failsRepeatedly(service, fixture)).toMatchObject({
      error: {
        name: 'SinkError',
        message: `Cannot use topic "${topic}": UNKNOWN_TOPIC_OR_PARTITION`,
        advice: expect.stringContaining('Create the topic'),
        place: { database: 'db', slot, kafkaClient: 'main', topic },
      },
    });
    await writer.write(30);
    await kafka.createTopic(topic, { partitions: 3 });
    await expectRecovery(service, fixture);
  }, 60_000);

  test('a missing table is named, and the slot is created once the table exists', async () => {
    await using fixture = await openBinaryFixture({ server, kafka });
    const { database, slot } = fixture;
    const { sql } = database;
    for (const table of Object.values(tablesOf('invoice'))) await sql`DROP TABLE ${sql(table)} CASCADE`;
    await using service = await startService(fixture.config);
    expect(await failsRepeatedly(service, fixture)).toMatchObject({
      error: {
        name: 'SetupError',
        message: expect.stringContaining('invoice_processes'),
        advice: expect.any(String),
        place: { database: 'db', slot, namespace: 'invoice', table: 'invoice_processes' },
      },
    });
    expect(await sql`SELECT FROM pg_replication_slots WHERE slot_name = ${slot}`).toHaveLength(0);
    await createNamespace(sql, 'invoice');
    await expectRecovery(service, fixture);
  }, 60_000);

  test('a wrong database password is read again from its file', async () => {
    await using secrets = await temporaryDirectory('secrets');
    const file = join(secrets.path, 'pg');
    await writeFile(file, `${WRONG_PASSWORD}\n`);
    await using fixture = await openBinaryFixture({ server, kafka, databaseKeys: { password: { file } } });
    await using service = await startService(fixture.config);
    expect(await failsRepeatedly(service, fixture)).toMatchObject({
      error: {
        name: 'SourceError',
        message: expect.stringContaining('28P01'),
        advice: expect.stringContaining('password'),
        place: { database: 'db', slot: fixture.slot },
      },
    });
    await writeFile(file, `${PASSWORD}\n`);
    await expectRecovery(service, fixture);
  }, 60_000);

  test('a slot that another process holds makes the second process stand by and take over', async () => {
    await using fixture = await openBinaryFixture({ server, kafka });
    await using first = await fixture.start();
    await using second = await startService(fixture.config);
    const standby = await second.waitForLine('a standby', ({ msg }) => msg.includes('standing by'));
    expect(standby).toMatchObject({ level: 'info', slot: fixture.slot, pid: expect.any(Number) });
    await fixture.writer.write(30);
    await fixture.confirmed();
    expect(first.lines.filter(isFailure())).toEqual([]);
    expect(await first.stop()).toBe(0);
    await expectRecovery(second, fixture, 0);
    expect(second.lines.filter(isFailure())).toEqual([]);
  }, 60_000);
});
