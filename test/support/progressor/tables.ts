/** The tables of a progressor namespace, created and migrated with progressor's own DDL. */
import type { Sql } from 'postgres';

/**
 * `old`: the tables of progressor's first migration. `new`: longer ids, previous_status and status_changed_at, status `init`.
 * All namespaces of a database share the types, so `init` exists as soon as one namespace is new.
 */
export type Generation = 'old' | 'new';

/** Names of a namespace's five tables, by kind. */
export interface ProgressorTables {
  readonly processes: string;
  readonly tasks: string;
  readonly schedule: string;
  readonly running: string;
  readonly events: string;
}

/** The names of a namespace's tables, unquoted. */
export function tablesOf(namespace: string): ProgressorTables {
  return {
    processes: `${namespace}_processes`,
    tasks: `${namespace}_tasks`,
    schedule: `${namespace}_schedule`,
    running: `${namespace}_running`,
    events: `${namespace}_events`,
  };
}

/** Creates the tables of a namespace, any text, in schema public. */
export async function createNamespace(sql: Sql, namespace: string, generation: Generation = 'new'): Promise<void> {
  await createEnum(sql, 'process_status', ['running', 'error']);
  await createEnum(sql, 'task_status', ['waiting', 'running', 'blocked', 'error', 'finished', 'cancelled']);
  await createEnum(sql, 'task_type', ['init', 'timeout', 'call', 'notify', 'repair', 'remove']);
  const names = tablesOf(namespace);
  const processes = sql(names.processes);
  const tasks = sql(names.tasks);
  await sql.begin(async (tx) => {
    await tx`
      CREATE TABLE ${processes} (
        process_id VARCHAR(80) PRIMARY KEY,
        status process_status NOT NULL,
        detail TEXT,
        aux_state BYTEA,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        metadata JSONB)`;
    await tx`
      CREATE TABLE ${tasks} (
        task_id BIGSERIAL PRIMARY KEY,
        process_id VARCHAR(80) NOT NULL REFERENCES ${processes} (process_id),
        task_type task_type NOT NULL,
        status task_status NOT NULL,
        scheduled_time TIMESTAMPTZ NOT NULL,
        running_time TIMESTAMPTZ,
        finished_time TIMESTAMPTZ,
        args BYTEA,
        metadata JSONB,
        idempotency_key VARCHAR(80) UNIQUE,
        response BYTEA,
        blocked_task BIGINT REFERENCES ${tasks} (task_id),
        last_retry_interval INTEGER NOT NULL,
        attempts_count SMALLINT NOT NULL,
        context BYTEA)`;
    await tx`ALTER TABLE ${processes} ADD COLUMN corrupted_by BIGINT REFERENCES ${tasks} (task_id)`;
    await tx`
      CREATE TABLE ${sql(names.schedule)} (
        task_id BIGINT PRIMARY KEY REFERENCES ${tasks} (task_id),
        process_id VARCHAR(80) NOT NULL REFERENCES ${processes} (process_id),
        task_type task_type NOT NULL,
        status task_status NOT NULL,
        scheduled_time TIMESTAMPTZ NOT NULL,
        args BYTEA,
        metadata JSONB,
        last_retry_interval INTEGER NOT NULL,
        attempts_count SMALLINT NOT NULL,
        context BYTEA)`;
    await tx`
      CREATE TABLE ${sql(names.running)} (
        process_id VARCHAR(80) PRIMARY KEY REFERENCES ${processes} (process_id),
        task_id BIGINT NOT NULL REFERENCES ${tasks} (task_id),
        task_type task_type NOT NULL,
        status task_status NOT NULL,
        scheduled_time TIMESTAMPTZ NOT NULL,
        running_time TIMESTAMPTZ NOT NULL,
        args BYTEA,
        metadata JSONB,
        last_retry_interval INTEGER NOT NULL,
        attempts_count SMALLINT NOT NULL,
        context BYTEA)`;
    await tx`
      CREATE TABLE ${sql(names.events)} (
        process_id VARCHAR(80) NOT NULL REFERENCES ${processes} (process_id),
        task_id BIGINT NOT NULL REFERENCES ${tasks} (task_id),
        event_id SMALLINT NOT NULL,
        "timestamp" TIMESTAMPTZ DEFAULT now(),
        metadata JSONB,
        payload BYTEA NOT NULL,
        PRIMARY KEY (process_id, event_id))`;
  });
  if (generation === 'new') await migrateNamespace(sql, namespace);
}

/** Migrates the tables of a namespace from `old` to `new` in progressor's steps; one updates every row of processes. */
export async function migrateNamespace(sql: Sql, namespace: string): Promise<void> {
  const names = tablesOf(namespace);
  const processes = sql(names.processes);
  await sql.begin(async (tx) => {
    for (const name of Object.values(names)) {
      await tx`ALTER TABLE ${sql(name)} ALTER COLUMN process_id TYPE VARCHAR(256)`;
    }
    await tx`ALTER TABLE ${sql(names.tasks)} ALTER COLUMN idempotency_key TYPE VARCHAR(256)`;
  });
  await sql.begin(async (tx) => {
    await tx`
      ALTER TABLE ${processes} ADD COLUMN previous_status process_status, ADD COLUMN status_changed_at TIMESTAMPTZ`;
    await tx`UPDATE ${processes} SET previous_status = status, status_changed_at = created_at`;
    await tx`
      ALTER TABLE ${processes}
        ALTER COLUMN previous_status SET NOT NULL, ALTER COLUMN status_changed_at SET NOT NULL`;
  });
  await sql`ALTER TYPE process_status ADD VALUE IF NOT EXISTS 'init'`;
}

/** Creates a type unless another namespace did so. Names and labels are literals of this file. */
async function createEnum(sql: Sql, name: string, labels: readonly string[]): Promise<void> {
  const list = labels.map((label) => `'${label}'`).join(', ');
  await sql.unsafe(`
    DO $$ BEGIN CREATE TYPE ${name} AS ENUM (${list}); EXCEPTION WHEN duplicate_object THEN NULL; END $$`);
}
