/**
 * The fixture of tests that run the compiled program: a database that belongs to progressor's role, topics, a configuration,
 * a writer, and the comparison of what arrived with what was written.
 */
import { expect } from 'bun:test';
import type { Sql } from 'postgres';
import { describeRecord } from '../codecs/record-text.ts';
import { compare, type ExpectedRecord, type Verdict } from '../codecs/verdict.ts';
import type { KafkaServer } from '../kafka/server.ts';
import { type PostgresMajor, type PostgresServer, startPostgres } from '../postgres/server.ts';
import { waitFor } from '../process/wait.ts';
import { createNamespace, type Generation, tablesOf } from '../progressor/tables.ts';
import { ProgressorWriter, type WriterNamespace, type WriterOptions } from '../progressor/writer.ts';
import { type BinaryLogLine, type RunningBinary, startBinary } from './binary.ts';

/** The role of the service, which owns the tables and has REPLICATION; not a superuser. */
export const ROLE = 'progressor';
/** Its password */
export const PASSWORD = 'pg-Secret-7f3a';
/** Password of the service's user in Kafka, where a broker asks for one */
export const KAFKA_PASSWORD = 'kafka-Secret-51c9';
/** A password that every server rejects */
export const WRONG_PASSWORD = 'wrong-Secret-e08d';

/** Texts that no log may contain: passwords, parts of the writer's payloads and details, a Buffer as JSON. */
const SECRETS = [PASSWORD, KAFKA_PASSWORD, WRONG_PASSWORD];
const PAYLOAD_MARKS = ['invoice_payment_started', 'Магазин', 'of this process', 'badmatch in step', '"type":"Buffer"'];

/** Short timeouts: every step of the failure cycle happens within a test. */
export const QUICK = { resend_timeout: 100, max_retries: 2, reconnect_timeout: 200, shutdown_timeout: 5000 };

const PARTITIONS = 3;

/** Starts a server that requires passwords, with the role above. */
export async function startServer(
  settings: Readonly<Record<string, string>> = {},
  major?: PostgresMajor,
): Promise<PostgresServer> {
  const server = await startPostgres({
    major,
    settings: { max_replication_slots: '50', ...settings },
    hba: ['host all all 127.0.0.1/32 scram-sha-256'],
  });
  const admin = server.sql('postgres', { max: 1 });
  try {
    await admin.unsafe(`CREATE ROLE ${ROLE} LOGIN REPLICATION PASSWORD '${PASSWORD}'`);
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  } finally {
    await admin.end();
  }
  return server;
}

/** A namespace and the broker that has its topics. */
export interface TestNamespace extends WriterNamespace {
  readonly kafka: KafkaServer;
}

/** A database that belongs to the service's role. */
export interface TestDatabase extends AsyncDisposable {
  readonly name: string;
  readonly server: PostgresServer;
  /** A client as the service's role */
  readonly sql: Sql;
  /** Its entry under `databases` in the configuration */
  readonly config: { readonly password: unknown; readonly [key: string]: unknown };
}

let created = 0;

/** A name that is unique in this process. */
export function uniqueName(base: string): string {
  created++;
  return `${base}_${created}`;
}

/** Creates an empty database. */
export async function createDatabase(server: PostgresServer): Promise<TestDatabase> {
  const name = uniqueName('progressor');
  const admin = server.sql('postgres', { max: 1 });
  try {
    await admin`CREATE DATABASE ${admin(name)} OWNER ${admin(ROLE)}`;
  } finally {
    await admin.end();
  }
  const sql = server.sql(name, { username: ROLE, password: PASSWORD, max: 8 });
  return {
    name,
    server,
    sql,
    config: { host: server.host, port: server.port, database: name, username: ROLE, password: PASSWORD },
    async [Symbol.asyncDispose]() {
      await sql.end({ timeout: 1 });
    },
  };
}

/** Creates the tables and topics of a namespace. */
export async function createTestNamespace(
  database: TestDatabase,
  kafka: KafkaServer,
  namespace: string,
  generation: Generation = 'new',
): Promise<TestNamespace> {
  await createNamespace(database.sql, namespace, generation);
  return createTopics(kafka, namespace, generation);
}

/** Creates only the topics of a namespace. */
export async function createTopics(
  kafka: KafkaServer,
  namespace: string,
  generation: Generation = 'new',
): Promise<TestNamespace> {
  const eventsinkTopic = uniqueName('eventsink');
  const lifecycleTopic = uniqueName('lifecycle');
  await kafka.createTopic(eventsinkTopic, { partitions: PARTITIONS });
  await kafka.createTopic(lifecycleTopic, { partitions: PARTITIONS });
  return { namespace, eventsinkTopic, lifecycleTopic, generation, kafka };
}

/** A slot's entry under `streams` in the configuration. */
export function streamConfig(namespaces: readonly TestNamespace[], kafkaClient = 'main'): object {
  return Object.fromEntries(
    namespaces.map(({ namespace, eventsinkTopic, lifecycleTopic }) => [
      namespace,
      { kafka_client: kafkaClient, eventsink_topic: eventsinkTopic, lifecycle_topic: lifecycleTopic },
    ]),
  );
}

const started: RunningBinary[] = [];

/** Starts the program; `expectCleanLogs` checks its log. */
export async function startService(config: object | string): Promise<RunningBinary> {
  const service = await startBinary(config);
  started.push(service);
  return service;
}

/** To be called after each test: every log must be JSON lines without secrets, payloads and `fatal`. */
export function expectCleanLogs(): void {
  for (const service of started.splice(0)) {
    for (const secret of [...SECRETS, ...PAYLOAD_MARKS]) expect(service.stderr).not.toContain(secret);
    expect(service.lines.filter(({ level }) => level === 'not JSON' || level === 'fatal')).toEqual([]);
  }
}

/** Resolves when the slot is confirmed up to an LSN, by default the end of the WAL now. */
export async function waitUntilConfirmed(
  { sql }: TestDatabase,
  slot: string,
  options: { readonly lsn?: string; readonly timeoutMs?: number } = {},
): Promise<void> {
  const lsn = options.lsn ?? (await walPosition(sql));
  await waitFor(
    `${slot} confirmed up to ${lsn}`,
    async () => {
      const [row] = await sql`
        SELECT confirmed_flush_lsn >= ${lsn}::text::pg_lsn AS done FROM pg_replication_slots WHERE slot_name = ${slot}`;
      return row?.done === true;
    },
    { timeoutMs: options.timeoutMs ?? 30_000 },
  );
}

/** The LSN at which the server inserts next, as text. */
export async function walPosition(sql: Sql): Promise<string> {
  const [row] = await sql`SELECT pg_current_wal_insert_lsn()::text AS lsn`;
  return row?.lsn as string;
}

/** Compares the records in the topics of these namespaces with the expected ones. */
export async function compareWith(
  expected: Iterable<ExpectedRecord>,
  namespaces: readonly TestNamespace[],
): Promise<Verdict> {
  const partitionCounts = new Map<string, number>();
  const read = [];
  for (const { kafka, eventsinkTopic, lifecycleTopic } of namespaces) {
    for (const topic of [eventsinkTopic, lifecycleTopic]) partitionCounts.set(topic, PARTITIONS);
    for (const record of await kafka.readAll([eventsinkTopic, lifecycleTopic])) {
      read.push(describeRecord(record, record.topic === eventsinkTopic ? 'eventsink' : 'lifecycle'));
    }
  }
  return compare({ expected, read, partitionCounts });
}

/** One database, one slot, one broker and a writer: what most tests need. */
export interface BinaryFixture extends AsyncDisposable {
  readonly database: TestDatabase;
  readonly slot: string;
  readonly namespaces: readonly TestNamespace[];
  readonly writer: ProgressorWriter;
  /** Configuration with `QUICK` and the settings of the options */
  readonly config: object;
  /** Starts the program and waits until the slot streams */
  start(): Promise<RunningBinary>;
  /** Resolves when everything written by now is confirmed */
  confirmed(): Promise<void>;
  verdict(): Promise<Verdict>;
  /** Expects at least one record, and none missing, out of order or wrong */
  expectAllArrived(): Promise<Verdict>;
}

/** Options of `openBinaryFixture`. */
export interface BinaryFixtureOptions {
  readonly server: PostgresServer;
  readonly kafka: KafkaServer;
  /** Generation by namespace; default: `default/default` and `invoice`, both new */
  readonly namespaces?: Readonly<Record<string, Generation>> | undefined;
  readonly writer?: Partial<WriterOptions>;
  /** Top-level settings of the configuration */
  readonly settings?: object;
  /** Settings of the database in the configuration */
  readonly databaseKeys?: object;
  /** Settings of the Kafka client in the configuration */
  readonly kafkaClient?: object;
}

/** Creates database, tables, topics and configuration. It starts and writes nothing. */
export async function openBinaryFixture(options: BinaryFixtureOptions): Promise<BinaryFixture> {
  const { server, kafka } = options;
  const database = await createDatabase(server);
  const slot = uniqueName('cdc_slot');
  const namespaces: TestNamespace[] = [];
  const wanted: Readonly<Record<string, Generation>> = options.namespaces ?? {
    'default/default': 'new',
    invoice: 'new',
  };
  for (const [name, generation] of Object.entries(wanted)) {
    namespaces.push(await createTestNamespace(database, kafka, name, generation));
  }
  const writer = new ProgressorWriter({ sql: database.sql, namespaces, ...options.writer });
  const config = {
    databases: { db: { ...database.config, ...options.databaseKeys } },
    kafka_clients: { main: { brokers: [kafka.bootstrap], ...options.kafkaClient } },
    streams: { db: { [slot]: streamConfig(namespaces) } },
    ...QUICK,
    ...options.settings,
  };
  const fixture: BinaryFixture = {
    database,
    slot,
    namespaces,
    writer,
    config,
    async start() {
      const service = await startService(config);
      await service.waitForStart(slot);
      return service;
    },
    confirmed: () => waitUntilConfirmed(database, slot),
    verdict: () => compareWith(writer.expected, namespaces),
    async expectAllArrived() {
      const verdict = await fixture.verdict();
      expect(verdict).toMatchObject({ ok: true, findings: [] });
      expect(verdict.expected).toBeGreaterThan(0);
      return verdict;
    },
    async [Symbol.asyncDispose]() {
      await writer.stop().catch(() => {});
      await database[Symbol.asyncDispose]();
    },
  };
  return fixture;
}

/**
 * Commits an event that cannot be converted; the namespace must have a process with a task. Returns the key of the record
 * that would come of it.
 */
export async function insertInvalidEvent({ sql }: TestDatabase, namespace: string): Promise<string> {
  const { events, tasks } = tablesOf(namespace);
  const [row] = await sql`
    INSERT INTO ${sql(events)} (process_id, task_id, event_id, payload)
    SELECT process_id, task_id, 32100, ${Buffer.from('invoice_payment_started')} FROM ${sql(tasks)} LIMIT 1
    RETURNING process_id`;
  return `${namespace} ${row?.process_id}`;
}

/** Matches log lines with the error of a failed session, of one slot or of any. */
export function isFailure(slot?: string): (line: BinaryLogLine) => boolean {
  return (line) => line.level === 'error' && line.error !== undefined && (slot === undefined || line.slot === slot);
}
