/**
 * The failure cycle of one slot: a session until it fails, `reconnect_timeout`, another session, for ever. Slots know
 * nothing of each other, so that none disturbs another.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { RecordTooLargeError } from '../errors.ts';
import { explainSourceError } from '../failure-policy.ts';
import { judgeFailure } from './failure.ts';
import { createSlotMemory } from './memory.ts';
import { runSession, type SessionOptions } from './session.ts';

/** Which slot to follow, and with what. */
export type SlotRunnerOptions = Omit<SessionOptions, 'memory' | 'reconnectCount' | 'reconnectReason'>;

/** A slot that was released and taken again in between: the next session stands by, after no more than this. */
const STANDBY_PAUSE_MS = 250;

/**
 * How many attempts a record that was refused is held back before it is sent again: each time, what stands before it in its
 * transaction is repeated, but a limit that we may not read is seen to be raised in no other way.
 */
const REFUSED_TRIAL_ATTEMPTS = 12;

/** Follows the slot until the signal. Never rejects: whatever happens is logged and tried again. */
export async function runSlot(options: SlotRunnerOptions, stopSignal: AbortSignal): Promise<void> {
  const { config, stream, status, log } = options;
  const memory = createSlotMemory();
  let reconnectReason: string | undefined;
  for (let reconnectCount = 0; !stopSignal.aborted; reconnectCount++) {
    let pauseMs = 0;
    try {
      const outcome = await runSession({ ...options, memory, reconnectCount, reconnectReason }, stopSignal);
      if (outcome === 'stopped') break;
      reconnectReason = outcome;
      status.enter('starting');
    } catch (thrown) {
      if (stopSignal.aborted && thrown instanceof Error && thrown.name === 'AbortError') break;
      const error = explainSourceError(thrown).locate({ database: stream.databaseRef, slot: stream.slot });
      const { action, reason } = judgeFailure(thrown);
      reconnectReason = error.message;
      if (thrown instanceof RecordTooLargeError && (reconnectCount + 1) % REFUSED_TRIAL_ATTEMPTS === 0) {
        for (const { refusedRecords } of memory.topicLimits.values()) refusedRecords.clear();
      }
      if (action === 'standby') {
        pauseMs = STANDBY_PAUSE_MS;
      } else {
        pauseMs = config.reconnectTimeoutMs;
        status.noteFailure({ message: error.message, advice: error.advice, reason, atMs: Date.now() });
        status.enter(action === 'stop' ? 'needs_operator' : 'retrying');
        log.error(
          { error, reason, reconnectCount: reconnectCount + 1, reconnectTimeoutMs: config.reconnectTimeoutMs },
          'replication failed, it will be started again',
        );
      }
    }
    if (pauseMs > 0) await sleep(pauseMs, undefined, { signal: stopSignal }).catch(() => {});
  }
  status.enter('closed');
}
