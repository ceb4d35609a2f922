/** The JSON of `/ready`, `/health` and `/status`. Unknown values are null, so every key is always present. */
import { formatLsn, type Lsn } from '../lsn.ts';
import { type Moment, measureLag } from './lag.ts';
import { type Health, judgeHealth, judgeReadiness, type Readiness, type ReadinessOptions } from './readiness.ts';
import type { NamespaceCounts, SlotState, SlotStatus } from './slot-status.ts';

/** Response of `/ready`. */
export interface ReadinessReport {
  /** True when every stream is ready */
  readonly ready: boolean;
  readonly streams: readonly StreamReadinessReport[];
}

/** Which stream a report is about. A standby can be ready and healthy too; see `state`. */
interface StreamIdentity {
  /** db_ref */
  readonly database: string;
  readonly slot: string;
  readonly state: SlotState;
}

/** One stream in the response of `/ready`. */
export interface StreamReadinessReport extends StreamIdentity, Readiness {}

/** Response of `/health`. */
export interface HealthReport {
  /** True when every stream is healthy */
  readonly healthy: boolean;
  readonly streams: readonly StreamHealthReport[];
}

/** One stream in the response of `/health`. */
export interface StreamHealthReport extends StreamIdentity, Health {}

/** One stream in the response of `/status`. LSNs in PostgreSQL's text form, times in RFC 3339. */
export interface StreamReport extends StreamIdentity {
  /** Start of the state */
  readonly since: string;
  readonly receivedLsn: string | null;
  /** Acknowledged by Kafka */
  readonly flushedLsn: string | null;
  /** See `Lag` */
  readonly lagBytes: number | null;
  readonly lagSeconds: number | null;
  readonly oldestInFlightSeconds: number | null;
  readonly lastError: {
    readonly message: string;
    readonly advice: string | null;
    readonly reason: string;
    readonly at: string;
  } | null;
  /** What is wrong while the stream goes on, see `SlotWarning` */
  readonly warnings: readonly {
    readonly code: string;
    readonly subject: string;
    readonly message: string;
    readonly advice: string;
    readonly since: string;
  }[];
  /** Failed attempts since the process started, by reason */
  readonly failures: Readonly<Record<string, number>>;
  /** Repeated sends since the process started, by Kafka's error name */
  readonly resends: Readonly<Record<string, number>>;
  /** Failed attempts since a position was last confirmed */
  readonly consecutiveFailures: number;
  /** As in pg_replication_slots, like the three below */
  readonly walStatus: string | null;
  readonly retainedWalBytes: number | null;
  readonly safeWalBytes: number | null;
  readonly activePid: number | null;
  /** Since the process started */
  readonly namespaces: Readonly<Record<string, NamespaceCounts>>;
}

/** Readiness of all streams, for `/ready`. */
export function reportReadiness(statuses: readonly SlotStatus[], options: ReadinessOptions): ReadinessReport {
  const streams = statuses.map((status) => ({ ...identityOf(status), ...judgeReadiness(status, options) }));
  return { ready: streams.every(({ ready }) => ready), streams };
}

/** Health of all streams, for `/health`. */
export function reportHealth(statuses: readonly SlotStatus[], options: ReadinessOptions): HealthReport {
  const streams = statuses.map((status) => ({ ...identityOf(status), ...judgeHealth(status, options) }));
  return { healthy: streams.every(({ healthy }) => healthy), streams };
}

function identityOf({ database, slot, state }: SlotStatus): StreamIdentity {
  return { database, slot, state };
}

/** One stream, for `/status`. */
export function reportStream(status: SlotStatus, moment: Moment): StreamReport {
  const { stream, server, lastFailure } = status;
  const lag = measureLag(status, moment);
  return {
    database: status.database,
    slot: status.slot,
    state: status.state,
    since: formatTime(status.stateSinceMs),
    receivedLsn: lsnText(stream?.receivedLsn),
    flushedLsn: lsnText(stream?.flushedLsn),
    lagBytes: lag.bytes ?? null,
    lagSeconds: seconds(lag.ms),
    oldestInFlightSeconds: seconds(lag.inFlightMs),
    lastError:
      lastFailure === undefined
        ? null
        : {
            message: lastFailure.message,
            advice: lastFailure.advice ?? null,
            reason: lastFailure.reason,
            at: formatTime(lastFailure.atMs),
          },
    warnings: status.warnings.current.map(({ sinceMs, ...warning }) => ({ ...warning, since: formatTime(sinceMs) })),
    failures: Object.fromEntries(status.failureCounts),
    resends: Object.fromEntries(status.resendCounts),
    consecutiveFailures: status.consecutiveFailureCount,
    walStatus: server?.walStatus ?? null,
    retainedWalBytes: server?.retainedWalBytes ?? null,
    safeWalBytes: server?.safeWalBytes ?? null,
    activePid: server?.activePid ?? null,
    namespaces: Object.fromEntries(status.namespaces),
  };
}

function lsnText(lsn: Lsn | undefined): string | null {
  return lsn === undefined ? null : formatLsn(lsn);
}

function formatTime(ms: number): string {
  return new Date(ms).toISOString();
}

/** To the millisecond: further digits are noise of the arithmetic. */
function seconds(ms: number | undefined): number | null {
  return ms === undefined ? null : Math.round(ms) / 1000;
}
