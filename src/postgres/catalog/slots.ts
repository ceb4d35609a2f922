/**
 * Replication slots: what ours must be, how it is created, and which others hold WAL for nobody.
 * Source: PostgreSQL manual, view pg_replication_slots.
 */
import type { Sql } from 'postgres';
import type { DatabaseEndpoint } from '../../config/config.ts';
import { type ErrorPlace, SetupError } from '../../errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../../lsn.ts';
import { quoteIdentifier, quoteLiteral } from '../client/quote.ts';
import { SQL_STATE, sqlStateOf } from '../client/sql-state.ts';
import { runTransaction } from '../client/transaction.ts';
import { runReplicationCommand } from '../replication/command.ts';
import { type Mistake, noFreeSlot } from '../setup/preconditions.ts';
import { describeSessions, openWriters } from './blocking-sessions.ts';

/** The output plugin of all our slots. */
const PLUGIN = 'pgoutput';

/** Creation waits for all transactions that are open when it begins; longer than this, and somebody should be told whose. */
const CREATION_TIMEOUT_MS = 10_000;

const CONNECTION_CHECK_INTERVAL = '5s';

/** A slot as pg_replication_slots describes it. */
export interface SlotFacts {
  readonly name: string;
  /** `logical` or `physical` */
  readonly type: string;
  /** Undefined for a physical slot */
  readonly plugin: string | undefined;
  readonly database: string | undefined;
  readonly temporary: boolean;
  /** Somebody streams from it, or is creating it */
  readonly active: boolean;
  /** Process that streams from it */
  readonly activePid: number | undefined;
  /** `reserved`, `extended`, `unreserved`, `lost` */
  readonly walStatus: string | undefined;
  /** PostgreSQL 17: why the slot was invalidated */
  readonly invalidationReason: string | undefined;
  /** PostgreSQL 17: standbys keep a copy of it */
  readonly failover: boolean;
  /** PostgreSQL 17: it is such a copy, or was one before its server was promoted */
  readonly synced: boolean;
  readonly confirmedFlushLsn: Lsn | undefined;
  /** WAL that the server keeps for it; undefined when it keeps none, and on a standby */
  readonly retainedWalBytes: number | undefined;
  /** WAL that may still be written before the slot is in danger; undefined = no limit (max_slot_wal_keep_size -1) */
  readonly safeWalBytes: number | undefined;
  /** Where the server's WAL ended when this was read */
  readonly serverLsn: Lsn;
}

/** Reads one slot; undefined when there is none of this name. */
export async function readSlot(control: Sql, slot: string, serverMajor: number): Promise<SlotFacts | undefined> {
  const [row] = await control`
    SELECT slot_name, slot_type, plugin, database, temporary, active, active_pid, wal_status, server.lsn::text AS server_lsn,
      confirmed_flush_lsn::text AS confirmed, safe_wal_size::text AS safe,
      pg_wal_lsn_diff(server.lsn, restart_lsn)::text AS retained,
      ${serverMajor >= 17 ? control`invalidation_reason, failover, synced` : control`NULL AS invalidation_reason, false AS failover, false AS synced`}
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
    active: row.active,
    activePid: row.active_pid ?? undefined,
    walStatus: row.wal_status ?? undefined,
    invalidationReason: row.invalidation_reason ?? undefined,
    failover: row.failover,
    synced: row.synced,
    confirmedFlushLsn: row.confirmed === null ? undefined : parseLsn(row.confirmed),
    retainedWalBytes: row.retained === null ? undefined : Number(row.retained),
    safeWalBytes: row.safe === null ? undefined : Number(row.safe),
    serverLsn: parseLsn(row.server_lsn),
  };
}

/** Where a slot stands, and whether a walsender has it; undefined when there is no such slot. */
export async function readSlotPosition(
  control: Sql,
  slot: string,
): Promise<{ readonly confirmedFlushLsn: Lsn; readonly active: boolean } | undefined> {
  const [row] = await control<{ lsn: string | null; active: boolean }[]>`
    SELECT confirmed_flush_lsn::text AS lsn, active FROM pg_replication_slots WHERE slot_name = ${slot}`;
  if (row === undefined) return undefined;
  return { confirmedFlushLsn: row.lsn === null ? 0n : parseLsn(row.lsn), active: row.active };
}

/** True for a slot from which nothing can be streamed any more: the server has given up the WAL or the rows it needs. */
export function isInvalidated(slot: SlotFacts): boolean {
  return slot.walStatus === 'lost' || slot.invalidationReason !== undefined || slot.confirmedFlushLsn === undefined;
}

/** Judges an existing slot that is to be streamed from in `database`. */
export function slotMistake(slot: SlotFacts, database: string): Mistake | undefined {
  const name = quoteIdentifier(slot.name);
  const another = 'Give the stream another slot name in the configuration';
  if (slot.type !== 'logical') {
    return { detail: `slot ${name} is a ${slot.type} slot, and must be logical`, advice: another };
  }
  if (slot.plugin !== PLUGIN) {
    return {
      detail: `slot ${name} has output plugin ${slot.plugin}, and must have ${PLUGIN}`,
      advice: another,
    };
  }
  if (slot.database !== database) {
    return {
      detail: `slot ${name} belongs to database ${quoteIdentifier(slot.database ?? '')}, not to ${quoteIdentifier(database)}`,
      advice: `${another}: slot names are unique on a server`,
    };
  }
  if (slot.temporary) {
    return {
      detail: `slot ${name} is temporary: another session made it and drops it at its end`,
      advice: `${another}, or end that session`,
    };
  }
  return undefined;
}

/** The statement that drops a slot. */
export function dropSql(slot: string): string {
  return `SELECT pg_drop_replication_slot(${quoteLiteral(slot)});`;
}

/**
 * Creates the persistent slot; one that somebody else creates at the same time is as good. Raises SetupError when it has
 * to wait too long for open transactions, or when there is no room for it.
 *
 * @param options.failover standbys are to keep a copy of it; PostgreSQL 17 and newer know this
 */
export async function createSlot(
  control: Sql,
  slot: string,
  options: {
    readonly place: ErrorPlace;
    readonly maxReplicationSlots: number;
    readonly failover?: boolean | undefined;
    readonly timeoutMs?: number | undefined;
  },
): Promise<void> {
  const timeoutMs = options.timeoutMs ?? CREATION_TIMEOUT_MS;
  try {
    await runTransaction(control, [
      `SET LOCAL statement_timeout = ${timeoutMs}`,
      `SELECT pg_create_logical_replication_slot(${quoteLiteral(slot)}, ${quoteLiteral(PLUGIN)}${options.failover ? ', failover => true' : ''})`,
    ]);
  } catch (error) {
    const code = sqlStateOf(error);
    if (code === SQL_STATE.duplicateObject) return;
    if (code === SQL_STATE.configurationLimitExceeded) {
      const { detail, advice } = noFreeSlot(options.maxReplicationSlots);
      throw new SetupError(`Cannot create slot: ${detail}`, { place: options.place, advice, cause: error });
    }
    if (code === SQL_STATE.queryCanceled) {
      // Its creator waits for the writers of all databases of the server, not of its own alone.
      const writers = await openWriters(control, 'server');
      const whom = writers.length === 0 ? 'which have ended since' : describeSessions(writers);
      throw new SetupError(`Cannot create slot: it waited ${timeoutMs} ms for open transactions to end, ${whom}`, {
        place: options.place,
        advice: 'Wait until these transactions end, or end them',
        cause: error,
        mayPass: true,
      });
    }
    throw error;
  }
}

/**
 * Drops an inactive slot, if it still is the one that was looked at: somebody may have put a good one in its place.
 * @returns false when it is another one, or gone
 * @throws 55006 when it is in use
 */
export async function dropSlot(
  control: Sql,
  { name, confirmedFlushLsn, walStatus }: Pick<SlotFacts, 'name' | 'confirmedFlushLsn' | 'walStatus'>,
): Promise<boolean> {
  const lsn = confirmedFlushLsn === undefined ? null : formatLsn(confirmedFlushLsn);
  const rows = await control`
    SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
    WHERE slot_name = ${name} AND confirmed_flush_lsn IS NOT DISTINCT FROM ${lsn}::pg_lsn
      AND wal_status IS NOT DISTINCT FROM ${walStatus ?? null}`;
  return rows.length > 0;
}

/** Has standbys keep a copy of an inactive slot that exists (PostgreSQL 17 and newer). Raises 55006 when it is in use. */
export async function alterSlotFailover(endpoint: DatabaseEndpoint, slot: string): Promise<void> {
  await runReplicationCommand(endpoint, {
    command: `ALTER_REPLICATION_SLOT ${quoteIdentifier(slot)} ( FAILOVER true )`,
    applicationName: `cdc-notifier ${slot} failover`,
  });
}

/**
 * Moves an inactive slot forward without decoding anything for us: every transaction whose commit begins before `lsn`
 * counts as confirmed. For a slot whose publications are all younger than its backlog, so that nothing of it is owed:
 * PostgreSQL 14 and 15 refuse to stream with an empty list of publications. Raises 55006 when the slot is in use.
 */
export async function advanceSlot(control: Sql, slot: string, lsn: Lsn): Promise<void> {
  // Its backend may wait without end, for a standby of synchronized_standby_slots, and would keep the slot when we are
  // long gone. Not every operating system lets the server look whether we are.
  await control`SELECT set_config('client_connection_check_interval', ${CONNECTION_CHECK_INTERVAL}, false)`.catch(
    () => {},
  );
  await control`SELECT pg_replication_slot_advance(${slot}, ${formatLsn(lsn)}::pg_lsn)`;
}

/** A slot that nobody reads, and the WAL that the server keeps for it. */
export interface AbandonedSlot {
  readonly slot: string;
  readonly retainedWalBytes: number;
}

/**
 * Logical pgoutput slots of this database that nobody streams from and that `isConfigured` does not know. Those of other
 * databases are other people's: one whose reader is just being restarted looks the same.
 */
export async function findAbandonedSlots(
  control: Sql,
  isConfigured: (slot: string) => boolean,
): Promise<AbandonedSlot[]> {
  const rows = await control`
    SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::text AS retained
    FROM pg_replication_slots
    WHERE slot_type = 'logical' AND plugin = ${PLUGIN} AND database = current_database() AND NOT temporary AND NOT active
      AND restart_lsn IS NOT NULL
    ORDER BY slot_name`;
  return rows
    .filter((row) => !isConfigured(row.slot_name))
    .map((row) => ({ slot: row.slot_name, retainedWalBytes: Number(row.retained) }));
}
