/**
 * What others do to the catalog while the service streams: every row arrives with its bytes, or the slot stops with an error
 * that names the object, or a warning says what is hidden; the other slot of the database goes on. Real servers.
 */
import { describe, expect, test } from 'bun:test';
import { waitFor } from '../../support/process/wait.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import { useKafka, usePostgres } from '../../support/service/file-servers.ts';
import { type InProcessService, startInProcessService } from '../../support/service/in-process.ts';
import type { LogLine } from '../../support/service/recording-logger.ts';
import {
  type Emitted,
  event,
  expectEmitted,
  insertEvent,
  insertProcess,
  lifecycle,
  openStreamFixture,
  type StreamFixture,
  setStatus,
  writeProcess,
} from '../../support/service/stream-fixture.ts';

const NS = 'orders';
/** In another slot of the same database */
const OTHER = 'payments';
const { processes, events } = tablesOf(NS);
const TIMEOUT_MS = 120_000;

const kafka = useKafka();

/** One process that is created, has an event, fails and is repaired; returns its records. */
async function live(fixture: StreamFixture, id: string, namespace = NS): Promise<Emitted[]> {
  const { commit } = fixture;
  const at = await commit((tx) => insertProcess(tx, namespace, id));
  const happened = await commit((tx) => insertEvent(tx, namespace, id, 1));
  const failed = await commit((tx) => setStatus(tx, namespace, id, 'error', 'why'));
  const repaired = await commit((tx) => setStatus(tx, namespace, id, 'running'));
  return [
    lifecycle(namespace, id, 'created', at),
    event(namespace, id, { eventId: 1, createdAt: happened }),
    lifecycle(namespace, id, 'failed: why', failed),
    lifecycle(namespace, id, 'working', repaired),
  ];
}

const warnings = (service: InProcessService) =>
  service.log.filter(({ event: name }) => name === 'slot_warning').map(({ code }) => code);

describe.each([14, 18] as const)('on PostgreSQL %d', (major) => {
  const postgres = usePostgres(major);
  const openFixture = () =>
    openStreamFixture({ postgres: postgres(), kafka: kafka(), slots: { one: [NS], two: [OTHER] } });
  const run = (fixture: StreamFixture, statements: string) => fixture.sql.unsafe(statements).simple();

  const harmless: [name: string, alter: string, restore: string, since?: number][] = [
    ['a publication FOR ALL TABLES', 'CREATE PUBLICATION f FOR ALL TABLES', 'DROP PUBLICATION f'],
    [
      'a publication FOR ALL TABLES with publish_via_partition_root',
      'CREATE PUBLICATION f FOR ALL TABLES WITH (publish_via_partition_root)',
      'DROP PUBLICATION f',
    ],
    [
      'a publication FOR TABLES IN SCHEMA with publish_via_partition_root',
      'CREATE PUBLICATION f FOR TABLES IN SCHEMA public WITH (publish_via_partition_root)',
      'DROP PUBLICATION f',
      15,
    ],
    [
      'a row filter of another publication',
      `CREATE PUBLICATION f FOR TABLE ${processes} WHERE (process_id = 'none'), ${events} WHERE (process_id = 'none')`,
      'DROP PUBLICATION f',
      15,
    ],
    [
      'a rule DO ALSO',
      `CREATE TABLE copy (LIKE ${events}); CREATE RULE also AS ON INSERT TO ${events} DO ALSO INSERT INTO copy VALUES (NEW.*)`,
      `DROP RULE also ON ${events}`,
    ],
    ['an added label', "ALTER TYPE process_status ADD VALUE 'paused'", 'SELECT 1'],
    [
      'columns that are added and dropped',
      `ALTER TABLE ${events} ADD note text DEFAULT 'x', ADD n int`,
      `ALTER TABLE ${events} DROP note, DROP n`,
    ],
    [
      'columns of type text and varchar',
      `ALTER TABLE ${events} ALTER process_id TYPE text`,
      `ALTER TABLE ${processes} ALTER detail TYPE varchar`,
    ],
    [
      'an event_id of type bigint and int',
      `ALTER TABLE ${events} ALTER event_id TYPE bigint`,
      `ALTER TABLE ${events} ALTER event_id TYPE int`,
    ],
    [
      'a partitioned table that takes the table as a partition',
      `CREATE TABLE whole (LIKE ${events}) PARTITION BY LIST (process_id); ALTER TABLE whole ATTACH PARTITION ${events} DEFAULT`,
      `ALTER TABLE whole DETACH PARTITION ${events}`,
    ],
    [
      'a parent that the table inherits from',
      `CREATE TABLE parent (LIKE ${events}); ALTER TABLE ${events} INHERIT parent`,
      `ALTER TABLE ${events} NO INHERIT parent`,
    ],
    ['a TRUNCATE', `TRUNCATE ${events}`, `TRUNCATE ${events}`],
    ['VACUUM FULL and CLUSTER', `VACUUM FULL ${events}`, `CLUSTER ${events} USING ${events}_pkey`],
    [
      'an extension that owns the table',
      `ALTER EXTENSION plpgsql ADD TABLE ${events}`,
      `ALTER EXTENSION plpgsql DROP TABLE ${events}`,
    ],
    [
      'a refused SET UNLOGGED',
      `DO $$ BEGIN ALTER TABLE ${events} SET UNLOGGED; EXCEPTION WHEN OTHERS THEN NULL; END $$`,
      'SELECT 1',
    ],
  ];

  test.each(harmless.filter(([, , , since = 14]) => since <= major))(
    'with %s every row arrives',
    async (_name, alter, restore) => {
      await using fixture = await openFixture();
      const service = fixture.start();
      await service.waitForStart(fixture.slot('one'), fixture.slot('two'));
      const records = await live(fixture, 'before');
      await run(fixture, alter);
      records.push(...(await live(fixture, 'between')));
      await fixture.confirmed('one');
      await run(fixture, restore);
      records.push(...(await live(fixture, 'after')));
      await fixture.confirmed('one');
      records.push(...(await live(fixture, 'other', OTHER)));
      await fixture.confirmed('two');
      await expectEmitted(fixture, records);
      expect(service.failures()).toEqual([]);
      expect(warnings(service).filter((code) => code !== 'outdated_server')).toEqual([]);
    },
    TIMEOUT_MS,
  );

  test(
    'rows written under a replication origin arrive',
    async () => {
      await using fixture = await openFixture();
      await run(fixture, "SELECT pg_replication_origin_create('elsewhere')");
      const service = fixture.start();
      await service.waitForStart(fixture.slot('one'));
      const committed = await fixture.commit(async (tx) => {
        await tx`SELECT pg_replication_origin_session_setup('elsewhere')`;
        await insertProcess(tx, NS, 'p');
        await tx`SELECT pg_replication_origin_session_reset()`;
      });
      const written = await fixture.sql.begin(async (tx) => {
        await tx`SELECT pg_replication_origin_session_setup('elsewhere')`;
        await tx`SELECT pg_replication_origin_xact_setup('0/1234', now())`;
        await insertProcess(tx, NS, 'q');
        const [row] = await tx`SELECT pg_current_xact_id()::text AS xid`;
        return row!.xid as string;
      });
      await fixture.confirmed('one');
      await expectEmitted(fixture, [
        lifecycle(NS, 'p', 'created', committed),
        lifecycle(NS, 'q', 'created', await fixture.commitTime(written)),
      ]);
      expect(service.failures()).toEqual([]);
    },
    TIMEOUT_MS,
  );

  test(
    'row security that is forced hides nothing from a role that it applies to',
    async () => {
      await using fixture = await openFixture();
      await run(
        fixture,
        `DROP ROLE IF EXISTS limited; CREATE ROLE limited LOGIN REPLICATION PASSWORD 'x';
         GRANT CREATE ON DATABASE ${fixture.database} TO limited;
         ALTER TABLE ${processes} OWNER TO limited; ALTER TABLE ${events} OWNER TO limited;
         ALTER TABLE ${processes} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;`,
      );
      const options = fixture.serviceOptions({ slots: { one: [NS] } });
      const { host, port, password } = options.postgres;
      const limited = { ...options.postgres, host, port, password, superuser: 'limited' as 'postgres' };
      await using service = startInProcessService({ ...options, postgres: limited });
      await service.waitForStart(fixture.slot('one'));
      const records = await live(fixture, 'before');
      await run(fixture, `ALTER TABLE ${events} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY`);
      records.push(...(await live(fixture, 'after')));
      await fixture.confirmed('one');
      await expectEmitted(fixture, records);
      expect(service.failures()).toEqual([]);
      await service.stop();
      await run(fixture, 'DROP OWNED BY limited CASCADE; DROP ROLE limited').catch(() => {});
    },
    TIMEOUT_MS,
  );

  const insertInto = (table: string, columns = 'process_id, task_id, event_id, payload') =>
    `INSERT INTO ${table} (${columns}) VALUES ('x', 1, 1, '\\x836a')`;

  const stops: [name: string, statements: string[], code: string, says: string[]][] = [
    [
      'renamed',
      [`ALTER TABLE ${events} RENAME TO orders_archive`, insertInto('orders_archive')],
      'relation_renamed',
      [`Cannot read table \\"${events}`, 'orders_archive'],
    ],
    [
      'moved to another schema',
      ['CREATE SCHEMA old', `ALTER TABLE ${events} SET SCHEMA old`, insertInto(`old.${events}`)],
      'relation_renamed',
      [`Cannot read table \\"${events}`, '\\"old\\".'],
    ],
    [
      'dropped and created again',
      [
        `CREATE TABLE t (LIKE ${events})`,
        `DROP TABLE ${events}`,
        `ALTER TABLE t RENAME TO ${events}`,
        insertInto(events),
      ],
      'publication_altered',
      ['publication \\"orders\\"', `it does not hold public.\\"${events}\\"`],
    ],
    [
      'without a column',
      [`ALTER TABLE ${events} DROP metadata`, insertInto(events)],
      'column_missing',
      [events, 'metadata'],
    ],
    [
      'with a payload of type text',
      [`ALTER TABLE ${events} ALTER payload TYPE text USING 'x'`, insertInto(events)],
      'column_type',
      [events, 'payload'],
    ],
    [
      'with a status of type text',
      [`ALTER TABLE ${processes} ALTER status TYPE text`, `UPDATE ${processes} SET status = 'error'`],
      'column_type',
      [processes, 'status'],
    ],
  ];

  test.each(stops)(
    'a table that is %s ends the stream with an error that names it, and the other slot goes on',
    async (_name, statements, code, says) => {
      await using fixture = await openFixture();
      const service = fixture.start();
      await service.waitForStart(fixture.slot('one'), fixture.slot('two'));
      const records = await live(fixture, 'before');
      await fixture.confirmed('one');
      for (const statement of statements) await run(fixture, statement);
      const error = await service.waitForFailure(fixture.slot('one'));
      expect(error).toMatchObject({ code });
      for (const text of says) expect(JSON.stringify(error)).toContain(text);
      await expectEmitted(fixture, records);
      const record = await writeProcess(fixture, OTHER, 'other');
      await fixture.confirmed('two');
      expect(await fixture.emitted(OTHER)).toEqual([record]);
      expect(service.failures(fixture.slot('two'))).toEqual([]);
    },
    TIMEOUT_MS,
  );

  test.each([
    [
      'another name',
      [`ALTER TABLE ${events} RENAME TO o`, insertInto('o'), `ALTER TABLE o RENAME TO ${events}`],
      '"public"."o"',
    ],
    [
      'another schema',
      [
        'CREATE SCHEMA old',
        `ALTER TABLE ${events} SET SCHEMA old; ${insertInto(`old.${events}`)}; ALTER TABLE old.${events} SET SCHEMA public`,
      ],
      `"old"."${events}"`,
    ],
    [
      'the name of another namespace',
      [
        `ALTER TABLE ${tablesOf(OTHER).events} RENAME TO t; ALTER TABLE ${events} RENAME TO ${tablesOf(OTHER).events}`,
        `${insertInto(tablesOf(OTHER).events)}; ALTER TABLE ${tablesOf(OTHER).events} RENAME TO ${events}`,
        `ALTER TABLE t RENAME TO ${tablesOf(OTHER).events}`,
      ],
      `"public"."${tablesOf(OTHER).events}"`,
    ],
  ])(
    'a row that was written while its table had %s for a moment stops the slot, and can be parked',
    async (_name, statements, name) => {
      await using fixture = await openFixture();
      const service = fixture.start();
      await service.waitForStart(fixture.slot('one'), fixture.slot('two'));
      const records = await live(fixture, 'before');
      await fixture.confirmed('one');
      await run(fixture, statements.join('; '));
      // The second attempt begins with the table under its own name.
      const error = await service.waitForFailure(fixture.slot('one'), 2);
      expect(error).toMatchObject({ code: 'relation_renamed', place: { namespace: NS, table: events } });
      expect(error.message).toContain(name);
      records.push(...(await live(fixture, 'after')));
      await service.stop();
      const parkingTopic = `${fixture.database}-parking`;
      await kafka().createTopic(parkingTopic, { partitions: 1 });
      fixture.start({ namespaceSettings: { [NS]: { on_invalid: 'park', parking_topic: parkingTopic } } });
      await fixture.confirmed('one');
      await fixture.confirmed('two');
      await expectEmitted(fixture, records);
      expect((await kafka().readAll([parkingTopic])).map(({ key }) => key.toString())).toEqual([`${NS} x`]);
    },
    TIMEOUT_MS,
  );

  test(
    'a label that is added gives no record, and does not keep the stream',
    async () => {
      await using fixture = await openFixture();
      const service = fixture.start();
      await service.waitForStart(fixture.slot('one'), fixture.slot('two'));
      const records = await live(fixture, 'p');
      await run(fixture, "ALTER TYPE process_status ADD VALUE 'paused'");
      for (const status of ['paused', 'running']) await fixture.commit((tx) => setStatus(tx, NS, 'p', status));
      records.push(...(await live(fixture, 'q')));
      await fixture.confirmed('one');
      await expectEmitted(fixture, records);
      // The first row may come before the label is known: the next attempt knows it.
      expect(service.failures(fixture.slot('one')).length).toBeLessThanOrEqual(1);
    },
    TIMEOUT_MS,
  );

  test(
    'a change to a label that was renamed stops the slot, and can be parked',
    async () => {
      await using fixture = await openFixture();
      const service = fixture.start();
      await service.waitForStart(fixture.slot('one'), fixture.slot('two'));
      const records = await live(fixture, 'p');
      await fixture.confirmed('one');
      await run(fixture, "ALTER TYPE process_status RENAME VALUE 'error' TO 'failed'");
      await fixture.commit((tx) => setStatus(tx, NS, 'p', 'failed', 'lost?'));
      // The second attempt knows that the type has this label, and lacks another one.
      const error = await service.waitForFailure(fixture.slot('one'), 2);
      expect(error).toMatchObject({ code: 'status_unknown', place: { table: processes, key: `${NS} p` } });
      expect(error.message).toContain('"failed"');
      await run(fixture, "ALTER TYPE process_status RENAME VALUE 'failed' TO 'error'");
      await service.waitForFailure(fixture.slot('one'), 3);
      await service.stop();
      const parkingTopic = `${fixture.database}-parking`;
      await kafka().createTopic(parkingTopic, { partitions: 1 });
      fixture.start({ namespaceSettings: { [NS]: { on_invalid: 'park', parking_topic: parkingTopic } } });
      records.push(...(await live(fixture, 'q')));
      await fixture.confirmed('one');
      await expectEmitted(fixture, records);
      expect((await kafka().readAll([parkingTopic])).map(({ key }) => key.toString())).toEqual([`${NS} p`]);
    },
    TIMEOUT_MS,
  );

  const hiding: [name: string, before: string, statements: string[], cure: string, code: string, since?: number][] = [
    [
      'a publication FOR TABLES IN SCHEMA and an unlogged table',
      `CREATE PUBLICATION ${NS} FOR TABLES IN SCHEMA public`,
      [`ALTER TABLE ${events} SET UNLOGGED`, insertInto(events)],
      `ALTER TABLE ${events} SET LOGGED`,
      'table_unlogged',
      15,
    ],
    [
      'a partitioned table above it in the publication, and publish_via_partition_root',
      'SELECT 1',
      [
        `CREATE TABLE whole (LIKE ${events}) PARTITION BY LIST (process_id)`,
        `ALTER TABLE whole ATTACH PARTITION ${events} DEFAULT`,
        `ALTER PUBLICATION ${NS} ADD TABLE whole`,
        `ALTER PUBLICATION ${NS} SET (publish_via_partition_root)`,
        insertInto(events),
      ],
      `ALTER PUBLICATION ${NS} SET (publish_via_partition_root = false)`,
      'published_as_root',
    ],
  ];

  test.each(hiding.filter(([, , , , , since = 14]) => since <= major))(
    'rows that are hidden by %s end the stream within seconds, and the advice cures it',
    async (_name, before, statements, cure, code) => {
      await using fixture = await openFixture();
      await run(fixture, before);
      const service = fixture.start();
      await service.waitForStart(fixture.slot('one'), fixture.slot('two'));
      const records = await live(fixture, 'before');
      await fixture.confirmed('one');
      for (const statement of statements) await run(fixture, statement);
      const error = await service.waitForFailure(fixture.slot('one'));
      expect(error).toMatchObject({ code, place: { namespace: NS, table: events } });
      expect(error.message).toMatch(/Rows that were written after .* may be missing/);
      expect(await service.waitForFailure(fixture.slot('one'), 2)).toMatchObject({ name: 'SetupError', code });
      expect(error.advice?.replaceAll('"', '')).toContain(cure.replace(`TABLE ${events}`, `TABLE public.${events}`));
      await run(fixture, cure);
      records.push(...(await live(fixture, 'after')));
      await fixture.confirmed('one');
      await expectEmitted(fixture, records);
      expect(service.failures(fixture.slot('two'))).toEqual([]);
    },
    TIMEOUT_MS,
  );

  test(
    'a rule with INSTEAD is warned of once, with the statement that drops it',
    async () => {
      await using fixture = await openFixture();
      const service = fixture.start();
      await service.waitForStart(fixture.slot('one'), fixture.slot('two'));
      const records = await live(fixture, 'before');
      await run(
        fixture,
        `CREATE TABLE copy (LIKE ${events});
         CREATE RULE move AS ON INSERT TO ${events} DO INSTEAD INSERT INTO copy VALUES (NEW.*)`,
      );
      await fixture.commit((tx) => insertEvent(tx, NS, 'hidden', 1));
      const line = await service.waitForLog('the warning', ({ code }) => code === 'table_rules');
      expect([line.subject, line.advice]).toEqual([events, expect.stringContaining('DROP RULE "move"')]);
      await run(fixture, `DROP RULE move ON ${events}; INSERT INTO ${events} SELECT * FROM copy`);
      await service.waitForLog('its end', ({ event: name }) => name === 'slot_warning_ended');
      await fixture.confirmed('one');
      expect((await fixture.emitted(NS)).map(({ key }) => key)).toContain(`${NS} hidden`);
      expect((await fixture.emitted(NS)).filter(({ key }) => key === `${NS} before`)).toHaveLength(records.length);
      expect(warnings(service).filter((code) => code === 'table_rules')).toHaveLength(1);
      expect(service.failures()).toEqual([]);
    },
    TIMEOUT_MS,
  );
});

describe('a status index and another publication on PostgreSQL 18', () => {
  const postgres = usePostgres(18);
  const namespaceSettings = { [NS]: { replica_identity: 'status_index' } } as const;

  /** With a process, and a table that an index identifies. */
  const openIndexed = async (): Promise<StreamFixture> => {
    const fixture = await openStreamFixture({ postgres: postgres(), kafka: kafka(), slots: { one: [NS] } });
    await fixture.sql.unsafe(`CREATE UNIQUE INDEX by_status ON ${processes} (process_id, status)`);
    await fixture.sql.unsafe(`ALTER TABLE ${processes} REPLICA IDENTITY USING INDEX by_status`);
    await fixture.commit((tx) => insertProcess(tx, NS, 'p'));
    return fixture;
  };

  /** Lets the process fail, and expects its record and no failure of the service. */
  const expectFailed = async (fixture: StreamFixture, service: InProcessService): Promise<void> => {
    await setStatus(fixture.sql, NS, 'p', 'error');
    await fixture.confirmed('one');
    expect((await fixture.emitted(NS)).map(({ value }) => (value as { change: string }).change)).toEqual([
      'failed: unknown',
    ]);
    expect(service.failures()).toEqual([]);
  };

  const createList = `CREATE PUBLICATION f FOR TABLE ${processes} (process_id, detail)`;

  test(
    'the service warns of a column list that lacks a column of the index, at a start and while it streams',
    async () => {
      await using fixture = await openIndexed();
      const { sql } = fixture;
      await sql.unsafe(createList);
      const service = fixture.start({ namespaceSettings });
      const begins = ({ event: name, code }: LogLine) => name === 'slot_warning' && code === 'identity_column_list';
      const line = await service.waitForLog('the warning', begins);
      expect(line.subject).toBe(processes);
      expect(line.msg).toContain('without "status"');
      await expect(setStatus(sql, NS, 'p', 'error')).rejects.toMatchObject({ code: '42P10' });
      await sql.unsafe('DROP PUBLICATION f');
      await service.waitForLog('its end', ({ event: name }) => name === 'slot_warning_ended');
      await sql.unsafe(createList);
      await waitFor('the second warning', () => service.log.filter(begins).length === 2);
      await sql.unsafe('ALTER PUBLICATION f SET TABLE orders_processes (process_id, status)');
      await expectFailed(fixture, service);
    },
    TIMEOUT_MS,
  );

  test(
    'the service warns of a row filter on a column outside the index, and accepts one on a column of the index',
    async () => {
      await using fixture = await openIndexed();
      const { sql } = fixture;
      const service = fixture.start({ namespaceSettings });
      await fixture.confirmed('one');
      await sql.unsafe(`CREATE PUBLICATION f FOR TABLE ${processes} WHERE (process_id > 'a' AND detail IS NULL)`);
      const begins = ({ event: name, code }: LogLine) => name === 'slot_warning' && code === 'identity_row_filter';
      const line = await service.waitForLog('the warning', begins);
      expect(line.subject).toBe(processes);
      expect(line.msg).toContain('publication "f" with a row filter on "detail", not of its replica identity');
      expect(line.advice).toContain(`ALTER PUBLICATION "f" SET (publish = 'insert');`);
      await expect(setStatus(sql, NS, 'p', 'error')).rejects.toMatchObject({ code: '42P10' });
      await sql.unsafe(`ALTER PUBLICATION f SET (publish = 'insert')`);
      await service.waitForLog('its end', ({ event: name }) => name === 'slot_warning_ended');
      await sql.unsafe(`ALTER PUBLICATION f SET (publish = 'insert, update, delete')`);
      await waitFor('the second warning', () => service.log.filter(begins).length === 2);
      await sql.unsafe(`ALTER PUBLICATION f SET TABLE ${processes} WHERE (process_id > 'a' AND process_id < 'z')`);
      await expectFailed(fixture, service);
    },
    TIMEOUT_MS,
  );
});
