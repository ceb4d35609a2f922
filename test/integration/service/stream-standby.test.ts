/**
 * Several processes of the service with the same slots: one streams and the others stand by. They take over when it ends, in
 * any way, and nothing is lost, reordered or mistaken for a loss. Real servers.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test';
import { parseLsn } from '../../../src/lsn.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { startTcpProxy } from '../../support/network/tcp-proxy.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { type InProcessService, startInProcessService } from '../../support/service/in-process.ts';
import { startServiceProcess } from '../../support/service/service-process.ts';
import {
  type Emitted,
  event,
  firstOccurrences,
  inOrder,
  insertEvent,
  openStreamFixture,
  type StartOptions,
  type StreamFixture,
} from '../../support/service/stream-fixture.ts';

const ONE = 'default/default';
const TWO = 'invoice';
const WAL_SENDER_TIMEOUT_MS = 2_000;
/** Maximum from the release of a slot until another process streams from it */
const TAKEOVER_MS = 2_000;
const TIMEOUT_MS = 90_000;
const STARTED = 'replication started';
const STANDING_BY = 'another process streams from the slot, standing by';

let postgres: PostgresServer;
let kafka: KafkaServer;
beforeAll(async () => {
  const settings = { track_commit_timestamp: 'on', wal_sender_timeout: `${WAL_SENDER_TIMEOUT_MS}ms` };
  [postgres, kafka] = await Promise.all([startPostgres({ settings }), startKafka()]);
}, 120_000);
afterAll(async () => {
  await Promise.all([postgres?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
}, 30_000);

const openFixture = () => openStreamFixture({ postgres, kafka, slots: { one: [ONE], two: [TWO] } });

/** Starts a process and waits until it streams from these slots. */
async function startActive(
  fixture: StreamFixture,
  options: StartOptions = {},
  slotNames = ['one', 'two'],
): Promise<InProcessService> {
  const service = fixture.start(options);
  for (const slotName of slotNames) await sees(fixture, service, STARTED, slotName);
  return service;
}

/** Starts a process and waits until it stands by for these slots. */
async function startStandby(
  fixture: StreamFixture,
  options: StartOptions = {},
  slotNames = ['one', 'two'],
): Promise<InProcessService> {
  const service = fixture.start(options);
  for (const slotName of slotNames) await sees(fixture, service, STANDING_BY, slotName);
  return service;
}

/** Resolves with the time of the `count`th log line with this message about a slot, ms since 1970. */
async function sees(
  fixture: StreamFixture,
  service: Pick<InProcessService, 'log'>,
  msg: string,
  slotName: string,
  count = 1,
): Promise<number> {
  const line = await waitFor(
    `"${msg}" ${count} times for slot ${slotName}`,
    () => service.log.filter((one) => one.msg === msg && one.slot === fixture.slot(slotName))[count - 1],
  );
  return Date.parse(String(line.time));
}

/** Resolves with the time at which this walsender no longer held the slot, ms since 1970. */
async function releaseOf(fixture: StreamFixture, slotName: string, pid: number): Promise<number> {
  await waitFor(
    'the release of the slot',
    async () => {
      const [row] = await fixture.sql`
        SELECT active_pid FROM pg_replication_slots WHERE slot_name = ${fixture.slot(slotName)}`;
      return row?.active_pid !== pid;
    },
    { intervalMs: 5 },
  );
  return Date.now();
}

async function holderPid(fixture: StreamFixture, slotName: string): Promise<number> {
  return (await waitFor('the walsender', () => fixture.walsender(slotName))).pid;
}

/** Commits transactions of three events, one for each of three processes, until it is stopped. */
class Writer implements AsyncDisposable {
  readonly expected: Emitted[] = [];
  #isStopped = false;
  readonly #loop: Promise<void>;

  constructor(fixture: StreamFixture) {
    this.#loop = this.#run(fixture);
    this.#loop.catch(() => {}); // seen by `stop`
  }

  /** Resolves after so many more transactions. */
  async advance(count: number): Promise<void> {
    const goal = this.expected.length + 3 * count;
    await waitFor('further transactions', () => this.expected.length >= goal);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#loop;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #run(fixture: StreamFixture): Promise<void> {
    for (let eventId = 1; !this.#isStopped; eventId++) {
      const ids = ['p', 'q', 'r'];
      const createdAt = await fixture.commit(async (tx) => {
        for (const id of ids) await insertEvent(tx, ONE, id, eventId);
      });
      this.expected.push(...ids.map((id) => event(ONE, id, { eventId, createdAt })));
    }
  }
}

/** Stops the writer and checks that every record arrived and is in order, apart from repeats. */
async function expectAll(fixture: StreamFixture, writer: Writer): Promise<Emitted[]> {
  await writer.stop();
  await fixture.confirmed('one');
  const emitted = await fixture.emitted(ONE);
  expect(firstOccurrences(emitted)).toEqual(inOrder(writer.expected));
  return emitted;
}

function lossesOf(service: InProcessService): unknown[] {
  return service.failures().filter(({ name }) => name === 'LossError');
}

test(
  'each slot is held by one of two processes, and a process that loses one slot keeps the others',
  async () => {
    await using fixture = await openFixture();
    const first = await startActive(fixture, { settings: { reconnect_timeout: 6_000 } });
    const second = await startStandby(fixture);
    await using writer = new Writer(fixture);
    await writer.advance(5);
    expect(second.log.filter(({ msg }) => msg === STARTED)).toEqual([]);

    const [pid, otherPid] = [await holderPid(fixture, 'one'), await holderPid(fixture, 'two')];
    await fixture.sql`SELECT pg_terminate_backend(${pid})`;
    const releasedMs = await releaseOf(fixture, 'one', pid);
    expect((await sees(fixture, second, STARTED, 'one')) - releasedMs).toBeLessThan(TAKEOVER_MS);
    await writer.advance(5);
    await sees(fixture, first, STANDING_BY, 'one');
    expect(await holderPid(fixture, 'two')).toBe(otherPid);
    expect(second.log.some(({ msg, slot }) => msg === STARTED && slot === fixture.slot('two'))).toBe(false);

    // Back to the first: what the second has confirmed is no loss.
    await second.stop();
    await sees(fixture, first, STARTED, 'one', 2);
    await writer.advance(5);
    await expectAll(fixture, writer);
    expect(await holderPid(fixture, 'two')).toBe(otherPid);
    expect(first.failures()).toHaveLength(1);
    expect(second.failures()).toEqual([]);
    expect(first.log.filter(({ level }) => level === 'warn')).toEqual([]);
  },
  TIMEOUT_MS,
);

test(
  'a standby takes over within two seconds of a graceful stop, repeatedly, and no record is repeated',
  async () => {
    await using fixture = await openFixture();
    const options = { slots: { one: [ONE] } };
    let active = await startActive(fixture, options, ['one']);
    await using writer = new Writer(fixture);
    for (let turn = 1; turn <= 3; turn++) {
      const next = await startStandby(fixture, options, ['one']);
      await writer.advance(5);
      await active.stop();
      const stoppedMs = active.log.findLast(({ msg }) => msg === 'replication stopped')!.time;
      expect((await sees(fixture, next, STARTED, 'one')) - Date.parse(String(stoppedMs))).toBeLessThan(TAKEOVER_MS);
      expect([...active.failures(), ...next.failures()]).toEqual([]);
      active = next;
    }
    await writer.advance(5);
    expect(await expectAll(fixture, writer)).toHaveLength(writer.expected.length);
  },
  TIMEOUT_MS,
);

test(
  'a standby takes over within two seconds after a killed slot holder has released the slot',
  async () => {
    await using fixture = await openFixture();
    const options = { slots: { one: [ONE] } };
    await using holder = await startServiceProcess(fixture.serviceOptions(options));
    await sees(fixture, holder, STARTED, 'one');
    const standby = await startStandby(fixture, options, ['one']);
    await using writer = new Writer(fixture);
    await writer.advance(10);
    const pid = await holderPid(fixture, 'one');
    await holder.kill();
    const releasedMs = await releaseOf(fixture, 'one', pid);
    expect((await sees(fixture, standby, STARTED, 'one')) - releasedMs).toBeLessThan(TAKEOVER_MS);
    await writer.advance(10);
    await expectAll(fixture, writer);
    expect(standby.failures()).toEqual([]);
  },
  TIMEOUT_MS,
);

test(
  'a standby takes over from a half-open slot holder after wal_sender_timeout, and each continues where the other stopped',
  async () => {
    await using fixture = await openFixture();
    const options = { slots: { one: [ONE] } };
    await using stack = new AsyncDisposableStack();
    /** A service with a network of its own */
    const startBehindProxy = async () => {
      const proxy = stack.use(await startTcpProxy({ host: postgres.host, port: postgres.port }));
      const reached = { ...postgres, port: proxy.port };
      const service = stack.use(startInProcessService({ ...fixture.serviceOptions(options), postgres: reached }));
      return { proxy, service };
    };
    const first = await startBehindProxy();
    await sees(fixture, first.service, STARTED, 'one');
    const second = await startBehindProxy();
    await sees(fixture, second.service, STANDING_BY, 'one');
    await using writer = new Writer(fixture);
    await writer.advance(10);
    const pid = await holderPid(fixture, 'one');
    const brokenMs = Date.now();
    first.proxy.halfOpen();
    const releasedMs = await releaseOf(fixture, 'one', pid);
    const startedMs = await sees(fixture, second.service, STARTED, 'one');
    expect(startedMs - releasedMs).toBeLessThan(TAKEOVER_MS);
    expect(startedMs - brokenMs).toBeLessThan(WAL_SENDER_TIMEOUT_MS + 2 * TAKEOVER_MS);
    await writer.advance(10);
    await first.service.waitForFailure(fixture.slot('one'));
    first.proxy.cut();
    await first.proxy.heal();
    await sees(fixture, first.service, STANDING_BY, 'one');
    await writer.advance(5);

    // The second is cut off and cannot close its ledger, which shows nevertheless that it held the slot.
    await second.proxy.refuse(true);
    second.proxy.cut();
    await sees(fixture, first.service, STARTED, 'one', 2);
    await writer.advance(5);
    await second.proxy.heal();
    await sees(fixture, second.service, STANDING_BY, 'one', 2);
    await writer.advance(5);
    await first.service.stop();
    await sees(fixture, second.service, STARTED, 'one', 2);
    await writer.advance(5);
    await expectAll(fixture, writer);
    expect([...lossesOf(first.service), ...lossesOf(second.service)]).toEqual([]);
  },
  TIMEOUT_MS,
);

test(
  'a process that was frozen for longer than wal_sender_timeout stands by, and later continues where the other stopped',
  async () => {
    await using fixture = await openFixture();
    const options = { slots: { one: [ONE] } };
    await using frozen = await startServiceProcess(fixture.serviceOptions(options));
    await sees(fixture, frozen, STARTED, 'one');
    const standby = await startStandby(fixture, options, ['one']);
    await using writer = new Writer(fixture);
    await writer.advance(10);
    const pid = await holderPid(fixture, 'one');
    frozen.signal('SIGSTOP');
    const releasedMs = await releaseOf(fixture, 'one', pid);
    expect((await sees(fixture, standby, STARTED, 'one')) - releasedMs).toBeLessThan(TAKEOVER_MS);
    await writer.advance(10);
    const passed = await fixture.currentLsn();
    await fixture.confirmed('one');

    frozen.signal('SIGCONT');
    await sees(fixture, frozen, STANDING_BY, 'one');
    await writer.advance(5);
    await standby.stop();
    await sees(fixture, frozen, STARTED, 'one', 2);
    await writer.advance(5);
    await expectAll(fixture, writer);
    const { fromLsn } = frozen.log.findLast(({ msg }) => msg === STARTED)!;
    expect(parseLsn(String(fromLsn))).toBeGreaterThanOrEqual(passed);
    const names = frozen.log.flatMap(({ error }) => (error === undefined ? [] : [(error as { name: string }).name]));
    expect(names).not.toContain('LossError');
    expect(standby.failures()).toEqual([]);
  },
  TIMEOUT_MS,
);
