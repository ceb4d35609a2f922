/** Several databases, slots and clusters in one process, none of which disturbs another. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test';
import { type KafkaServer, startKafka } from '../support/kafka/server.ts';
import type { PostgresServer } from '../support/postgres/server.ts';
import { waitFor } from '../support/process/wait.ts';
import { ProgressorWriter } from '../support/progressor/writer.ts';
import type { RunningBinary } from '../support/service/binary.ts';
import {
  compareWith,
  createDatabase,
  createTestNamespace,
  expectCleanLogs,
  insertInvalidEvent,
  isFailure,
  QUICK,
  startServer,
  startService,
  streamConfig,
  type TestDatabase,
  type TestNamespace,
  uniqueName,
  waitUntilConfirmed,
  walPosition,
} from '../support/service/binary-fixture.ts';

let server: PostgresServer;
/** Two clusters */
let east: KafkaServer;
let west: KafkaServer;

beforeAll(async () => {
  [server, east, west] = await Promise.all([startServer(), startKafka(), startKafka()]);
}, 120_000);

afterAll(async () => {
  await Promise.all([server, east, west].map((one) => one?.[Symbol.asyncDispose]()));
}, 30_000);

interface Slot {
  readonly name: string;
  readonly database: TestDatabase;
  readonly namespaces: readonly TestNamespace[];
  readonly writer: ProgressorWriter;
}

/** A slot on the eastern cluster, one on both, and one in another database on the western one. */
let eastern: Slot;
let both: Slot;
let western: Slot;
let service: RunningBinary;

beforeEach(async () => {
  const [one, two] = [await createDatabase(server), await createDatabase(server)];
  const slot = async (database: TestDatabase, clusters: Readonly<Record<string, KafkaServer>>): Promise<Slot> => {
    const namespaces: TestNamespace[] = [];
    for (const [namespace, kafka] of Object.entries(clusters)) {
      namespaces.push(await createTestNamespace(database, kafka, namespace));
    }
    const writer = new ProgressorWriter({ sql: database.sql, namespaces, lanes: 2 });
    return { name: uniqueName('cdc_slot'), database, namespaces, writer };
  };
  eastern = await slot(one, { 'default/default': east });
  both = await slot(one, { invoice: east, a_b: west });
  // The same namespace as in the other database
  western = await slot(two, { invoice: west });
  const entry = ({ namespaces }: Slot) =>
    Object.assign({}, ...namespaces.map((one) => streamConfig([one], one.kafka === east ? 'east' : 'west')));
  service = await startService({
    databases: { one: one.config, two: two.config },
    kafka_clients: { east: { brokers: [east.bootstrap] }, west: { brokers: [west.bootstrap] } },
    streams: {
      one: { [eastern.name]: entry(eastern), [both.name]: entry(both) },
      two: { [western.name]: entry(western) },
    },
    ...QUICK,
  });
  await service.waitForStart(eastern.name, both.name, western.name);
}, 60_000);

afterEach(async () => {
  west.resume();
  const ending = await service.stop();
  await service[Symbol.asyncDispose]();
  for (const { database } of [both, western]) await database[Symbol.asyncDispose]();
  expectCleanLogs();
  expect(ending).toBe(0);
}, 60_000);

async function expectDelivered(slot: Slot): Promise<void> {
  await waitUntilConfirmed(slot.database, slot.name);
  const verdict = await compareWith(slot.writer.expected, slot.namespaces);
  expect(verdict).toMatchObject({ ok: true, findings: [], duplicates: 0 });
  expect(verdict.expected).toBeGreaterThan(0);
}

async function isConfirmed({ database, name }: Slot, lsn: string): Promise<boolean> {
  const [row] = await database.sql`
    SELECT confirmed_flush_lsn >= ${lsn}::text::pg_lsn AS done FROM pg_replication_slots WHERE slot_name = ${name}`;
  return row?.done as boolean;
}

describe('two databases, three slots, two clusters', () => {
  test('each namespace is delivered to its topics, and a stuck cluster blocks only the slots that use it', async () => {
    await Promise.all([eastern, both, western].map(({ writer }) => writer.write(60)));
    for (const slot of [eastern, both, western]) await expectDelivered(slot);

    west.pause();
    // A first record for the stuck cluster: nothing after it may be confirmed.
    for (const [slot, namespace] of [
      [both, both.namespaces[1]!],
      [western, western.namespaces[0]!],
    ] as const) {
      const writer = new ProgressorWriter({ sql: slot.database.sql, namespaces: [namespace], processIdPrefix: 'held' });
      await writer.write(1);
      slot.writer.expected.push(...writer.expected);
    }
    const held = await walPosition(both.database.sql);
    await Promise.all([eastern, both, western].map(({ writer }) => writer.write(60)));
    await expectDelivered(eastern);
    // The slot that uses both clusters delivers to the other one, and confirms nothing.
    const [toEast] = both.namespaces as [TestNamespace];
    const topics = [toEast.eventsinkTopic, toEast.lifecycleTopic];
    const expected = both.writer.expected.filter(({ topic }) => topics.includes(topic));
    await waitFor('the records of the other cluster', async () => (await compareWith(expected, [toEast])).ok);
    for (const slot of [both, western]) expect(await isConfirmed(slot, held)).toBe(false);

    west.resume();
    for (const slot of [both, western]) {
      await waitUntilConfirmed(slot.database, slot.name);
      expect(await compareWith(slot.writer.expected, slot.namespaces)).toMatchObject({ ok: true, findings: [] });
    }
    expect(service.lines.filter(isFailure(eastern.name))).toEqual([]);
  }, 90_000);

  test('a row that cannot be converted stops only its slot', async () => {
    await Promise.all([eastern, both, western].map(({ writer }) => writer.write(30)));
    await waitUntilConfirmed(western.database, western.name);
    const key = await insertInvalidEvent(western.database, 'invoice');
    const again = await service.waitForLine('a second failure', (line) => line.reconnectCount === 2, {
      timeoutMs: 30_000,
    });
    expect(again).toMatchObject({
      database: 'two',
      slot: western.name,
      error: { name: 'InvalidRowError', place: { database: 'two', slot: western.name, key } },
    });
    await Promise.all([eastern, both].map(({ writer }) => writer.write(60)));
    for (const slot of [eastern, both]) await expectDelivered(slot);
    const others = service.lines.filter(({ slot }) => slot === eastern.name || slot === both.name);
    expect(others.filter(({ level }) => level !== 'info')).toEqual([]);
    expect(others.filter(({ msg }) => msg === 'replication started')).toHaveLength(2);
  }, 90_000);
});
