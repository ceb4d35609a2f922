/** Whether a slot's stream does what it is there for: a pure verdict over what the slot says of itself. */
import { formatLsn } from '../lsn.ts';
import { type Moment, measureLag } from './lag.ts';
import type { SlotState, SlotStatus } from './slot-status.ts';

/** When it is asked, and what is asked for. */
export interface ReadinessOptions extends Moment {
  /** Nothing may wait longer for Kafka's acknowledgement */
  readonly inFlightLimitMs: number;
}

/** The verdict. */
export interface Readiness {
  readonly ready: boolean;
  /** Sentences for an operator, one for each thing that is wrong; empty exactly when it is ready */
  readonly reasons: readonly string[];
}

/** Says what is wrong; undefined when all is well. */
type Rule = (status: SlotStatus, options: ReadinessOptions) => string | undefined;

/** `wal_status` of a slot that has all the WAL it needs (PostgreSQL manual, pg_replication_slots). */
const HEALTHY_WAL_STATUSES: readonly string[] = ['reserved', 'extended'];

const HOLDER_SILENCE_LIMIT_MS = 60_000;

const unproven: Rule = (status) =>
  status.isProven && status.stream !== undefined ? undefined : `Nothing has been confirmed yet${afterFailure(status)}`;

/** What we do not read cannot be heard; there is no reason not to read but that Kafka has to catch up. */
const silentServer: Rule = ({ stream }, { nowMs }) => {
  if (stream === undefined || (stream.isPaused && stream.inFlightSinceMs !== undefined)) return undefined;
  const silenceMs = nowMs - stream.lastInboundMs;
  if (silenceMs <= stream.silenceLimitMs) return undefined;
  return `PostgreSQL has been silent for ${seconds(silenceMs)}; one that is alive answers within ${seconds(stream.silenceLimitMs)}`;
};

/** A walsender that waits (for a standby of synchronized_standby_slots, or for its disk) answers, and sends nothing. */
const stuckServer: Rule = ({ stream, server }, { nowMs, inFlightLimitMs }) => {
  if (stream === undefined || server === undefined || stream.isPaused) return undefined;
  if (server.serverLsn <= stream.receivedLsn) return undefined;
  const standsMs = nowMs - stream.standsSinceMs;
  // An idle server tells its position only when it is asked.
  if (standsMs <= inFlightLimitMs + stream.silenceLimitMs) return undefined;
  return `PostgreSQL has sent nothing behind ${formatLsn(stream.receivedLsn)} for ${seconds(standsMs)}, although its WAL ends at ${formatLsn(server.serverLsn)}; see synchronized_standby_slots, and wait_event of the walsender in pg_stat_activity`;
};

/** A process that streams says so every 15 s at least: one that is frozen keeps the slot without anybody being served. */
const silentHolder: Rule = ({ holder }) => {
  if (holder?.silentMs === undefined || holder.silentMs <= HOLDER_SILENCE_LIMIT_MS) return undefined;
  return `The process that has the slot has been silent for ${seconds(holder.silentMs)}; when it is gone for good, run SELECT pg_terminate_backend(${holder.pid});`;
};

const stuckKafka: Rule = (status, options) => {
  const { inFlightMs = 0 } = measureLag(status, options);
  if (inFlightMs <= options.inFlightLimitMs) return undefined;
  return `Kafka has not acknowledged what it was given ${seconds(inFlightMs)} ago; http.in_flight_limit is ${seconds(options.inFlightLimitMs)}`;
};

const unhealthySlot: Rule = ({ server }) => {
  const walStatus = server?.walStatus;
  if (walStatus === undefined || HEALTHY_WAL_STATUSES.includes(walStatus)) return undefined;
  return `wal_status of the slot is ${walStatus}: PostgreSQL removes WAL that is still needed; see what holds the stream back, and raise max_slot_wal_keep_size`;
};

const unreachableBrokers: Rule = ({ stream }) =>
  stream?.areBrokersReachable === false ? 'A Kafka cluster of the slot cannot be reached' : undefined;

/** What is looked at in each state. */
const RULES: Readonly<Record<SlotState, readonly Rule[]>> = {
  starting: [(status) => `Connecting and checking PostgreSQL and Kafka${afterFailure(status)}`, unhealthySlot],
  // The process that streams answers for the stream; this one waits for it, as it should.
  standby: [silentHolder],
  streaming: [unproven, silentServer, stuckServer, stuckKafka, unhealthySlot, unreachableBrokers],
  retrying: [(status) => `To be tried again soon${afterFailure(status)}`, unhealthySlot],
  needs_operator: [(status) => `Needs an operator${afterFailure(status)}`, unhealthySlot],
  closed: [() => 'The service is stopping'],
};

/** True of a stream that moves what there is to move, and of a standby. */
export function judgeReadiness(status: SlotStatus, options: ReadinessOptions): Readiness {
  const reasons = RULES[status.state].map((rule) => rule(status, options)).filter((reason) => reason !== undefined);
  return { ready: reasons.length === 0, reasons };
}

function afterFailure({ consecutiveFailureCount, lastFailure }: SlotStatus): string {
  if (consecutiveFailureCount === 0 || lastFailure === undefined) return '';
  const advice = lastFailure.advice === undefined ? '' : `. ${lastFailure.advice}`;
  return `, after failure ${consecutiveFailureCount} in a row: ${lastFailure.message}${advice}`;
}

function seconds(ms: number): string {
  return `${Math.round(ms / 100) / 10} s`;
}
