/**
 * When to send a status, when to ask the server for a reply, and when to give the connection up: pure arithmetic on
 * timestamps, tested without a clock. Source: PostgreSQL manual, "Streaming Replication Protocol", and
 * `wal_sender_timeout`. All times are milliseconds of a monotonic clock.
 */

const LONGEST_STATUS_INTERVAL_MS = 15_000;
/** With `wal_sender_timeout = 0` the server never ends a silent connection; the service still needs to notice a dead server. */
const STATUS_INTERVAL_WITHOUT_TIMEOUT_MS = 10_000;
const ANSWER_TIMEOUT_WITHOUT_TIMEOUT_MS = 30_000;
const MOST_DOUBLINGS = 4;
/** A server that shuts down asks continuously; more frequent answers would tell it nothing new. */
const REPLY_SPACING_MS = 100;

/** The times that follow from the server's `wal_sender_timeout`. */
export interface LivenessTimings {
  /** Longest time between two statuses */
  readonly statusIntervalMs: number;
  /** The connection is dead when no byte arrives for this time after a request for a reply */
  readonly answerTimeoutMs: number;
}

/**
 * @param walSenderTimeoutMs the server's `wal_sender_timeout`, 0 = off
 * @param silentEndCount how many connections before this one ended in silence at the same position: each doubles the time that
 *   the server gets, up to 16 times, because it may be at work on what comes next
 */
export function livenessTimings(walSenderTimeoutMs: number, silentEndCount = 0): LivenessTimings {
  const patience = 2 ** Math.min(silentEndCount, MOST_DOUBLINGS);
  if (walSenderTimeoutMs === 0) {
    return {
      statusIntervalMs: STATUS_INTERVAL_WITHOUT_TIMEOUT_MS,
      answerTimeoutMs: ANSWER_TIMEOUT_WITHOUT_TIMEOUT_MS * patience,
    };
  }
  return {
    statusIntervalMs: Math.min(walSenderTimeoutMs / 3, LONGEST_STATUS_INTERVAL_MS),
    answerTimeoutMs: walSenderTimeoutMs * 2 * patience,
  };
}

/**
 * Longest silence of a healthy server: one interval until it is asked, and one for its answer. Shorter than the time after
 * which the connection is given up, because a stream that may be dead must not count as ready.
 */
export function silenceLimitMs({ statusIntervalMs }: LivenessTimings): number {
  return 2 * statusIntervalMs;
}

/** The facts that decide whether a status goes out now. */
export interface StatusSituation {
  readonly nowMs: number;
  readonly lastSentMs: number;
  /** The confirmed LSN has risen since the last status */
  readonly flushedMoved: boolean;
  /** Any of the numbers has risen since the last status */
  readonly numbersMoved: boolean;
  /** The server has asked for a status since the last one */
  readonly replyRequested: boolean;
  readonly statusIntervalMs: number;
}

/** True when a status is due. */
export function isStatusDue(situation: StatusSituation): boolean {
  const { nowMs, lastSentMs, flushedMoved, numbersMoved, replyRequested, statusIntervalMs } = situation;
  if (flushedMoved) return true;
  if (replyRequested && (numbersMoved || nowMs - lastSentMs >= REPLY_SPACING_MS)) return true;
  return nowMs - lastSentMs >= statusIntervalMs;
}

/** The facts that decide what the silence of the server means. */
export interface Silence {
  readonly nowMs: number;
  readonly lastInboundMs: number;
  /** When the service last asked for a keepalive; undefined when bytes have come in since, or it never asked */
  readonly askedMs: number | undefined;
  /** The service does not read at present, so that silence says nothing */
  readonly pausedByUs: boolean;
}

/** `ask`: send a status that requests a reply. `dead`: drop the connection. */
export type SilenceVerdict = 'fine' | 'ask' | 'dead';

/** An idle server that gets statuses in time sends nothing by itself: silence proves nothing, an unanswered request does. */
export function judgeSilence(silence: Silence, timings: LivenessTimings): SilenceVerdict {
  const { nowMs, lastInboundMs, askedMs, pausedByUs } = silence;
  if (pausedByUs) return 'fine';
  if (askedMs !== undefined) return nowMs - askedMs >= timings.answerTimeoutMs ? 'dead' : 'fine';
  return nowMs - lastInboundMs >= timings.statusIntervalMs ? 'ask' : 'fine';
}
