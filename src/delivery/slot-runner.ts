/**
 * The failure cycle of one slot: a session until it fails, `reconnect_timeout`, another session, for ever. Slots know
 * nothing of each other, so that none disturbs another.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { explainSourceError } from '../postgres/explain.ts';
import { runSession, type SessionOptions } from './session.ts';
import { createSlotMemory } from './slot-memory.ts';

/** Which slot to follow, and with what. */
export type SlotRunnerOptions = Omit<SessionOptions, 'memory' | 'reconnectCount' | 'reconnectReason'>;

/** Follows the slot until the signal. Never rejects: whatever happens is logged and tried again. */
export async function runSlot(options: SlotRunnerOptions, stopSignal: AbortSignal): Promise<void> {
  const { config, stream, log } = options;
  const memory = createSlotMemory();
  let reconnectReason: string | undefined;
  for (let reconnectCount = 0; !stopSignal.aborted; reconnectCount++) {
    try {
      const outcome = await runSession({ ...options, memory, reconnectCount, reconnectReason }, stopSignal);
      if (outcome === 'stopped') return;
      reconnectReason = 'publication boundary';
    } catch (thrown) {
      if (stopSignal.aborted && thrown instanceof Error && thrown.name === 'AbortError') return;
      const error = explainSourceError(thrown).locate({ database: stream.databaseRef, slot: stream.slot });
      reconnectReason = error.message;
      log.error(
        { error, reconnectCount: reconnectCount + 1, reconnectTimeoutMs: config.reconnectTimeoutMs },
        'replication failed, it will be started again',
      );
      await sleep(config.reconnectTimeoutMs, undefined, { signal: stopSignal }).catch(() => {});
    }
  }
}
