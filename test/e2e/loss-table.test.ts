/**
 * Every way in which a service ends, times who goes on, times what became of the slot meanwhile: each cell is judged by the
 * tables and the topics. What was written is in a topic or within a reported range, and nothing is reported where nothing is
 * lost. Services are processes of their own, each behind a network of its own.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { execFile } from 'node:child_process';
import { rename, rm } from 'node:fs/promises';
import { promisify } from 'node:util';
import { formatLsn, type Lsn, parseLsn } from '../../src/lsn.ts';
import { quoteIdentifier } from '../../src/postgres/client/quote.ts';
import { type KafkaServer, startKafka } from '../support/kafka/server.ts';
import { startTcpProxy, type TcpProxy } from '../support/network/tcp-proxy.ts';
import { type PostgresServer, reconnect, startPostgres } from '../support/postgres/server.ts';
import { waitFor } from '../support/process/wait.ts';
import { tablesOf } from '../support/progressor/tables.ts';
import type { LoggedError } from '../support/service/in-process.ts';
import { type ServiceProcess, startServiceProcess } from '../support/service/service-process.ts';
import { openStreamFixture, type StreamFixture, writeProcess } from '../support/service/stream-fixture.ts';

const TIMEOUT_MS = 120_000;
const KEPT_WAL_MB = 32;
const SEGMENT_MB = 16;
const SETTINGS = { track_commit_timestamp: 'on', wal_sender_timeout: '2s' };

/** How the service ends that streams. */
const ENDS = ['a graceful stop', 'SIGKILL', 'a lost machine'] as const;
/** Who goes on after the harm. */
const SUCCESSORS = ['a new process', 'a peer that stood by', 'the same process'] as const;
type End = (typeof ENDS)[number];
type Successor = (typeof SUCCESSORS)[number];

/** What becomes of the slot of this name, and of its publication, while nothing streams. */
const STATES = ['kept', 'missing', 'recreated', 'moved', 'republished'] as const;
type State = (typeof STATES)[number] | 'invalidated';

/**
 * Whether the harm is reported. A ledger that was not closed may be a minute old: a slot that is ahead of it looks like one
 * that the ended process moved itself ("Limits of detection" in config/guide/runbooks.md).
 */
function isReported(state: State, { end, successor, isRestored = false }: Row): boolean {
  // What was delivered and is gone from the database is known to the process that delivered it.
  if (isRestored && successor === 'the same process') return true;
  if (state === 'kept') return false;
  // The ledger is that of the copy, which nobody closed.
  if (isRestored) return !(state === 'recreated' || state === 'moved');
  const knowsPosition = end === 'a graceful stop' || successor === 'the same process';
  return knowsPosition || !(state === 'recreated' || state === 'moved');
}

/** A row of the table. */
interface Row {
  readonly end: End;
  readonly successor: Successor;
  /** The server is replaced by a copy that was made before the last confirmations */
  readonly isRestored?: boolean;
}

/** A row by the LSNs right before and right after its transaction. */
interface Written {
  readonly key: string;
  readonly afterLsn: Lsn;
  readonly untilLsn: Lsn;
}

/** A range that a LossError reports. */
interface Range {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
}

async function write(fixture: StreamFixture, state: State, id: string): Promise<Written> {
  const afterLsn = await fixture.currentLsn();
  await writeProcess(fixture, state, id);
  return { key: `${state} ${id}`, afterLsn, untilLsn: await fixture.currentLsn() };
}

/** A service process, and the network between it and PostgreSQL. */
interface Runner extends AsyncDisposable {
  readonly process: ServiceProcess;
  readonly network: TcpProxy;
}

async function startRunner(fixture: StreamFixture, postgres: PostgresServer, settings: object = {}): Promise<Runner> {
  await using undo = new AsyncDisposableStack();
  const network = undo.use(await startTcpProxy({ host: postgres.host, port: postgres.port }));
  const options = { ...fixture.serviceOptions(), postgres: { ...postgres, port: network.port } };
  const process = undo.use(await startServiceProcess({ ...options, settings: { ...settings } }));
  const resources = undo.move();
  return { process, network, [Symbol.asyncDispose]: () => resources.disposeAsync() };
}

function failuresOf({ process }: Runner, slot: string): LoggedError[] {
  return process.log.flatMap((line) =>
    line.event === 'replication_failed' && line.slot === slot ? [line.error as LoggedError] : [],
  );
}

async function waitForEvent({ process }: Runner, event: string, slots: readonly string[]): Promise<void> {
  for (const slot of slots) {
    await waitFor(`${event} of ${slot}`, () => process.log.some((line) => line.event === event && line.slot === slot), {
      timeoutMs: 60_000,
    });
  }
}

/** Takes the service from its server in this way; resolves when no slot has a reader. */
async function endHolder(holder: Runner, end: End, successor: Successor, fixture: StreamFixture): Promise<void> {
  const { process, network } = holder;
  if (successor === 'the same process') {
    // The process lives on: what ends is its connection, by the server, by a reset, or by a network that forgets it.
    await network.refuse(true);
    if (end === 'a lost machine') network.halfOpen();
    else if (end === 'SIGKILL') network.cut();
    else await fixture.sql`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active`;
  } else if (end === 'a lost machine') {
    network.halfOpen();
  } else if (end === 'SIGKILL') {
    await process.kill();
  } else {
    process.signal('SIGTERM');
    // It closes its ledgers when its slots are free already.
    await waitFor(
      'the end of its connections',
      async () =>
        (
          await fixture.sql`SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'cdc-notifier%'`
        ).length === 0,
      { timeoutMs: 60_000 },
    );
  }
  await withoutReaders(fixture);
}

async function withoutReaders(fixture: StreamFixture): Promise<void> {
  await waitFor(
    'slots without a reader',
    async () => (await fixture.sql`SELECT FROM pg_replication_slots WHERE active`).length === 0,
    { timeoutMs: 60_000 },
  );
}

/** Takes the network from a service. */
async function cutOff({ network }: Runner, fixture: StreamFixture): Promise<void> {
  await network.refuse(true);
  network.cut();
  await withoutReaders(fixture);
}

async function harm(fixture: StreamFixture, state: State): Promise<void> {
  const { sql } = fixture;
  const slot = fixture.slot(state);
  if (state === 'missing' || state === 'recreated') await sql`SELECT pg_drop_replication_slot(${slot})`;
  if (state === 'republished') await sql.unsafe(`DROP PUBLICATION ${quoteIdentifier(state)}`);
}

/** The second half: rows written between the two are in no slot. */
async function harmOn(fixture: StreamFixture, state: State): Promise<void> {
  const { sql } = fixture;
  const slot = fixture.slot(state);
  const { processes, events } = tablesOf(state);
  if (state === 'recreated') await sql`SELECT pg_create_logical_replication_slot(${slot}, 'pgoutput')`;
  if (state === 'moved') await sql`SELECT pg_replication_slot_advance(${slot}, pg_current_wal_lsn())`;
  if (state === 'republished') {
    await sql`CREATE PUBLICATION ${sql(state)} FOR TABLE ${sql(processes)}, ${sql(events)}
      WITH (publish = 'insert, update, delete')`;
  }
  if (state === 'invalidated') {
    await waitFor('the invalidation', async () => {
      await sql`SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1000))`;
      await sql`SELECT pg_switch_wal()`;
      await sql`CHECKPOINT`;
      return (await sql`SELECT FROM pg_replication_slots WHERE slot_name = ${slot} AND wal_status = 'lost'`).length > 0;
    });
  }
}

/** The last range that a runner reports for a slot, once it has reported it twice. */
async function reportedRange(runner: Runner, slot: string): Promise<Range> {
  const losses = await waitFor(
    `the losses of ${slot}`,
    () => {
      const found = failuresOf(runner, slot).filter(({ name }) => name === 'LossError');
      return found.length >= 2 ? found : undefined;
    },
    { timeoutMs: 60_000 },
  );
  const { advice } = losses.at(-1)!;
  const [, from, to] = /^Changes from (\S+) to (\S+) cannot be streamed/.exec(advice!)!;
  return { fromLsn: parseLsn(from!), toLsn: parseLsn(to!) };
}

/** Stops a server, copies its data and starts it again; returns the copy. */
async function copyOf(postgres: PostgresServer): Promise<string> {
  const copy = `${postgres.dataDirectory}.copy`;
  await postgres.stop('fast');
  await promisify(execFile)('cp', ['-a', postgres.dataDirectory, copy]);
  await postgres.start();
  return copy;
}

/** Puts a copy in the place of a server that is lost. */
async function restore(postgres: PostgresServer, copy: string): Promise<void> {
  await postgres.stop('immediate');
  await rm(postgres.dataDirectory, { recursive: true });
  await rename(copy, postgres.dataDirectory);
  await postgres.start();
}

/** One row of the table: these states of slots, after this end, with this successor. */
async function judge(
  { postgres, kafka }: { readonly postgres: PostgresServer; readonly kafka: KafkaServer },
  row: Row,
  states: readonly State[],
): Promise<void> {
  const { end, successor, isRestored = false } = row;
  await using fixture = await openStreamFixture({
    postgres,
    kafka,
    slots: Object.fromEntries(states.map((state) => [state, [state]])),
  });
  const slots = states.map(fixture.slot);
  const rows = new Map(states.map((state): [State, Written[]] => [state, []]));
  const writeAll = async (id: string) => {
    for (const [state, written] of rows) written.push(await write(fixture, state, id));
  };
  await using holder = await startRunner(fixture, postgres);
  await waitForEvent(holder, 'replication_started', slots);
  await writeAll('before');
  for (const state of states) await fixture.confirmed(state);
  let copy: string | undefined;
  if (isRestored) {
    // A server that stops in good order lets the service close its ledgers, which a copy of a running one does not hold.
    await cutOff(holder, fixture);
    copy = await copyOf(postgres);
    await reconnect(fixture.sql);
    await holder.network.heal();
    for (let segment = 0; segment < 2; segment++) {
      // In the topics, and in no database after the restore. What is written there later does not get as far in the WAL.
      for (const state of states) await writeProcess(fixture, state, `delivered ${segment}`);
      for (const state of states) await fixture.confirmed(state, { timeoutMs: 60_000 });
      await fixture.sql`SELECT pg_switch_wal()`;
    }
  }

  await using peer = await startRunner(fixture, postgres);
  await waitForEvent(peer, 'standing_by', slots);
  // A peer goes on at once otherwise, and finds nothing.
  await peer.network.refuse(true);
  peer.network.cut();
  if (successor !== 'a peer that stood by') await peer.process.kill();
  await endHolder(holder, end, successor, fixture);
  if (copy !== undefined) {
    await restore(postgres, copy);
    await reconnect(fixture.sql);
  }
  for (const state of states) await harm(fixture, state);
  await writeAll('away');
  for (const state of states) await harmOn(fixture, state);
  await writeAll('later');

  await using next = await startRunner(fixture, postgres);
  let runner = next;
  if (successor !== 'a new process') {
    await next.process.kill();
    runner = successor === 'the same process' ? holder : peer;
    await runner.network.heal();
    if (successor === 'the same process') runner.network.cut();
  }
  const ranges = new Map<State, Range>();
  for (const state of states) {
    if (isReported(state, row)) ranges.set(state, await reportedRange(runner, fixture.slot(state)));
    else await fixture.confirmed(state, { timeoutMs: 60_000 });
  }
  const ofOthers = states
    .filter((state) => !ranges.has(state))
    .flatMap((state) => failuresOf(runner, fixture.slot(state)));
  expect(ofOthers.filter(({ name }) => name === 'LossError')).toEqual([]);
  await runner.process.kill();

  const accepted = Array.from(ranges, ([state, { fromLsn }]) => [
    fixture.slot(state),
    { accept_loss_after: formatLsn(fromLsn) },
  ]);
  await using last = await startRunner(fixture, postgres, {
    ...(accepted.length === 0 ? {} : { slots: { [fixture.database]: Object.fromEntries(accepted) } }),
  });
  await waitForEvent(last, 'replication_started', slots);
  await writeAll('after');
  for (const state of states) await fixture.confirmed(state, { timeoutMs: 60_000 });
  const arrived = new Set((await fixture.emitted()).map(({ key }) => key));
  for (const [state, written] of rows) {
    const missing = written.filter(({ key }) => !arrived.has(key));
    const range = ranges.get(state);
    const unreported = missing.filter(
      ({ afterLsn, untilLsn }) => range === undefined || afterLsn < range.fromLsn || untilLsn > range.toLsn,
    );
    const isSilent = state !== 'kept' && !ranges.has(state);
    expect([state, isSilent ? [] : unreported.map(({ key }) => key)]).toEqual([state, []]);
    expect([state, arrived.has(`${state} before`), arrived.has(`${state} after`)]).toEqual([state, true, true]);
    // The harm is real: a cell that loses nothing would prove nothing.
    expect([state, missing.length > 0]).toEqual([state, state !== 'kept']);
  }
}

describe.each([14, 18] as const)('on PostgreSQL %d', (major) => {
  let postgres: PostgresServer;
  let frugal: PostgresServer;
  let kafka: KafkaServer;
  beforeAll(async () => {
    const lossy = {
      max_slot_wal_keep_size: `${KEPT_WAL_MB}MB`,
      min_wal_size: `${2 * SEGMENT_MB}MB`,
      max_wal_size: '64MB',
    };
    [postgres, frugal, kafka] = await Promise.all([
      startPostgres({ major, settings: SETTINGS }),
      startPostgres({ major, settings: { ...SETTINGS, ...lossy } }),
      startKafka(),
    ]);
  }, 120_000);
  afterAll(async () => {
    await Promise.all([postgres, frugal, kafka].map((server) => server?.[Symbol.asyncDispose]()));
  }, 60_000);

  const cells = ENDS.flatMap((end) => SUCCESSORS.map((successor) => ({ end, successor })));

  test.each(cells)(
    'after $end, with $successor: what was written is in a topic or within the reported range',
    async ({ end, successor }) => {
      await Promise.all([
        judge({ postgres, kafka }, { end, successor }, STATES),
        judge({ postgres: frugal, kafka }, { end, successor }, ['invalidated']),
      ]);
    },
    TIMEOUT_MS,
  );

  test.each(cells)(
    'after $end, with $successor, of a server that is restored to an earlier copy: the same',
    ({ end, successor }) => judge({ postgres, kafka }, { end, successor, isRestored: true }, STATES),
    TIMEOUT_MS,
  );
});
