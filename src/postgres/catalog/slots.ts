/**
 * Replication slots as the server describes them.
 * Source: PostgreSQL manual, view pg_replication_slots.
 */
import type { Sql } from 'postgres';
import { type Lsn, parseLsn } from '../../lsn.ts';

/** The output plugin of all slots of the service. */
export const OUTPUT_PLUGIN = 'pgoutput';

const PROBE_START = 'cdc_notifier_probe_';

/** The name of a temporary copy of a slot. @param suffix makes it unique */
export function probeName(suffix: string): string {
  return `${PROBE_START}${suffix}`;
}

/** True for a temporary copy that this service has made of a slot. */
export function isProbe(slot: string): boolean {
  return slot.startsWith(PROBE_START);
}

/** A slot as pg_replication_slots describes it. */
export interface SlotFacts {
  readonly name: string;
  /** `logical` or `physical` */
  readonly type: string;
  /** Undefined for a physical slot */
  readonly plugin: string | undefined;
  readonly database: string | undefined;
  readonly temporary: boolean;
  /** Prepared transactions are streamed when they are prepared, in messages of their own */
  readonly twoPhase: boolean;
  /** A process streams from it, or is creating it */
  readonly active: boolean;
  /** PID of the walsender that streams from it */
  readonly activePid: number | undefined;
  /** `reserved`, `extended`, `unreserved`, `lost` */
  readonly walStatus: string | undefined;
  /** PostgreSQL 17: why the slot was invalidated */
  readonly invalidationReason: string | undefined;
  /** PostgreSQL 17: standbys keep a copy of it */
  readonly failover: boolean;
  readonly confirmedFlushLsn: Lsn | undefined;
  /** WAL that the server keeps for it; undefined when it keeps none, and on a standby */
  readonly retainedWalBytes: number | undefined;
  /** WAL that can still be written before the server may invalidate the slot; undefined = no limit (max_slot_wal_keep_size -1) */
  readonly safeWalBytes: number | undefined;
  /** End of the server's WAL when this was read */
  readonly serverLsn: Lsn;
}

/** Reads one slot; undefined when there is none of this name. */
export async function readSlot(control: Sql, slot: string, serverMajor: number): Promise<SlotFacts | undefined> {
  const [row] = await control`
    SELECT slot_name, slot_type, plugin, database, temporary, two_phase, active, active_pid, wal_status, server.lsn::text AS server_lsn,
      confirmed_flush_lsn::text AS confirmed, safe_wal_size::text AS safe,
      pg_wal_lsn_diff(server.lsn, restart_lsn)::text AS retained,
      ${serverMajor >= 17 ? control`invalidation_reason, failover` : control`NULL AS invalidation_reason, false AS failover`}
    FROM pg_replication_slots, (
      SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn
    ) AS server
    WHERE slot_name = ${slot}`;
  if (row === undefined) return undefined;
  return {
    name: row.slot_name,
    type: row.slot_type,
    plugin: row.plugin ?? undefined,
    database: row.database ?? undefined,
    temporary: row.temporary,
    twoPhase: row.two_phase,
    active: row.active,
    activePid: row.active_pid ?? undefined,
    walStatus: row.wal_status ?? undefined,
    invalidationReason: row.invalidation_reason ?? undefined,
    failover: row.failover,
    confirmedFlushLsn: row.confirmed === null ? undefined : parseLsn(row.confirmed),
    retainedWalBytes: row.retained === null ? undefined : Number(row.retained),
    safeWalBytes: row.safe === null ? undefined : Number(row.safe),
    serverLsn: parseLsn(row.server_lsn),
  };
}

/**
 * Whether commits of the server wait for this walsender, as pg_stat_replication says: `async`, `potential`, `sync`, `quorum`;
 * undefined where it is gone, or belongs to another role that this one may not see.
 */
export async function readSyncState(control: Sql, walsenderPid: number): Promise<string | undefined> {
  const [row] = await control<{ sync_state: string | null }[]>`
    SELECT sync_state FROM pg_stat_replication WHERE pid = ${walsenderPid}`;
  return row?.sync_state ?? undefined;
}

/** The confirmed position of a slot and whether a walsender holds it; undefined when there is no such slot. */
export async function readSlotPosition(
  control: Sql,
  slot: string,
): Promise<{ readonly confirmedFlushLsn: Lsn; readonly active: boolean } | undefined> {
  const [row] = await control<{ lsn: string | null; active: boolean }[]>`
    SELECT confirmed_flush_lsn::text AS lsn, active FROM pg_replication_slots WHERE slot_name = ${slot}`;
  if (row === undefined) return undefined;
  return { confirmedFlushLsn: row.lsn === null ? 0n : parseLsn(row.lsn), active: row.active };
}

/** True for a slot that can never be streamed from again: the server has removed WAL or rows that it needs. */
export function isInvalidated(slot: SlotFacts): boolean {
  return slot.walStatus === 'lost' || slot.invalidationReason !== undefined || slot.confirmedFlushLsn === undefined;
}

/** A slot without a reader, and the WAL that the server keeps for it. */
export interface AbandonedSlot {
  readonly slot: string;
  readonly retainedWalBytes: number;
  /** PostgreSQL 17: since when nothing reads it, in ISO 8601 */
  readonly inactiveSince: string | undefined;
}

/**
 * Inactive logical pgoutput slots of this database that `isConfigured` does not know. Slots of other databases are not
 * listed: one whose reader is just restarting looks the same.
 */
export async function findAbandonedSlots(
  control: Sql,
  isConfigured: (slot: string) => boolean,
): Promise<AbandonedSlot[]> {
  const rows = await control`
    SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::text AS retained,
      to_jsonb(slots) ->> 'inactive_since' AS inactive_since
    FROM pg_replication_slots AS slots
    WHERE slot_type = 'logical' AND plugin = ${OUTPUT_PLUGIN} AND database = current_database() AND NOT temporary AND NOT active
      AND restart_lsn IS NOT NULL
    ORDER BY slot_name`;
  return rows
    .filter((row) => !isConfigured(row.slot_name))
    .map((row) => ({
      slot: row.slot_name,
      retainedWalBytes: Number(row.retained),
      inactiveSince: row.inactive_since ?? undefined,
    }));
}

/**
 * Those who may read the publications of this database: its logical pgoutput slots, temporary ones too, and walsenders that
 * have no slot yet, by their application_name. What a slot reads is not stored. Walsenders of other roles are visible to
 * members of pg_read_all_stats alone.
 */
export async function readPublicationReaders(
  control: Sql,
): Promise<{ readonly slots: readonly string[]; readonly walsenders: readonly string[] }> {
  const [row] = await control<{ slots: string[]; walsenders: string[] }[]>`
    SELECT
      (
        SELECT coalesce(json_agg(slot_name ORDER BY slot_name), '[]') FROM pg_replication_slots
        WHERE plugin = ${OUTPUT_PLUGIN} AND database = current_database()
      ) AS slots,
      (
        SELECT coalesce(json_agg(DISTINCT application_name), '[]') FROM pg_stat_activity
        WHERE backend_type = 'walsender' AND datname = current_database()
          AND pid NOT IN (SELECT active_pid FROM pg_replication_slots WHERE active_pid IS NOT NULL)
      ) AS walsenders`;
  return row!;
}
