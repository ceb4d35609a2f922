/** Reads a backlog with Debezium and the service in turn, each time from a new copy of one slot. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sql } from 'postgres';
import { cpuMicros, peakRssBytes } from '../../support/process/process-usage.ts';
import { waitFor } from '../../support/process/wait.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import { type Environment, PARTITION_COUNT } from '../environment.ts';
import { startNotifier } from '../service/notifier.ts';
import { dropSlot, waitUntilConfirmed } from '../service/replication-slots.ts';
import { createTopics } from '../service/slot-topics.ts';
import { type Backlog, NAMESPACE, WRITER_CONNECTIONS } from '../workload/workloads.ts';
import { startConnect } from './connect.ts';
import { type ConnectorTarget, connectorTopics } from './settings.ts';

/** Time and CPU of a part of a reading. */
export interface Effort {
  readonly seconds: number;
  /** CPU time of the reader */
  readonly cpuMicros: number;
}

/** One reading of a backlog: from the start of the walsender to the last record in its topic (the service: to its confirmation). */
export interface Reading extends Effort {
  /** The part with the second half of the records, when Java has compiled most hot code */
  readonly secondHalf?: Effort | undefined;
  /** Of the process since its start */
  readonly peakRssBytes: number;
  /** Size of the records on the broker's disk */
  readonly topicBytes: number;
}

/** All readings of a backlog, in the order of the run. */
export interface Comparison {
  readonly backlog: Backlog;
  readonly walBytes: number;
  readonly notifier: readonly Reading[];
  readonly debezium: readonly Reading[];
}

const START_TIMEOUT_MS = 120_000;
const READING_TIMEOUT_MS = 600_000;
const SLOT_POLL_MS = 10;
/** Each poll costs the broker CPU */
const TOPIC_POLL_MS = 100;
const BASE_SLOT = 'bench';

/** Writes the backlog and reads it `repeatCount` times with each reader. */
export async function compareReaders(
  environment: Environment,
  jars: string,
  backlog: Backlog,
  repeatCount: number,
): Promise<Comparison> {
  const { postgres, progress } = environment;
  const database = `debezium_${backlog.id}`;
  await postgres.createDatabase(database);
  const sql = postgres.sql(database, { max: WRITER_CONNECTIONS, connection: { synchronous_commit: 'off' } });
  try {
    progress(`${backlog.title}: preparing`);
    await backlog.prepare(sql);
    await prepareSlot(environment, database);
    progress(`${backlog.title}: writing`);
    const [before] = await sql`SELECT pg_current_wal_insert_lsn()::text AS lsn`;
    await backlog.write(sql);
    const [after] = await sql`
      SELECT pg_current_wal_insert_lsn()::text AS lsn,
        (pg_current_wal_insert_lsn() - ${String(before?.lsn)}::pg_lsn)::float8 AS bytes`;
    await sql`CHECKPOINT`;
    const end = String(after?.lsn);

    const [notifier, debezium]: [Reading[], Reading[]] = [[], []];
    for (let turn = 1; turn <= repeatCount; turn++) {
      const label = `${backlog.title}: ${turn} of ${repeatCount}`;
      const place = { environment, sql, database, backlog };
      progress(`${label}: cdc-notifier`);
      const ours = await withSlotCopy(sql, `notifier_${turn}`, (slot) => readByNotifier({ ...place, slot }, end));
      progress(`${label}: cdc-notifier ${ours.seconds.toFixed(2)} s`);
      notifier.push(ours);
      progress(`${label}: Debezium`);
      const theirs = await withSlotCopy(sql, `debezium_${turn}`, (slot) => readByDebezium({ ...place, slot }, jars));
      progress(`${label}: Debezium ${theirs.seconds.toFixed(2)} s`);
      debezium.push(theirs);
    }
    return { backlog, walBytes: Number(after?.bytes), notifier, debezium };
  } finally {
    await dropSlot(sql, BASE_SLOT);
    await sql.end();
  }
}

/** Lets the service create publication, replica identity and slot, and stops it before anything is written. */
async function prepareSlot(environment: Environment, database: string): Promise<void> {
  const target = await createTopics(environment, { database, slot: BASE_SLOT });
  {
    await using program = await startNotifier(environment, target);
    await program.stop();
  }
  await deleteTopics(environment, [target.eventsTopic, target.lifecycleTopic]);
}

interface ReadingPlace {
  readonly environment: Environment;
  readonly sql: Sql;
  readonly database: string;
  readonly slot: string;
  readonly backlog: Backlog;
}

async function readByNotifier({ environment, sql, database, slot, backlog }: ReadingPlace, end: string) {
  const target = await createTopics(environment, { database, slot });
  await using program = await startNotifier(environment, target);
  const measured = measure(program.pid);
  await program.while(waitUntilConfirmed(sql, slot, end));
  const usage = measured();
  await program.stop();
  const topics = [target.eventsTopic, target.lifecycleTopic];
  await expectRecords(environment, topics, backlog);
  const reading: Reading = { ...usage, topicBytes: await storedBytes(environment, target.eventsTopic) };
  await deleteTopics(environment, topics);
  return reading;
}

async function readByDebezium({ environment, sql, database, slot, backlog }: ReadingPlace, jars: string) {
  const { postgres, kafka, directory } = environment;
  const target: ConnectorTarget = {
    host: postgres.host,
    port: postgres.port,
    database,
    user: postgres.superuser,
    password: postgres.password,
    slot,
    publication: NAMESPACE,
    tables: tablesOf(NAMESPACE),
  };
  const { events, processes } = connectorTopics(target);
  for (const topic of [events, processes]) await kafka.createTopic(topic, { partitions: PARTITION_COUNT });
  await using program = await startConnect({ jars, directory, bootstrap: kafka.bootstrap }, target);
  await program.while(waitUntilRead(sql, slot));
  const measured = measure(program.pid);
  await program.while(waitUntilArrived(environment, events, Math.ceil(backlog.recordCount / 2)));
  const firstHalf = measured();
  await program.while(waitUntilArrived(environment, events, backlog.recordCount));
  const usage = measured();
  const topics = [events, processes];
  await expectRecords(environment, topics, backlog);
  const reading: Reading = {
    ...usage,
    secondHalf: {
      seconds: usage.seconds - firstHalf.seconds,
      cpuMicros: usage.cpuMicros - firstHalf.cpuMicros,
    },
    topicBytes: await storedBytes(environment, events),
  };
  await program[Symbol.asyncDispose]();
  await deleteTopics(environment, topics);
  return reading;
}

/** Returns a function that gives CPU since now and memory of a process. */
function measure(pid: number): () => Effort & Pick<Reading, 'peakRssBytes'> {
  const startedMs = performance.now();
  const before = cpuMicros(pid) as number;
  return () => ({
    seconds: (performance.now() - startedMs) / 1000,
    cpuMicros: (cpuMicros(pid) as number) - before,
    peakRssBytes: peakRssBytes(pid) as number,
  });
}

/** Resolves when a walsender reads the slot. */
async function waitUntilRead(sql: Sql, slot: string): Promise<void> {
  await waitFor(
    `a reader of slot ${slot}`,
    async () => {
      const [row] = await sql`SELECT active FROM pg_replication_slots WHERE slot_name = ${slot}`;
      return row?.active === true;
    },
    { timeoutMs: START_TIMEOUT_MS, intervalMs: SLOT_POLL_MS },
  );
}

async function waitUntilArrived({ kafka }: Environment, topic: string, recordCount: number): Promise<void> {
  await waitFor(
    `${recordCount} records in topic ${topic}`,
    async () => ((await kafka.countRecords([topic]))[0] as number) >= recordCount,
    { timeoutMs: READING_TIMEOUT_MS, intervalMs: TOPIC_POLL_MS },
  );
}

/** Fails unless the first topic has every event once and the second topic is empty. */
async function expectRecords({ kafka }: Environment, topics: readonly string[], backlog: Backlog): Promise<void> {
  const [events, others] = await kafka.countRecords(topics);
  if (events === backlog.recordCount && others === 0) return;
  throw new Error(`${topics.join(' and ')}: ${events} and ${others} records, not ${backlog.recordCount} and 0`);
}

async function storedBytes({ kafka }: Environment, topic: string): Promise<number> {
  let bytes = 0;
  for (let partition = 0; partition < PARTITION_COUNT; partition++) {
    const directory = join(kafka.dataDirectory, `${topic}-${partition}`);
    const segments = (await readdir(directory)).filter((name) => name.endsWith('.log'));
    for (const segment of segments) bytes += (await stat(join(directory, segment))).size;
  }
  return bytes;
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

async function deleteTopics({ kafka }: Environment, topics: readonly string[]): Promise<void> {
  for (const topic of topics) await kafka.deleteTopic(topic);
}
