/**
 * The fixture of tests that run the service in process: a database of its own on a shared server, namespaces, slots and
 * topics, and the records in the topics, decoded by the independent reader.
 */
import { expect } from 'bun:test';
import type { ISql, Sql, TransactionSql } from 'postgres';
import { phash2 } from '../../../src/kafka/produce/partitioner.ts';
import { formatLsn, type Lsn, parseLsn } from '../../../src/lsn.ts';
import { encodePayload, int, type Value } from '../codecs/etf.ts';
import {
  type DecodedLifecycleEvent,
  type DecodedSinkEvent,
  decodeLifecycleEvent,
  decodeSinkEvent,
} from '../codecs/thrift-reader.ts';
import type { KafkaServer } from '../kafka/server.ts';
import type { KafkaRecord } from '../kafka/topic-reader.ts';
import type { PostgresServer } from '../postgres/server.ts';
import { type WaitOptions, waitFor } from '../process/wait.ts';
import { createNamespace, type Generation, tablesOf } from '../progressor/tables.ts';
import {
  type InProcessService,
  type ServiceNamespace,
  type ServiceOptions,
  type ServiceSlot,
  startInProcessService,
} from './in-process.ts';

/** Partitions of every eventsink topic, and of every lifecycle topic. */
export const PARTITIONS = { eventsink: 4, lifecycle: 3 } as const;

/** Options of `openStreamFixture`. */
export interface StreamFixtureOptions {
  readonly postgres: PostgresServer;
  readonly kafka: KafkaServer;
  /** Namespaces by short slot name; `slot` gives the unique name on the server */
  readonly slots: Readonly<Record<string, readonly string[]>>;
  /** Of the database; default UTF8 */
  readonly encoding?: string | undefined;
  /** Default `new` */
  readonly generation?: Generation | undefined;
}

/** A decoded record; `value` is what the independent reader returns, with texts for Buffers. */
export interface Emitted {
  readonly kind: 'eventsink' | 'lifecycle';
  readonly partition: number;
  readonly key: string;
  readonly value: unknown;
}

/** A walsender, from pg_stat_replication. */
export interface Walsender {
  readonly pid: number;
  readonly startedAt: string;
  /** Time of the last received status update, microseconds since 1970 */
  readonly replyMicros: number;
}

/** A database with namespaces, slots and topics; disposal stops its services, checks their connections, drops the slots. */
export interface StreamFixture extends AsyncDisposable {
  readonly database: string;
  readonly sql: Sql;
  /** The name of a slot on the server, by short name */
  slot(name: string): string;
  topics(namespace: string): ServiceNamespace;
  /** Starts the service on all slots, or on the given slots and namespaces */
  start(options?: StartOptions): InProcessService;
  /** What `start` would start, for a configuration file */
  serviceOptions(options?: StartOptions): ServiceOptions;
  /** Commits a transaction; returns its commit time as in records */
  commit(statements: (tx: TransactionSql) => Promise<unknown>): Promise<string>;
  /** Commit time of a transaction by its id, as in records */
  commitTime(xid: string): Promise<string>;
  confirmedLsn(slotName: string): Promise<Lsn>;
  currentLsn(): Promise<Lsn>;
  /** Resolves when everything committed now is confirmed on the slot */
  confirmed(slotName: string, options?: WaitOptions): Promise<void>;
  walsender(slotName: string): Promise<Walsender | undefined>;
  /** Resolves after so many more status updates to the slot's walsender, which must stay the same */
  statuses(slotName: string, count: number): Promise<void>;
  /** The decoded records of these namespaces, by kind and key, in offset order */
  emitted(...namespaces: readonly string[]): Promise<Emitted[]>;
  /** The raw records, by topic, partition and offset */
  records(...namespaces: readonly string[]): Promise<KafkaRecord[]>;
}

/** Options of a service on a fixture. */
export interface StartOptions {
  readonly slots?: Readonly<Record<string, readonly string[]>> | undefined;
  readonly onMissingOldTuple?: 'stop' | 'skip' | undefined;
  /** Further settings of namespaces, by namespace */
  readonly namespaceSettings?: Readonly<Record<string, Partial<ServiceNamespace>>> | undefined;
  readonly settings?: ServiceOptions['settings'];
  readonly kafkaSettings?: ServiceOptions['kafkaSettings'];
  readonly onLog?: ServiceOptions['onLog'];
}

/** A client, or a connection inside a transaction */
type Statements = ISql;

let fixtureCount = 0;

/** Creates database, tables and topics; the service creates slots and publications. */
export async function openStreamFixture(options: StreamFixtureOptions): Promise<StreamFixture> {
  const { postgres, kafka } = options;
  fixtureCount += 1;
  const database = `stream_${fixtureCount}`;
  const namespaces = [...new Set(Object.values(options.slots).flat())];
  const slot = (name: string) => `${database}_${name}`;
  const topics = (namespace: string): ServiceNamespace => {
    const stem = `${database}-${namespaces.indexOf(namespace)}`;
    return { eventsink_topic: `${stem}-eventsink`, lifecycle_topic: `${stem}-lifecycle` };
  };
  await postgres.createDatabase(database, options.encoding);
  const sql = postgres.sql(database, { max: 8 });
  for (const namespace of namespaces) {
    await createNamespace(sql, namespace, options.generation);
    await dropForeignKeys(sql, tablesOf(namespace).events);
  }
  await Promise.all(
    namespaces.flatMap((namespace) => [
      kafka.createTopic(topics(namespace).eventsink_topic, { partitions: PARTITIONS.eventsink }),
      kafka.createTopic(topics(namespace).lifecycle_topic, { partitions: PARTITIONS.lifecycle }),
    ]),
  );

  const serviceOptions = (start: StartOptions = {}): ServiceOptions => {
    const slots = Object.entries(start.slots ?? options.slots).map(([name, own]): ServiceSlot => {
      const target = (namespace: string): ServiceNamespace => ({
        ...topics(namespace),
        ...(start.onMissingOldTuple === undefined ? {} : { on_missing_old_tuple: start.onMissingOldTuple }),
        ...start.namespaceSettings?.[namespace],
      });
      const entries = own.map((namespace) => [namespace, target(namespace)] as const);
      return { database, slot: slot(name), namespaces: Object.fromEntries(entries) };
    });
    const { settings, kafkaSettings, onLog } = start;
    return { postgres, kafka, slots, settings, kafkaSettings, onLog };
  };

  const services: InProcessService[] = [];
  const records = (...of: readonly string[]): Promise<KafkaRecord[]> => {
    const chosen = of.length === 0 ? namespaces : of;
    return kafka.readAll(chosen.flatMap((one) => [topics(one).eventsink_topic, topics(one).lifecycle_topic]));
  };
  const walsender = async (slotName: string): Promise<Walsender | undefined> => {
    const [row] = await sql`
      SELECT r.pid, r.backend_start::text AS started, (extract(epoch FROM r.reply_time) * 1000000)::int8 AS reply
      FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid WHERE s.slot_name = ${slot(slotName)}`;
    return row === undefined ? undefined : { pid: row.pid, startedAt: row.started, replyMicros: Number(row.reply) };
  };
  const confirmedLsn = async (slotName: string): Promise<Lsn> => {
    const [row] = await sql`
      SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = ${slot(slotName)}`;
    return parseLsn(row?.lsn ?? '0/0');
  };
  const currentLsn = async (): Promise<Lsn> => {
    const [row] = await sql`SELECT pg_current_wal_lsn()::text AS lsn`;
    return parseLsn(row!.lsn);
  };

  return {
    database,
    sql,
    slot,
    topics,
    serviceOptions,
    start(start) {
      const service = startInProcessService(serviceOptions(start));
      services.push(service);
      return service;
    },
    commit: (statements) => commitOn(sql, statements),
    commitTime: (xid) => commitTimeOf(sql, xid),
    confirmedLsn,
    currentLsn,
    async confirmed(slotName, waitOptions) {
      const goal = await currentLsn();
      await waitFor(
        `confirmation of ${formatLsn(goal)} on slot ${slotName}`,
        async () => (await confirmedLsn(slotName)) >= goal,
        waitOptions,
      );
    },
    walsender,
    async statuses(slotName, count) {
      const first = await waitFor(`a walsender of slot ${slotName}`, () => walsender(slotName));
      const seen = new Set<number>([first.replyMicros]);
      await waitFor(`${count} statuses on slot ${slotName}`, async () => {
        const { pid, replyMicros } = (await walsender(slotName)) ?? { pid: undefined, replyMicros: 0 };
        if (pid !== first.pid) throw new Error(`The walsender of slot ${slotName} was ${first.pid} and is ${pid}`);
        seen.add(replyMicros);
        return seen.size > count;
      });
    },
    records,
    emitted: async (...of) => inOrder((await records(...of)).map(describe)),
    async [Symbol.asyncDispose]() {
      await Promise.all(services.map((service) => service.stop()));
      await sql.end({ timeout: 1 });
      const cleaner = postgres.sql('postgres', { max: 1 });
      try {
        let left: readonly Record<string, unknown>[] = [];
        const isQuiet = async () => {
          left = await cleaner`
            SELECT application_name, state, query FROM pg_stat_activity
            WHERE datname = ${database} AND application_name LIKE 'cdc-notifier%'`;
          return left.length === 0;
        };
        await waitFor('the end of all connections of the service', isQuiet, { timeoutMs: 5_000 }).catch(() => {
          throw new Error(`The stopped service left connections behind: ${JSON.stringify(left)}`);
        });
        await cleaner`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = ${database}`;
      } finally {
        await cleaner.end({ timeout: 1 });
      }
    },
  };
}

/** The service ignores tasks, and checking foreign keys would take most of the time of a large insert. */
async function dropForeignKeys(sql: Sql, table: string): Promise<void> {
  const keys = await sql`
    SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = to_regclass(quote_ident(${table}::text))`;
  for (const { conname } of keys) await sql`ALTER TABLE ${sql(table)} DROP CONSTRAINT ${sql(conname)}`;
}

/** Commits a transaction through any client, also of another server; returns its commit time as in records. */
export async function commitOn(sql: Sql, statements: (tx: TransactionSql) => Promise<unknown>): Promise<string> {
  const xid = await sql.begin(async (tx) => {
    await statements(tx);
    const [row] = await tx`SELECT pg_current_xact_id()::text AS xid`;
    return row!.xid as string;
  });
  return commitTimeOf(sql, xid);
}

async function commitTimeOf(sql: Sql, xid: string): Promise<string> {
  const [row] = await sql`
    SELECT to_char(pg_xact_commit_timestamp(${xid}::text::xid) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS at`;
  return row!.at;
}

/** Commits a new process; returns the record that it must lead to. */
export async function writeProcess(
  { commit }: Pick<StreamFixture, 'commit'>,
  namespace: string,
  id: string,
): Promise<Emitted> {
  return lifecycle(namespace, id, 'created', await commit((tx) => insertProcess(tx, namespace, id)));
}

/** Expects the topics to hold these records in this order of each key, apart from repeats. */
export async function expectEmitted(fixture: StreamFixture, expected: readonly Emitted[]): Promise<void> {
  expect(firstOccurrences(await fixture.emitted())).toEqual(inOrder(expected));
}

/** Sorts records by kind and key; the order within a key stays. */
export function inOrder(records: readonly Emitted[]): Emitted[] {
  const rank = ({ kind, key }: Emitted) => `${kind} ${key}`;
  return [...records].sort((a, b) => (rank(a) < rank(b) ? -1 : rank(a) > rank(b) ? 1 : 0));
}

/** Drops the repeats of at-least-once delivery: records that equal an earlier one. */
export function firstOccurrences(records: readonly Emitted[]): Emitted[] {
  const seen = new Set<string>();
  return records.filter((record) => {
    const text = JSON.stringify(record, (_key, value) => (typeof value === 'bigint' ? String(value) : value));
    if (seen.has(text)) return false;
    seen.add(text);
    return true;
  });
}

function describe({ topic, partition, key, value }: KafkaRecord): Emitted {
  const kind = topic.endsWith('-eventsink') ? 'eventsink' : 'lifecycle';
  return {
    kind,
    partition,
    key: key.toString(),
    value: kind === 'eventsink' ? describeEvent(value) : describeLife(value),
  };
}

function describeEvent(bytes: Buffer): unknown {
  const { event }: DecodedSinkEvent = decodeSinkEvent(bytes);
  const { source_ns, source_id, created_at, ...rest } = event;
  return { source_ns: String(source_ns), source_id: String(source_id), created_at: String(created_at), ...rest };
}

function describeLife(bytes: Buffer): unknown {
  const { machine_ns, machine_id, created_at, data }: DecodedLifecycleEvent = decodeLifecycleEvent(bytes);
  return {
    ns: String(machine_ns),
    id: String(machine_id),
    created_at: String(created_at),
    change: lifeChange(data.machine),
  };
}

function lifeChange(machine: DecodedLifecycleEvent['data']['machine']): string {
  if ('created' in machine) return 'created';
  if ('removed' in machine) return 'removed';
  const status = machine.status_changed.new_status;
  return 'working' in status ? 'working' : `failed: ${status.failed.reason}`;
}

/** The lifecycle record of a change: `created`, `removed`, `working` or `failed: REASON`. */
export function lifecycle(namespace: string, id: string, change: string, createdAt: string): Emitted {
  const key = `${namespace} ${id}`;
  const partition = phash2(Buffer.from(key)) % PARTITIONS.lifecycle;
  return { kind: 'lifecycle', partition, key, value: { ns: namespace, id, created_at: createdAt, change } };
}

/** Fields of an event record besides its process. */
export interface EventFacts {
  readonly eventId: number;
  readonly createdAt: string;
  /** Default: as `insertEvent` writes it */
  readonly data?: Value | undefined;
  readonly formatVersion?: number | undefined;
}

/** The record of an events row. */
export function event(namespace: string, id: string, facts: EventFacts): Emitted {
  const key = `${namespace} ${id}`;
  const partition = phash2(Buffer.from(key)) % PARTITIONS.eventsink;
  const { eventId, createdAt, formatVersion, data = defaultData(id, eventId) } = facts;
  const value = { source_ns: namespace, source_id: id, created_at: createdAt, event_id: BigInt(eventId), data };
  return {
    kind: 'eventsink',
    partition,
    key,
    value: formatVersion === undefined ? value : { ...value, format_version: formatVersion },
  };
}

function defaultData(id: string, eventId: number): Value {
  return { arr: [{ str: Buffer.from(id) }, int(eventId)] };
}

/** Inserts a row of processes (generation `new`). */
export async function insertProcess(
  tx: Statements,
  namespace: string,
  id: string,
  row: { readonly status?: string; readonly detail?: string | null } = {},
): Promise<void> {
  const { status = 'running', detail = null } = row;
  await tx`
    INSERT INTO ${tx(tablesOf(namespace).processes)} (process_id, status, detail, previous_status, status_changed_at)
    VALUES (${id}, ${status}, ${detail}, ${status}, now())`;
}

/** Inserts an events row; `timestamp` and `metadata` as PostgreSQL text. Without `timestamp` the commit time applies. */
export async function insertEvent(
  tx: Statements,
  namespace: string,
  id: string,
  eventId: number,
  row: { readonly payload?: Buffer; readonly timestamp?: string; readonly metadata?: string } = {},
): Promise<void> {
  const { payload = encodePayload(defaultData(id, eventId)), timestamp = null, metadata = null } = row;
  await tx`
    INSERT INTO ${tx(tablesOf(namespace).events)} (process_id, task_id, event_id, "timestamp", metadata, payload)
    VALUES (${id}, 1, ${eventId}, ${timestamp}::text::timestamptz, ${metadata}::text::jsonb, ${payload})`;
}

/** Changes the status of a process, and its detail if given. */
export async function setStatus(
  tx: Statements,
  namespace: string,
  id: string,
  status: string,
  detail?: string | null,
): Promise<void> {
  const table = tx(tablesOf(namespace).processes);
  if (detail === undefined) await tx`UPDATE ${table} SET status = ${status} WHERE process_id = ${id}`;
  else await tx`UPDATE ${table} SET status = ${status}, detail = ${detail} WHERE process_id = ${id}`;
}
