import { setTimeout as sleep } from 'node:timers/promises';
import { RecordTooLargeError } from '../errors.ts';
import { explainFailure, judgeFailure } from '../failure-policy.ts';
import { forgetRefusedRecords } from '../kafka/produce/size-limits.ts';
import type { Lsn } from '../lsn.ts';
import { createSlotMemory, noteStreamEnd } from './memory.ts';
import { Session, type SessionOptions } from './session.ts';

/** Options of one slot. */
export type SlotRunnerOptions = Omit<SessionOptions, 'memory' | 'reconnectCount' | 'reconnectReason'>;

/** The slot was free and is in use again: the next session stands by, after this pause at most */
const WAIT_FOR_SLOT_PAUSE_MS = 250;

/**
 * After this many attempts a record that Kafka refused is sent once more: the rows before it in its transaction are then
 * repeated, but a limit that the service may not read shows no other way that it was raised.
 */
const REFUSED_TRIAL_ATTEMPTS = 12;

/** Why a session ended without a failure, and what was confirmed then. */
export interface Renewal {
  readonly reason: string;
  /** Undefined when no session has prepared the slot */
  readonly confirmedLsn: Lsn | undefined;
}

/** True when a renewal has brought the slot no further than the one before: the next one would not either, and so on. */
export function repeats(renewal: Renewal, former: Renewal | undefined): boolean {
  return former?.reason === renewal.reason && former.confirmedLsn === renewal.confirmedLsn;
}

/**
 * The failure cycle of one slot: a session until it fails, `reconnect_timeout`, another session, until the signal aborts.
 * It never rejects: every failure is logged and tried again. Slots know nothing of each other, so none disturbs another.
 */
export async function runSlot(options: SlotRunnerOptions, stopSignal: AbortSignal): Promise<void> {
  const { config, stream, status, log } = options;
  const { reconnectTimeoutMs } = config;
  const memory = createSlotMemory();
  let reconnectReason: string | undefined;
  let renewal: Renewal | undefined;
  for (let reconnectCount = 0; !stopSignal.aborted; reconnectCount++) {
    let pauseMs = 0;
    try {
      await using session = new Session({ ...options, memory, reconnectCount, reconnectReason }, stopSignal);
      const outcome = await session.run();
      if (outcome === 'stopped') break;
      reconnectReason = outcome;
      const former = renewal;
      renewal = { reason: outcome, confirmedLsn: memory.remembered?.confirmedLsn };
      if (repeats(renewal, former)) pauseMs = reconnectTimeoutMs;
      status.enter('starting');
    } catch (thrown) {
      if (stopSignal.aborted && thrown instanceof Error && thrown.name === 'AbortError') break;
      const error = explainFailure(thrown).locate({ database: stream.databaseRef, slot: stream.slot });
      const { action, reason } = judgeFailure(thrown);
      reconnectReason = error.message;
      if (action !== 'wait_for_slot') noteStreamEnd(memory, error.code === 'server_silent');
      if (thrown instanceof RecordTooLargeError && (reconnectCount + 1) % REFUSED_TRIAL_ATTEMPTS === 0) {
        for (const limits of memory.sizeLimits.values()) forgetRefusedRecords(limits);
      }
      pauseMs = action === 'wait_for_slot' ? WAIT_FOR_SLOT_PAUSE_MS : reconnectTimeoutMs;
      if (action !== 'wait_for_slot') {
        status.noteFailure({ message: error.message, advice: error.advice, reason, atMs: Date.now() });
        status.enter(action === 'needs_operator' ? 'needs_operator' : 'retrying');
        log.error(
          { event: 'replication_failed', error, reason, reconnectCount: reconnectCount + 1, reconnectTimeoutMs },
          'replication failed, the service will start it again',
        );
      }
    }
    if (pauseMs > 0) await sleep(pauseMs, undefined, { signal: stopSignal }).catch(() => {});
  }
  status.enter('closed');
}
