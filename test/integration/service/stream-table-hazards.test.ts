/**
 * What others do to progressor's tables: child tables hide rows, and column lists and generated columns make PostgreSQL
 * refuse progressor's statements. The service refuses to cause it, and notices it while it streams. Real servers.
 */
import { describe, expect, test } from 'bun:test';
import { waitFor } from '../../support/process/wait.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import { useKafka, usePostgres } from '../../support/service/file-servers.ts';
import type { InProcessService } from '../../support/service/in-process.ts';
import type { LogLine } from '../../support/service/recording-logger.ts';
import {
  insertProcess,
  openStreamFixture,
  type StreamFixture,
  type StreamFixtureOptions,
  writeProcess,
} from '../../support/service/stream-fixture.ts';

const NS = 'orders';
const { processes, events } = tablesOf(NS);
const TIMEOUT_MS = 120_000;

const kafka = useKafka();

const updateAll = (fixture: StreamFixture) => fixture.sql`UPDATE ${fixture.sql(processes)} SET aux_state = 'x'`;
const createChild = (fixture: StreamFixture) =>
  fixture.sql.unsafe(`CREATE TABLE public.orders_events_2026 () INHERITS (public.${events})`);
const detachChild = (fixture: StreamFixture) =>
  fixture.sql.unsafe(`ALTER TABLE public.orders_events_2026 NO INHERIT public.${events}`);
const createList = (fixture: StreamFixture) =>
  fixture.sql.unsafe(`CREATE PUBLICATION analytics FOR TABLE public.${processes} (process_id, status, detail)`);
const dropList = (fixture: StreamFixture) => fixture.sql.unsafe('DROP PUBLICATION analytics');

/** Replica identity of processes, and the publications and slots of the service. */
async function madeByService(fixture: StreamFixture): Promise<unknown> {
  const [row] = await fixture.sql`
    SELECT relreplident::text AS identity,
      (SELECT count(*)::int4 FROM pg_publication WHERE pubname = ${NS}) AS publications,
      (SELECT count(*)::int4 FROM pg_replication_slots WHERE slot_name = ${fixture.slot('one')}) AS slots
    FROM pg_class WHERE relname = ${processes}`;
  return row;
}

const NOTHING = { identity: 'd', publications: 0, slots: 0 };

/** Expects the start to be refused by the hazard, and nothing to be created. */
async function expectRefusal(fixture: StreamFixture, service: InProcessService, code: string): Promise<string> {
  const error = await service.waitForFailure(fixture.slot('one'), 2);
  expect(error).toMatchObject({ name: 'SetupError', code, place: { namespace: NS } });
  expect(await madeByService(fixture)).toEqual(NOTHING);
  return `${error.message} | ${error.advice}`;
}

/** Resolves when the service warns of a hazard, and checks that it says so once and goes on. */
async function expectWarning(fixture: StreamFixture, service: InProcessService, code: string): Promise<void> {
  const failures = service.failures().length;
  const isWarning = (line: LogLine) => line.event === 'slot_warning' && line.code === code;
  const line = await service.waitForLog(`the warning ${code}`, isWarning);
  expect(line).toMatchObject({ subject: processes, advice: expect.stringContaining('status_index') });
  await writeProcess(fixture, NS, `after ${code}`);
  await fixture.confirmed('one');
  expect(service.log.filter(isWarning)).toHaveLength(1);
  expect(service.failures()).toHaveLength(failures);
}

describe.each([14, 17] as const)('child tables on PostgreSQL %d', (major) => {
  const postgres = usePostgres(major);
  const openFixture = (options: Partial<StreamFixtureOptions> = {}) =>
    openStreamFixture({ postgres: postgres(), kafka: kafka(), slots: { one: [NS] }, ...options });

  test(
    'that exist before the start are refused by name, and statements of progressor go on',
    async () => {
      await using fixture = await openFixture();
      await fixture.commit((tx) => insertProcess(tx, NS, 'p'));
      await createChild(fixture);
      const service = fixture.start();
      const said = await expectRefusal(fixture, service, 'table_children');
      expect(said).toContain('has child tables (public.orders_events_2026), whose rows reach no topic');
      expect(said).toContain('ALTER TABLE public.orders_events_2026 NO INHERIT public."orders_events";');
      await fixture.sql`DELETE FROM ${fixture.sql(events)} WHERE process_id = 'p'`;
      await detachChild(fixture);
      await fixture.confirmed('one');
    },
    TIMEOUT_MS,
  );

  test(
    'that appear while it streams end the stream within seconds, until they are detached',
    async () => {
      await using fixture = await openFixture();
      const service = fixture.start();
      await fixture.confirmed('one');
      await createChild(fixture);
      const error = await service.waitForFailure(fixture.slot('one'), 1);
      expect(error).toMatchObject({ code: 'table_children', place: { namespace: NS, table: events } });
      expect(await service.waitForFailure(fixture.slot('one'), 2)).toMatchObject({ name: 'SetupError' });
      await detachChild(fixture);
      const record = await writeProcess(fixture, NS, 'after');
      await fixture.confirmed('one');
      expect(await fixture.emitted(NS)).toEqual([record]);
    },
    TIMEOUT_MS,
  );
});

describe.each([15, 18] as const)('a column list of another publication on PostgreSQL %d', (major) => {
  const postgres = usePostgres(major);
  const openFixture = (options: Partial<StreamFixtureOptions> = {}) =>
    openStreamFixture({ postgres: postgres(), kafka: kafka(), slots: { one: [NS] }, ...options });

  test(
    'is refused before REPLICA IDENTITY FULL would break the updates of progressor',
    async () => {
      await using fixture = await openFixture();
      await fixture.commit((tx) => insertProcess(tx, NS, 'p'));
      await createList(fixture);
      const service = fixture.start();
      const said = await expectRefusal(fixture, service, 'identity_column_list');
      expect(said).toContain('"orders_processes" is in publication "analytics" with a column list');
      await updateAll(fixture);
      await dropList(fixture);
      await fixture.confirmed('one');
      await updateAll(fixture);
    },
    TIMEOUT_MS,
  );

  test(
    'that appears while it streams leads to one warning within seconds, which ends with its cause',
    async () => {
      await using fixture = await openFixture();
      const service = fixture.start();
      await fixture.confirmed('one');
      await createList(fixture);
      await expectWarning(fixture, service, 'identity_column_list');
      await dropList(fixture);
      await service.waitForLog('the end', ({ event }) => event === 'slot_warning_ended');
      await updateAll(fixture);
    },
    TIMEOUT_MS,
  );

  test(
    'of a publication FOR ALL TABLES or IN SCHEMA beside it hides nothing and endangers nothing',
    async () => {
      await using fixture = await openFixture();
      await fixture.sql.unsafe('CREATE PUBLICATION everything FOR ALL TABLES');
      await fixture.sql.unsafe('CREATE PUBLICATION whole_schema FOR TABLES IN SCHEMA public');
      await fixture.sql.unsafe(`CREATE PUBLICATION rows FOR TABLE public.${processes} WHERE (process_id = 'none')`);
      const service = fixture.start();
      await fixture.confirmed('one');
      const record = await writeProcess(fixture, NS, 'p');
      await fixture.confirmed('one');
      await updateAll(fixture);
      expect(await fixture.emitted(NS)).toEqual([record]);
      expect(service.log.filter(({ event }) => event === 'slot_warning')).toEqual([]);
    },
    TIMEOUT_MS,
  );
});

describe('generated columns on PostgreSQL 18', () => {
  const postgres = usePostgres(18);
  const openFixture = (options: Partial<StreamFixtureOptions> = {}) =>
    openStreamFixture({ postgres: postgres(), kafka: kafka(), slots: { one: [NS] }, ...options });

  const addColumn = (fixture: StreamFixture, kind: string) =>
    fixture.sql.unsafe(
      `ALTER TABLE public.${processes} ADD party text GENERATED ALWAYS AS (process_id || 'x') ${kind}`,
    );

  test.each([
    ['STORED', 'identity_stored_columns', 'ALTER PUBLICATION "orders" SET (publish_generated_columns = stored);'],
    ['VIRTUAL', 'identity_virtual_columns', 'Remove the column'],
  ])(
    '%s: refused before REPLICA IDENTITY FULL would break the updates of progressor',
    async (kind, code, advice) => {
      await using fixture = await openFixture();
      await fixture.commit((tx) => insertProcess(tx, NS, 'p'));
      await addColumn(fixture, kind);
      const service = fixture.start();
      const said = await expectRefusal(fixture, service, code);
      expect(said).toContain('has a generated column ("party")');
      expect(said).toContain(advice);
      await updateAll(fixture);
      if (kind === 'STORED') {
        // As the advice says: the publication is created by hand, and publishes the column.
        await fixture.sql.unsafe(
          `CREATE PUBLICATION ${NS} FOR TABLE public.${processes}, public.${events}
             WITH (publish = 'insert, update, delete', publish_generated_columns = stored)`,
        );
      } else {
        await fixture.sql.unsafe(`ALTER TABLE public.${processes} DROP party`);
      }
      await fixture.confirmed('one');
      const record = await writeProcess(fixture, NS, 'q');
      await updateAll(fixture);
      await fixture.confirmed('one');
      expect((await fixture.emitted(NS)).filter(({ key }) => key.endsWith(' q'))).toEqual([record]);
    },
    TIMEOUT_MS,
  );

  test.each([
    ['STORED', 'identity_stored_columns'],
    ['VIRTUAL', 'identity_virtual_columns'],
  ])(
    '%s: a column that is added while the service streams leads to one warning',
    async (kind, code) => {
      await using fixture = await openFixture();
      const service = fixture.start();
      await fixture.confirmed('one');
      await addColumn(fixture, kind);
      await expectWarning(fixture, service, code);
      await expect(updateAll(fixture)).rejects.toMatchObject({ code: '42P10' });
      await waitFor('the warning', () => service.log.some(({ event }) => event === 'slot_warning'));
      await fixture.sql.unsafe(`ALTER TABLE public.${processes} DROP party`);
      await service.waitForLog('the end', ({ event }) => event === 'slot_warning_ended');
      await updateAll(fixture);
    },
    TIMEOUT_MS,
  );
});

describe.each([14, 18] as const)('the labels of the status on PostgreSQL %d', (major) => {
  const postgres = usePostgres(major);
  const openFixture = () => openStreamFixture({ postgres: postgres(), kafka: kafka(), slots: { one: [NS] } });

  test(
    'a status with another name is warned of: its changes make no record',
    async () => {
      await using fixture = await openFixture();
      const service = fixture.start();
      await fixture.confirmed('one');
      await fixture.sql`ALTER TYPE process_status RENAME VALUE 'error' TO 'mistake'`;
      const isWarning = (line: LogLine) => line.code === 'status_labels';
      const { event, subject, msg } = await service.waitForLog('the warning', isWarning);
      expect([event, subject]).toEqual(['slot_warning', processes]);
      expect(msg).toContain('lacks error, and has mistake as well');
      await fixture.sql`ALTER TYPE process_status RENAME VALUE 'mistake' TO 'error'`;
      await service.waitForLog('its end', (line) => isWarning(line) && line.event === 'slot_warning_ended');
      expect(service.failures()).toEqual([]);
    },
    TIMEOUT_MS,
  );
});
