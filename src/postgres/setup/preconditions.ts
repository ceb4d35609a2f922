/**
 * What the server and its tables must have before anything is created. Reading is here, and judging, which is pure: each
 * judge returns the first thing that is wrong, with its cure, or undefined.
 */
import type { Sql } from 'postgres';
import { quoteIdentifier, quoteTable } from '../client/quote.ts';

/** Oldest PostgreSQL that this service works with: pgoutput's `binary` and `messages` came with it. */
const OLDEST_MAJOR = 14;

/** Something that does not hold, and what to do about it. */
export interface Mistake {
  /** Completes `Cannot prepare slot: ...` */
  readonly detail: string;
  readonly advice: string;
  /** Table it is about, without schema and quotes */
  readonly table?: string | undefined;
}

/** The server as far as replication is concerned. */
export interface ServerFacts {
  /** `server_version_num`: 140023, 180004 */
  readonly versionNumber: number;
  /** `server_version`, for messages */
  readonly version: string;
  readonly inRecovery: boolean;
  readonly walLevel: string;
  readonly role: string;
  /** Superuser, or has REPLICATION */
  readonly mayReplicate: boolean;
  readonly maxReplicationSlots: number;
  readonly slotCount: number;
  readonly maxWalSenders: number;
  readonly walSenderCount: number;
  /** 0 = never */
  readonly walSenderTimeoutMs: number;
  readonly deadlockTimeoutMs: number;
  readonly systemIdentifier: string;
  /** Undefined on a standby */
  readonly timeline: number | undefined;
}

/** Reads the facts above; every role may. */
export async function readServer(control: Sql): Promise<ServerFacts> {
  const [row] = await control`
    SELECT current_setting('server_version_num')::int4 AS version_number, current_setting('server_version') AS version,
      pg_is_in_recovery() AS in_recovery, current_setting('wal_level') AS wal_level, current_user::text AS role,
      (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) AS may_replicate,
      current_setting('max_replication_slots')::int4 AS max_replication_slots,
      (SELECT count(*)::int4 FROM pg_replication_slots) AS slot_count,
      current_setting('max_wal_senders')::int4 AS max_wal_senders,
      (SELECT count(*)::int4 FROM pg_stat_replication) AS wal_sender_count,
      (SELECT setting::int4 FROM pg_settings WHERE name = 'wal_sender_timeout') AS wal_sender_timeout,
      (SELECT setting::int4 FROM pg_settings WHERE name = 'deadlock_timeout') AS deadlock_timeout,
      (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
      CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline`;
  const facts = row!;
  return {
    versionNumber: facts.version_number,
    version: facts.version,
    inRecovery: facts.in_recovery,
    walLevel: facts.wal_level,
    role: facts.role,
    mayReplicate: facts.may_replicate ?? false,
    maxReplicationSlots: facts.max_replication_slots,
    slotCount: facts.slot_count,
    maxWalSenders: facts.max_wal_senders,
    walSenderCount: facts.wal_sender_count,
    walSenderTimeoutMs: facts.wal_sender_timeout,
    deadlockTimeoutMs: facts.deadlock_timeout,
    systemIdentifier: facts.system_identifier,
    timeline: facts.timeline === null ? undefined : Number.parseInt(facts.timeline, 16),
  };
}

/** The major version of a `server_version_num`. */
export function majorOf(versionNumber: number): number {
  return Math.floor(versionNumber / 10_000);
}

/** Judges the server. `needs.slot`: the slot has to be created; `needs.sender`: nobody streams from it yet. */
export function serverMistake(
  server: ServerFacts,
  needs: { readonly slot: boolean; readonly sender: boolean },
): Mistake | undefined {
  if (majorOf(server.versionNumber) < OLDEST_MAJOR) {
    return {
      detail: `PostgreSQL ${server.version} is too old`,
      advice: `Upgrade the server to PostgreSQL ${OLDEST_MAJOR} or newer`,
    };
  }
  if (server.inRecovery) {
    return {
      detail: 'the server is a standby (in recovery)',
      advice:
        'Point host or hosts of the database at the primary; slots of a standby, also those kept for a failover, cannot be streamed from',
    };
  }
  if (server.walLevel !== 'logical') {
    return {
      detail: `wal_level is ${server.walLevel}, and must be logical`,
      advice: 'Run as a superuser: ALTER SYSTEM SET wal_level = logical; then restart the server',
    };
  }
  if (!server.mayReplicate) {
    return {
      detail: `role ${server.role} has no REPLICATION attribute`,
      advice: `Run as a superuser: ALTER ROLE ${quoteIdentifier(server.role)} REPLICATION;`,
    };
  }
  if (needs.slot && server.slotCount >= server.maxReplicationSlots) return noFreeSlot(server.maxReplicationSlots);
  if (needs.sender && server.walSenderCount >= server.maxWalSenders) {
    return {
      detail: `all ${server.maxWalSenders} WAL senders of the server are in use`,
      advice:
        'Raise max_wal_senders and restart the server, or end replication connections that are not needed (see pg_stat_replication)',
    };
  }
  return undefined;
}

/** The mistake of a server whose slots are all taken. */
export function noFreeSlot(maxReplicationSlots: number): Mistake {
  return {
    detail: `all ${maxReplicationSlots} replication slots of the server are in use`,
    advice:
      'Raise max_replication_slots and restart the server, or drop slots that are not needed (see pg_replication_slots)',
  };
}

/** One table as the catalogs describe it. */
export interface TableFacts {
  readonly name: string;
  readonly oid: number;
  /** pg_class.relkind: `r` is an ordinary table, `p` a partitioned one */
  readonly kind: string;
  /** pg_class.relpersistence: `p` is permanent, `u` unlogged */
  readonly persistence: string;
  /** pg_class.relreplident: default, nothing, full, index */
  readonly replicaIdentity: 'd' | 'n' | 'f' | 'i';
  /** The key of the index by which updates and deletes identify rows; empty with FULL, and where there is none */
  readonly identityColumns: readonly string[];
  readonly owner: string;
  /** Our role is the owner, is a member of it, or is a superuser */
  readonly isOwner: boolean;
}

/** Reads those of the tables that exist in schema public, by name. */
export async function readTables(control: Sql, names: readonly string[]): Promise<Map<string, TableFacts>> {
  const rows = await control`
    SELECT c.relname, c.oid::int8 AS oid, c.relkind::text AS relkind, c.relpersistence::text AS relpersistence,
      c.relreplident::text AS relreplident, pg_get_userbyid(c.relowner) AS owner,
      pg_has_role(c.relowner, 'USAGE') AS is_owner,
      (
        SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]')
        FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
          AND ((c.relreplident = 'd' AND i.indisprimary) OR (c.relreplident = 'i' AND i.indisreplident))
      ) AS identity_columns
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relname IN ${control([...names])}`;
  return new Map(
    rows.map((row) => [
      row.relname as string,
      {
        name: row.relname,
        oid: Number(row.oid),
        kind: row.relkind,
        persistence: row.relpersistence,
        replicaIdentity: row.relreplident,
        identityColumns: row.identity_columns,
        owner: row.owner,
        isOwner: row.is_owner,
      },
    ]),
  );
}

/** Judges one table that a namespace needs; `facts` undefined = it does not exist. */
export function tableMistake(table: string, facts: TableFacts | undefined): Mistake | undefined {
  if (facts === undefined) {
    return {
      table,
      detail: `table ${quoteTable(table)} does not exist`,
      advice:
        'Start the service that owns this namespace, which creates its tables, or correct the namespace or the database in the configuration',
    };
  }
  if (facts.kind !== 'r') {
    return {
      table,
      detail: `${quoteTable(table)} is ${KINDS[facts.kind] ?? 'not a table'}, and must be an ordinary table`,
      advice: "Make it an ordinary table, as progressor's own script does",
    };
  }
  if (facts.persistence !== 'p') {
    return {
      table,
      detail: `table ${quoteTable(table)} is unlogged, so its changes are not in the WAL`,
      advice: `Run as its owner ${facts.owner}: ALTER TABLE ${quoteTable(table)} SET LOGGED;`,
    };
  }
  return undefined;
}

const KINDS: Readonly<Record<string, string>> = {
  p: 'a partitioned table',
  v: 'a view',
  m: 'a materialized view',
  f: 'a foreign table',
  i: 'an index',
  S: 'a sequence',
};

/**
 * Judges whether an events table may be published. Updates and deletes of a published table without a replica identity
 * fail, for everybody: publishing such a table would stop the service that owns it.
 */
export function eventsIdentityMistake(facts: TableFacts): Mistake | undefined {
  if (facts.replicaIdentity === 'f' || facts.identityColumns.length > 0) return undefined;
  return {
    table: facts.name,
    detail: `table ${quoteTable(facts.name)} has no replica identity, so that publishing it would make its updates and deletes fail`,
    advice: `Add its primary key (process_id, event_id), or run as its owner ${facts.owner}: ALTER TABLE ${quoteTable(facts.name)} REPLICA IDENTITY FULL;`,
  };
}
