/** What a stream survives and what ends it: silence, a stuck Kafka, a server shutdown, lost connections. Real servers. */
import { afterAll, beforeAll, expect, test } from 'bun:test';
import { type Lsn, parseLsn } from '../../../src/lsn.ts';
import { quoteIdentifier } from '../../../src/postgres/client/quote.ts';
import { encodePayload } from '../../support/codecs/etf.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { type PostgresServer, reconnect, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import type { InProcessService } from '../../support/service/in-process.ts';
import {
  type Emitted,
  event,
  expectEmitted,
  inOrder,
  insertEvent,
  openStreamFixture,
  type StartOptions,
  type StreamFixture,
  type Walsender,
  writeProcess,
} from '../../support/service/stream-fixture.ts';

const NAMESPACE = 'default/default';
const WAL_SENDER_TIMEOUT_MS = 2_000;
/** A walsender that lives for so long would have timed out more than once without status updates */
const SEVERAL_TIMEOUTS_MICROS = 2.5 * WAL_SENDER_TIMEOUT_MS * 1000;
/** Longer than any test: the producer waits and does not fail */
const PATIENT = { request_timeout: 120_000 } as const;
/** A server that waits for our confirmation never stops; one whose walsender is disconnected stops at once */
const SHUTDOWN_BOUND_MS = 15_000;

let postgres: PostgresServer;
let kafka: KafkaServer;
beforeAll(async () => {
  const settings = { track_commit_timestamp: 'on', wal_sender_timeout: `${WAL_SENDER_TIMEOUT_MS}ms` };
  [postgres, kafka] = await Promise.all([startPostgres({ settings }), startKafka()]);
}, 120_000);
afterAll(async () => {
  await Promise.all([postgres?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
}, 30_000);

const openFixture = () => openStreamFixture({ postgres, kafka, slots: { one: [NAMESPACE] } });

/** Starts the service; the slot exists when this resolves. */
async function start(fixture: StreamFixture, options?: StartOptions): Promise<InProcessService> {
  const service = fixture.start(options);
  await fixture.confirmed('one');
  return service;
}

/** Commits `count` events of one process, numbered from 1, in one transaction. */
async function writeEvents(
  fixture: StreamFixture,
  id: string,
  count: number,
): Promise<{ readonly expected: Emitted[] /** The Commit is at or after it */; readonly beforeCommitLsn: Lsn }> {
  let beforeCommitLsn = 0n;
  const createdAt = await fixture.commit(async (tx) => {
    for (let eventId = 1; eventId <= count; eventId++) await insertEvent(tx, NAMESPACE, id, eventId);
    const [row] = await tx`SELECT pg_current_wal_insert_lsn()::text AS lsn`;
    beforeCommitLsn = parseLsn(row!.lsn);
  });
  const expected = Array.from({ length: count }, (_, index) => event(NAMESPACE, id, { eventId: index + 1, createdAt }));
  return { expected, beforeCommitLsn };
}

/** As `writeEvents`, in one statement, with the same random payload in each. */
async function writeLargeEvents(
  fixture: StreamFixture,
  id: string,
  { count, payloadBytes }: { readonly count: number; readonly payloadBytes: number },
): Promise<Emitted[]> {
  const bytes = Buffer.from(crypto.getRandomValues(new Uint8Array(payloadBytes)));
  const data = { bin: bytes };
  const createdAt = await fixture.commit(
    (tx) => tx`
      INSERT INTO ${tx(tablesOf(NAMESPACE).events)} (process_id, task_id, event_id, "timestamp", payload)
      SELECT ${id}, 1, i, NULL, ${encodePayload(data)} FROM generate_series(1, ${count}::int) i`,
  );
  return Array.from({ length: count }, (_, index) => event(NAMESPACE, id, { eventId: index + 1, createdAt, data }));
}

/** The walsender of the slot, once a status update has reached it. */
async function walsenderOf(fixture: StreamFixture): Promise<Walsender> {
  return waitFor('the walsender', async () => {
    const walsender = await fixture.walsender('one');
    return walsender !== undefined && walsender.replyMicros > 0 ? walsender : undefined;
  });
}

/** Resolves when status updates have continued for so long after `since`; the walsender must stay the same. */
async function statusesGoOn(
  fixture: StreamFixture,
  since: Walsender,
  { micros = SEVERAL_TIMEOUTS_MICROS, meanwhile }: { micros?: number; meanwhile?: () => Promise<void> } = {},
): Promise<void> {
  const replies = new Set([since.replyMicros]);
  await waitFor('statuses over several wal_sender_timeouts', async () => {
    await meanwhile?.();
    const now = await fixture.walsender('one');
    expect(now).toMatchObject({ pid: since.pid, startedAt: since.startedAt });
    replies.add(now!.replyMicros);
    return now!.replyMicros - since.replyMicros >= micros;
  });
  // The service sends one each third of the timeout; on a busy machine no two may be a whole timeout apart.
  const times = [...replies].sort((one, other) => one - other);
  const gaps = times.slice(1).map((time, index) => time - times[index]!);
  expect(Math.max(...gaps)).toBeLessThan(WAL_SENDER_TIMEOUT_MS * 1000);
}

/** Resolves when the service has received everything committed now. */
async function received(fixture: StreamFixture): Promise<void> {
  const goal = await fixture.currentLsn();
  await waitFor('the rows at the service', async () => {
    const [row] = await fixture.sql`
      SELECT write_lsn::text AS lsn FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid
      WHERE s.slot_name = ${fixture.slot('one')}`;
    return parseLsn(row?.lsn ?? '0/0') >= goal;
  });
}

/** Backend pid of the service's control connection. */
async function controlPid(fixture: StreamFixture): Promise<number | undefined> {
  const rows = await fixture.sql`
    SELECT pid FROM pg_stat_activity WHERE application_name = ${`cdc-notifier ${fixture.slot('one')} control`}`;
  expect(rows.length).toBeLessThanOrEqual(1);
  return rows[0]?.pid;
}

/** When lines were logged, milliseconds since 1970. */
function loggedAtMs(service: InProcessService, msg: string): number[] {
  return service.log.filter((line) => line.msg === msg).map((line) => Date.parse(String(line.time)));
}

const FAILED = 'replication failed, the service will start it again';
const STARTED = 'replication started';

test.each([14, 15, 18] as const)(
  'a walsender of PostgreSQL %d that decodes what is not streamed is waited for, however long it is silent',
  async (major) => {
    // The server gets a second to answer, and decodes for several; 16 and newer send keepalives meanwhile.
    const settings = { track_commit_timestamp: 'on', wal_sender_timeout: '500ms', max_wal_size: '4GB' };
    await using server = await startPostgres({ major, settings });
    await using fixture = await openStreamFixture({ postgres: server, kafka, slots: { one: [NAMESPACE] } });
    const service = await start(fixture);
    const isWaitedFor = () => service.log.some(({ event: name }) => name === 'walsender_at_work');
    const expected: Emitted[] = [];
    await fixture.sql`CREATE TABLE other (id int)`;
    await fixture.sql`INSERT INTO other SELECT generate_series(1, 2000000)`;
    // How much the server decodes in a second depends on the machine.
    for (let round = 1; round === 1 || (major < 16 && !isWaitedFor() && round <= 4); round++) {
      const type = round % 2 === 1 ? 'bigint' : 'int';
      await fixture.sql.unsafe(`INSERT INTO other SELECT * FROM other; ALTER TABLE other ALTER COLUMN id TYPE ${type}`);
      expected.push(await writeProcess(fixture, NAMESPACE, `after rewrite ${round}`));
      await fixture.confirmed('one');
    }
    await expectEmitted(fixture, expected);
    expect(service.failures()).toEqual([]);
    expect(isWaitedFor()).toBe(major < 16);
  },
  120_000,
);

test('an idle slot keeps its walsender over several wal_sender_timeouts, and unrelated WAL is confirmed', async () => {
  await using fixture = await openFixture();
  await fixture.sql`CREATE TABLE unrelated (note text)`;
  const service = await start(fixture);
  const expected = [await writeProcess(fixture, NAMESPACE, 'p')];
  await fixture.confirmed('one');

  const silent = await walsenderOf(fixture);
  await statusesGoOn(fixture, silent);

  const busy = await walsenderOf(fixture);
  expect(busy.pid).toBe(silent.pid);
  let rounds = 0;
  await statusesGoOn(fixture, busy, {
    async meanwhile() {
      const before = await fixture.confirmedLsn('one');
      await fixture.sql`INSERT INTO unrelated SELECT repeat('x', 1000) FROM generate_series(1, 100)`;
      expect(await fixture.currentLsn()).toBeGreaterThan(before + 100_000n);
      await fixture.confirmed('one', { timeoutMs: 10_000 });
      rounds++;
    },
  });
  expect(rounds).toBeGreaterThan(5);

  expected.push(await writeProcess(fixture, NAMESPACE, 'q'));
  await fixture.confirmed('one');
  expect(await fixture.walsender('one')).toMatchObject({ pid: silent.pid });
  expect(await fixture.emitted()).toEqual(inOrder(expected));
  expect(service.failures()).toEqual([]);
}, 60_000);

test('an existing slot is held while Kafka does not answer at the start: statuses continue, and nothing is confirmed', async () => {
  await using fixture = await openFixture();
  const former = await start(fixture);
  await former.stop();
  const confirmedLsn = await fixture.confirmedLsn('one');
  const { expected } = await writeEvents(fixture, 'held', 5);
  kafka.pause();
  try {
    const service = fixture.start({ kafkaSettings: PATIENT });
    await statusesGoOn(fixture, await walsenderOf(fixture));
    expect(await fixture.confirmedLsn('one')).toBe(confirmedLsn);
    kafka.resume();
    await fixture.confirmed('one');
    expect(service.failures()).toEqual([]);
  } finally {
    kafka.resume();
  }
  expect(await fixture.emitted()).toEqual(inOrder(expected));
}, 60_000);

/** Longer than a TCP user timeout of a minute, which counts the time in which a client has no room to receive */
const LONGER_THAN_A_MINUTE_MS = 65_000;

test('a walsender survives a backlog that its client cannot take for longer than a minute, and no record is repeated', async () => {
  await using fixture = await openFixture();
  // The server's default: this is about a client without room to receive, not about one that is slow to answer.
  await fixture.sql.unsafe(`ALTER DATABASE ${quoteIdentifier(fixture.database)} SET wal_sender_timeout = '60s'`);
  const service = await start(fixture, { kafkaSettings: { request_timeout: 300_000 } });
  const { pid } = await walsenderOf(fixture);
  kafka.pause();
  const expected: Emitted[] = [];
  try {
    expected.push(...(await writeLargeEvents(fixture, 'large', { count: 3_000, payloadBytes: 10_000 })));
    await Bun.sleep(LONGER_THAN_A_MINUTE_MS);
    expect((await walsenderOf(fixture)).pid).toBe(pid);
  } finally {
    kafka.resume();
  }
  await fixture.confirmed('one', { timeoutMs: 60_000 });
  expect(service.failures()).toEqual([]);
  expect((await walsenderOf(fixture)).pid).toBe(pid);
  expect(await fixture.emitted()).toEqual(inOrder(expected));
}, 180_000);

test.each([
  ['no broker listens', { kafkaSettings: { brokers: ['127.0.0.1:1'] } }],
  ['a topic is missing', { namespaceSettings: { [NAMESPACE]: { lifecycle_topic: 'missing' } } }],
])(
  'a slot is inactive for reconnect_timeout at most while %s, so that the server does not invalidate it',
  async (_, broken) => {
    await using fixture = await openFixture();
    const former = await start(fixture);
    await former.stop();
    const reconnectTimeoutMs = 1_000;
    const service = fixture.start({ ...broken, settings: { reconnect_timeout: reconnectTimeoutMs } });
    await service.waitForFailure(fixture.slot('one'));
    let longestMs = 0;
    while (service.failures().length < 5) {
      const [row] = await fixture.sql`
      SELECT (extract(epoch FROM clock_timestamp() - inactive_since) * 1000)::float8 AS inactive_ms
      FROM pg_replication_slots WHERE slot_name = ${fixture.slot('one')}`;
      longestMs = Math.max(longestMs, row!.inactive_ms ?? 0);
    }
    expect(longestMs).toBeGreaterThan(reconnectTimeoutMs / 2);
    // Login and preparation come on top.
    expect(longestMs).toBeLessThan(5 * reconnectTimeoutMs);
  },
  60_000,
);

test('one warning shows within seconds that the server counts our walsender as a synchronous standby, until it names its standbys', async () => {
  await using fixture = await openFixture();
  const service = await start(fixture);
  const set = async (names: string) => {
    await fixture.sql.unsafe(`ALTER SYSTEM SET synchronous_standby_names = '${names}'`);
    await fixture.sql`SELECT pg_reload_conf()`;
  };
  try {
    await set('*');
    const line = await service.waitForLog('the warning', ({ event: name }) => name === 'slot_warning');
    expect(line).toMatchObject({
      code: 'synchronous_standby',
      msg: expect.stringContaining('sync_state sync'),
      advice: expect.stringContaining('FIRST 1 (pg2, pg3)'),
    });
  } finally {
    await set('');
  }
  await service.waitForLog('its end', ({ event: name }) => name === 'slot_warning_ended');
  const record = await writeProcess(fixture, NAMESPACE, 'p');
  await fixture.confirmed('one');
  expect(await fixture.emitted()).toEqual([record]);
}, 60_000);

const BACKLOGS = [
  { what: 'few rows, the socket is still read', large: undefined },
  // More than in-flight budget and socket buffers hold: the walsender blocks in the middle of a send.
  { what: 'more rows than may be in flight, the socket is paused', large: { count: 3_000, payloadBytes: 10_000 } },
] as const;
test.each(BACKLOGS)(
  'a slot keeps its walsender while Kafka is stuck for several wal_sender_timeouts ($what), and confirms nothing until Kafka is back',
  async ({ large }) => {
    await using fixture = await openFixture();
    const service = await start(fixture, { kafkaSettings: PATIENT });
    const expected = [await writeProcess(fixture, NAMESPACE, 'p')];
    await fixture.confirmed('one');
    kafka.pause();
    try {
      const first = await writeEvents(fixture, 'p', 5);
      expected.push(...first.expected);
      if (large !== undefined) expected.push(...(await writeLargeEvents(fixture, 'large', large)));
      for (const id of ['q', 'r', 's'])
        expected.push(await writeProcess(fixture, NAMESPACE, id), ...(await writeEvents(fixture, id, 5)).expected);
      if (large === undefined) await received(fixture);

      await statusesGoOn(fixture, await walsenderOf(fixture), {
        async meanwhile() {
          expect(await fixture.confirmedLsn('one')).toBeLessThanOrEqual(first.beforeCommitLsn);
        },
      });
      const held = await walsenderOf(fixture);
      kafka.resume();
      await fixture.confirmed('one');
      expect(await fixture.walsender('one')).toMatchObject({ pid: held.pid });
    } finally {
      kafka.resume();
    }
    expect(await fixture.emitted()).toEqual(inOrder(expected));
    expect(service.failures()).toEqual([]);
  },
  60_000,
);

test('a fast shutdown of the server does not wait for a stuck Kafka and loses nothing', async () => {
  await using fixture = await openFixture();
  const service = await start(fixture, { kafkaSettings: PATIENT });
  const expected = [await writeProcess(fixture, NAMESPACE, 'p')];
  await fixture.confirmed('one');
  kafka.pause();
  let stopped: Promise<void> = Promise.resolve();
  try {
    for (const id of ['q', 'r'])
      expected.push(await writeProcess(fixture, NAMESPACE, id), ...(await writeEvents(fixture, id, 20)).expected);
    await received(fixture);
    const timeout = Promise.withResolvers<'still running'>();
    const timer = setTimeout(timeout.resolve, SHUTDOWN_BOUND_MS, 'still running');
    stopped = postgres.stop('fast');
    expect(await Promise.race([stopped.then(() => 'stopped'), timeout.promise])).toBe('stopped');
    clearTimeout(timer);
  } finally {
    kafka.resume();
    await stopped;
    await postgres.start();
  }
  const [failure] = service.failures();
  expect(failure?.message).toBe('Cannot continue: the server is shutting down');
  await reconnect(fixture.sql);
  expected.push(await writeProcess(fixture, NAMESPACE, 'after'));
  await fixture.confirmed('one');
  // Records in flight may have reached Kafka; they are delivered again with everything unconfirmed.
  await expectEmitted(fixture, expected);
}, 90_000);

test('replication continues when the control connection is lost repeatedly, and another one is opened', async () => {
  await using fixture = await openFixture();
  const service = await start(fixture);
  const expected = [await writeProcess(fixture, NAMESPACE, 'p')];
  await fixture.confirmed('one');
  const { pid: walsenderPid } = await walsenderOf(fixture);
  for (const id of ['q', 'r', 's']) {
    const pid = await waitFor('a control connection', () => controlPid(fixture));
    expect((await fixture.sql`SELECT pg_terminate_backend(${pid}) AS done`)[0]?.done).toBe(true);
    expected.push(await writeProcess(fixture, NAMESPACE, id), ...(await writeEvents(fixture, id, 3)).expected);
    await waitFor('another control connection', async () => ((await controlPid(fixture)) ?? pid) !== pid);
    await fixture.confirmed('one');
    expect(await fixture.walsender('one')).toMatchObject({ pid: walsenderPid });
  }
  expect(await fixture.emitted()).toEqual(inOrder(expected));
  expect(service.failures()).toEqual([]);
}, 60_000);

test('a slot that loses its walsender streams again after reconnect_timeout, logs reason, LSN and count, and loses nothing', async () => {
  await using fixture = await openFixture();
  const { sql } = fixture;
  const reconnectTimeoutMs = 500;
  const service = await start(fixture, { settings: { reconnect_timeout: reconnectTimeoutMs } });
  const expected = [await writeProcess(fixture, NAMESPACE, 'p')];
  await fixture.confirmed('one');
  let { pid } = await walsenderOf(fixture);
  for (const count of [1, 2]) {
    const confirmed = await fixture.confirmedLsn('one');
    // Rows before, during and after the loss
    expected.push(...(await writeEvents(fixture, `before-${count}`, 20)).expected);
    await sql`SELECT pg_terminate_backend(${pid})`;
    expected.push(...(await writeEvents(fixture, `at-${count}`, 20)).expected);
    const failure = await service.waitForFailure(fixture.slot('one'), count);
    expected.push(...(await writeEvents(fixture, `after-${count}`, 20)).expected);
    await fixture.confirmed('one');

    const failed = service.log.filter(({ msg }) => msg === FAILED);
    expect(failed).toHaveLength(count);
    expect(failed.at(-1)).toMatchObject({ level: 'error', reconnectCount: count, reconnectTimeoutMs });
    const started = service.log.filter(({ msg }) => msg === STARTED);
    expect(started).toHaveLength(count + 1);
    expect(started.at(-1)).toMatchObject({
      slot: fixture.slot('one'),
      reconnectCount: count,
      reconnectReason: failure.message,
    });
    expect(failure.message).toContain('SQLSTATE 57P01');
    expect(parseLsn(String(started.at(-1)!.fromLsn))).toBeGreaterThanOrEqual(confirmed);
    // Both times are rounded to 1 ms.
    const waitedMs = loggedAtMs(service, STARTED).at(-1)! - loggedAtMs(service, FAILED).at(-1)!;
    expect(waitedMs).toBeGreaterThanOrEqual(reconnectTimeoutMs - 1);
    const next = await walsenderOf(fixture);
    expect(next.pid).not.toBe(pid);
    pid = next.pid;
  }
  await expectEmitted(fixture, expected);
}, 60_000);
