/**
 * A standby is promoted in place of a primary that is gone. The service has the addresses of both: it continues without
 * loss, or reports the lost range. Real servers.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sql } from 'postgres';
import { formatLsn, type Lsn, parseLsn } from '../../../src/lsn.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import {
  type PostgresMajor,
  type PostgresServer,
  reconnect,
  startPostgres,
  writeSettings,
} from '../../support/postgres/server.ts';
import { type PostgresStandby, startStandby } from '../../support/postgres/standby.ts';
import { waitFor } from '../../support/process/wait.ts';
import type { InProcessService, LoggedError } from '../../support/service/in-process.ts';
import { startServiceProcess } from '../../support/service/service-process.ts';
import {
  commitOn,
  type Emitted,
  expectEmitted,
  openStreamFixture,
  type StreamFixture,
  writeProcess,
} from '../../support/service/stream-fixture.ts';

const NS = 'default/default';
const TIMEOUT_MS = 150_000;
const PROMOTED = 'the server was promoted, the slot continues at its position';

let kafka: KafkaServer;
beforeAll(async () => {
  kafka = await startKafka();
}, 120_000);
afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
}, 30_000);

/** A primary with a standby, and services that have the addresses of both. */
interface FailoverFixture extends AsyncDisposable {
  readonly fixture: StreamFixture;
  readonly primary: PostgresServer;
  readonly standby: PostgresStandby;
  /** A client of the fixture's database on the standby */
  readonly there: Sql;
  /** Starts a service; slot settings as in the configuration file */
  start(slotSettings?: Readonly<Record<string, unknown>>): InProcessService;
  /** Resolves when the standby has a copy of the slot that survives a promotion */
  synchronize(): Promise<void>;
  /** Commits a process on the promoted standby; returns the record that it must lead to */
  writeThere(id: string): Promise<Emitted>;
  /** Resolves when everything committed there now is confirmed on its slot */
  confirmedThere(): Promise<void>;
}

async function openFailoverFixture(major: PostgresMajor): Promise<FailoverFixture> {
  await using undo = new AsyncDisposableStack();
  const primary = undo.use(await startPostgres({ major, settings: { track_commit_timestamp: 'on' } }));
  const fixture = await openStreamFixture({ postgres: primary, kafka, slots: { one: [NS] } });
  const services: InProcessService[] = [];
  undo.defer(async () => {
    await Promise.all(services.map((service) => service.stop()));
    // The fixture drops its slots on the first primary.
    await primary.start();
    await fixture[Symbol.asyncDispose]();
  });
  // Tests synchronize slots themselves: the server's worker does so only every 30 s.
  const address = `host=${primary.host} port=${primary.port} user=${primary.superuser} password=${primary.password}`;
  const conninfo = { primary_conninfo: `${address} application_name=standby dbname=postgres` };
  const standby = undo.use(await startStandby(primary, { slotSync: false, settings: conninfo }));
  const there = standby.sql(fixture.database, { max: 2 });
  undo.defer(() => there.end({ timeout: 1 }));
  const slot = fixture.slot('one');
  const confirmedThere = async () => {
    const [goal] = await there`SELECT pg_current_wal_lsn()::text AS lsn`;
    await waitFor('the confirmation on the new primary', async () => {
      const slots = await there`
        SELECT FROM pg_replication_slots WHERE slot_name = ${slot} AND confirmed_flush_lsn >= ${goal!.lsn}::text::pg_lsn`;
      return slots.length === 1;
    });
  };
  const synchronize = async () => {
    const worker = standby.sql('postgres', { max: 1 });
    try {
      await waitFor('the slot on the standby', async () => {
        // The copy becomes permanent when the slot advances after it, which needs the snapshot record of a checkpoint.
        await fixture.sql`CHECKPOINT`;
        await fixture.confirmed('one');
        await standby.catchUp();
        await worker`SELECT pg_sync_replication_slots()`.catch(() => {}); // not yet
        const slots =
          await worker`SELECT FROM pg_replication_slots WHERE slot_name = ${slot} AND synced AND NOT temporary`;
        return slots.length === 1;
      });
    } finally {
      await worker.end({ timeout: 1 });
    }
  };
  const resources = undo.move();
  return {
    fixture,
    primary,
    standby,
    there,
    start(slotSettings = {}) {
      const database = {
        hosts: [primary, standby].map(({ host, port }) => `${host}:${port}`),
        database: fixture.database,
        username: primary.superuser,
        password: primary.password,
      };
      const settings = {
        databases: { [fixture.database]: database },
        slots: { [fixture.database]: { [slot]: slotSettings } },
      };
      const service = fixture.start({ settings });
      services.push(service);
      return service;
    },
    writeThere: (id) => writeProcess({ commit: (statements) => commitOn(there, statements) }, NS, id),
    synchronize,
    confirmedThere,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

const write = ({ fixture }: FailoverFixture, id: string): Promise<Emitted> => writeProcess(fixture, NS, id);

/** Resolves with the second LossError of the service. */
async function waitForLoss(
  { fixture }: FailoverFixture,
  service: InProcessService,
): Promise<{ readonly error: LoggedError; readonly fromLsn: Lsn; readonly toLsn: Lsn }> {
  const [, error] = await waitFor(
    'two losses',
    () => {
      const losses = service.failures().filter(({ name }) => name === 'LossError');
      return losses.length >= 2 ? losses : undefined;
    },
    { timeoutMs: 60_000 },
  );
  const [, from, to] = /^Changes from (\S+) to (\S+) cannot be streamed/.exec(error!.advice!)!;
  const slot = fixture.slot('one');
  expect(error!.advice).toContain(`slots.${fixture.database}.${slot}.accept_loss_after: ${from} `);
  expect(error!.place).toMatchObject({ database: fixture.database, slot, lsn: from });
  return { error: error!, fromLsn: parseLsn(from!), toLsn: parseLsn(to!) };
}

/** The confirmed LSN of the slot on the new primary; undefined without a slot or while it is being created. */
async function positionThere({ there, fixture }: FailoverFixture): Promise<Lsn | undefined> {
  const [row] = await there`
    SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = ${fixture.slot('one')}`;
  return row?.lsn ? parseLsn(row.lsn) : undefined;
}

describe.each([17, 18] as const)('a failover slot on PostgreSQL %d', (major) => {
  test(
    'continues after the promotion with the last rows before it, in this process and the next, and never on the former primary',
    async () => {
      await using failover = await openFailoverFixture(major);
      const { fixture, primary, standby } = failover;
      const service = failover.start({ failover: true });
      await fixture.confirmed('one');
      const expected = [await write(failover, 'before')];
      await fixture.confirmed('one');
      await failover.synchronize();

      // The test does not know which of these are confirmed when the primary stops.
      for (let index = 0; index < 20; index++) expected.push(await write(failover, `last ${index}`));
      await primary.stop('fast');
      await standby.promote();
      const promotion = await service.waitForLog('the promotion', ({ msg }) => msg === PROMOTED);
      expect(promotion).toMatchObject({ slot: fixture.slot('one'), from: 1, to: 2 });
      expected.push(await failover.writeThere('after'));
      await failover.confirmedThere();
      await service.stop();
      expected.push(await failover.writeThere('while the service was down'));

      const next = failover.start({ failover: true });
      await failover.confirmedThere();
      await expectEmitted(fixture, expected);
      for (const { name } of service.failures()) expect(name).not.toBe('LossError');
      expect(next.failures()).toEqual([]);

      // The former primary returns while the current one is down: the service must not read from it.
      await standby.stop();
      await primary.start();
      await reconnect(fixture.sql);
      await write(failover, 'written to the former primary');
      const refusal = await waitFor('the refusal', () =>
        next.failures().find(({ message }) => message.includes('former primary')),
      );
      expect(refusal.message).toContain('it is on timeline 1, but this stream followed timeline 2 before');
      await primary.stop();
      await standby.start();
      await reconnect(failover.there);
      expected.push(await failover.writeThere('back again'));
      await failover.confirmedThere();
      await expectEmitted(fixture, expected);
      for (const { name } of next.failures()) expect(name).not.toBe('LossError');
    },
    TIMEOUT_MS,
  );

  test(
    'stops with the range when the new primary lacks delivered changes, until that loss is accepted',
    async () => {
      await using failover = await openFailoverFixture(major);
      const { fixture, primary, standby } = failover;
      const service = failover.start({ failover: true });
      await fixture.confirmed('one');
      const expected = [await write(failover, 'before')];
      await fixture.confirmed('one');
      await failover.synchronize();
      await standby.stop();
      // Without synchronized_standby_slots the walsender sends these before the standby has them.
      const kept = await fixture.currentLsn();
      expected.push(await write(failover, 'lost by the database'));
      const delivered = await fixture.currentLsn();
      await fixture.confirmed('one');
      await primary.stop('immediate');
      await standby.start();
      await standby.promote();

      const loss = await waitForLoss(failover, service);
      expect(loss.error.message).toContain(
        `the server was promoted: its timeline 2 left timeline 1 at ${formatLsn(loss.fromLsn)}, before ${formatLsn(loss.toLsn)}`,
      );
      expect(loss.error.message).toContain('Kafka holds changes that the database has lost');
      expect(loss.fromLsn).toBeLessThanOrEqual(kept);
      expect(loss.toLsn).toBeGreaterThanOrEqual(delivered);
      expect((await positionThere(failover))!).toBeLessThanOrEqual(loss.fromLsn);
      await failover.writeThere('before the acceptance');
      await service.stop();

      // The new primary's ledger did not have this LSN; the process that knew it has stored it there.
      const next = failover.start({ failover: true });
      expect((await waitForLoss(failover, next)).fromLsn).toBe(loss.fromLsn);
      await next.stop();
      failover.start({ failover: true, accept_loss_after: formatLsn(loss.fromLsn) });
      await failover.confirmedThere();
      const emitted = await fixture.emitted();
      expect(emitted.map(({ key }) => key)).toContain(`${NS} before the acceptance`);
      const after = await failover.writeThere('after');
      await failover.confirmedThere();
      const warm = emitted.find(({ key }) => key.endsWith('before the acceptance'))!;
      await expectEmitted(fixture, [...expected, warm, after]);
    },
    TIMEOUT_MS,
  );
});

describe.each([17, 18] as const)('the slot that a former primary of PostgreSQL %d keeps', (major) => {
  test(
    'is warned of until it is dropped there, and after a fail-back nothing is repeated from its old position',
    async () => {
      await using failover = await openFailoverFixture(major);
      const { fixture, primary, standby, there } = failover;
      const slot = fixture.slot('one');
      const service = failover.start({ failover: true });
      await fixture.confirmed('one');
      const expected = [await write(failover, 'before')];
      await fixture.confirmed('one');
      await failover.synchronize();
      await primary.stop('fast');
      await standby.promote();
      const promotion = await service.waitForLog('the promotion', ({ msg }) => msg === PROMOTED);
      expect(promotion).toMatchObject({ level: 'warn', advice: expect.stringContaining('pg_drop_replication_slot') });
      for (let index = 0; index < 50; index++) expected.push(await failover.writeThere(`there ${index}`));
      await failover.confirmedThere();

      // The former primary follows its successor, with its own slot.
      const address = `host=${standby.host} port=${standby.port} user=${standby.superuser} password=${standby.password}`;
      await there`SELECT pg_create_physical_replication_slot('former', immediately_reserve => true)`;
      await writeSettings(primary.dataDirectory, {
        primary_conninfo: `${address} application_name=former dbname=postgres`,
        primary_slot_name: 'former',
        hot_standby_feedback: 'on',
      });
      await writeFile(join(primary.dataDirectory, 'standby.signal'), '');
      await primary.start();
      const isOfCopy = (line: object) => 'code' in line && line.code === 'stale_slot_copy';
      const warning = await service.waitForLog('the warning', isOfCopy);
      expect(warning).toMatchObject({ event: 'slot_warning', subject: `${primary.host}:${primary.port}` });
      expect((warning as { advice?: unknown }).advice).toContain(`SELECT pg_drop_replication_slot('${slot}')`);
      const back = primary.sql(fixture.database, { max: 1 });
      await back`SELECT pg_drop_replication_slot(${slot})`;
      await service.waitForLog(
        'the end of the warning',
        (line) => isOfCopy(line) && line.event === 'slot_warning_ended',
      );

      await waitFor('the slot on the former primary', async () => {
        await there`CHECKPOINT`;
        await failover.confirmedThere();
        await back`SELECT pg_sync_replication_slots()`.catch(() => {}); // not yet
        return (await back`SELECT FROM pg_replication_slots WHERE slot_name = ${slot} AND NOT temporary`).length === 1;
      });
      await standby.stop('fast');
      await back`SELECT pg_promote()`;
      await waitFor('the fail-back', () => service.log.filter(({ msg }) => msg === PROMOTED).length === 2);
      await reconnect(fixture.sql);
      expected.push(await write(failover, 'back'));
      await fixture.confirmed('one');
      await expectEmitted(fixture, expected);
      await back.end({ timeout: 1 });
      // Everything that was confirmed there is in the copy that was synchronized since.
      const repeated = (await fixture.emitted()).length - expected.length;
      expect(repeated).toBeLessThan(50);
    },
    TIMEOUT_MS,
  );
});

describe.each([14, 16, 18] as const)('a slot that is recreated on the new primary of PostgreSQL %d', (major) => {
  test.each(['a new process', 'a peer that stood by'] as const)(
    'is a loss from the last confirmation to its position, although the killed holder left an open ledger: %s',
    async (successor) => {
      await using failover = await openFailoverFixture(major);
      const { fixture, primary, standby, there } = failover;
      const slot = fixture.slot('one');
      await using holder = await startServiceProcess(fixture.serviceOptions());
      await waitFor('the start', () => holder.log.some(({ event }) => event === 'replication_started'));
      const peer = successor === 'a peer that stood by' ? failover.start() : undefined;
      await peer?.waitForLog('the peer', ({ event }) => event === 'standing_by');
      const expected = [await write(failover, 'before')];
      await fixture.confirmed('one');
      const confirmed = await fixture.confirmedLsn('one');
      // From here on the holder keeps the slot and delivers nothing.
      holder.signal('SIGSTOP');
      await write(failover, 'lost');
      const written = await fixture.currentLsn();
      await standby.catchUp();
      await primary.stop('immediate');
      await holder.kill();
      await standby.promote();
      // As Patroni does with its permanent slots
      await there`SELECT pg_create_logical_replication_slot(${slot}, 'pgoutput')`;
      const earlier = peer?.failures().length ?? 0;
      const service = peer ?? failover.start();

      await service.waitForFailure(slot, earlier + 2);
      const { error, fromLsn, toLsn } = await waitForLoss(failover, service);
      expect(error.message).toMatch(/the slot was recreated on the promoted server|does not exist any more/);
      expect(fromLsn).toBeLessThanOrEqual(confirmed);
      expect(toLsn).toBeGreaterThanOrEqual(written);
      const last = service.failures(slot).at(-1)!;
      expect(last.message).toContain('the slot was recreated on the promoted server');
      const [, from] = /^Changes from (\S+) to /.exec(last.advice!)!;
      await service.stop();

      failover.start({ accept_loss_after: from });
      await waitFor('the slot', async () => (await positionThere(failover)) !== undefined);
      expected.push(await failover.writeThere('after'));
      await failover.confirmedThere();
      await expectEmitted(fixture, expected);
    },
    TIMEOUT_MS,
  );
});

describe.each([14, 18] as const)('a slot without failover on PostgreSQL %d', (major) => {
  test(
    'is missing on the new primary and is created there only when that loss is accepted',
    async () => {
      await using failover = await openFailoverFixture(major);
      const { fixture, primary, standby } = failover;
      const service = failover.start();
      await fixture.confirmed('one');
      const expected = [await write(failover, 'before')];
      const written = await fixture.currentLsn();
      await fixture.confirmed('one');
      await standby.catchUp();
      await primary.stop('fast');
      await standby.promote();
      await failover.writeThere('lost');
      const [lost] = await failover.there`SELECT pg_current_wal_lsn()::text AS lsn`;

      const loss = await waitForLoss(failover, service);
      expect(loss.error.message).toContain('the replication slot does not exist any more');
      expect(loss.fromLsn).toBeGreaterThanOrEqual(written);
      await waitFor('a range with the row', async () => {
        const { advice } = service.failures().at(-1)!;
        const [, to] = /^Changes from \S+ to (\S+) cannot be streamed/.exec(advice!)!;
        return parseLsn(to!) >= parseLsn(lost!.lsn);
      });
      const slots = await failover.there`SELECT FROM pg_replication_slots WHERE slot_name = ${fixture.slot('one')}`;
      expect(slots).toHaveLength(0);
      await service.stop();

      failover.start({ accept_loss_after: formatLsn(loss.fromLsn) });
      await waitFor('the slot', async () => (await positionThere(failover)) !== undefined);
      expected.push(await failover.writeThere('after'));
      await failover.confirmedThere();
      await expectEmitted(fixture, expected);
    },
    TIMEOUT_MS,
  );
});
