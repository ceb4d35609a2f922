/** How far a slot's stream is behind: the few differences that readiness, report and metrics are made of. */
import type { SlotStatus } from './slot-status.ts';

/** One moment on both clocks that a status refers to. */
export interface Moment {
  /** performance.now(), ms */
  readonly nowMs: number;
  /** Date.now(), ms since 1970 */
  readonly wallMs: number;
}

/** What is not known at that moment is undefined: never 0, which would say that all is well. */
export interface Lag {
  /** WAL between what Kafka has acknowledged and the end of the server's WAL, as far as it was last seen */
  readonly bytes: number | undefined;
  /** Age of the oldest commit that is received and not confirmed, by the server's clock; 0 when there is none */
  readonly ms: number | undefined;
  /** Age of the oldest thing that Kafka was given and has not acknowledged; 0 when there is none */
  readonly inFlightMs: number | undefined;
}

const UNKNOWN: Lag = { bytes: undefined, ms: undefined, inFlightMs: undefined };

/** The moment of the call. */
export function presentMoment(): Moment {
  return { nowMs: performance.now(), wallMs: Date.now() };
}

/**
 * While a slot does not stream, what its last session left unconfirmed goes on to age, and nothing is in flight. Of a
 * standby nothing is known: the process that streams knows it.
 */
export function measureLag(status: SlotStatus, { nowMs, wallMs }: Moment): Lag {
  const { state, stream, server } = status;
  if (stream === undefined || state === 'standby') return UNKNOWN;
  const { receivedLsn, flushedLsn, oldestCommitTimeMs, inFlightSinceMs } = stream;
  const endLsn = server === undefined || server.serverLsn < receivedLsn ? receivedLsn : server.serverLsn;
  const isStreaming = state === 'streaming';
  const none = isStreaming ? 0 : undefined;
  return {
    bytes: Math.max(0, Number(endLsn - flushedLsn)),
    ms: oldestCommitTimeMs === undefined ? none : Math.max(0, wallMs - oldestCommitTimeMs),
    inFlightMs: isStreaming && inFlightSinceMs !== undefined ? Math.max(0, nowMs - inFlightSinceMs) : none,
  };
}
