/** Which process streams from a slot, and the wait until it is gone: of several processes with one slot, one streams. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Sql } from 'postgres';
import { within } from '../../deadline.ts';

const POLL_INTERVAL_MS = 500;
/** A slow server answers sooner; a server that is gone ends the wait with an error, and the next attempt looks for another. */
const ANSWER_TIMEOUT_MS = 10_000;

/** The process that streams from the slot, as the server sees it. */
export interface SlotHolder {
  /** Of its walsender */
  readonly pid: number;
  /** Hidden from roles without pg_read_all_stats when another role streams */
  readonly applicationName: string | undefined;
  /** Time since its last status update; hidden likewise */
  readonly silentMs: number | undefined;
}

/** Options of a wait. */
export interface SlotWaitOptions {
  readonly slot: string;
  /** Ends the wait, which then rejects with its reason */
  readonly signal: AbortSignal;
  /** Called with the holder at every look */
  readonly onHolder: (holder: SlotHolder) => void;
}

/**
 * Resolves when no process streams from the slot, or the slot does not exist in this database: one of another database is
 * never freed for this one, and the preparation refuses it. A holder whose connection is half-open keeps
 * the slot until the server's `wal_sender_timeout` has passed.
 * @throws SourceError when the server does not answer, and what the connection raises
 */
export async function waitUntilFree(control: Sql, { slot, signal, onHolder }: SlotWaitOptions): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    const holder = await within(ANSWER_TIMEOUT_MS, 'stand by', readHolder(control, slot));
    if (holder === undefined) return;
    onHolder(holder);
    await sleep(POLL_INTERVAL_MS, undefined, { signal });
  }
}

/**
 * True while the walsender of a slot decodes, even if it sends nothing and reads nothing: PostgreSQL 14 and 15 are silent for as
 * long as a transaction has only changes that are not streamed, such as a table that is rewritten. One that waits for its
 * client or for new WAL is not at work, and neither is one that is gone.
 * Source: PostgreSQL manual, "Wait Event Types": Client and Activity are the waits of an idle walsender.
 */
export async function isWalsenderAtWork(control: Sql, slot: string): Promise<boolean> {
  const [row] = await control<{ is_at_work: boolean }[]>`
    SELECT a.state = 'active' AND (a.wait_event_type IS NULL OR a.wait_event_type NOT IN ('Client', 'Activity')) AS is_at_work
    FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
    WHERE s.slot_name = ${slot} AND s.database = current_database()`;
  return row?.is_at_work === true;
}

async function readHolder(control: Sql, slot: string): Promise<SlotHolder | undefined> {
  const [row] = await control<{ pid: number; application_name: string | null; silent_ms: number | null }[]>`
    SELECT s.active_pid AS pid, a.application_name,
      (extract(epoch FROM clock_timestamp() - r.reply_time) * 1000)::float8 AS silent_ms
    FROM pg_replication_slots s
      LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
      LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
    WHERE s.slot_name = ${slot} AND s.active AND s.database = current_database()`;
  if (row === undefined) return undefined;
  return {
    pid: row.pid,
    applicationName: row.application_name ?? undefined,
    silentMs: row.silent_ms ?? undefined,
  };
}
