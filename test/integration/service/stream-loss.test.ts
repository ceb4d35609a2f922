/**
 * Slots and publications that were dropped, moved or replaced under the service: the stream stops with the exact range,
 * confirms nothing, disturbs no other slot, and continues when the configuration accepts that loss. Real servers.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { formatLsn, type Lsn, parseLsn } from '../../../src/lsn.ts';
import { ledgerGrantSql, ledgerName, parseLedger, type SlotLedger } from '../../../src/postgres/continuity/ledger.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { startTcpProxy, type TcpProxy } from '../../support/network/tcp-proxy.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { freezeProcess } from '../../support/process/freeze.ts';
import { waitFor } from '../../support/process/wait.ts';
import { createNamespace, tablesOf } from '../../support/progressor/tables.ts';
import { type InProcessService, type LoggedError, startInProcessService } from '../../support/service/in-process.ts';
import {
  commitOn,
  type Emitted,
  expectEmitted,
  openStreamFixture,
  type StartOptions,
  type StreamFixture,
  writeProcess,
} from '../../support/service/stream-fixture.ts';

const TIMEOUT_MS = 90_000;
const KEPT_WAL_MB = 96;
const WAL_SEGMENT_MB = 16;
const SETTINGS = {
  track_commit_timestamp: 'on',
  max_slot_wal_keep_size: `${KEPT_WAL_MB}MB`,
  min_wal_size: '32MB',
  max_wal_size: '64MB',
};

let kafka: KafkaServer;
beforeAll(async () => {
  kafka = await startKafka();
}, 120_000);
afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
}, 30_000);

/** A fixture whose services reach PostgreSQL through a proxy. */
interface LossFixture extends AsyncDisposable {
  readonly fixture: StreamFixture;
  readonly proxy: TcpProxy;
  start(options?: StartOptions): InProcessService;
  /** Disconnects the services from the server and waits until these slots are inactive */
  cutOff(slotNames: readonly string[]): Promise<void>;
}

async function openLossFixture(
  postgres: PostgresServer,
  slots: Readonly<Record<string, readonly string[]>>,
): Promise<LossFixture> {
  const fixture = await openStreamFixture({ postgres, kafka, slots });
  const proxy = await startTcpProxy({ host: postgres.host, port: postgres.port });
  const services: InProcessService[] = [];
  return {
    fixture,
    proxy,
    start(options) {
      const service = startInProcessService({
        ...fixture.serviceOptions(options),
        postgres: { ...postgres, port: proxy.port },
      });
      services.push(service);
      return service;
    },
    async cutOff(slotNames) {
      await proxy.refuse(true);
      proxy.cut();
      await released(fixture, slotNames);
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(services.map((service) => service.stop()));
      await proxy[Symbol.asyncDispose]();
      await fixture[Symbol.asyncDispose]();
    },
  };
}

async function released(fixture: StreamFixture, slotNames: readonly string[]): Promise<void> {
  const slots = slotNames.map(fixture.slot);
  await waitFor('the release of the slots', async () => {
    const active =
      await fixture.sql`SELECT FROM pg_replication_slots WHERE slot_name IN ${fixture.sql(slots)} AND active`;
    return active.length === 0;
  });
}

/** The stored ledger of a slot. */
async function ledgerOf(fixture: StreamFixture, slotName: string): Promise<SlotLedger | undefined> {
  const [row] = await fixture.sql`
    SELECT obj_description(oid, 'pg_publication') AS comment FROM pg_publication
    WHERE pubname = ${ledgerName(fixture.slot(slotName))}`;
  return row === undefined ? undefined : parseLedger(row.comment);
}

async function slotExists(fixture: StreamFixture, slotName: string): Promise<boolean> {
  return (await fixture.sql`SELECT FROM pg_replication_slots WHERE slot_name = ${fixture.slot(slotName)}`).length > 0;
}

/** Resolves when a slot is complete: while it is being created, rows may not be in it. */
async function isCreated(fixture: StreamFixture, slotName: string): Promise<void> {
  await waitFor('the slot', async () => (await fixture.confirmedLsn(slotName)) > 0n);
}

/** Publishes the tables of a namespace, as an operator does. */
async function publish(fixture: StreamFixture, namespace: string): Promise<void> {
  const { processes, events } = tablesOf(namespace);
  await fixture.sql`CREATE PUBLICATION ${fixture.sql(namespace)} FOR TABLE ${fixture.sql(processes)}, ${fixture.sql(events)}`;
}

async function dropPublication(fixture: StreamFixture, namespace: string): Promise<void> {
  await fixture.sql`DROP PUBLICATION ${fixture.sql(namespace)}`;
}

async function dropSlot(fixture: StreamFixture, slotName: string): Promise<void> {
  await fixture.sql`SELECT pg_drop_replication_slot(${fixture.slot(slotName)})`;
}

/** A loss as an error reports it. */
interface ReportedLoss {
  readonly error: LoggedError;
  readonly fromLsn: Lsn;
  /** Undefined when the end is unknown */
  readonly toLsn: Lsn | undefined;
}

/** Resolves with a slot's second LossError, which must name the same LSN as the first. */
async function waitForLoss(fixture: StreamFixture, service: InProcessService, slotName: string): Promise<ReportedLoss> {
  const losses = await waitFor(`the losses of slot ${slotName}`, () => {
    const found = service.failures(fixture.slot(slotName)).filter(({ name }) => name === 'LossError');
    return found.length >= 2 ? found : undefined;
  });
  const [first, error] = losses.slice(-2) as [LoggedError, LoggedError];
  const lsn = String(error.place?.lsn);
  expect(first.place?.lsn).toBe(lsn);
  expect(error.place).toMatchObject({ database: fixture.database, slot: fixture.slot(slotName) });
  expect(error.message).toStartWith(`Cannot continue after ${lsn}: `);
  const [, from, to] = /^Changes from (\S+) (?:on|to (\S+)) cannot be streamed/.exec(error.advice!)!;
  expect(from).toBe(lsn);
  const setting = `slots.${fixture.database}.${fixture.slot(slotName)}.accept_loss_after: ${lsn} `;
  expect(error.advice).toContain(setting);
  return { error, fromLsn: parseLsn(lsn), toLsn: to === undefined ? undefined : parseLsn(to) };
}

/** Settings that accept these losses. */
function accepting(fixture: StreamFixture, losses: Readonly<Record<string, ReportedLoss>>): StartOptions['settings'] {
  const settings = Object.entries(losses).map(([slotName, { fromLsn }]) => [
    fixture.slot(slotName),
    { accept_loss_after: formatLsn(fromLsn) },
  ]);
  return { slots: { [fixture.database]: Object.fromEntries(settings) } };
}

/** The slots whose loss a service has accepted, by its warnings. */
function acceptances(service: InProcessService): readonly unknown[] {
  return service.log
    .filter(({ level, msg }) => level === 'warn' && msg.includes('as accept_loss_after allows'))
    .map(({ slot }) => slot);
}

/** What is done to the slot of this name; `writeLost` commits a row that no slot delivers. */
const HARMS = {
  /** The slot is dropped */
  dropped: async (fixture: StreamFixture, writeLost: () => Promise<unknown>) => {
    await dropSlot(fixture, 'dropped');
    await writeLost();
  },
  /** It is dropped and created again, at a later LSN */
  recreated: async (fixture: StreamFixture, writeLost: () => Promise<unknown>) => {
    await dropSlot(fixture, 'recreated');
    await writeLost();
    await fixture.sql`SELECT pg_create_logical_replication_slot(${fixture.slot('recreated')}, 'pgoutput')`;
  },
  /** It is advanced by hand */
  moved: async (fixture: StreamFixture, writeLost: () => Promise<unknown>) => {
    await writeLost();
    await fixture.sql`SELECT pg_replication_slot_advance(${fixture.slot('moved')}, pg_current_wal_lsn())`;
  },
  /** Its publication is dropped and created again */
  renewed: async (fixture: StreamFixture, writeLost: () => Promise<unknown>) => {
    await dropPublication(fixture, 'renewed');
    await writeLost();
    await publish(fixture, 'renewed');
  },
} as const;
type Harm = keyof typeof HARMS;
const HARMED = Object.keys(HARMS) as Harm[];
const SLOTS = {
  dropped: ['dropped'],
  recreated: ['recreated'],
  moved: ['moved'],
  renewed: ['renewed'],
  sound: ['sound'],
};

const DETAILS: Readonly<Record<Harm, string>> = {
  dropped: 'the replication slot does not exist any more',
  recreated: 'it was advanced by another program, or dropped and recreated',
  moved: 'it was advanced by another program, or dropped and recreated',
  renewed: 'publication "renewed" was dropped and recreated',
};

/** Harms all slots but `sound`; returns the position of each slot afterwards, and the end of the WAL before and after. */
async function harmAll(fixture: StreamFixture) {
  const before = await fixture.currentLsn();
  for (const harm of HARMED) await HARMS[harm](fixture, () => writeProcess(fixture, harm, 'lost'));
  const after = await fixture.currentLsn();
  const later: Emitted[] = [];
  for (const harm of HARMED) later.push(await writeProcess(fixture, harm, 'later'));
  const positions = Object.fromEntries(
    await Promise.all(HARMED.map(async (harm) => [harm, await fixture.confirmedLsn(harm)])),
  ) as Record<Harm, Lsn>;
  return { before, after, later, positions };
}

/** Checks the losses that the service reports, and that it changes none of the harmed slots. */
async function expectLosses(
  fixture: StreamFixture,
  service: InProcessService,
  { before, after, positions }: Awaited<ReturnType<typeof harmAll>>,
): Promise<Record<Harm, ReportedLoss>> {
  const losses = {} as Record<Harm, ReportedLoss>;
  for (const harm of HARMED) {
    const loss = await waitForLoss(fixture, service, harm);
    losses[harm] = loss;
    expect([harm, loss.error.message]).toEqual([harm, expect.stringContaining(DETAILS[harm])]);
    expect([harm, loss.fromLsn <= before]).toEqual([harm, true]);
    if (harm === 'recreated' || harm === 'moved') expect([harm, loss.toLsn]).toEqual([harm, positions[harm]]);
    else expect([harm, loss.toLsn! >= after && loss.toLsn! <= (await fixture.currentLsn())]).toEqual([harm, true]);
  }
  for (const harm of HARMED) expect([harm, await fixture.confirmedLsn(harm)]).toEqual([harm, positions[harm]]);
  expect(await slotExists(fixture, 'dropped')).toBe(false);
  return losses;
}

describe.each([14, 17, 18] as const)('a loss on PostgreSQL %d', (major) => {
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres({ major, settings: SETTINGS });
  }, 120_000);
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
  });

  /** Starts a service that accepts the losses and checks what it delivers. */
  async function goOn(
    { fixture, start }: LossFixture,
    { losses, expected, later }: { losses: Record<Harm, ReportedLoss>; expected: Emitted[]; later: readonly Emitted[] },
  ): Promise<void> {
    const service = start({ settings: accepting(fixture, losses) });
    await service.waitForStart(...Object.keys(SLOTS).map(fixture.slot));
    // A slot that is created now does not deliver earlier rows.
    expected.push(...later.filter(({ key }) => !key.startsWith('dropped')));
    for (const namespace of Object.keys(SLOTS)) expected.push(await writeProcess(fixture, namespace, 'after'));
    for (const slotName of Object.keys(SLOTS)) await fixture.confirmed(slotName);
    await expectEmitted(fixture, expected);
    expect([...acceptances(service)].sort()).toEqual(HARMED.map(fixture.slot).sort());
    expect(service.failures()).toEqual([]);
  }

  test(
    'what a publication left out while no second connection was let in lies within the reported range',
    async () => {
      await using fixture = await openStreamFixture({ postgres, kafka, slots: { blind: ['blind'] } });
      const admin = postgres.sql('postgres', { max: 1 });
      const letIn = (allowed: boolean) =>
        admin.unsafe(`ALTER DATABASE "${fixture.database}" ALLOW_CONNECTIONS ${allowed}`);
      const warnings = (service: InProcessService) => service.log.filter(({ event }) => event === 'slot_warning');
      const service = fixture.start();
      try {
        await fixture.confirmed('blind');
        await writeProcess(fixture, 'blind', 'before');
        await fixture.confirmed('blind');
        const before = await fixture.currentLsn();
        await letIn(false);
        await admin`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE application_name = ${`cdc-notifier ${fixture.slot('blind')} control`}`;
        await waitFor('a warning', () => warnings(service).length > 0);
        expect(warnings(service)).toMatchObject([{ code: 'watch_blind', subject: fixture.slot('blind') }]);
        await fixture.sql`ALTER PUBLICATION blind DROP TABLE blind_events`;
        await writeProcess(fixture, 'blind', 'missed');
        await fixture.sql`ALTER PUBLICATION blind ADD TABLE blind_events`;
        const after = await fixture.currentLsn();
        await writeProcess(fixture, 'blind', 'later');
        await fixture.confirmed('blind');
        expect(service.failures()).toEqual([]);
        await letIn(true);
        const loss = await waitForLoss(fixture, service, 'blind');
        expect(loss.error.message).toContain('publication "blind" was altered while it was in use');
        expect(loss.error.message).not.toContain('advanced by another program');
        expect([loss.fromLsn <= before, loss.toLsn! >= after]).toEqual([true, true]);
        expect(warnings(service)).toHaveLength(1);
        await service.stop();
        await using next = fixture.start();
        expect((await waitForLoss(fixture, next, 'blind')).fromLsn).toBe(loss.fromLsn);
        await next.stop();
        await using accepted = fixture.start({ settings: accepting(fixture, { blind: loss }) });
        await accepted.waitForStart(fixture.slot('blind'));
        expect(accepted.failures()).toEqual([]);
      } finally {
        await letIn(true);
        await admin.end();
      }
    },
    TIMEOUT_MS,
  );

  test(
    'that no look sees is possible when a publication is altered and put right at once, and is warned of with the range',
    async () => {
      await using fixture = await openStreamFixture({ postgres, kafka, slots: { touched: ['touched'] } });
      const service = fixture.start();
      await fixture.confirmed('touched');
      await writeProcess(fixture, 'touched', 'before');
      await fixture.confirmed('touched');
      // A look has just ended, and the next one is seconds away.
      const control = async () => {
        const [row] = await fixture.sql`SELECT query_start::text AS since, state FROM pg_stat_activity
          WHERE application_name = ${`cdc-notifier ${fixture.slot('touched')} control`}`;
        return row;
      };
      const before = (await control())?.since;
      await waitFor('a look', async () => {
        const now = await control();
        return now?.state === 'idle' && now.since !== before;
      });
      await fixture.sql`ALTER PUBLICATION touched SET (publish = 'insert')`;
      await fixture.sql`ALTER PUBLICATION touched SET (publish = 'insert, update, delete')`;
      const isWarning = (line: object) => 'code' in line && line.code === 'publication_touched';
      const { msg } = await service.waitForLog('the warning', isWarning);
      expect(msg).toContain('Publication "touched" was altered between');
      await writeProcess(fixture, 'touched', 'after');
      await fixture.confirmed('touched');
      expect(service.failures()).toEqual([]);
    },
    TIMEOUT_MS,
  );

  test(
    'while the service is down after a graceful stop is reported by the next process with its exact range, until it is accepted',
    async () => {
      await using lossFixture = await openLossFixture(postgres, SLOTS);
      const { fixture, start } = lossFixture;
      const first = start();
      for (const slotName of Object.keys(SLOTS)) await fixture.confirmed(slotName);
      const expected: Emitted[] = [];
      for (const namespace of Object.keys(SLOTS)) expected.push(await writeProcess(fixture, namespace, 'before'));
      for (const slotName of Object.keys(SLOTS)) await fixture.confirmed(slotName);
      await first.stop();
      const confirmed = new Map<string, Lsn>();
      for (const harm of HARMED) confirmed.set(harm, await fixture.confirmedLsn(harm));
      const harmed = await harmAll(fixture);

      const service = start();
      expected.push(await writeProcess(fixture, 'sound', 'meanwhile'));
      const losses = await expectLosses(fixture, service, harmed);
      for (const harm of HARMED) expect([harm, losses[harm].fromLsn]).toEqual([harm, confirmed.get(harm)!]);
      await fixture.confirmed('sound');
      expect(service.failures(fixture.slot('sound'))).toEqual([]);
      await expectEmitted(fixture, expected);
      await service.stop();
      await goOn(lossFixture, { losses, expected, later: harmed.later });
    },
    TIMEOUT_MS,
  );

  test(
    'while a process is cut off from the server is reported by it, and with the same range by the next process',
    async () => {
      await using lossFixture = await openLossFixture(postgres, SLOTS);
      const { fixture, start, proxy, cutOff } = lossFixture;
      const service = start();
      for (const slotName of Object.keys(SLOTS)) await fixture.confirmed(slotName);
      const expected: Emitted[] = [];
      for (const namespace of Object.keys(SLOTS)) expected.push(await writeProcess(fixture, namespace, 'before'));
      const written = await fixture.currentLsn();
      for (const slotName of Object.keys(SLOTS)) await fixture.confirmed(slotName);
      await cutOff(Object.keys(SLOTS));
      const harmed = await harmAll(fixture);
      await proxy.heal();

      expected.push(await writeProcess(fixture, 'sound', 'meanwhile'));
      const losses = await expectLosses(fixture, service, harmed);
      for (const harm of HARMED) {
        expect([harm, losses[harm].fromLsn >= written]).toEqual([harm, true]);
        // The next process reports the same from the ledger that this one has stored.
        expect(await ledgerOf(fixture, harm)).toMatchObject({ confirmedLsn: losses[harm].fromLsn, closed: true });
      }
      await fixture.confirmed('sound');
      expect(service.failures(fixture.slot('sound')).filter(({ name }) => name === 'LossError')).toEqual([]);
      await expectEmitted(fixture, expected);
      await service.stop();
      await goOn(lossFixture, { losses, expected, later: harmed.later });
    },
    TIMEOUT_MS,
  );

  test(
    'after a process that could not close its ledger is reported from the LSN that the ledger had stored',
    async () => {
      await using lossFixture = await openLossFixture(postgres, { dropped: ['dropped'], sound: ['sound'] });
      const { fixture, start, cutOff, proxy } = lossFixture;
      const crashing = start();
      await fixture.confirmed('dropped');
      const expected = [await writeProcess(fixture, 'dropped', 'before')];
      await fixture.confirmed('dropped');
      const confirmed = await fixture.confirmedLsn('dropped');
      await cutOff(['dropped', 'sound']);
      await crashing.stop();
      const left = (await ledgerOf(fixture, 'dropped'))!;
      expect(left.closed).toBe(false);
      expect(left.confirmedLsn).toBeLessThan(confirmed);
      await dropSlot(fixture, 'dropped');
      await writeProcess(fixture, 'dropped', 'lost');
      const lost = await fixture.currentLsn();
      await proxy.heal();

      const service = start();
      const loss = await waitForLoss(fixture, service, 'dropped');
      expect(loss.error.message).toContain(DETAILS.dropped);
      expect(loss.fromLsn).toBe(left.confirmedLsn);
      expect(loss.toLsn! >= lost).toBe(true);
      expect(await slotExists(fixture, 'dropped')).toBe(false);
      expected.push(await writeProcess(fixture, 'sound', 'meanwhile'));
      await fixture.confirmed('sound');
      expect(service.failures(fixture.slot('sound'))).toEqual([]);
      await service.stop();
      const next = start({ settings: accepting(fixture, { dropped: loss }) });
      await isCreated(fixture, 'dropped');
      expected.push(await writeProcess(fixture, 'dropped', 'after'));
      await fixture.confirmed('dropped');
      await expectEmitted(fixture, expected);
      expect(next.failures()).toEqual([]);
    },
    TIMEOUT_MS,
  );

  test(
    'by max_slot_wal_keep_size is reported, and the slot is created again only when that loss is accepted',
    async () => {
      await using lossFixture = await openLossFixture(postgres, { late: ['late'], sound: ['sound'] });
      const { fixture, start, cutOff, proxy } = lossFixture;
      const late = start({ slots: { late: ['late'] } });
      const sound = fixture.start({ slots: { sound: ['sound'] } });
      await fixture.confirmed('sound');
      await fixture.confirmed('late');
      const expected = [await writeProcess(fixture, 'late', 'before')];
      const written = await fixture.currentLsn();
      await fixture.confirmed('late');
      await cutOff(['late']);
      await writeProcess(fixture, 'late', 'lost');
      const state = async () => {
        const [row] =
          await fixture.sql`SELECT wal_status FROM pg_replication_slots WHERE slot_name = ${fixture.slot('late')}`;
        return row?.wal_status;
      };
      for (let segment = 0; segment * WAL_SEGMENT_MB <= KEPT_WAL_MB + 2 * WAL_SEGMENT_MB; segment++) {
        expected.push(await writeProcess(fixture, 'sound', `segment ${segment}`));
        await fixture.sql`SELECT pg_switch_wal()`;
        await fixture.sql`CHECKPOINT`;
        await fixture.confirmed('sound');
      }
      await waitFor('the slot to be lost', async () => {
        await fixture.sql`CHECKPOINT`;
        return (await state()) === 'lost';
      });
      const lost = await fixture.currentLsn();
      await proxy.heal();

      const loss = await waitForLoss(fixture, late, 'late');
      expect(loss.error.message).toContain('the server has invalidated the slot');
      expect(loss.fromLsn).toBeGreaterThanOrEqual(written);
      expect(loss.toLsn! >= lost).toBe(true);
      expect(await state()).toBe('lost');
      expected.push(await writeProcess(fixture, 'sound', 'meanwhile'));
      await fixture.confirmed('sound');
      expect(sound.failures()).toEqual([]);
      await late.stop();

      const wrong = start({ slots: { late: ['late'] } });
      expect((await waitForLoss(fixture, wrong, 'late')).fromLsn).toBe(loss.fromLsn);
      await wrong.stop();
      start({ slots: { late: ['late'] }, settings: accepting(fixture, { late: loss }) });
      await waitFor('the end of the old slot', async () => (await state()) !== 'lost');
      await isCreated(fixture, 'late');
      expected.push(await writeProcess(fixture, 'late', 'after'));
      await fixture.confirmed('late');
      await expectEmitted(fixture, expected);
    },
    TIMEOUT_MS,
  );
});

describe.each([17, 18] as const)('a publication that is created again within the backlog on PostgreSQL %d', (major) => {
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres({ major, settings: { ...SETTINGS } });
  }, 120_000);
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
  });

  test(
    'stops its slot while the service streams, and the next process reports the same',
    async () => {
      await using lossFixture = await openLossFixture(postgres, { main: ['renewed', 'other'], sound: ['sound'] });
      const { fixture, start } = lossFixture;
      const service = start();
      await fixture.confirmed('main');
      await fixture.confirmed('sound');
      const expected = [await writeProcess(fixture, 'renewed', 'before')];
      await fixture.confirmed('main');
      let drop: Lsn;
      let lost: Lsn;
      // The walsender decodes the drop only after all of this has happened.
      const thaw = await freezeWalsender(fixture, 'main');
      try {
        expected.push(await writeProcess(fixture, 'other', 'backlog'));
        drop = await fixture.currentLsn();
        await dropPublication(fixture, 'renewed');
        await writeProcess(fixture, 'renewed', 'lost');
        await publish(fixture, 'renewed');
        lost = await fixture.currentLsn();
        expected.push(await writeProcess(fixture, 'renewed', 'later'));
      } finally {
        thaw();
      }
      const loss = await waitForLoss(fixture, service, 'main');
      expect(loss.error.message).toContain('publication "renewed" was dropped and recreated');
      expect(loss.fromLsn).toBeLessThanOrEqual(drop);
      expect(await fixture.confirmedLsn('main')).toBeLessThan(lost);
      for (const { name } of service.failures(fixture.slot('main'))) expect(name).toBe('LossError');
      expected.push(await writeProcess(fixture, 'sound', 'meanwhile'));
      await fixture.confirmed('sound');
      expect(service.failures(fixture.slot('sound'))).toEqual([]);
      await service.stop();

      const next = start();
      expect((await waitForLoss(fixture, next, 'main')).fromLsn).toBe(loss.fromLsn);
      expect(await fixture.confirmedLsn('main')).toBeLessThan(lost);
      await next.stop();
      const accepted = start({ settings: accepting(fixture, { main: loss }) });
      expected.push(await writeProcess(fixture, 'renewed', 'after'));
      await fixture.confirmed('main');
      await expectEmitted(fixture, expected);
      expect(acceptances(accepted)).toEqual([fixture.slot('main')]);
    },
    TIMEOUT_MS,
  );
});

/** Freezes the walsender of a slot; the returned function resumes it. */
async function freezeWalsender({ sql, slot }: StreamFixture, name: string): Promise<() => void> {
  const [holder] = await sql<{ pid: number }[]>`
    SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = ${slot(name)}`;
  freezeProcess(holder!.pid);
  return () => process.kill(holder!.pid, 'SIGCONT');
}

describe('a ledger', () => {
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres({ settings: SETTINGS });
  }, 120_000);
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
  });

  test(
    'that the role may not write causes one warning over all sessions, and is written once a superuser has granted the right',
    async () => {
      const ROLE = 'reader';
      await using fixture = await openStreamFixture({ postgres, kafka, slots: { main: ['main'] } });
      const { sql } = fixture;
      const { processes, events } = tablesOf('main');
      await sql`CREATE ROLE ${sql(ROLE)} LOGIN REPLICATION`;
      await sql`ALTER TABLE ${sql(processes)} REPLICA IDENTITY FULL`;
      for (const table of [processes, events]) await sql`ALTER TABLE ${sql(table)} OWNER TO ${sql(ROLE)}`;
      await publish(fixture, 'main');
      const settings = {
        databases: {
          [fixture.database]: {
            host: postgres.host,
            port: postgres.port,
            database: fixture.database,
            username: ROLE,
            password: 'none',
          },
        },
      };
      const service = fixture.start({ settings });
      await fixture.confirmed('main');
      const expected = [await writeProcess(fixture, 'main', 'first')];
      const advice = ledgerGrantSql(fixture.slot('main'), ROLE);
      for (const count of [1, 2]) {
        await fixture.confirmed('main');
        const { pid } = (await fixture.walsender('main'))!;
        await sql`SELECT pg_terminate_backend(${pid})`;
        await service.waitForFailure(fixture.slot('main'), count);
        expected.push(await writeProcess(fixture, 'main', `session ${count}`));
      }
      await fixture.confirmed('main');
      const warnings = (of: InProcessService) =>
        of.log.filter(({ event, code }) => event === 'slot_warning' && code === 'ledger_refused');
      expect(warnings(service)).toMatchObject([{ level: 'warn', slot: fixture.slot('main'), advice }]);
      expect(await ledgerOf(fixture, 'main')).toBeUndefined();

      // Without a ledger the process itself remembers, as long as it runs.
      await sql`SELECT pg_terminate_backend(active_pid), pg_sleep(0.01) FROM pg_replication_slots WHERE active`;
      await waitFor('the end of the slot', () =>
        dropSlot(fixture, 'main').then(
          () => true,
          () => false, // active again
        ),
      );
      const loss = await waitForLoss(fixture, service, 'main');
      expect(loss.error.message).toContain('the replication slot does not exist any more');
      expect(await slotExists(fixture, 'main')).toBe(false);
      expect(warnings(service)).toHaveLength(1);
      await service.stop();

      const superuser = postgres.sql(fixture.database, { max: 1 });
      await superuser.unsafe(advice).finally(() => superuser.end());
      const next = fixture.start({ settings });
      await isCreated(fixture, 'main');
      expected.push(await writeProcess(fixture, 'main', 'after'));
      await fixture.confirmed('main');
      expect(warnings(next)).toEqual([]);
      await next.stop();
      expect(await ledgerOf(fixture, 'main')).toMatchObject({
        confirmedLsn: await fixture.confirmedLsn('main'),
        closed: true,
      });
      await expectEmitted(fixture, expected);
    },
    TIMEOUT_MS,
  );

  test(
    'of another system, restored from a dump, stops its slot on the server that the configuration names now',
    async () => {
      await using fixture = await openStreamFixture({ postgres, kafka, slots: { main: ['main'], fresh: ['fresh'] } });
      // Test servers of one version are copies of one cluster with one system identifier: another version is needed.
      await using other = await startPostgres({ major: 17, settings: SETTINGS });
      const service = fixture.start({ slots: { main: ['main'] } });
      await fixture.confirmed('main');
      const expected = [await writeProcess(fixture, 'main', 'before')];
      await fixture.confirmed('main');
      await service.stop();
      const confirmed = await fixture.confirmedLsn('main');
      const name = ledgerName(fixture.slot('main'));
      const [dumped] = await fixture.sql`
        SELECT obj_description(oid, 'pg_publication') AS comment FROM pg_publication WHERE pubname = ${name}`;
      await other.createDatabase(fixture.database);
      const there = other.sql(fixture.database, { max: 4 });
      try {
        for (const namespace of ['main', 'fresh']) await createNamespace(there, namespace);
        await there`CREATE PUBLICATION ${there(name)} WITH (publish = '')`;
        await there.unsafe(`COMMENT ON PUBLICATION "${name}" IS '${dumped!.comment}'`);
        const isStreamed = async (slotName: string) => {
          const [row] = await there`
            SELECT confirmed_flush_lsn >= pg_current_wal_lsn() AS done FROM pg_replication_slots
            WHERE slot_name = ${fixture.slot(slotName)}`;
          return row?.done === true;
        };
        const writeThere = (namespace: string, id: string): Promise<Emitted> =>
          writeProcess({ commit: (statements) => commitOn(there, statements) }, namespace, id);
        const start = (settings?: StartOptions['settings']) =>
          startInProcessService({ ...fixture.serviceOptions({ settings }), postgres: other });
        let loss: ReportedLoss;
        {
          await using moved = start();
          loss = await waitForLoss(fixture, moved, 'main');
          expect(loss.error.message).toMatch(/the server is another one, with system identifier \d+ in place of \d+$/);
          expect([loss.fromLsn, loss.toLsn]).toEqual([confirmed, undefined]);
          await waitFor('the other slot', () => isStreamed('fresh'));
          expected.push(await writeThere('fresh', 'meanwhile'));
          await writeThere('main', 'lost');
          await waitFor('its confirmation', () => isStreamed('fresh'));
          expect(moved.failures(fixture.slot('fresh'))).toEqual([]);
          const slots = await there`SELECT slot_name FROM pg_replication_slots`;
          expect(slots.map(({ slot_name }) => slot_name)).toEqual([fixture.slot('fresh')]);
        }
        await using accepted = start(accepting(fixture, { main: loss }));
        await waitFor('the slot', () => isStreamed('main'));
        expected.push(await writeThere('main', 'after'));
        await waitFor('its confirmation', () => isStreamed('main'));
        await expectEmitted(fixture, expected);
        expect(accepted.failures()).toEqual([]);
        expect(acceptances(accepted)).toEqual([fixture.slot('main')]);
      } finally {
        await there.end({ timeout: 1 });
      }
    },
    TIMEOUT_MS,
  );
});
