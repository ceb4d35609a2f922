/** The rows of the measurements, written by functions of the server, so that writing is fast or evenly paced. */
import type { Sql } from 'postgres';
import { createNamespace, tablesOf } from '../../support/progressor/tables.ts';
import { payloadsOf } from './payload.ts';

/** The namespace of measurements with only one; each has a database of its own. */
export const NAMESPACE = 'default/default';

/** Requirements of the service: ratios to pg_recvlogical, microseconds of CPU, bytes. */
export interface Targets {
  readonly minimumRatio?: number | undefined;
  readonly maximumCpuMicrosPerRow?: number | undefined;
  readonly maximumCpuMicrosPerTransaction?: number | undefined;
}

/** Rows that wait in a slot. */
export interface Backlog {
  /** Short name, part of database and topic names: lower-case letters, digits and underscores */
  readonly id: string;
  readonly title: string;
  readonly transactionCount: number;
  /** Changes of published tables: what every reader of the slot receives */
  readonly rowCount: number;
  /** Records that must arrive in the events topic; none may arrive in the lifecycle topic */
  readonly recordCount: number;
  readonly payloadBytes: number;
  readonly targets: Targets;
  /** Creates tables and everything that must not be in the backlog */
  prepare(sql: Sql): Promise<void>;
  /** Writes the backlog; `sql` may open `WRITER_CONNECTIONS` connections */
  write(sql: Sql): Promise<void>;
}

/** Concurrent connections of a writer. */
export const WRITER_CONNECTIONS = 4;

const EVENTS_PER_PROCESS = 100;

/** Only events, in transactions of equal size. Events of one process are not adjacent. */
export function eventBacklog(options: {
  readonly id: string;
  readonly title: string;
  readonly eventCount: number;
  readonly eventsPerTransaction: number;
  readonly payloadBytes: number;
  /** Default: those of `payloadBytes` */
  readonly payloads?: readonly Buffer[] | undefined;
  readonly targets?: Targets | undefined;
}): Backlog {
  const { id, title, eventCount, eventsPerTransaction, payloadBytes, targets = {} } = options;
  const payloads = options.payloads ?? payloadsOf(payloadBytes);
  const processCount = Math.ceil(eventCount / EVENTS_PER_PROCESS);
  return {
    id,
    title,
    transactionCount: Math.ceil(eventCount / eventsPerTransaction),
    rowCount: eventCount,
    recordCount: eventCount,
    payloadBytes,
    targets,
    async prepare(sql) {
      await prepareTables(sql, { namespace: NAMESPACE, processCount, payloads });
      await createEventProcedure(sql);
    },
    write: (sql) => callEvents(sql, { eventCount, eventsPerTransaction, processCount }),
  };
}

/** Steps of progressor, one short transaction each: an event and an update of its process without a record. */
export function stepBacklog(options: {
  readonly id: string;
  readonly title: string;
  readonly transactionCount: number;
  readonly payloadBytes: number;
  readonly targets?: Targets | undefined;
}): Backlog {
  const { id, title, transactionCount, payloadBytes, targets = {} } = options;
  const perConnection = Math.ceil(transactionCount / WRITER_CONNECTIONS);
  const processesPerLane = Math.ceil(perConnection / EVENTS_PER_PROCESS);
  return {
    id,
    title,
    transactionCount: perConnection * WRITER_CONNECTIONS,
    rowCount: perConnection * WRITER_CONNECTIONS * 2,
    recordCount: perConnection * WRITER_CONNECTIONS,
    payloadBytes,
    targets,
    async prepare(sql) {
      const processCount = processesPerLane * WRITER_CONNECTIONS;
      await prepareTables(sql, { namespace: NAMESPACE, processCount, payloads: payloadsOf(payloadBytes) });
      await createStepProcedure(sql);
    },
    async write(sql) {
      await Promise.all(
        Array.from({ length: WRITER_CONNECTIONS }, (_, lane) =>
          callSteps(sql, { lane, laneCount: WRITER_CONNECTIONS, processesPerLane, count: perConnection }),
        ),
      );
    },
  };
}

/** Events of several namespaces of one database, in turns. */
export interface SharedEvents {
  readonly namespaces: readonly string[];
  readonly eventsPerNamespace: number;
  /** Events of one namespace in a row */
  readonly eventsAtOnce: number;
  readonly payloadBytes: number;
}

/** Creates the tables for `writeSharedEvents`. */
export async function prepareSharedEvents(sql: Sql, events: SharedEvents): Promise<void> {
  const processCount = Math.ceil(events.eventsPerNamespace / EVENTS_PER_PROCESS);
  const payloads = payloadsOf(events.payloadBytes);
  for (const namespace of events.namespaces) await prepareTables(sql, { namespace, processCount, payloads });
}

/** Writes the events; `firstEvent` is the number that each namespace has already. */
export async function writeSharedEvents(
  sql: Pick<Sql, 'unsafe'>,
  events: SharedEvents,
  firstEvent: number,
): Promise<void> {
  const { namespaces, eventsPerNamespace, eventsAtOnce } = events;
  const processCount = Math.ceil(eventsPerNamespace / EVENTS_PER_PROCESS);
  const end = firstEvent + eventsPerNamespace;
  for (let first = firstEvent; first < end; first += eventsAtOnce) {
    const last = Math.min(first + eventsAtOnce, end) - 1;
    for (const namespace of namespaces) await sql.unsafe(insertEvents(namespace, { first, last, processCount }));
  }
}

/** The same steps, evenly paced. */
export interface PacedSteps {
  readonly transactionsPerSecond: number;
  readonly seconds: number;
  readonly payloadBytes: number;
  /** Connections in turns; each must sustain its share of the rate */
  readonly laneCount: number;
}

const PACED_PROCESSES_PER_LANE = 400;

/** Creates the tables for `writePacedSteps`. */
export async function preparePacedSteps(sql: Sql, steps: PacedSteps): Promise<void> {
  const processCount = PACED_PROCESSES_PER_LANE * steps.laneCount;
  await prepareTables(sql, { namespace: NAMESPACE, processCount, payloads: payloadsOf(steps.payloadBytes) });
  await createStepProcedure(sql);
}

/** Writes evenly paced steps; resolves when the last is committed. */
export async function writePacedSteps(sql: Sql, steps: PacedSteps): Promise<void> {
  const { laneCount, transactionsPerSecond } = steps;
  const count = Math.ceil((transactionsPerSecond * steps.seconds) / laneCount);
  // Lanes alternate: each starts one step after the previous one.
  const [row] = await sql`SELECT (clock_timestamp() + interval '200 ms')::text AS start`;
  await Promise.all(
    Array.from({ length: laneCount }, (_, lane) =>
      callSteps(sql, {
        lane,
        laneCount,
        processesPerLane: PACED_PROCESSES_PER_LANE,
        count,
        pace: { start: String(row?.start), perSecond: transactionsPerSecond },
      }),
    ),
  );
}

async function prepareTables(
  sql: Sql,
  options: { readonly namespace: string; readonly processCount: number; readonly payloads: readonly Buffer[] },
) {
  const { namespace, processCount, payloads } = options;
  await createNamespace(sql, namespace);
  const { processes, events } = tablesOf(namespace);
  // Foreign keys cost the writer time and change nothing in the WAL of an insert that a reader would see.
  const foreignKeys = await sql`
    SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = ${`"${events}"`}::regclass`;
  for (const { conname } of foreignKeys) await sql`ALTER TABLE ${sql(events)} DROP CONSTRAINT ${sql(String(conname))}`;
  await sql`
    CREATE OR REPLACE FUNCTION bench_process_id(number int) RETURNS text LANGUAGE sql IMMUTABLE
      RETURN 'process' || lpad(number::text, 8, '0')`;
  await sql`
    INSERT INTO ${sql(processes)} (process_id, status, aux_state, metadata, previous_status, status_changed_at)
    SELECT bench_process_id(i), 'running', decode(repeat('ab', 64), 'hex'), '{"format_version": 1}', 'running', now()
    FROM generate_series(0, ${processCount - 1}::int) AS i`;
  await sql`CREATE TABLE IF NOT EXISTS bench_payloads (variant int PRIMARY KEY, payload bytea NOT NULL)`;
  for (const [variant, payload] of payloads.entries()) {
    await sql`INSERT INTO bench_payloads VALUES (${variant}, ${payload}) ON CONFLICT DO NOTHING`;
  }
}

/** A statement that inserts the events `first` to `last` of a namespace: numbers, or names of variables. */
function insertEvents(
  namespace: string,
  { first, last, processCount }: Readonly<Record<'first' | 'last' | 'processCount', number | string>>,
): string {
  return `
    INSERT INTO "${tablesOf(namespace).events}" (process_id, task_id, event_id, "timestamp", metadata, payload)
    SELECT bench_process_id(i % ${processCount}), 1, i / ${processCount} + 1, now(), '{"format_version": 1}',
      (SELECT array_agg(payload ORDER BY variant) FROM bench_payloads)[1 + i % (SELECT count(*)::int FROM bench_payloads)]
    FROM generate_series(${first}, ${last}) AS i`;
}

async function createEventProcedure(sql: Sql): Promise<void> {
  const insert = insertEvents(NAMESPACE, { first: 'low', last: 'high', processCount: 'process_count' });
  await sql.unsafe(`
    CREATE PROCEDURE bench_events(event_count int, per_transaction int, process_count int) LANGUAGE plpgsql AS $$
    DECLARE
      low int := 0;
      high int;
    BEGIN
      WHILE low < event_count LOOP
        high := least(low + per_transaction, event_count) - 1;
        ${insert};
        COMMIT;
        low := high + 1;
      END LOOP;
    END $$`);
}

interface Events {
  readonly eventCount: number;
  readonly eventsPerTransaction: number;
  readonly processCount: number;
}

// A procedure may commit only outside of a transaction block, so each call is a simple query of its own.
async function callEvents(sql: Sql, { eventCount, eventsPerTransaction, processCount }: Events): Promise<void> {
  await sql.unsafe(`CALL bench_events(${eventCount}, ${eventsPerTransaction}, ${processCount})`);
}

async function createStepProcedure(sql: Sql): Promise<void> {
  const { processes, events } = tablesOf(NAMESPACE);
  await sql.unsafe(`
    CREATE PROCEDURE bench_steps(lane int, lane_count int, processes_per_lane int, step_count int,
                                 start timestamptz, per_second float8) LANGUAGE plpgsql AS $$
    DECLARE
      payloads bytea[] := (SELECT array_agg(payload ORDER BY variant) FROM bench_payloads);
      id text;
    BEGIN
      FOR i IN 0 .. step_count - 1 LOOP
        IF per_second IS NOT NULL THEN
          PERFORM pg_sleep(extract(epoch FROM start - clock_timestamp()) + (i * lane_count + lane) / per_second);
        END IF;
        id := bench_process_id(lane * processes_per_lane + i % processes_per_lane);
        INSERT INTO "${events}" (process_id, task_id, event_id, "timestamp", metadata, payload)
          VALUES (id, 1, i / processes_per_lane + 1, clock_timestamp(), '{"format_version": 1}',
                  payloads[1 + i % array_length(payloads, 1)]);
        UPDATE "${processes}" SET aux_state = decode(lpad(to_hex(i), 128, '0'), 'hex') WHERE process_id = id;
        COMMIT;
      END LOOP;
    END $$`);
}

interface Steps {
  readonly lane: number;
  readonly laneCount: number;
  readonly processesPerLane: number;
  readonly count: number;
  readonly pace?: { readonly start: string; readonly perSecond: number } | undefined;
}

async function callSteps(sql: Sql, { lane, laneCount, processesPerLane, count, pace }: Steps): Promise<void> {
  const start = pace === undefined ? 'NULL' : `'${pace.start}'`;
  const perSecond = pace?.perSecond ?? 'NULL';
  await sql.unsafe(`CALL bench_steps(${lane}, ${laneCount}, ${processesPerLane}, ${count}, ${start}, ${perSecond})`);
}
