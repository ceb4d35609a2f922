/** How far a slot's stream lags: the differences that readiness, report and metrics are based on. */
import type { SlotStatus } from './slot-status.ts';

/** One moment on both clocks that a status uses. */
export interface Moment {
  /** performance.now(), ms */
  readonly nowMs: number;
  /** Date.now(), ms since 1970 */
  readonly wallMs: number;
}

/** Unknown values are undefined, never 0: that would say that all is well. */
export interface Lag {
  /** WAL between the position acknowledged by Kafka and the last known end of the server's WAL */
  readonly bytes: number | undefined;
  /** Age of the oldest commit received and not confirmed, by the server's clock; 0 when there is none */
  readonly ms: number | undefined;
  /** Age of the oldest row received and not acknowledged by Kafka; 0 when there is none */
  readonly inFlightMs: number | undefined;
}

const UNKNOWN: Lag = { bytes: undefined, ms: undefined, inFlightMs: undefined };

/** The moment of the call, on both clocks. */
export function presentMoment(): Moment {
  return { nowMs: performance.now(), wallMs: Date.now() };
}

/**
 * The lag of a slot's stream. Before the first stream of this process the slot itself tells what is not confirmed, as when
 * Kafka is away from the start. While the slot does not stream, nothing is in flight, and the oldest unconfirmed commit of
 * its last session continues to age. The lag of a standby is unknown: only the slot holder knows it.
 */
export function measureLag(status: SlotStatus, { nowMs, wallMs }: Moment): Lag {
  const { state, stream, server } = status;
  if (state === 'standby') return UNKNOWN;
  if (stream === undefined) return { ...UNKNOWN, bytes: slotLagBytes(server) };
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

function slotLagBytes(server: SlotStatus['server']): number | undefined {
  return server?.confirmedFlushLsn === undefined ? undefined : Number(server.serverLsn - server.confirmedFlushLsn);
}
