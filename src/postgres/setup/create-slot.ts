/** Creates, drops, advances and changes the replication slot. */
import type { Sql } from 'postgres';
import type { DatabaseEndpoint, SlotSettings } from '../../config/config.ts';
import { type ErrorPlace, SetupError } from '../../errors.ts';
import { formatLsn, type Lsn } from '../../lsn.ts';
import { describeSessions, openWriters } from '../catalog/blocking-sessions.ts';
import { OUTPUT_PLUGIN, type SlotFacts } from '../catalog/slots.ts';
import { SQL_STATE, sqlStateOf } from '../client/errors.ts';
import { quoteIdentifier, quoteLiteral } from '../client/quote.ts';
import { asSessionUser } from '../client/session-user.ts';
import { ledgerName } from '../continuity/ledger.ts';
import { runReplicationCommand } from '../replication/command.ts';
import { noFreeSlot } from './preconditions.ts';
import { runStatements, type Statement } from './statements.ts';

/** Creation waits for all transactions that are open when it begins; after this time the error names them. */
const CREATION_TIMEOUT_MS = 10_000;

const CONNECTION_CHECK_INTERVAL = '5s';

/** What a start does to the slot, in this order; undefined = not needed. */
export interface SlotPlan {
  readonly drop: Statement | undefined;
  readonly create: Statement | undefined;
  readonly setFailover: Statement | undefined;
}

/**
 * Plans what becomes of the slot. Pure.
 * @param existing undefined = there is none
 * @param mustReplace the existing slot must not be streamed from, and its loss is accepted
 */
export function planSlot(
  name: string,
  {
    existing,
    mustReplace,
    settings,
    role,
  }: {
    readonly existing: SlotFacts | undefined;
    readonly mustReplace: boolean;
    readonly settings: Pick<SlotSettings, 'failover'>;
    /** Of the connection; it has REPLICATION */
    readonly role: string;
  },
): SlotPlan {
  const isUsable = existing !== undefined && !mustReplace;
  return {
    drop: existing !== undefined && mustReplace ? dropStatement(existing, role) : undefined,
    create: isUsable ? undefined : createStatement(name, { failover: settings.failover, role }),
    setFailover: isUsable && settings.failover && !existing.failover ? failoverStatement(name, role) : undefined,
  };
}

/** @param options.failover standbys keep a copy of the slot (PostgreSQL 17 and newer) */
export function createStatement(
  slot: string,
  { failover, role }: { readonly failover: boolean; readonly role: string },
): Statement {
  const option = failover ? ', failover => true' : '';
  const sql = `SELECT pg_create_logical_replication_slot(${quoteLiteral(slot)}, ${quoteLiteral(OUTPUT_PLUGIN)}${option})`;
  return { sql, role, lock: undefined, tables: [] };
}

/** Drops the slot if it is still the one that was looked at: another process may have created a good one since. */
function dropStatement(
  { name, confirmedFlushLsn, walStatus }: Pick<SlotFacts, 'name' | 'confirmedFlushLsn' | 'walStatus'>,
  role: string,
): Statement {
  const lsn = confirmedFlushLsn === undefined ? 'NULL' : quoteLiteral(formatLsn(confirmedFlushLsn));
  const status = walStatus === undefined ? 'NULL' : quoteLiteral(walStatus);
  const sql =
    `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = ${quoteLiteral(name)} ` +
    `AND confirmed_flush_lsn IS NOT DISTINCT FROM ${lsn}::pg_lsn AND wal_status IS NOT DISTINCT FROM ${status}`;
  return { sql, role, lock: undefined, tables: [] };
}

function failoverStatement(slot: string, role: string): Statement {
  const sql = `ALTER_REPLICATION_SLOT ${quoteIdentifier(slot)} ( FAILOVER true )`;
  return { sql, role, lock: undefined, tables: [], isReplicationCommand: true };
}

/** The statement that drops the copy of a slot on a standby, where the ledger is that of the primary. */
export function dropCopySql(slot: string): string {
  return `SELECT pg_drop_replication_slot(${quoteLiteral(slot)});`;
}

/** Removes a slot for good, together with its ledger: the next start creates a new slot at that moment. For operators. */
export function dropSlotSql(slot: string): string {
  return `SELECT pg_drop_replication_slot(${quoteLiteral(slot)}); DROP PUBLICATION IF EXISTS ${quoteIdentifier(ledgerName(slot))};`;
}

/**
 * Creates the persistent slot; one that another process creates at the same time is as good.
 * @throws SetupError when it waits too long for open transactions, or when no slot is free
 */
export async function createSlot(
  control: Sql,
  statement: Statement,
  {
    place,
    maxReplicationSlots,
    timeoutMs = CREATION_TIMEOUT_MS,
  }: { readonly place: ErrorPlace; readonly maxReplicationSlots: number; readonly timeoutMs?: number },
): Promise<void> {
  try {
    await asSessionUser(control, () => runStatements(control, [statement], { statementTimeoutMs: timeoutMs }));
  } catch (error) {
    const state = sqlStateOf(error);
    if (state === SQL_STATE.duplicateObject) return;
    if (state === SQL_STATE.configurationLimitExceeded) {
      const { code, detail, advice } = noFreeSlot(maxReplicationSlots);
      throw new SetupError(`Cannot create slot: ${detail}`, { code, place, advice, cause: error });
    }
    if (state === SQL_STATE.queryCanceled) {
      // Creation waits for the writers of all databases of the server, not only of its own.
      const writers = await openWriters(control, 'server');
      const sessions = writers.length === 0 ? 'sessions that have ended since' : describeSessions(writers);
      throw new SetupError(`Cannot create slot: waited ${timeoutMs} ms for open transactions to end: ${sessions}`, {
        code: 'slot_creation_timeout',
        place,
        advice: 'Wait until these transactions end, or end them',
        cause: error,
        mayPass: true,
      });
    }
    throw error;
  }
}

/**
 * Drops an inactive slot.
 * @returns false when the slot is another one by now, or gone
 * @throws 55006 when it is in use
 */
export async function dropSlot(control: Sql, statement: Statement): Promise<boolean> {
  return (await asSessionUser(control, () => control.unsafe(statement.sql))).length > 0;
}

/** Makes an inactive slot a failover slot (PostgreSQL 17 and newer). @throws 55006 when it is in use */
export async function setSlotFailover(endpoint: DatabaseEndpoint, slot: string, statement: Statement): Promise<void> {
  await runReplicationCommand(endpoint, {
    command: statement.sql,
    applicationName: `cdc-notifier ${slot} failover`,
  });
}

/**
 * Moves an inactive slot forward without delivering anything: every transaction whose commit begins before `lsn` counts as
 * confirmed. For a slot whose publications are all younger than its backlog, so that nothing in it is owed: PostgreSQL 14
 * and 15 refuse to stream with an empty list of publications. @throws 55006 when the slot is in use
 */
export async function advanceSlot(control: Sql, slot: string, lsn: Lsn): Promise<void> {
  // The backend may wait without end for a standby of synchronized_standby_slots, and would hold the slot long after this
  // process is gone. Not on every operating system can the server check whether the client is still there.
  await control`SELECT set_config('client_connection_check_interval', ${CONNECTION_CHECK_INTERVAL}, false)`.catch(
    () => {},
  );
  await asSessionUser(control, () => control`SELECT pg_replication_slot_advance(${slot}, ${formatLsn(lsn)}::pg_lsn)`);
}
