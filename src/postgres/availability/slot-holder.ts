/** Waiting as a standby: of several processes with the same slot one streams, and the others take over when it is gone. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Sql } from 'postgres';
import { SourceError } from '../../errors.ts';

const POLL_INTERVAL_MS = 500;
/** A server that is only slow answers sooner; to one that is gone for good nobody would stand by. */
const ANSWER_TIMEOUT_MS = 10_000;

/** The process that has the slot, as the server sees it. */
export interface SlotHolder {
  /** Of the walsender */
  readonly pid: number;
  /** Hidden from roles without pg_read_all_stats when another role streams */
  readonly applicationName: string | undefined;
  /** Since when the server has not heard of it; hidden likewise */
  readonly silentMs: number | undefined;
}

/** Whom to wait for, and whom to tell. */
export interface StandbyOptions {
  readonly slot: string;
  /** Ends the wait, which then rejects with its reason */
  readonly signal: AbortSignal;
  /** Called with the holder whenever it is looked at */
  readonly onHolder: (holder: SlotHolder) => void;
}

/**
 * Resolves when nobody has the slot, or there is no such slot. A holder whose connection is half-open keeps it until the
 * server's `wal_sender_timeout` has passed.
 * @throws SourceError when the server does not answer, and what the connection raises
 */
export async function waitUntilFree(control: Sql, { slot, signal, onHolder }: StandbyOptions): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    const holder = await readHolder(control, slot);
    if (holder === undefined) return;
    onHolder(holder);
    await sleep(POLL_INTERVAL_MS, undefined, { signal });
  }
}

/** @throws SourceError when the server does not answer */
async function readHolder(control: Sql, slot: string): Promise<SlotHolder | undefined> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new SourceError(`Cannot stand by: no answer of the server within ${ANSWER_TIMEOUT_MS} ms`)),
    ANSWER_TIMEOUT_MS,
  );
  try {
    const answer = control<{ pid: number; application_name: string | null; silent_ms: number | null }[]>`
      SELECT s.active_pid AS pid, a.application_name,
        (extract(epoch FROM clock_timestamp() - r.reply_time) * 1000)::float8 AS silent_ms
      FROM pg_replication_slots s
        LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
        LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
      WHERE s.slot_name = ${slot} AND s.active`;
    const [row] = await Promise.race([answer, late.promise]);
    if (row === undefined) return undefined;
    return {
      pid: row.pid,
      applicationName: row.application_name ?? undefined,
      silentMs: row.silent_ms ?? undefined,
    };
  } finally {
    clearTimeout(timer);
  }
}
