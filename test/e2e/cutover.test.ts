/**
 * The procedures of config/guide/cutover.md, step by step, with what the operator sees: from the Erlang service to this one and
 * back, and adding, moving and removing namespaces and slots.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import type { Sql } from 'postgres';
import { type KafkaServer, startKafka } from '../support/kafka/server.ts';
import type { PostgresServer } from '../support/postgres/server.ts';
import { waitFor } from '../support/process/wait.ts';
import { createNamespace, tablesOf } from '../support/progressor/tables.ts';
import { ProgressorWriter } from '../support/progressor/writer.ts';
import { type BinaryLogLine, type RunningBinary, STARTED } from '../support/service/binary.ts';
import {
  type BinaryFixture,
  compareWith,
  createTopics,
  expectCleanLogs,
  isFailure,
  openBinaryFixture,
  startServer,
  startService,
  streamConfig,
  type TestNamespace,
  uniqueName,
  waitUntilConfirmed,
} from '../support/service/binary-fixture.ts';
import { ErlangService } from './erlang-service.ts';

let kafka: KafkaServer;

beforeAll(async () => {
  kafka = await startKafka();
}, 120_000);

afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
}, 30_000);

afterEach(expectCleanLogs);

const TIMEOUT_MS = 90_000;
const SOME = 40;

/** The configuration of a fixture with other streams, and with further settings. */
function configWith(
  { config }: BinaryFixture,
  streams: Readonly<Record<string, readonly TestNamespace[]>>,
  settings: object = {},
): object {
  const slots = Object.entries(streams).map(([slot, namespaces]) => [slot, streamConfig(namespaces)]);
  return { ...config, streams: { db: Object.fromEntries(slots) }, ...settings };
}

/** Starts the program and waits until these slots stream. */
async function startWith(config: object, ...slots: readonly string[]): Promise<RunningBinary> {
  const service = await startService(config);
  await service.waitForStart(...slots);
  return service;
}

/** Writes until the work is done, and a little longer. */
async function underLoad<T>(writer: ProgressorWriter, work: Promise<T>): Promise<T> {
  let isDone = false;
  const noted = work.finally(() => {
    isDone = true;
  });
  // Awaited below, after the last batch.
  noted.catch(() => {});
  while (!isDone) await writer.write(SOME);
  await writer.write(SOME);
  return noted;
}

/** A writer to one namespace only. */
function writerOf({ database }: BinaryFixture, namespace: TestNamespace, processIdPrefix = ''): ProgressorWriter {
  return new ProgressorWriter({ sql: database.sql, namespaces: [namespace], processIdPrefix });
}

/** Expects the topics to hold exactly what these writers have written; returns the number of repeats. */
async function expectArrived(
  writers: readonly ProgressorWriter[],
  namespaces: readonly TestNamespace[],
): Promise<number> {
  const verdict = await compareWith(
    writers.flatMap(({ expected }) => expected),
    namespaces,
  );
  expect(verdict).toMatchObject({ ok: true, findings: [] });
  for (const { expected } of writers) expect(expected.length).toBeGreaterThan(0);
  return verdict.duplicates;
}

async function confirmedLsn(sql: Sql, slot: string): Promise<string | undefined> {
  const [row] = await sql`
    SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = ${slot}`;
  return row?.lsn;
}

/** Runs a statement from config/guide/cutover.md or the log, unchanged. */
async function run({ database }: BinaryFixture, statement: string): Promise<void> {
  await database.sql.unsafe(statement);
}

/** Drops the ledgers of all slots of the database, with the query of config/guide/cutover.md. */
async function dropLedgers({ database }: BinaryFixture): Promise<void> {
  const statements = await database.sql<{ format: string }[]>`
    SELECT format('DROP PUBLICATION %I;', pubname) FROM pg_publication WHERE pubname LIKE 'cdc-notifier:%'`;
  expect(statements).toHaveLength(1);
  for (const { format } of statements) await database.sql.unsafe(format);
}

/** Processes tables without replica identity FULL, by the query of config/guide/cutover.md. */
async function tablesWithoutFull({ database }: BinaryFixture): Promise<readonly string[]> {
  const rows = await database.sql.unsafe<{ relname: string }[]>(String.raw`
    SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE '%\_processes' AND relreplident <> 'f'`);
  return rows.map(({ relname }) => relname);
}

function warnings(service: RunningBinary): BinaryLogLine[] {
  return service.lines.filter(({ level }) => level === 'warn' || level === 'error');
}

function isCreation(namespace: string): (line: BinaryLogLine) => boolean {
  return (line) => line.msg === 'created publication' && line.namespace === namespace;
}

describe.each([14, 18] as const)('on PostgreSQL %d', (major) => {
  let server: PostgresServer;

  beforeAll(async () => {
    server = await startServer({}, major);
  }, 120_000);

  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  }, 30_000);

  test(
    'slot and publications of the Erlang service are used as they are: nothing is lost, and only what it had not confirmed is repeated',
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka });
      const { database, slot, namespaces, writer } = fixture;
      const erlang = new ErlangService(database, slot, namespaces);
      await erlang.prepare();
      await writer.write(SOME);
      await erlang.deliver();
      await writer.write(SOME);
      const unconfirmed = await erlang.deliver({ unconfirmed: 7 });
      await writer.write(SOME);
      const left = { belongings: await erlang.belongings(), lsn: await confirmedLsn(database.sql, slot) };

      await using service = await startService(fixture.config);
      const start = await underLoad(
        writer,
        service.waitForLine('the start', ({ msg }) => msg === STARTED),
      );
      expect(start).toMatchObject({ slot, fromLsn: left.lsn });
      await fixture.confirmed();
      expect((await fixture.expectAllArrived()).duplicates).toBe(unconfirmed);
      expect(unconfirmed).toBeGreaterThan(0);
      expect(await erlang.belongings()).toBe(left.belongings);
      expect(warnings(service)).toEqual([]);
      expect(await service.stop()).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    'the service stands by while the Erlang service streams, and takes over when that one stops',
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka });
      const { database, slot, namespaces, writer } = fixture;
      const erlang = new ErlangService(database, slot, namespaces);
      await erlang.prepare();
      const hold = await erlang.hold();
      await writer.write(SOME);
      await hold.firstChange;
      await using service = await startService(fixture.config);
      const standby = await service.waitForLine('a standby', ({ msg }) => msg.includes('standing by'));
      expect(standby).toMatchObject({ level: 'info', slot, applicationName: 'erlang service' });
      await writer.write(SOME);
      expect(await kafka.readAll(namespaces.map(({ lifecycleTopic }) => lifecycleTopic))).toEqual([]);
      await hold.release();
      await service.waitForStart(slot);
      await fixture.confirmed();
      expect((await fixture.expectAllArrived()).duplicates).toBe(0);
      expect(warnings(service)).toEqual([]);
      expect(await service.stop()).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    'after the ledger was dropped, the Erlang service and this one continue where the other stopped, back and forth',
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka });
      const { database, slot, namespaces, writer } = fixture;
      const erlang = new ErlangService(database, slot, namespaces);
      await erlang.prepare();
      const belongings = await erlang.belongings();
      for (let round = 0; round < 2; round++) {
        await writer.write(SOME);
        await erlang.deliver();
        await writer.write(SOME);
        await using service = await startWith(fixture.config, slot);
        await writer.write(SOME);
        await fixture.confirmed();
        expect(await service.stop()).toBe(0);
        expect(warnings(service)).toEqual([]);

        await dropLedgers(fixture);
        await erlang.prepare();
        expect(await erlang.belongings()).toBe(belongings);
        await writer.write(SOME);
        const hold = await erlang.hold();
        await hold.firstChange;
        await hold.release();
        await waitFor('the release of the slot', async () => {
          const [row] = await database.sql`SELECT active FROM pg_replication_slots WHERE slot_name = ${slot}`;
          return row?.active === false;
        });
      }
      await erlang.deliver();
      expect((await fixture.expectAllArrived()).duplicates).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    'when the ledger was not dropped, the progress of the Erlang service is reported as a loss until it is accepted or the ledger is dropped',
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka });
      const { database, slot, namespaces, writer } = fixture;
      const erlang = new ErlangService(database, slot, namespaces);
      /** Lets the Erlang service deliver, starts this one and resolves with the loss that it reports. */
      const startAfterErlang = async (config: object): Promise<RunningBinary & { loss: BinaryLogLine }> => {
        const ours = await confirmedLsn(database.sql, slot);
        await erlang.prepare();
        await writer.write(SOME);
        await erlang.deliver();
        const theirs = await confirmedLsn(database.sql, slot);
        await writer.write(SOME);
        const service = await startService(config);
        const loss = await service.waitForLine('the loss', isFailure(slot));
        expect(loss.error).toMatchObject({ name: 'LossError', place: { database: 'db', slot, lsn: ours } });
        expect(loss.error?.message).toContain(`the slot is at ${theirs}, but this service last confirmed ${ours}`);
        expect(loss.error?.advice).toStartWith(`Changes from ${ours} to ${theirs} cannot be streamed`);
        expect(loss.error?.advice).toContain(`slots.db.${slot}.accept_loss_after: ${ours} in the configuration`);
        expect(await confirmedLsn(database.sql, slot)).toBe(theirs!);
        return Object.assign(service, { loss });
      };
      const { config } = fixture;
      {
        await using first = await startWith(config, slot);
        await writer.write(SOME);
        await fixture.confirmed();
        expect(await first.stop()).toBe(0);
      }
      let accepted: string | undefined;
      {
        await using stopped = await startAfterErlang(config);
        accepted = /accept_loss_after: (\S+)/.exec(stopped.loss.error!.advice!)?.[1];
        expect(await stopped.stop()).toBe(0);
      }
      const accepting = { ...config, slots: { db: { [slot]: { accept_loss_after: accepted } } } };
      {
        await using second = await startWith(accepting, slot);
        const warning = second.lines.find(({ msg }) => msg.includes('as accept_loss_after allows'));
        expect(warning).toMatchObject({ level: 'warn', slot, fromLsn: accepted });
        await fixture.confirmed();
        expect((await fixture.expectAllArrived()).duplicates).toBe(0);
        expect(await second.stop()).toBe(0);
      }
      // An acceptance is used once: the next loss needs another one.
      await using third = await startAfterErlang(accepting);
      await dropLedgers(fixture);
      await third.waitForStart(slot);
      await fixture.confirmed();
      expect((await fixture.expectAllArrived()).duplicates).toBe(0);
      expect(await third.stop()).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    'updates from before replica identity FULL are reported, and skipped when that is configured',
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka });
      const { database, slot, namespaces, writer } = fixture;
      for (const { namespace } of namespaces) {
        const { processes, events } = tablesOf(namespace);
        await run(fixture, `CREATE PUBLICATION "${namespace}" FOR TABLE "${processes}", "${events}"`);
      }
      await new ErlangService(database, slot, namespaces).prepare();
      await writer.write(SOME * 2);
      const backlog = writer.expected.length;
      expect(await tablesWithoutFull(fixture)).toHaveLength(namespaces.length);
      {
        await using service = await startService(fixture.config);
        const { error } = await service.waitForLine('the refusal', isFailure(slot));
        expect(error).toMatchObject({ name: 'MissingOldTupleError', place: { database: 'db', slot } });
        expect(error?.advice).toContain('on_missing_old_tuple: skip');
        expect(await tablesWithoutFull(fixture)).toEqual([]);
        expect(await service.stop()).toBe(0);
      }
      const skipping = Object.entries(streamConfig(namespaces)).map(([name, settings]) => [
        name,
        { ...settings, on_missing_old_tuple: 'skip' },
      ]);
      const streams = { db: { [slot]: Object.fromEntries(skipping) } };
      await using service = await startWith({ ...fixture.config, streams }, slot);
      await writer.write(SOME * 2);
      await fixture.confirmed();
      const isUpdate = ({ content }: { readonly content: string }) => /^\["(failed|working)"/.test(content);
      expect(writer.expected.slice(0, backlog).filter(isUpdate)).not.toBeEmpty();
      expect(writer.expected.slice(backlog).filter(isUpdate)).not.toBeEmpty();
      const delivered = writer.expected.filter((record, index) => index >= backlog || !isUpdate(record));
      expect(await compareWith(delivered, namespaces)).toMatchObject({ ok: true, findings: [] });
      expect(service.lines.filter(isFailure())).toEqual([]);
      expect(await service.stop()).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    'a namespace that was added to the Erlang service on a slot with a backlog is delivered from the start of its publication',
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka });
      const { database, slot, namespaces } = fixture;
      const [old, added] = namespaces as [TestNamespace, TestNamespace];
      const writers = [writerOf(fixture, old), writerOf(fixture, added)] as const;
      await new ErlangService(database, slot, [old]).prepare();
      await writers[0].write(SOME);
      const erlang = new ErlangService(database, slot, namespaces);
      await erlang.prepare();
      for (const writer of writers) await writer.write(SOME);
      // The Erlang service fails at every attempt, with all namespaces of the slot. (PostgreSQL 18 skips the rows.)
      if (major < 18) await expect(erlang.deliver()).rejects.toMatchObject({ code: '42704' });
      await using service = await startService(fixture.config);
      await waitUntilConfirmed(database, slot);
      expect(await expectArrived(writers, namespaces)).toBe(0);
      expect(service.lines.filter(isFailure())).toEqual([]);
      expect(await service.stop()).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    "a namespace with progressor's own notifier switched on is delivered twice while both run, and completely before and after",
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka });
      const { database, namespaces, writer } = fixture;
      // progressor's notifier sends what the Erlang service would send; how it gets the changes does not matter here.
      const tables = namespaces.flatMap(({ namespace }) => {
        const { processes, events } = tablesOf(namespace);
        return [`"${processes}"`, `"${events}"`];
      });
      await run(fixture, `CREATE PUBLICATION progressor FOR TABLE ${tables.join(', ')}`);
      for (const table of tables) await run(fixture, `ALTER TABLE ${table} REPLICA IDENTITY FULL`);
      const notifierSlot = uniqueName('notifier');
      await run(fixture, `SELECT pg_create_logical_replication_slot('${notifierSlot}', 'pgoutput')`);
      const notifier = new ErlangService(database, notifierSlot, namespaces, ['progressor']);

      await writer.write(SOME);
      await notifier.deliver();
      await using service = await startService(fixture.config);
      await underLoad(writer, service.waitForStart(fixture.slot));
      for (const { namespace } of namespaces) expect(service.lines.filter(isCreation(namespace))).toHaveLength(1);
      const doubledFrom = writer.expected.length;
      await writer.write(SOME);
      const doubled = writer.expected.length - doubledFrom;
      await notifier.deliver();
      await fixture.confirmed();
      // There is no order between the records of two senders.
      const complete = { missing: 0, unexpected: 0, wrongPartition: 0, wrongTime: 0 };
      const whileBoth = await fixture.verdict();
      expect(whileBoth).toMatchObject(complete);
      expect(whileBoth.duplicates).toBeGreaterThanOrEqual(doubled);
      // From here on the notifier is off.
      await writer.write(SOME);
      await fixture.confirmed();
      const { duplicates, outOfOrder } = whileBoth;
      expect(await fixture.verdict()).toMatchObject({ ...complete, duplicates, outOfOrder });
      expect(service.lines.filter(isFailure())).toEqual([]);
      expect(await service.stop()).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    'a namespace with the notifier switched off is delivered completely from the creation of its publication, and nothing before',
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka });
      const { database, slot, namespaces, writer } = fixture;
      await writer.write(SOME);
      const before = writer.expected.length;
      await using service = await startService(fixture.config);
      await service.waitForStart(slot);
      for (const { namespace } of namespaces) expect(service.lines.filter(isCreation(namespace))).toHaveLength(1);
      await writer.write(SOME);
      await waitUntilConfirmed(database, slot);
      const verdict = await compareWith(writer.expected.slice(before), namespaces);
      expect(verdict).toMatchObject({ ok: true, findings: [], duplicates: 0 });
      expect(verdict.expected).toBeGreaterThan(0);
      expect(warnings(service)).toEqual([]);
      expect(await service.stop()).toBe(0);
      // The Erlang service can continue with slot and publications that this one created.
      await writer.write(SOME);
      await dropLedgers(fixture);
      const erlang = new ErlangService(database, slot, namespaces);
      await erlang.prepare();
      await erlang.deliver();
      const atLast = await compareWith(writer.expected.slice(before), namespaces);
      expect(atLast).toMatchObject({ ok: true, findings: [], duplicates: 0 });
    },
    TIMEOUT_MS,
  );

  test(
    'a new namespace on a slot with a backlog is delivered completely, and the older one loses nothing',
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka, namespaces: { 'default/default': 'new' } });
      const { database, slot, namespaces, writer: older } = fixture;
      {
        await using service = await startWith(fixture.config, slot);
        await older.write(SOME);
        await fixture.confirmed();
        expect(await service.stop()).toBe(0);
      }
      await older.write(SOME);
      // The owner of the namespace creates its tables at its start.
      await createNamespace(database.sql, 'invoice');
      const added = await createTopics(kafka, 'invoice');
      const all = [...namespaces, added];
      await using service = await startService(configWith(fixture, { [slot]: all }));
      await underLoad(older, service.waitForLine('the publication', isCreation('invoice')));
      await service.waitForStart(slot);
      const newer = writerOf(fixture, added);
      await Promise.all([older.write(SOME), newer.write(SOME)]);
      await waitUntilConfirmed(database, slot);
      expect(await expectArrived([older, newer], all)).toBe(0);
      expect(warnings(service)).toEqual([]);
      expect(await service.stop()).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    'a namespace moves to a slot that was created beforehand without losing a row',
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka });
      const { database, slot, namespaces, writer } = fixture;
      const [staying, moving] = namespaces as [TestNamespace, TestNamespace];
      const target = uniqueName('cdc_slot');
      {
        await using service = await startWith(fixture.config, slot);
        await underLoad(writer, run(fixture, `SELECT pg_create_logical_replication_slot('${target}', 'pgoutput')`));
        await underLoad(
          writer,
          waitFor('the old slot past the beginning of the new one', async () => {
            const [row] = await database.sql`
              SELECT (SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = ${slot})
                >= (SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = ${target}) AS may_stop`;
            return row?.may_stop;
          }),
        );
        expect(await service.stop()).toBe(0);
      }
      await writer.write(SOME);
      await using service = await startService(configWith(fixture, { [slot]: [staying], [target]: [moving] }));
      await underLoad(writer, service.waitForStart(slot, target));
      const warning = service.lines.find((line) => line.namespaces !== undefined);
      expect(warning).toMatchObject({ level: 'warn', slot, namespaces: [moving.namespace] });
      // The publication is still in use: the warning must not advise to drop it after a move.
      expect(warning?.advice).toContain('no other slot streams');
      await waitUntilConfirmed(database, slot);
      await waitUntilConfirmed(database, target);
      await fixture.expectAllArrived();
      expect(service.lines.filter(isFailure())).toEqual([]);
      expect(await service.stop()).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    'a namespace that was removed with its publication can come back as a new one',
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka });
      const { database, slot, namespaces } = fixture;
      const [staying, going] = namespaces as [TestNamespace, TestNamespace];
      const stayingWriter = writerOf(fixture, staying);
      const before = writerOf(fixture, going, 'before');
      const after = writerOf(fixture, going, 'after');
      {
        await using service = await startWith(fixture.config, slot);
        await Promise.all([stayingWriter.write(SOME), before.write(SOME)]);
        await fixture.confirmed();
        expect(await service.stop()).toBe(0);
      }
      {
        await using service = await startWith(configWith(fixture, { [slot]: [staying] }), slot);
        const warning = service.lines.find((line) => line.namespaces !== undefined);
        expect(warning).toMatchObject({ level: 'warn', slot, namespaces: [going.namespace] });
        const [statement] = /DROP PUBLICATION .*;/.exec(warning!.advice as string)!;
        await run(fixture, statement);
        await Promise.all([stayingWriter.write(SOME), writerOf(fixture, going, 'meanwhile').write(SOME)]);
        await fixture.confirmed();
        expect(service.lines.filter(isFailure())).toEqual([]);
        expect(await service.stop()).toBe(0);
      }
      await using service = await startService(fixture.config);
      await service.waitForLine('the publication', isCreation(going.namespace));
      await service.waitForStart(slot);
      await Promise.all([stayingWriter.write(SOME), after.write(SOME)]);
      await waitUntilConfirmed(database, slot);
      expect(await expectArrived([stayingWriter, before, after], namespaces)).toBe(0);
      expect(service.lines.filter(isFailure())).toEqual([]);
      expect(await service.stop()).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    'a slot that is no longer configured causes a warning until it is dropped, and can be created again after its ledger is dropped',
    async () => {
      await using fixture = await openBinaryFixture({ server, kafka });
      const { database, slot, namespaces } = fixture;
      const [staying, going] = namespaces as [TestNamespace, TestNamespace];
      const goingSlot = uniqueName('cdc_slot');
      const stayingWriter = writerOf(fixture, staying);
      const before = writerOf(fixture, going, 'before');
      const after = writerOf(fixture, going, 'after');
      const config = configWith(fixture, { [slot]: [staying], [goingSlot]: [going] });
      {
        await using service = await startWith(config, slot, goingSlot);
        await Promise.all([stayingWriter.write(SOME), before.write(SOME)]);
        for (const name of [slot, goingSlot]) await waitUntilConfirmed(database, name);
        expect(await service.stop()).toBe(0);
      }
      {
        await using service = await startWith(configWith(fixture, { [slot]: [staying] }), slot);
        const warning = service.lines.find((line) => line.abandonedSlot !== undefined);
        expect(warning).toMatchObject({
          level: 'warn',
          slot,
          abandonedSlot: goingSlot,
          retainedWalBytes: expect.any(Number),
        });
        await run(fixture, warning!.advice as string);
        await run(fixture, `DROP PUBLICATION "${going.namespace}"`);
        await Promise.all([stayingWriter.write(SOME), writerOf(fixture, going, 'meanwhile').write(SOME)]);
        await waitUntilConfirmed(database, slot);
        expect(await service.stop()).toBe(0);
      }
      expect(await confirmedLsn(database.sql, goingSlot)).toBeUndefined();
      {
        await using service = await startWith(config, slot, goingSlot);
        await Promise.all([stayingWriter.write(SOME), after.write(SOME)]);
        for (const name of [slot, goingSlot]) await waitUntilConfirmed(database, name);
        expect(warnings(service)).toEqual([]);
        expect(await service.stop()).toBe(0);
      }
      expect(await expectArrived([stayingWriter, before, after], namespaces)).toBe(0);
    },
    TIMEOUT_MS,
  );
});
