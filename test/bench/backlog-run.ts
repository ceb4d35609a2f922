/** A backlog, read by pg_recvlogical and by the service in turn, each time from a fresh copy of one slot. */
import type { Sql } from 'postgres';
import { waitFor } from '../support/wait.ts';
import { ChildProgram } from './child-program.ts';
import { type Environment, PARTITION_COUNT } from './environment.ts';
import { type NotifierTarget, startNotifier } from './notifier.ts';
import { cpuMicros, ProcessWatch, peakRssBytes } from './process-usage.ts';
import type { RecvLogical } from './recvlogical.ts';
import { countRecords } from './topics.ts';
import { type Backlog, NAMESPACE, WRITER_CONNECTIONS } from './workloads.ts';

/** One reading of a backlog. CPU times are of the whole reading, in microseconds. */
export interface Reading {
  /** From the start of streaming to the end: the confirmation at the server, or the exit of pg_recvlogical */
  readonly seconds: number;
  readonly cpuMicros: number;
  readonly walsenderCpuMicros: number;
  /** undefined where the broker has no part in it */
  readonly brokerCpuMicros?: number | undefined;
  readonly peakRssBytes: number;
}

/** All readings of one backlog, in the order of the run. */
export interface BacklogResult {
  readonly backlog: Backlog;
  readonly walBytes: number;
  readonly notifier: readonly Reading[];
  /** Empty where there is no pg_recvlogical */
  readonly recvLogical: readonly Reading[];
}

const READING_TIMEOUT_MS = 300_000;
const POLL_MS = 10;
const BASE_SLOT = 'bench';

/** Writes the backlog and reads it `repeatCount` times by each. */
export async function measureBacklog(
  environment: Environment,
  backlog: Backlog,
  repeatCount: number,
): Promise<BacklogResult> {
  const { postgres, progress, recvLogical } = environment;
  const database = `bench_${backlog.id}`;
  await postgres.createDatabase(database);
  const sql = postgres.sql(database, {
    max: WRITER_CONNECTIONS,
    connection: { synchronous_commit: 'off' },
  });
  try {
    progress(`${backlog.title}: preparing`);
    await backlog.prepare(sql);
    await prepareSlot(environment, database);
    progress(`${backlog.title}: writing`);
    const started = performance.now();
    const [before] = await sql`SELECT pg_current_wal_insert_lsn()::text AS lsn`;
    await backlog.write(sql);
    // Without synchronous_commit the last transactions may still have to reach the WAL that a walsender may send.
    const [after] = await sql`
      SELECT pg_current_wal_insert_lsn()::text AS lsn,
        (pg_current_wal_insert_lsn() - ${String(before?.lsn)}::pg_lsn)::float8 AS bytes`;
    await sql`CHECKPOINT`;
    const end = String(after?.lsn);
    const walBytes = Number(after?.bytes);
    progress(`${backlog.title}: written in ${seconds(started)} s, ${Math.round(walBytes / 1e6)} MB of WAL`);

    const notifierReadings: Reading[] = [];
    const recvLogicalReadings: Reading[] = [];
    for (let turn = 1; turn <= repeatCount; turn++) {
      const label = `${backlog.title}: ${turn} of ${repeatCount}`;
      if (!('missing' in recvLogical)) {
        progress(`${label}: pg_recvlogical`);
        const reading = await withSlotCopy(sql, `recvlogical_${turn}`, (slot) =>
          readByRecvLogical(environment, recvLogical, { sql, database, slot, end }),
        );
        recvLogicalReadings.push(reading);
        progress(`${label}: pg_recvlogical ${rate(backlog, reading)}`);
      }
      progress(`${label}: cdc-notifier`);
      const reading = await withSlotCopy(sql, `notifier_${turn}`, (slot) =>
        readByNotifier(environment, backlog, { sql, database, slot, end }),
      );
      notifierReadings.push(reading);
      progress(`${label}: cdc-notifier ${rate(backlog, reading)}`);
    }
    return { backlog, walBytes, notifier: notifierReadings, recvLogical: recvLogicalReadings };
  } finally {
    await dropSlot(sql, BASE_SLOT);
    await sql.end();
  }
}

/** The service makes publication, replica identity and slot by itself; then it is stopped before anything is written. */
async function prepareSlot(environment: Environment, database: string): Promise<void> {
  const target = await createTopics(environment, { database, slot: BASE_SLOT });
  {
    await using program = await startNotifier(environment, target);
    await program.stop();
  }
  await deleteTopics(environment, target);
}

interface ReadingPlace {
  readonly sql: Sql;
  readonly database: string;
  readonly slot: string;
  /** LSN that must be confirmed */
  readonly end: string;
}

async function readByNotifier(environment: Environment, backlog: Backlog, place: ReadingPlace): Promise<Reading> {
  const { sql, slot, end } = place;
  const brokerPid = environment.kafka.pid as number;
  const target = await createTopics(environment, place);
  await using program = await startNotifier(environment, target);
  const started = performance.now();
  const cpuBefore = cpuMicros(program.pid) as number;
  const brokerBefore = cpuMicros(brokerPid) as number;
  using walsender = new ProcessWatch(await walsenderPid(sql, slot));
  await program.while(waitUntilConfirmed(sql, slot, end));
  const reading: Reading = {
    seconds: Number(seconds(started)),
    cpuMicros: (cpuMicros(program.pid) as number) - cpuBefore,
    walsenderCpuMicros: walsender.cpuMicros,
    brokerCpuMicros: (cpuMicros(brokerPid) as number) - brokerBefore,
    peakRssBytes: peakRssBytes(program.pid) as number,
  };
  await program.stop();
  const [events, lifecycle] = await countRecords(environment.kafka.bootstrap, [
    target.eventsTopic,
    target.lifecycleTopic,
  ]);
  if (events !== backlog.recordCount || lifecycle !== 0) {
    throw new Error(
      `${backlog.title}: ${events} events and ${lifecycle} lifecycle records arrived, not ${backlog.recordCount} and 0`,
    );
  }
  await deleteTopics(environment, target);
  return reading;
}

async function readByRecvLogical(
  environment: Environment,
  recvLogical: RecvLogical,
  place: ReadingPlace,
): Promise<Reading> {
  const { postgres } = environment;
  const command = recvLogicalCommand(recvLogical.program, { ...place, host: postgres.host, port: postgres.port });
  await using program = new ChildProgram(command, { env: recvLogical.env });
  await program.line('streaming initiated');
  const started = performance.now();
  using walsender = new ProcessWatch(await walsenderPid(place.sql, place.slot));
  using client = new ProcessWatch(program.pid);
  await program.ended();
  const elapsedSeconds = Number(seconds(started));
  const [row] = await place.sql`
    SELECT confirmed_flush_lsn >= ${place.end}::pg_lsn AS confirmed FROM pg_replication_slots
    WHERE slot_name = ${place.slot}`;
  if (row?.confirmed !== true) throw new Error('pg_recvlogical has ended before the end of the backlog');
  return {
    seconds: elapsedSeconds,
    cpuMicros: program.cpuMicros(),
    walsenderCpuMicros: walsender.cpuMicros,
    peakRssBytes: client.peakRssBytes,
  };
}

/** The command line of a comparison. */
export function recvLogicalCommand(
  program: string,
  target: { readonly host: string; readonly port: number } & Pick<ReadingPlace, 'database' | 'slot' | 'end'>,
): string[] {
  const { host, port, database, slot, end } = target;
  const connection = ['-h', host, '-p', String(port), '-U', 'postgres', '-d', database];
  const plugin = ['proto_version=1', `publication_names="${NAMESPACE}"`, 'binary=true', 'messages=true'];
  const options = plugin.flatMap((option) => ['-o', option]);
  return [program, ...connection, '--slot', slot, '--start', '--endpos', end, '-f', '/dev/null', '-v', ...options];
}

async function withSlotCopy<T>(sql: Sql, name: string, use: (slot: string) => Promise<T>): Promise<T> {
  const slot = `${BASE_SLOT}_${name}`;
  await sql`SELECT pg_copy_logical_replication_slot(${BASE_SLOT}, ${slot})`;
  try {
    return await use(slot);
  } finally {
    await dropSlot(sql, slot);
  }
}

/** Drops a slot as soon as nobody reads from it any more. */
export async function dropSlot(sql: Sql, slot: string): Promise<void> {
  await waitFor(`slot ${slot} free`, async () => {
    const [row] = await sql`SELECT active FROM pg_replication_slots WHERE slot_name = ${slot}`;
    if (row === undefined) return true;
    if (row.active === true) return false;
    await sql`SELECT pg_drop_replication_slot(${slot})`;
    return true;
  });
}

/** Resolves when everything up to an LSN is confirmed. */
export async function waitUntilConfirmed(sql: Sql, slot: string, lsn: string): Promise<void> {
  await waitFor(
    `confirmation of ${lsn}`,
    async () => {
      const [row] = await sql`
        SELECT confirmed_flush_lsn >= ${lsn}::pg_lsn AS confirmed FROM pg_replication_slots WHERE slot_name = ${slot}`;
      return row?.confirmed === true;
    },
    { timeoutMs: READING_TIMEOUT_MS, intervalMs: POLL_MS },
  );
}

async function walsenderPid(sql: Sql, slot: string): Promise<number> {
  const [row] = await sql`SELECT active_pid FROM pg_replication_slots WHERE slot_name = ${slot}`;
  if (typeof row?.active_pid !== 'number') throw new Error(`Cannot find the walsender of slot ${slot}`);
  return row.active_pid;
}

/** Makes new topics for one reading. */
export async function createTopics(
  { kafka }: Environment,
  { database, slot }: Pick<ReadingPlace, 'database' | 'slot'>,
  config: Readonly<Record<string, string>> = {},
): Promise<NotifierTarget> {
  const target = {
    database,
    slot,
    eventsTopic: `${database}_${slot}_events`,
    lifecycleTopic: `${database}_${slot}_lifecycle`,
  };
  await kafka.createTopic(target.eventsTopic, { partitions: PARTITION_COUNT, config });
  await kafka.createTopic(target.lifecycleTopic, { partitions: PARTITION_COUNT, config });
  return target;
}

async function deleteTopics({ kafka }: Environment, target: NotifierTarget): Promise<void> {
  await kafka.deleteTopic(target.eventsTopic);
  await kafka.deleteTopic(target.lifecycleTopic);
}

function seconds(startedMs: number): string {
  return ((performance.now() - startedMs) / 1000).toFixed(3);
}

function rate(backlog: Backlog, reading: Reading): string {
  return `${reading.seconds.toFixed(2)} s, ${Math.round(backlog.rowCount / reading.seconds)} rows/s`;
}
