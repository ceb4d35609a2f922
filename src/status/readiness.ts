/**
 * Judges from a slot's status alone whether this process does its part (`/ready`), and whether the stream is well (`/health`):
 * a row that no process can convert makes every process unhealthy and none unready, so that it blocks no rollout. Pure.
 */
import { type Concern, concernOf } from '../failure-policy.ts';
import { formatLsn } from '../lsn.ts';
import { type Moment, measureLag } from './lag.ts';
import type { SlotState, SlotStatus } from './slot-status.ts';

/** Options of `judgeReadiness`: the moment to judge, and the limit. */
export interface ReadinessOptions extends Moment {
  /** Longest time that a row may wait for Kafka's acknowledgment */
  readonly inFlightLimitMs: number;
}

/** Result of `judgeReadiness`. */
export interface Readiness {
  readonly ready: boolean;
  /** Sentences for an operator, one for each problem; empty exactly when the stream is ready */
  readonly reasons: readonly string[];
}

/** Result of `judgeHealth`. */
export interface Health {
  readonly healthy: boolean;
  /** Sentences for an operator, one for each problem; empty exactly when the stream is healthy */
  readonly reasons: readonly string[];
}

/** A problem: a sentence for an operator, and what it belongs to. */
interface Problem {
  readonly reason: string;
  readonly concern: Concern;
}

/** Returns a problem; undefined when there is none. */
type Rule = (status: SlotStatus, options: ReadinessOptions) => Problem | undefined;

const ofInstance = (reason: string): Problem => ({ reason, concern: 'instance' });
const ofStream = (reason: string): Problem => ({ reason, concern: 'stream' });

/** `wal_status` of a slot whose WAL is all there (PostgreSQL manual, pg_replication_slots). */
const HEALTHY_WAL_STATUSES: readonly string[] = ['reserved', 'extended'];

const HOLDER_SILENCE_LIMIT_MS = 60_000;

const unproven: Rule = (status) =>
  status.isProven && status.stream !== undefined ? undefined : unfinished('Nothing has been confirmed yet', status);

/** Not a problem while reading is paused for Kafka: the server's messages then wait in the socket. */
const silentServer: Rule = ({ stream }, { nowMs }) => {
  if (stream === undefined || (stream.isPaused && stream.inFlightSinceMs !== undefined)) return undefined;
  const silenceMs = nowMs - stream.lastInboundMs;
  if (silenceMs <= stream.silenceLimitMs) return undefined;
  return ofInstance(
    `PostgreSQL has been silent for ${seconds(silenceMs)}; a live server answers within ${seconds(stream.silenceLimitMs)}`,
  );
};

/** A walsender that waits (for a standby of synchronized_standby_slots, or for its disk) answers keepalives but sends no WAL. */
const stuckServer: Rule = ({ stream, server }, { nowMs, inFlightLimitMs }) => {
  if (stream === undefined || server === undefined || stream.isPaused) return undefined;
  if (server.serverLsn <= stream.receivedLsn) return undefined;
  const stalledMs = nowMs - stream.lastProgressMs;
  // An idle server reports its position only in reply to a keepalive.
  if (stalledMs <= inFlightLimitMs + stream.silenceLimitMs) return undefined;
  return ofStream(
    `PostgreSQL has sent nothing after ${formatLsn(stream.receivedLsn)} for ${seconds(stalledMs)}, although its WAL ends at ${formatLsn(server.serverLsn)}; check synchronized_standby_slots, and wait_event of the walsender in pg_stat_activity`,
  );
};

/** A slot holder sends a status at least every 15 s. A frozen one keeps the slot and delivers nothing. */
const silentHolder: Rule = ({ holder }) => {
  if (holder?.silentMs === undefined || holder.silentMs <= HOLDER_SILENCE_LIMIT_MS) return undefined;
  return ofStream(
    `The slot holder has been silent for ${seconds(holder.silentMs)}; if it is dead, run SELECT pg_terminate_backend(${holder.pid});`,
  );
};

/** A standby that could not deliver must not replace a process that can. */
const unfitForTakeover: Rule = ({ takeover }) => {
  if (takeover === undefined) return ofInstance('Checking whether this process could take the slot over');
  if (takeover.failure === undefined) return undefined;
  const { message, advice, reason } = takeover.failure;
  const remedy = advice === undefined ? '' : `. ${advice}`;
  return { reason: `This process could not take the slot over: ${message}${remedy}`, concern: concernOf(reason) };
};

const stuckKafka: Rule = (status, options) => {
  const { inFlightMs = 0 } = measureLag(status, options);
  if (inFlightMs <= options.inFlightLimitMs) return undefined;
  return ofInstance(
    `Kafka has not acknowledged a row received ${seconds(inFlightMs)} ago; http.in_flight_limit is ${seconds(options.inFlightLimitMs)}`,
  );
};

const unhealthySlot: Rule = ({ server }) => {
  const walStatus = server?.walStatus;
  if (walStatus === undefined || HEALTHY_WAL_STATUSES.includes(walStatus)) return undefined;
  return ofStream(
    `wal_status of the slot is ${walStatus}: PostgreSQL removes WAL that the slot still needs; find out what delays the stream, and raise max_slot_wal_keep_size`,
  );
};

const unreachableBrokers: Rule = ({ stream }) =>
  stream?.areBrokersReachable === false ? ofInstance('A Kafka cluster of the slot cannot be reached') : undefined;

const connecting: Rule = (status) => unfinished('Connecting and checking PostgreSQL and Kafka', status);

/** The rules of each state. */
const RULES: Readonly<Record<SlotState, readonly Rule[]>> = {
  starting: [connecting, unhealthySlot],
  // The slot holder answers for the stream.
  standby: [unfitForTakeover, silentHolder],
  streaming: [unproven, silentServer, stuckServer, stuckKafka, unhealthySlot, unreachableBrokers],
  retrying: [(status) => unfinished('Waiting for the next attempt', status), unhealthySlot],
  needs_operator: [(status) => unfinished('Needs an operator', status), unhealthySlot],
  closed: [() => ofInstance('The service is stopping')],
};

/**
 * True when nothing of this process keeps it from delivering, or from taking over: configuration, credentials, connections,
 * rights and topics are right. Another process would fail at the rest as well.
 */
export function judgeReadiness(status: SlotStatus, options: ReadinessOptions): Readiness {
  const reasons = findProblems(status, options)
    .filter(({ concern }) => concern === 'instance')
    .map(({ reason }) => reason);
  return { ready: reasons.length === 0, reasons };
}

/** True when the stream delivers what there is to deliver, and nothing threatens it. */
export function judgeHealth(status: SlotStatus, options: ReadinessOptions): Health {
  const problems = findProblems(status, options).map(({ reason }) => reason);
  const warnings = status.warnings.current.map(({ message, advice }) => `${message}. ${advice}`);
  const reasons = [...problems, ...warnings];
  return { healthy: reasons.length === 0, reasons };
}

function findProblems(status: SlotStatus, options: ReadinessOptions): readonly Problem[] {
  return RULES[status.state].map((rule) => rule(status, options)).filter((problem) => problem !== undefined);
}

/** Says why a stream is not at work; it belongs to what the last failure belongs to, or to this process after none. */
function unfinished(what: string, { consecutiveFailureCount, lastFailure }: SlotStatus): Problem {
  if (consecutiveFailureCount === 0 || lastFailure === undefined) return ofInstance(what);
  const advice = lastFailure.advice === undefined ? '' : `. ${lastFailure.advice}`;
  const reason = `${what}, after failure ${consecutiveFailureCount} in a row: ${lastFailure.message}${advice}`;
  return { reason, concern: concernOf(lastFailure.reason) };
}

function seconds(ms: number): string {
  return `${Math.round(ms / 100) / 10} s`;
}
