/**
 * Optional savings for the server: an index in place of replica identity FULL, and column lists. The records are the same
 * bytes before, after and during the switch. Real servers.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import type { ISql, Sql, TransactionSql } from 'postgres';
import { describeRecord } from '../../support/codecs/record-text.ts';
import { compare } from '../../support/codecs/verdict.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { type PostgresMajor, type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { migrateNamespace, tablesOf } from '../../support/progressor/tables.ts';
import { ProgressorWriter } from '../../support/progressor/writer.ts';
import type { InProcessService } from '../../support/service/in-process.ts';
import {
  type Emitted,
  firstOccurrences,
  insertProcess,
  lifecycle,
  openStreamFixture,
  PARTITIONS,
  type StreamFixture,
  setStatus,
} from '../../support/service/stream-fixture.ts';

/** Names of equal length, so that one can replace the other within the bytes of a record. */
const WHOLE = 'whole/"1"';
const LEAN = 'lean//"1"';
const NS = LEAN;

let kafka: KafkaServer;
beforeAll(async () => {
  kafka = await startKafka();
}, 120_000);
afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
});

const indexOf = (namespace: string): string => `${namespace}_identity`;

async function createIndex(sql: Sql, namespace: string): Promise<void> {
  const { processes } = tablesOf(namespace);
  await sql`CREATE UNIQUE INDEX CONCURRENTLY ${sql(indexOf(namespace))} ON ${sql(processes)} (process_id, status)`;
}

async function useIndex(sql: ISql, namespace: string): Promise<void> {
  const { processes } = tablesOf(namespace);
  await sql`ALTER TABLE ${sql(processes)} REPLICA IDENTITY USING INDEX ${sql(indexOf(namespace))}`;
}

async function useFull(sql: ISql, namespace: string): Promise<void> {
  await sql`ALTER TABLE ${sql(tablesOf(namespace).processes)} REPLICA IDENTITY FULL`;
}

/** Repeats every change of one namespace in the other, in the same transaction, by triggers. */
async function mirror(sql: Sql, from: string, to: string): Promise<void> {
  const [source, target] = [tablesOf(from), tablesOf(to)];
  const columns = {
    processes: ['process_id', 'status', 'detail', 'aux_state', 'metadata', 'previous_status', 'status_changed_at'],
    events: ['process_id', 'task_id', 'event_id', '"timestamp"', 'metadata', 'payload'],
  };
  for (const kind of ['processes', 'events'] as const) {
    const list = columns[kind].join(', ');
    const row = columns[kind].map((column) => `NEW.${column}`).join(', ');
    const key =
      kind === 'processes' ? 'process_id = OLD.process_id' : 'process_id = OLD.process_id AND event_id = OLD.event_id';
    const table = `"${target[kind].replaceAll('"', '""')}"`;
    await sql.unsafe(`
      CREATE FUNCTION mirror_${kind}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'INSERT' THEN INSERT INTO ${table} (${list}) VALUES (${row});
        ELSIF TG_OP = 'UPDATE' THEN UPDATE ${table} SET (${list}) = ROW(${row}) WHERE ${key};
        ELSE DELETE FROM ${table} WHERE ${key};
        END IF;
        RETURN NULL;
      END $$;
      CREATE TRIGGER mirror AFTER INSERT OR UPDATE OR DELETE ON "${source[kind].replaceAll('"', '""')}"
        FOR EACH ROW EXECUTE FUNCTION mirror_${kind}()`);
  }
}

/** The bytes of a namespace's records by kind and key, in offset order, with the namespace replaced by one name. */
async function sequences(fixture: StreamFixture, namespace: string): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  for (const { topic, key, value } of await fixture.records(namespace)) {
    const kind = topic.endsWith('-eventsink') ? 'event' : 'lifecycle';
    const id = `${kind} ${key.subarray(Buffer.byteLength(namespace) + 1)}`;
    const bytes = Buffer.from(value);
    for (let at = bytes.indexOf(namespace); at >= 0; at = bytes.indexOf(namespace, at + 1)) bytes.write(WHOLE, at);
    found.set(id, [...(found.get(id) ?? []), bytes.toString('hex')]);
  }
  return found;
}

/** The column list of each published table; null without a list. */
async function columnLists(sql: Sql): Promise<unknown> {
  const rows = await sql`
    SELECT c.relname, (SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
      WHERE attrelid = prrelid AND attnum = ANY (prattrs::int2[])) AS columns
    FROM pg_publication_rel JOIN pg_class c ON c.oid = prrelid ORDER BY 1`;
  return rows.map(({ columns }) => columns);
}

describe.each([14, 15, 16, 17, 18] as const)('PostgreSQL %d', (major: PostgresMajor) => {
  const hasLists = major >= 15;
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres({ major, settings: { track_commit_timestamp: 'on' } });
  }, 120_000);
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
  });

  test('the same changes produce identical records with FULL, with the index and with column lists', async () => {
    await using fixture = await openStreamFixture({ postgres, kafka, slots: { whole: [WHOLE], lean: [LEAN] } });
    const { sql } = fixture;
    await mirror(sql, WHOLE, LEAN);
    await createIndex(sql, LEAN);
    await useIndex(sql, LEAN);
    const lean = { replica_identity: 'status_index', publish_columns: hasLists ? 'needed' : 'all' } as const;
    const start = (settings: Partial<typeof lean>) =>
      fixture.start({ namespaceSettings: { [LEAN]: { ...lean, ...settings } } });
    const writer = new ProgressorWriter({
      sql,
      namespaces: [
        {
          namespace: WHOLE,
          eventsinkTopic: fixture.topics(WHOLE).eventsink_topic,
          lifecycleTopic: fixture.topics(WHOLE).lifecycle_topic,
        },
      ],
    });
    const first = start({ publish_columns: 'all' });
    for (const slot of ['whole', 'lean']) await fixture.confirmed(slot);
    await writer.write(400);
    for (const slot of ['whole', 'lean']) await fixture.confirmed(slot);
    await first.stop();
    const second = start({});
    for (const slot of ['whole', 'lean']) await fixture.confirmed(slot);
    await writer.write(400);
    for (const status of ['error', 'running', 'error'] as const) {
      await sql`INSERT INTO ${sql(tablesOf(WHOLE).processes)} (process_id, status, previous_status, status_changed_at)
        VALUES (${`old ${status} ${Math.random()}`}, ${status}, ${status}, now())`;
      await sql`UPDATE ${sql(tablesOf(WHOLE).processes)} SET process_id = 'new ' || process_id WHERE process_id LIKE 'old%'`;
      await sql`UPDATE ${sql(tablesOf(WHOLE).processes)} SET process_id = 'newer ' || process_id, status = 'error',
        detail = repeat(md5(process_id), 300) WHERE process_id LIKE 'new old%'`;
    }
    for (const slot of ['whole', 'lean']) await fixture.confirmed(slot);
    expect([...first.failures(), ...second.failures()]).toEqual([]);

    const [whole, less] = [await sequences(fixture, WHOLE), await sequences(fixture, LEAN)];
    expect(less).toEqual(whole);
    expect([...whole.values()].flat().length).toBeGreaterThan(writer.expected.length);
    const identities =
      await sql`SELECT relname, relreplident FROM pg_class WHERE relname LIKE '%processes' AND relkind = 'r' ORDER BY 1`;
    expect(identities.map((row) => row.relreplident)).toEqual(['i', 'f']);
    if (hasLists) {
      const lists = ['process_id event_id timestamp metadata payload', 'process_id status detail'];
      expect(await columnLists(sql)).toEqual([...lists, null, null]);
    }
  }, 120_000);

  test('index and column lists are switched on and off under load in any order, and no record is lost or wrong', async () => {
    await using fixture = await openStreamFixture({ postgres, kafka, slots: { main: [NS] } });
    const { sql } = fixture;
    const writer = new ProgressorWriter({
      sql,
      namespaces: [
        {
          namespace: NS,
          eventsinkTopic: fixture.topics(NS).eventsink_topic,
          lifecycleTopic: fixture.topics(NS).lifecycle_topic,
        },
      ],
      transactionsPerSecond: 300,
    });
    const start = (replica_identity: 'full' | 'status_index', publish_columns: 'all' | 'needed' = 'all') =>
      fixture.start({ namespaceSettings: { [NS]: { replica_identity, publish_columns } } });
    const identity = async () =>
      (await sql`SELECT relreplident FROM pg_class WHERE relname = ${tablesOf(NS).processes}`)[0]!.relreplident;
    const lists = hasLists ? 'needed' : 'all';
    const services = [start('full')];
    const next = async (...settings: Parameters<typeof start>) => {
      await services.at(-1)!.stop();
      services.push(start(...settings));
      await fixture.confirmed('main');
    };
    await fixture.confirmed('main');
    writer.start();

    // Database first, then configuration
    await createIndex(sql, NS);
    await useIndex(sql, NS);
    await fixture.confirmed('main');
    await next('status_index');
    expect(await identity()).toBe('i');
    await next('status_index', lists);
    await next('full');
    expect(await identity()).toBe('f');
    if (hasLists) expect(await columnLists(sql)).toEqual([null, null]);

    // Configuration first: the service continues with FULL and warns.
    await next('status_index', lists);
    expect(services.at(-1)!.log).toContainEqual(
      expect.objectContaining({ level: 'warn', msg: expect.stringContaining('replica identity of processes is FULL') }),
    );
    await useIndex(sql, NS);
    await fixture.confirmed('main');
    await next('status_index', lists);
    await sql`REINDEX INDEX CONCURRENTLY ${sql(indexOf(NS))}`;
    await next('status_index');

    // Both identities alternate within one backlog
    await services.at(-1)!.stop();
    for (const turn of [1, 2]) {
      for (const change of [useFull, useIndex]) {
        await change(sql, NS);
        const count = writer.transactionCount;
        await waitFor(`changes of turn ${turn}`, () => writer.transactionCount > count + 30);
      }
    }
    await next('full');
    await writer.stop();
    await fixture.confirmed('main');

    expect(services.flatMap((service) => service.failures())).toEqual([]);
    const { eventsink_topic, lifecycle_topic } = fixture.topics(NS);
    const verdict = compare({
      expected: writer.expected,
      read: (await fixture.records()).map((record) =>
        describeRecord(record, record.topic === eventsink_topic ? 'eventsink' : 'lifecycle'),
      ),
      partitionCounts: new Map([
        [eventsink_topic, PARTITIONS.eventsink],
        [lifecycle_topic, PARTITIONS.lifecycle],
      ]),
    });
    expect(verdict.findings).toEqual([]);
    expect(verdict.ok).toBe(true);
  }, 120_000);

  test('each update is converted by the replica identity that it was written with, also within one transaction', async () => {
    await using fixture = await openStreamFixture({ postgres, kafka, slots: { main: [NS] }, generation: 'old' });
    const { sql } = fixture;
    const { processes, events } = tablesOf(NS);
    const expected: Emitted[] = [];
    const change = async (...steps: readonly ((tx: TransactionSql) => Promise<unknown>)[]) =>
      fixture.commit(async (tx) => {
        for (const step of steps) await step(tx);
      });
    const to = (status: string, detail?: string | null) => (tx: TransactionSql) =>
      setStatus(tx, NS, 'p', status, detail);
    const note = (createdAt: string, ...changes: readonly string[]) =>
      expected.push(...changes.map((one) => lifecycle(NS, 'p', one, createdAt)));
    await sql`CREATE PUBLICATION ${sql(NS)} FOR TABLE ${sql(processes)}, ${sql(events)}`;
    await sql`SELECT pg_create_logical_replication_slot(${fixture.slot('main')}, 'pgoutput')`;
    note(
      await change((tx) => tx`INSERT INTO ${tx(processes)} (process_id, status) VALUES ('p', 'running')`),
      'created',
    );
    await createIndex(sql, NS);
    note(
      await change(
        to('error', 'of an update without any old row'),
        (tx) => useIndex(tx, NS),
        to('running', null),
        to('running'),
        to('error', 'with an old key'),
        (tx) => useFull(tx, NS),
        to('running'),
        to('error', 'with an old row'),
        (tx) => useIndex(tx, NS),
        to('running', null),
      ),
      ...['working', 'failed: with an old key', 'working', 'failed: with an old row', 'working'],
    );
    // progressor's own migration changes the type of an indexed column.
    await migrateNamespace(sql, NS);
    note(await change(to('error', 'after the migration')), 'failed: after the migration');
    await sql.unsafe(`VACUUM FULL "${processes.replaceAll('"', '""')}"`);
    note(await change(to('running', null)), 'working');
    note(await change((tx) => tx`DELETE FROM ${tx(processes)}`), 'removed');

    const settings = { replica_identity: 'status_index', on_missing_old_tuple: 'stop' } as const;
    const stopping = fixture.start({ namespaceSettings: { [NS]: settings } });
    const error = await stopping.waitForFailure(fixture.slot('main'));
    expect(error.message).toContain('the update was sent without the values it replaced (replica identity DEFAULT');
    await stopping.stop();
    const skipping = fixture.start({ namespaceSettings: { [NS]: { ...settings, on_missing_old_tuple: 'skip' } } });
    await fixture.confirmed('main');
    expect(await fixture.emitted()).toEqual(expected);
    expect(skipping.log.filter((line) => 'skippedRowCount' in line)).toMatchObject([{ skippedRowCount: 1 }]);
  }, 60_000);

  test('a failure with an unchanged TOASTed detail has no reason: it stops the slot, or is parked', async () => {
    await using fixture = await openStreamFixture({ postgres, kafka, slots: { main: [NS] } });
    const { sql } = fixture;
    const { processes } = tablesOf(NS);
    await createIndex(sql, NS);
    await useIndex(sql, NS);
    const settings = { replica_identity: 'status_index' } as const;
    const service = fixture.start({ namespaceSettings: { [NS]: settings } });
    await fixture.confirmed('main');
    const createdAt = await fixture.commit((tx) => insertProcess(tx, NS, 'p'));
    await sql`
      UPDATE ${sql(processes)} SET detail = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 500) AS i)`;
    await fixture.commit((tx) => setStatus(tx, NS, 'p', 'error'));
    const error = await service.waitForFailure(fixture.slot('main'));
    expect(error).toMatchObject({ name: 'InvalidRowError', place: { table: processes, key: `${NS} p` } });
    expect(error.message).toContain('column "detail" was not sent: it is an unchanged TOAST value');
    await service.stop();

    const parking_topic = `${fixture.database}-parking`;
    await kafka.createTopic(parking_topic, { partitions: 1 });
    const parking = { ...settings, on_invalid: 'park', parking_topic } as const;
    fixture.start({ namespaceSettings: { [NS]: parking } });
    const repairedAt = await fixture.commit((tx) => setStatus(tx, NS, 'p', 'running', null));
    const failedAt = await fixture.commit((tx) => setStatus(tx, NS, 'p', 'error', 'x'.repeat(20_000)));
    await fixture.confirmed('main');
    expect(firstOccurrences(await fixture.emitted())).toEqual([
      lifecycle(NS, 'p', 'created', createdAt),
      lifecycle(NS, 'p', 'working', repairedAt),
      lifecycle(NS, 'p', `failed: ${'x'.repeat(20_000)}`, failedAt),
    ]);
    expect(await kafka.readAll([parking_topic])).toHaveLength(1);
  }, 60_000);

  test('an update that loses its old key because the index is dropped meanwhile is reported, never passed over', async () => {
    await using fixture = await openStreamFixture({ postgres, kafka, slots: { main: [NS] } });
    const { sql } = fixture;
    const { processes } = tablesOf(NS);
    await createIndex(sql, NS);
    await useIndex(sql, NS);
    const service = fixture.start({ namespaceSettings: { [NS]: { replica_identity: 'status_index' } } });
    await fixture.confirmed('main');
    await fixture.commit(async (tx) => {
      for (const id of ['a', 'b', 'c']) await insertProcess(tx, NS, id);
    });
    await fixture.confirmed('main');
    await service.stop();
    // Opening a table makes the server notice catalog changes of other sessions, also within a statement.
    await sql.unsafe(`
      CREATE FUNCTION reason(id text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN
        PERFORM pg_advisory_xact_lock(1);
        EXECUTE format('CREATE TEMP TABLE %I ()', id);
        RETURN id;
      END $$`);
    await using gate = await sql
      .reserve()
      .then((held) => ({ held, [Symbol.asyncDispose]: async () => held.release() }));
    await gate.held`SELECT pg_advisory_lock(1)`;
    const updated = sql`UPDATE ${sql(processes)} SET status = 'error', detail = reason(process_id)`.execute();
    const waiting = () => sql`SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted`;
    await waitFor('the update', async () => (await waiting()).length === 1);
    const dropped = sql`DROP INDEX CONCURRENTLY ${sql(indexOf(NS))}`.execute();
    await waitFor('the drop', async () => (await sql`SELECT FROM pg_index WHERE NOT indisvalid`).length === 1);
    await gate.held`SELECT pg_advisory_unlock(1)`;
    await Promise.all([updated, dropped]);
    await useFull(sql, NS);

    const settings = { replica_identity: 'status_index', on_missing_old_tuple: 'skip' } as const;
    const skipping = fixture.start({ namespaceSettings: { [NS]: settings } });
    await fixture.confirmed('main');
    const delivered = (await fixture.emitted()).length - 3;
    const skipped = skipping.log.filter((line) => 'skippedRowCount' in line).length;
    expect(skipped).toBeGreaterThan(0);
    expect(delivered + skipped).toBe(3);
  }, 60_000);

  if (hasLists) {
    const NEEDED = { [NS]: { replica_identity: 'status_index', publish_columns: 'needed' } } as const;
    const openIndexed = async () => {
      const fixture = await openStreamFixture({ postgres, kafka, slots: { main: [NS] } });
      await createIndex(fixture.sql, NS);
      await useIndex(fixture.sql, NS);
      return fixture;
    };
    /** Resolves when a warning of this code shows. */
    const warned = (service: InProcessService, code: string) =>
      service.waitForLog(`the warning ${code}`, (line) => line.event === 'slot_warning' && line.code === code);
    /** Runs the statements that an advice holds. */
    const run = async (sql: Sql, advice: unknown) => {
      const session = await sql.reserve();
      await session.unsafe(advice as string).finally(() => session.release());
    };
    const deliversOne = async (fixture: StreamFixture, id: string) => {
      const createdAt = await fixture.commit((tx) => insertProcess(tx, NS, id));
      await fixture.confirmed('main');
      expect(await fixture.emitted()).toContainEqual(lifecycle(NS, id, 'created', createdAt));
    };

    test('columns of a publication that another program created are never taken away', async () => {
      await using fixture = await openIndexed();
      const { sql } = fixture;
      const { processes, events } = tablesOf(NS);
      await sql`CREATE TABLE public.other (id int PRIMARY KEY)`;
      await sql`CREATE PUBLICATION ${sql(NS)} FOR TABLE ${sql(processes)}, ${sql(events)}, public.other`;
      const service = fixture.start({ namespaceSettings: NEEDED });
      const { advice } = await warned(service, 'column_lists_withheld');
      await warned(service, 'publication_excess');
      expect(await columnLists(sql)).toEqual([null, null, null]);
      await deliversOne(fixture, 'p');
      await service.stop();

      // An operator gives it to the service.
      await run(sql, /COMMENT ON [^;]*;/.exec(advice as string)![0]);
      const owner = fixture.start({ namespaceSettings: NEEDED });
      await fixture.confirmed('main');
      expect(await columnLists(sql)).not.toContain(null);
      await deliversOne(fixture, 'q');
      expect([...service.failures(), ...owner.failures()]).toEqual([]);
    }, 60_000);

    test('columns are not taken away while another program may read them, and a warning shows when one appears later', async () => {
      await using fixture = await openIndexed();
      const { sql } = fixture;
      const reader = await sql.reserve();
      const appear = () => reader`SELECT pg_create_logical_replication_slot('cache_00', 'pgoutput', true)`;
      await appear();
      const first = fixture.start({ namespaceSettings: NEEDED });
      expect((await warned(first, 'column_lists_withheld')).msg).toContain('slot cache_00');
      expect(await columnLists(sql)).toEqual([null, null]);
      await first.stop();
      await reader`SELECT pg_drop_replication_slot('cache_00')`;

      const second = fixture.start({ namespaceSettings: NEEDED });
      await fixture.confirmed('main');
      expect(await columnLists(sql)).not.toContain(null);
      await appear();
      await warned(second, 'column_lists_shared');
      await deliversOne(fixture, 'p');
      await reader`SELECT pg_drop_replication_slot('cache_00')`;
      reader.release();
      expect([...first.failures(), ...second.failures()]).toEqual([]);
    }, 60_000);

    test('the lists are removed by the statement that a start logs, for a migration, and restored by the next start, without a loss', async () => {
      await using fixture = await openIndexed();
      const { sql } = fixture;
      const { processes } = tablesOf(NS);
      const migrate = () => sql`ALTER TABLE ${sql(processes)} ALTER COLUMN detail TYPE varchar(4000)`;
      const first = fixture.start({ namespaceSettings: NEEDED });
      const { advice } = await first.waitForLog('the statement', ({ event }) => event === 'column_lists_set');
      await fixture.confirmed('main');
      await expect(migrate()).rejects.toMatchObject({ code: '0A000' });
      await run(sql, advice);
      await migrate();
      expect(await columnLists(sql)).toEqual([null, null]);
      await deliversOne(fixture, 'while it streams');
      await first.stop();

      const second = fixture.start({ namespaceSettings: NEEDED });
      await fixture.confirmed('main');
      expect(await columnLists(sql)).not.toContain(null);
      await second.stop();
      await run(sql, advice);
      const third = fixture.start({ namespaceSettings: NEEDED });
      await deliversOne(fixture, 'after a stop');
      expect([first, second, third].flatMap((service) => service.failures())).toEqual([]);
    }, 60_000);

    test('that statement hides no loss: a table that was missing before it is reported', async () => {
      await using fixture = await openIndexed();
      const { sql } = fixture;
      const { events } = tablesOf(NS);
      const first = fixture.start({ namespaceSettings: NEEDED });
      const { advice } = await first.waitForLog('the statement', ({ event }) => event === 'column_lists_set');
      // Its ledger is written.
      await first.waitForLog('the stream', ({ event }) => event === 'replication_started');
      await first.stop();
      await sql`ALTER PUBLICATION ${sql(NS)} DROP TABLE ${sql(events)}`;
      await sql`ALTER PUBLICATION ${sql(NS)} ADD TABLE ${sql(events)}`;
      await run(sql, advice);
      const second = fixture.start({ namespaceSettings: NEEDED });
      expect(await second.waitForFailure(fixture.slot('main'))).toMatchObject({ name: 'LossError' });
    }, 60_000);
  }

  // Only once: it takes until the service's next look at the catalog.
  if (major === 18) {
    test('column lists that make updates fail after FULL was set are removed while the service streams', async () => {
      await using fixture = await openStreamFixture({ postgres, kafka, slots: { main: [NS] } });
      const { sql } = fixture;
      await createIndex(sql, NS);
      await useIndex(sql, NS);
      fixture.start({ namespaceSettings: { [NS]: { replica_identity: 'status_index', publish_columns: 'needed' } } });
      await fixture.confirmed('main');
      const createdAt = await fixture.commit((tx) => insertProcess(tx, NS, 'p'));
      await useFull(sql, NS);
      const fail = () => fixture.commit((tx) => setStatus(tx, NS, 'p', 'error', 'reason'));
      await expect(fail()).rejects.toMatchObject({ code: '42P10' });
      const failedAt = await waitFor('an update that is not refused', () => fail().catch(() => undefined), {
        timeoutMs: 30_000,
      });
      await fixture.confirmed('main');
      expect(await fixture.emitted()).toEqual([
        lifecycle(NS, 'p', 'created', createdAt),
        lifecycle(NS, 'p', 'failed: reason', failedAt),
      ]);
    }, 60_000);
  }
});
