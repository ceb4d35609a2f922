/** A server's settings, resources and position, as far as replication depends on them. */
import type { Sql } from 'postgres';
import { type Lsn, parseLsn } from '../../lsn.ts';

/** The server as far as replication depends on it. */
export interface ServerFacts {
  /** `server_version_num`: 140023, 180004 */
  readonly versionNumber: number;
  /** `server_version`, for messages */
  readonly version: string;
  readonly inRecovery: boolean;
  readonly walLevel: string;
  /** The role of this connection */
  readonly role: string;
  /** The role that logged in: another one than `role` when a default role is set */
  readonly sessionRole: string;
  /** Of the database: UTF8, WIN1251, SQL_ASCII */
  readonly encoding: string;
  /** The database of this connection */
  readonly database: string;
  readonly databaseOid: number;
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
      session_user::text AS session_role,
      current_database()::text AS database,
      (SELECT oid::int8 FROM pg_database WHERE datname = current_database()) AS database_oid, current_setting('server_encoding') AS encoding,
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
    sessionRole: facts.session_role,
    encoding: facts.encoding,
    database: facts.database,
    databaseOid: Number(facts.database_oid),
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

/** The end of the primary's WAL, including what is not written to disk yet. */
export async function readCurrentLsn(control: Sql): Promise<Lsn> {
  const [row] = await control`SELECT pg_current_wal_insert_lsn()::text AS lsn`;
  return parseLsn(row!.lsn);
}
