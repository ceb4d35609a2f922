/**
 * Replication slots: what ours must be, how it is created, and which others hold WAL for nobody.
 * Source: PostgreSQL manual, view pg_replication_slots.
 */
import type { Sql } from 'postgres';
import { type ErrorPlace, SetupError } from '../errors.ts';
import { formatLsn, type Lsn, parseLsn } from './lsn.ts';
import { type Mistake, noFreeSlot } from './preconditions.ts';
import { quoteIdentifier, quoteLiteral } from './quote.ts';
import { describeSessions, openWriters } from './sessions.ts';
import { SQL_STATE, sqlStateOf } from './sql-state.ts';
import { runTransaction } from './transaction.ts';

/** The output plugin of all our slots. */
const PLUGIN = 'pgoutput';

/** Creation waits for all transactions that are open when it begins; longer than this, and somebody should be told whose. */
const CREATION_TIMEOUT_MS = 10_000;

/** A slot as pg_replication_slots describes it. */
export interface SlotFacts {
  readonly name: string;
  /** `logical` or `physical` */
  readonly type: string;
  /** Undefined for a physical slot */
  readonly plugin: string | undefined;
  readonly database: string | undefined;
  readonly temporary: boolean;
  /** Somebody streams from it */
  readonly active: boolean;
  /** `reserved`, `extended`, `unreserved`, `lost` */
  readonly walStatus: string | undefined;
  /** PostgreSQL 17: why the slot was invalidated */
  readonly invalidationReason: string | undefined;
  readonly confirmedFlushLsn: Lsn | undefined;
}

/** Reads one slot; undefined when there is none of this name. */
export async function readSlot(control: Sql, slot: string, serverMajor: number): Promise<SlotFacts | undefined> {
  const [row] = await control`
    SELECT slot_name, slot_type, plugin, database, temporary, active, wal_status, confirmed_flush_lsn::text AS confirmed,
      ${serverMajor >= 17 ? control`invalidation_reason` : control`NULL`} AS invalidation_reason
    FROM pg_replication_slots WHERE slot_name = ${slot}`;
  if (row === undefined) return undefined;
  return {
    name: row.slot_name,
    type: row.slot_type,
    plugin: row.plugin ?? undefined,
    database: row.database ?? undefined,
    temporary: row.temporary,
    active: row.active,
    walStatus: row.wal_status ?? undefined,
    invalidationReason: row.invalidation_reason ?? undefined,
    confirmedFlushLsn: row.confirmed === null ? undefined : parseLsn(row.confirmed),
  };
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
  if (slot.walStatus === 'lost' || slot.invalidationReason !== undefined || slot.confirmedFlushLsn === undefined) {
    const reason = slot.invalidationReason === undefined ? '' : ` (${slot.invalidationReason})`;
    return {
      detail: `slot ${name} was invalidated by the server${reason}: changes since its last confirmation can no longer be streamed`,
      advice: `Decide how to make good for the changes that are lost, then run ${dropSql(slot.name)} and restart the service: the slot is created anew, beginning at that moment; see max_slot_wal_keep_size`,
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
 */
export async function createSlot(
  control: Sql,
  slot: string,
  options: {
    readonly place: ErrorPlace;
    readonly maxReplicationSlots: number;
    readonly timeoutMs?: number | undefined;
  },
): Promise<void> {
  const timeoutMs = options.timeoutMs ?? CREATION_TIMEOUT_MS;
  try {
    await runTransaction(control, [
      `SET LOCAL statement_timeout = ${timeoutMs}`,
      `SELECT pg_create_logical_replication_slot(${quoteLiteral(slot)}, ${quoteLiteral(PLUGIN)})`,
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
      });
    }
    throw error;
  }
}

/**
 * Moves an inactive slot forward without decoding anything for us: every transaction whose commit begins before `lsn`
 * counts as confirmed. For a slot whose publications are all younger than its backlog, so that nothing of it is owed:
 * PostgreSQL 14 and 15 refuse to stream with an empty list of publications. Raises 55006 when the slot is in use.
 */
export async function advanceSlot(control: Sql, slot: string, lsn: Lsn): Promise<void> {
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
