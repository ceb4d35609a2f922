/**
 * Slots and publications that are not what they were, seen by the running service: the stream stops with the exact range,
 * confirms nothing, disturbs no other slot, and goes on when the configuration accepts that loss. Real servers.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { formatLsn, type Lsn, parseLsn } from '../../../src/lsn.ts';
import { ledgerGrantSql, ledgerName, parseLedger, type SlotLedger } from '../../../src/postgres/continuity/ledger.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { startTcpProxy, type TcpProxy } from '../../support/network/tcp-proxy.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { createNamespace, tablesOf } from '../../support/progressor/tables.ts';
import { type InProcessService, type LoggedError, startInProcessService } from '../../support/service/in-process.ts';
import {
  type Emitted,
  firstOccurrences,
  inOrder,
  insertProcess,
  lifecycle,
  openStreamScene,
  type StartOptions,
  type StreamScene,
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

/** A scene whose services reach PostgreSQL through a proxy. */
interface LossScene extends AsyncDisposable {
  readonly scene: StreamScene;
  readonly proxy: TcpProxy;
  start(options?: StartOptions): InProcessService;
  /** Takes the server away from the services, and waits until none of these slots is held */
  cutOff(slotNames: readonly string[]): Promise<void>;
}

async function openLossScene(
  postgres: PostgresServer,
  slots: Readonly<Record<string, readonly string[]>>,
): Promise<LossScene> {
  const scene = await openStreamScene({ postgres, kafka, slots });
  const proxy = await startTcpProxy({ host: postgres.host, port: postgres.port });
  const services: InProcessService[] = [];
  return {
    scene,
    proxy,
    start(options) {
      const service = startInProcessService({
        ...scene.serviceOptions(options),
        postgres: { ...postgres, port: proxy.port },
      });
      services.push(service);
      return service;
    },
    async cutOff(slotNames) {
      await proxy.refuse(true);
      proxy.cut();
      await released(scene, slotNames);
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(services.map((service) => service.stop()));
      await proxy[Symbol.asyncDispose]();
      await scene[Symbol.asyncDispose]();
    },
  };
}

async function released(scene: StreamScene, slotNames: readonly string[]): Promise<void> {
  const slots = slotNames.map(scene.slot);
  await waitFor('the release of the slots', async () => {
    const active = await scene.sql`SELECT FROM pg_replication_slots WHERE slot_name IN ${scene.sql(slots)} AND active`;
    return active.length === 0;
  });
}

/** Commits a process; returns the record that would come of it. */
async function write(scene: StreamScene, namespace: string, id: string): Promise<Emitted> {
  return lifecycle(namespace, id, 'created', await scene.commit((tx) => insertProcess(tx, namespace, id)));
}

/** What the server remembers of a slot. */
async function ledgerOf(scene: StreamScene, slotName: string): Promise<SlotLedger | undefined> {
  const [row] = await scene.sql`
    SELECT obj_description(oid, 'pg_publication') AS comment FROM pg_publication
    WHERE pubname = ${ledgerName(scene.slot(slotName))}`;
  return row === undefined ? undefined : parseLedger(row.comment);
}

async function slotExists(scene: StreamScene, slotName: string): Promise<boolean> {
  return (await scene.sql`SELECT FROM pg_replication_slots WHERE slot_name = ${scene.slot(slotName)}`).length > 0;
}

/** Resolves when a slot is whole: it is there before, and what is written then need not be in it. */
async function isMade(scene: StreamScene, slotName: string): Promise<void> {
  await waitFor('the slot', async () => (await scene.confirmedLsn(slotName)) > 0n);
}

/** Publishes the tables of a namespace again, as a person does. */
async function publish(scene: StreamScene, namespace: string): Promise<void> {
  const { processes, events } = tablesOf(namespace);
  await scene.sql`CREATE PUBLICATION ${scene.sql(namespace)} FOR TABLE ${scene.sql(processes)}, ${scene.sql(events)}`;
}

async function dropPublication(scene: StreamScene, namespace: string): Promise<void> {
  await scene.sql`DROP PUBLICATION ${scene.sql(namespace)}`;
}

async function dropSlot(scene: StreamScene, slotName: string): Promise<void> {
  await scene.sql`SELECT pg_drop_replication_slot(${scene.slot(slotName)})`;
}

/** A loss as an error tells it. */
interface ToldLoss {
  readonly error: LoggedError;
  readonly fromLsn: Lsn;
  /** Undefined where the end is not known */
  readonly toLsn: Lsn | undefined;
}

/** Resolves with the second LossError in a row of a slot: it stays with what it said. */
async function waitForLoss(scene: StreamScene, service: InProcessService, slotName: string): Promise<ToldLoss> {
  const losses = await waitFor(`the losses of slot ${slotName}`, () => {
    const found = service.failures(scene.slot(slotName)).filter(({ name }) => name === 'LossError');
    return found.length >= 2 ? found : undefined;
  });
  const [first, error] = losses.slice(-2) as [LoggedError, LoggedError];
  const lsn = String(error.place?.lsn);
  expect(first.place?.lsn).toBe(lsn);
  expect(error.place).toMatchObject({ database: scene.database, slot: scene.slot(slotName) });
  expect(error.message).toStartWith(`Cannot go on behind ${lsn}: `);
  const [, from, to] = /^Changes from (\S+) (?:on|to (\S+)) cannot be streamed/.exec(error.advice!)!;
  expect(from).toBe(lsn);
  const setting = `slots.${scene.database}.${scene.slot(slotName)}.accept_loss_after: ${lsn} `;
  expect(error.advice).toContain(setting);
  return { error, fromLsn: parseLsn(lsn), toLsn: to === undefined ? undefined : parseLsn(to) };
}

/** Settings that accept what these slots have stopped at. */
function accepting(scene: StreamScene, losses: Readonly<Record<string, ToldLoss>>): StartOptions['settings'] {
  const settings = Object.entries(losses).map(([slotName, { fromLsn }]) => [
    scene.slot(slotName),
    { accept_loss_after: formatLsn(fromLsn) },
  ]);
  return { slots: { [scene.database]: Object.fromEntries(settings) } };
}

/** The slots with which a service has gone on without changes, by its warnings. */
function acceptances(service: InProcessService): readonly unknown[] {
  return service.log
    .filter(({ level, msg }) => level === 'warn' && msg.includes('as accept_loss_after says'))
    .map(({ slot }) => slot);
}

async function expectEmitted(scene: StreamScene, expected: readonly Emitted[]): Promise<void> {
  expect(firstOccurrences(await scene.emitted())).toEqual(inOrder(expected));
}

/** What happens to a slot that bears the name; `lost` is written where nobody sees it, `behind` where somebody might. */
const HARMS = {
  /** The slot is gone */
  dropped: async (scene: StreamScene, writeLost: () => Promise<unknown>) => {
    await dropSlot(scene, 'dropped');
    await writeLost();
  },
  /** It was made anew, further on */
  remade: async (scene: StreamScene, writeLost: () => Promise<unknown>) => {
    await dropSlot(scene, 'remade');
    await writeLost();
    await scene.sql`SELECT pg_create_logical_replication_slot(${scene.slot('remade')}, 'pgoutput')`;
  },
  /** It was moved forward by hand */
  moved: async (scene: StreamScene, writeLost: () => Promise<unknown>) => {
    await writeLost();
    await scene.sql`SELECT pg_replication_slot_advance(${scene.slot('moved')}, pg_current_wal_lsn())`;
  },
  /** Its publication is another one */
  renewed: async (scene: StreamScene, writeLost: () => Promise<unknown>) => {
    await dropPublication(scene, 'renewed');
    await writeLost();
    await publish(scene, 'renewed');
  },
} as const;
type Harm = keyof typeof HARMS;
const HARMED = Object.keys(HARMS) as Harm[];
const SLOTS = { dropped: ['dropped'], remade: ['remade'], moved: ['moved'], renewed: ['renewed'], sound: ['sound'] };

const DETAILS: Readonly<Record<Harm, string>> = {
  dropped: 'the replication slot does not exist any more',
  remade: 'where nobody is known to have brought it: it was moved, or dropped and made anew',
  moved: 'where nobody is known to have brought it: it was moved, or dropped and made anew',
  renewed: 'publication "renewed" was dropped and made anew',
};

/** Harms all slots but `sound`; returns where each slot then stands, and where the WAL ended before and after. */
async function harmAll(scene: StreamScene) {
  const before = await scene.currentLsn();
  for (const harm of HARMED) await HARMS[harm](scene, () => write(scene, harm, 'lost'));
  const after = await scene.currentLsn();
  const behind: Emitted[] = [];
  for (const harm of HARMED) behind.push(await write(scene, harm, 'behind'));
  const positions = Object.fromEntries(
    await Promise.all(HARMED.map(async (harm) => [harm, await scene.confirmedLsn(harm)])),
  ) as Record<Harm, Lsn>;
  return { before, after, behind, positions };
}

/** Checks what the service says of the harmed slots, and that it leaves all of them as they are. */
async function expectLosses(
  scene: StreamScene,
  service: InProcessService,
  { before, after, positions }: Awaited<ReturnType<typeof harmAll>>,
): Promise<Record<Harm, ToldLoss>> {
  const losses = {} as Record<Harm, ToldLoss>;
  for (const harm of HARMED) {
    const loss = await waitForLoss(scene, service, harm);
    losses[harm] = loss;
    expect([harm, loss.error.message]).toEqual([harm, expect.stringContaining(DETAILS[harm])]);
    expect([harm, loss.fromLsn <= before]).toEqual([harm, true]);
    if (harm === 'remade' || harm === 'moved') expect([harm, loss.toLsn]).toEqual([harm, positions[harm]]);
    else expect([harm, loss.toLsn! >= after && loss.toLsn! <= (await scene.currentLsn())]).toEqual([harm, true]);
  }
  for (const harm of HARMED) expect([harm, await scene.confirmedLsn(harm)]).toEqual([harm, positions[harm]]);
  expect(await slotExists(scene, 'dropped')).toBe(false);
  return losses;
}

describe.each([14, 17, 18] as const)('what happens to slots on PostgreSQL %d', (major) => {
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres({ major, settings: SETTINGS });
  }, 120_000);
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
  });

  /** Starts with the losses accepted, and checks what comes and what does not. */
  async function goOn(
    { scene, start }: LossScene,
    { losses, expected, behind }: { losses: Record<Harm, ToldLoss>; expected: Emitted[]; behind: readonly Emitted[] },
  ): Promise<void> {
    const service = start({ settings: accepting(scene, losses) });
    for (const slotName of Object.keys(SLOTS)) {
      const isStart = (line: { readonly msg: string; readonly slot?: unknown }) =>
        line.msg === 'replication started' && line.slot === scene.slot(slotName);
      await service.waitForLog(`the start of ${slotName}`, isStart);
    }
    // A slot that was made at this moment has nothing of what was written before.
    expected.push(...behind.filter(({ key }) => !key.startsWith('dropped')));
    for (const namespace of Object.keys(SLOTS)) expected.push(await write(scene, namespace, 'after'));
    for (const slotName of Object.keys(SLOTS)) await scene.confirmed(slotName);
    await expectEmitted(scene, expected);
    expect([...acceptances(service)].sort()).toEqual(HARMED.map(scene.slot).sort());
    expect(service.failures()).toEqual([]);
  }

  test(
    'while the service is down after a graceful stop is told by the next one, exactly, until it is accepted',
    async () => {
      await using lossScene = await openLossScene(postgres, SLOTS);
      const { scene, start } = lossScene;
      const first = start();
      for (const slotName of Object.keys(SLOTS)) await scene.confirmed(slotName);
      const expected: Emitted[] = [];
      for (const namespace of Object.keys(SLOTS)) expected.push(await write(scene, namespace, 'before'));
      for (const slotName of Object.keys(SLOTS)) await scene.confirmed(slotName);
      await first.stop();
      const confirmed = new Map<string, Lsn>();
      for (const harm of HARMED) confirmed.set(harm, await scene.confirmedLsn(harm));
      const harmed = await harmAll(scene);

      const service = start();
      expected.push(await write(scene, 'sound', 'meanwhile'));
      const losses = await expectLosses(scene, service, harmed);
      for (const harm of HARMED) expect([harm, losses[harm].fromLsn]).toEqual([harm, confirmed.get(harm)!]);
      await scene.confirmed('sound');
      expect(service.failures(scene.slot('sound'))).toEqual([]);
      await expectEmitted(scene, expected);
      await service.stop();
      await goOn(lossScene, { losses, expected, behind: harmed.behind });
    },
    TIMEOUT_MS,
  );

  test(
    'behind the back of a process that was cut off from the server is told by it, and the same by the next one',
    async () => {
      await using lossScene = await openLossScene(postgres, SLOTS);
      const { scene, start, proxy, cutOff } = lossScene;
      const service = start();
      for (const slotName of Object.keys(SLOTS)) await scene.confirmed(slotName);
      const expected: Emitted[] = [];
      for (const namespace of Object.keys(SLOTS)) expected.push(await write(scene, namespace, 'before'));
      const written = await scene.currentLsn();
      for (const slotName of Object.keys(SLOTS)) await scene.confirmed(slotName);
      await cutOff(Object.keys(SLOTS));
      const harmed = await harmAll(scene);
      await proxy.heal();

      expected.push(await write(scene, 'sound', 'meanwhile'));
      const losses = await expectLosses(scene, service, harmed);
      for (const harm of HARMED) {
        expect([harm, losses[harm].fromLsn >= written]).toEqual([harm, true]);
        // The next process finds the same by what this one has left.
        expect(await ledgerOf(scene, harm)).toMatchObject({ confirmedLsn: losses[harm].fromLsn, closed: true });
      }
      await scene.confirmed('sound');
      expect(service.failures(scene.slot('sound')).filter(({ name }) => name === 'LossError')).toEqual([]);
      await expectEmitted(scene, expected);
      await service.stop();
      await goOn(lossScene, { losses, expected, behind: harmed.behind });
    },
    TIMEOUT_MS,
  );

  test(
    'after a process that could say no last word is told from where it last wrote its ledger',
    async () => {
      await using lossScene = await openLossScene(postgres, { dropped: ['dropped'], sound: ['sound'] });
      const { scene, start, cutOff, proxy } = lossScene;
      const crashing = start();
      await scene.confirmed('dropped');
      const expected = [await write(scene, 'dropped', 'before')];
      await scene.confirmed('dropped');
      const confirmed = await scene.confirmedLsn('dropped');
      await cutOff(['dropped', 'sound']);
      await crashing.stop();
      const left = (await ledgerOf(scene, 'dropped'))!;
      expect(left.closed).toBe(false);
      expect(left.confirmedLsn).toBeLessThan(confirmed);
      await dropSlot(scene, 'dropped');
      await write(scene, 'dropped', 'lost');
      const lost = await scene.currentLsn();
      await proxy.heal();

      const service = start();
      const loss = await waitForLoss(scene, service, 'dropped');
      expect(loss.error.message).toContain(DETAILS.dropped);
      expect(loss.fromLsn).toBe(left.confirmedLsn);
      expect(loss.toLsn! >= lost).toBe(true);
      expect(await slotExists(scene, 'dropped')).toBe(false);
      expected.push(await write(scene, 'sound', 'meanwhile'));
      await scene.confirmed('sound');
      expect(service.failures(scene.slot('sound'))).toEqual([]);
      await service.stop();
      const next = start({ settings: accepting(scene, { dropped: loss }) });
      await isMade(scene, 'dropped');
      expected.push(await write(scene, 'dropped', 'after'));
      await scene.confirmed('dropped');
      await expectEmitted(scene, expected);
      expect(next.failures()).toEqual([]);
    },
    TIMEOUT_MS,
  );

  test(
    'by max_slot_wal_keep_size is told by the process that is too late, and the slot is made anew only when that is accepted',
    async () => {
      await using lossScene = await openLossScene(postgres, { late: ['late'], sound: ['sound'] });
      const { scene, start, cutOff, proxy } = lossScene;
      const late = start({ slots: { late: ['late'] } });
      const sound = scene.start({ slots: { sound: ['sound'] } });
      await scene.confirmed('sound');
      await scene.confirmed('late');
      const expected = [await write(scene, 'late', 'before')];
      const written = await scene.currentLsn();
      await scene.confirmed('late');
      await cutOff(['late']);
      await write(scene, 'late', 'lost');
      const state = async () => {
        const [row] =
          await scene.sql`SELECT wal_status FROM pg_replication_slots WHERE slot_name = ${scene.slot('late')}`;
        return row?.wal_status;
      };
      for (let segment = 0; segment * WAL_SEGMENT_MB <= KEPT_WAL_MB + 2 * WAL_SEGMENT_MB; segment++) {
        expected.push(await write(scene, 'sound', `segment ${segment}`));
        await scene.sql`SELECT pg_switch_wal()`;
        await scene.sql`CHECKPOINT`;
        await scene.confirmed('sound');
      }
      await waitFor('the slot to be lost', async () => {
        await scene.sql`CHECKPOINT`;
        return (await state()) === 'lost';
      });
      const lost = await scene.currentLsn();
      await proxy.heal();

      const loss = await waitForLoss(scene, late, 'late');
      expect(loss.error.message).toContain('the server has invalidated the slot');
      expect(loss.fromLsn).toBeGreaterThanOrEqual(written);
      expect(loss.toLsn! >= lost).toBe(true);
      expect(await state()).toBe('lost');
      expected.push(await write(scene, 'sound', 'meanwhile'));
      await scene.confirmed('sound');
      expect(sound.failures()).toEqual([]);
      await late.stop();

      const wrong = start({ slots: { late: ['late'] } });
      expect((await waitForLoss(scene, wrong, 'late')).fromLsn).toBe(loss.fromLsn);
      await wrong.stop();
      start({ slots: { late: ['late'] }, settings: accepting(scene, { late: loss }) });
      await waitFor('the end of the old slot', async () => (await state()) !== 'lost');
      await isMade(scene, 'late');
      expected.push(await write(scene, 'late', 'after'));
      await scene.confirmed('late');
      await expectEmitted(scene, expected);
    },
    TIMEOUT_MS,
  );
});

describe.each([17, 18] as const)('a publication that is made anew within the backlog on PostgreSQL %d', (major) => {
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres({ major, settings: { ...SETTINGS } });
  }, 120_000);
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
  });

  test(
    'stops its slot while the service is streaming, and is found out by the next process',
    async () => {
      await using lossScene = await openLossScene(postgres, { main: ['renewed', 'other'], sound: ['sound'] });
      const { scene, start } = lossScene;
      const service = start();
      await scene.confirmed('main');
      await scene.confirmed('sound');
      const expected = [await write(scene, 'renewed', 'before')];
      await scene.confirmed('main');
      let drop: Lsn;
      let lost: Lsn;
      // The server has not come to the drop when it has all happened.
      const thaw = await freezeWalsender(scene, 'main');
      try {
        expected.push(await write(scene, 'other', 'backlog'));
        drop = await scene.currentLsn();
        await dropPublication(scene, 'renewed');
        await write(scene, 'renewed', 'lost');
        await publish(scene, 'renewed');
        lost = await scene.currentLsn();
        expected.push(await write(scene, 'renewed', 'behind'));
      } finally {
        thaw();
      }
      const loss = await waitForLoss(scene, service, 'main');
      expect(loss.error.message).toContain('publication "renewed" was dropped and made anew');
      expect(loss.fromLsn).toBeLessThanOrEqual(drop);
      expect(await scene.confirmedLsn('main')).toBeLessThan(lost);
      for (const { name } of service.failures(scene.slot('main'))) expect(name).toBe('LossError');
      expected.push(await write(scene, 'sound', 'meanwhile'));
      await scene.confirmed('sound');
      expect(service.failures(scene.slot('sound'))).toEqual([]);
      await service.stop();

      const next = start();
      expect((await waitForLoss(scene, next, 'main')).fromLsn).toBe(loss.fromLsn);
      expect(await scene.confirmedLsn('main')).toBeLessThan(lost);
      await next.stop();
      const accepted = start({ settings: accepting(scene, { main: loss }) });
      expected.push(await write(scene, 'renewed', 'after'));
      await scene.confirmed('main');
      await expectEmitted(scene, expected);
      expect(acceptances(accepted)).toEqual([scene.slot('main')]);
    },
    TIMEOUT_MS,
  );
});

/** Stops the process that sends for a slot; it goes on when the returned function is called. */
async function freezeWalsender({ sql, slot }: StreamScene, name: string): Promise<() => void> {
  const [holder] = await sql<{ pid: number }[]>`
    SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = ${slot(name)}`;
  process.kill(holder!.pid, 'SIGSTOP');
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
    'that the role may not write is warned of once in all sessions, and kept as soon as a superuser has given the right',
    async () => {
      const ROLE = 'reader';
      await using scene = await openStreamScene({ postgres, kafka, slots: { main: ['main'] } });
      const { sql } = scene;
      const { processes, events } = tablesOf('main');
      await sql`CREATE ROLE ${sql(ROLE)} LOGIN REPLICATION`;
      await sql`ALTER TABLE ${sql(processes)} REPLICA IDENTITY FULL`;
      for (const table of [processes, events]) await sql`ALTER TABLE ${sql(table)} OWNER TO ${sql(ROLE)}`;
      await publish(scene, 'main');
      const settings = {
        databases: {
          [scene.database]: {
            host: postgres.host,
            port: postgres.port,
            database: scene.database,
            username: ROLE,
            password: 'none',
          },
        },
      };
      const service = scene.start({ settings });
      await scene.confirmed('main');
      const expected = [await write(scene, 'main', 'first')];
      const advice = ledgerGrantSql(scene.slot('main'), ROLE);
      for (const count of [1, 2]) {
        await scene.confirmed('main');
        const { pid } = (await scene.walsender('main'))!;
        await sql`SELECT pg_terminate_backend(${pid})`;
        await service.waitForFailure(scene.slot('main'), count);
        expected.push(await write(scene, 'main', `session ${count}`));
      }
      await scene.confirmed('main');
      const warnings = (of: InProcessService) => of.log.filter(({ msg }) => msg.includes('may not keep a ledger'));
      expect(warnings(service)).toMatchObject([{ level: 'warn', slot: scene.slot('main'), advice }]);
      expect(await ledgerOf(scene, 'main')).toBeUndefined();

      // The process itself remembers, as long as it lives.
      await sql`SELECT pg_terminate_backend(active_pid), pg_sleep(0.01) FROM pg_replication_slots WHERE active`;
      await waitFor('the end of the slot', () =>
        dropSlot(scene, 'main').then(
          () => true,
          () => false, // taken up again in between
        ),
      );
      const loss = await waitForLoss(scene, service, 'main');
      expect(loss.error.message).toContain('the replication slot does not exist any more');
      expect(await slotExists(scene, 'main')).toBe(false);
      expect(warnings(service)).toHaveLength(1);
      await service.stop();

      const superuser = postgres.sql(scene.database, { max: 1 });
      await superuser.unsafe(advice).finally(() => superuser.end());
      const next = scene.start({ settings });
      await isMade(scene, 'main');
      expected.push(await write(scene, 'main', 'after'));
      await scene.confirmed('main');
      expect(warnings(next)).toEqual([]);
      await next.stop();
      expect(await ledgerOf(scene, 'main')).toMatchObject({
        confirmedLsn: await scene.confirmedLsn('main'),
        closed: true,
      });
      await expectEmitted(scene, expected);
    },
    TIMEOUT_MS,
  );

  test(
    'of another system, as a dump brings it along, stops its slot on the server that db_ref leads to now',
    async () => {
      await using scene = await openStreamScene({ postgres, kafka, slots: { main: ['main'], fresh: ['fresh'] } });
      // Servers of the same version are copies of one cluster here, and would have the same identifier.
      await using other = await startPostgres({ major: 17, settings: SETTINGS });
      const service = scene.start({ slots: { main: ['main'] } });
      await scene.confirmed('main');
      const expected = [await write(scene, 'main', 'before')];
      await scene.confirmed('main');
      await service.stop();
      const confirmed = await scene.confirmedLsn('main');
      const name = ledgerName(scene.slot('main'));
      const [dumped] = await scene.sql`
        SELECT obj_description(oid, 'pg_publication') AS comment FROM pg_publication WHERE pubname = ${name}`;
      await other.createDatabase(scene.database);
      const there = other.sql(scene.database, { max: 4 });
      try {
        for (const namespace of ['main', 'fresh']) await createNamespace(there, namespace);
        await there`CREATE PUBLICATION ${there(name)} WITH (publish = '')`;
        await there.unsafe(`COMMENT ON PUBLICATION "${name}" IS '${dumped!.comment}'`);
        const isStreamed = async (slotName: string) => {
          const [row] = await there`
            SELECT confirmed_flush_lsn >= pg_current_wal_lsn() AS done FROM pg_replication_slots
            WHERE slot_name = ${scene.slot(slotName)}`;
          return row?.done === true;
        };
        const writeThere = async (namespace: string, id: string): Promise<Emitted> => {
          const [row] = await there.begin(async (tx) => {
            await insertProcess(tx, namespace, id);
            return tx`SELECT pg_current_xact_id()::text AS xid`;
          });
          const [commit] = await there`
            SELECT to_char(pg_xact_commit_timestamp(${row!.xid}::text::xid) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS at`;
          return lifecycle(namespace, id, 'created', commit!.at);
        };
        const start = (settings?: StartOptions['settings']) =>
          startInProcessService({ ...scene.serviceOptions({ settings }), postgres: other });
        let loss: ToldLoss;
        {
          await using moved = start();
          loss = await waitForLoss(scene, moved, 'main');
          expect(loss.error.message).toMatch(/the server is another one, with system identifier \d+ in place of \d+$/);
          expect([loss.fromLsn, loss.toLsn]).toEqual([confirmed, undefined]);
          await waitFor('the other slot', () => isStreamed('fresh'));
          expected.push(await writeThere('fresh', 'meanwhile'));
          await writeThere('main', 'lost');
          await waitFor('its confirmation', () => isStreamed('fresh'));
          expect(moved.failures(scene.slot('fresh'))).toEqual([]);
          const slots = await there`SELECT slot_name FROM pg_replication_slots`;
          expect(slots.map(({ slot_name }) => slot_name)).toEqual([scene.slot('fresh')]);
        }
        await using accepted = start(accepting(scene, { main: loss }));
        await waitFor('the slot', () => isStreamed('main'));
        expected.push(await writeThere('main', 'after'));
        await waitFor('its confirmation', () => isStreamed('main'));
        await expectEmitted(scene, expected);
        expect(accepted.failures()).toEqual([]);
        expect(acceptances(accepted)).toEqual([scene.slot('main')]);
      } finally {
        await there.end({ timeout: 1 });
      }
    },
    TIMEOUT_MS,
  );
});
