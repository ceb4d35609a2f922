import type { FailureReason } from '../failure-policy.ts';
import type { Lsn } from '../lsn.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import { SlotWarnings } from './slot-warnings.ts';

/**
 * - `starting`: connecting and checking
 * - `standby`: another process streams from the slot; this one takes over when the slot is released
 * - `streaming`
 * - `retrying`: failed; the next attempt follows after `reconnect_timeout`
 * - `needs_operator`: failed, and only an operator can fix it; tried again every `reconnect_timeout`
 * - `closed`: the service is stopping, or has stopped
 */
export type SlotState = 'starting' | 'standby' | 'streaming' | 'retrying' | 'needs_operator' | 'closed';

/** Rows or records of one namespace since the process started, by kind of record. */
export interface KindCounts {
  event: number;
  lifecycle: number;
}

/** Rows of one namespace since the process started, by outcome. */
export interface NamespaceCounts {
  /** Row changes received; most updates of processes produce no record */
  readonly received: KindCounts;
  /** Records that they were converted to */
  readonly converted: KindCounts;
  /** Records acknowledged by Kafka */
  readonly produced: KindCounts;
  /** Rows that could not be converted or delivered, and that Kafka acknowledged in the parking topic */
  readonly parked: KindCounts;
  /** Updates skipped by `on_missing_old_tuple: skip` */
  readonly skipped: KindCounts;
}

/** Position and health of a running session. Times are performance.now() in ms unless they say otherwise. */
export interface StreamView {
  /** Received from PostgreSQL */
  readonly receivedLsn: Lsn;
  /** Acknowledged by Kafka */
  readonly flushedLsn: Lsn;
  /** Arrival of the last message from the server */
  readonly lastInboundMs: number;
  /** A live server is never silent for longer: by then it has answered our keepalive */
  readonly silenceLimitMs: number;
  /** Last rise of `receivedLsn`, or last data received */
  readonly lastProgressMs: number;
  /** Reading from PostgreSQL is paused until Kafka catches up */
  readonly isPaused: boolean;
  /** Arrival of the oldest row that Kafka has not acknowledged; undefined when there is none */
  readonly inFlightSinceMs: number | undefined;
  /** Commit time, by the server's clock, of the oldest commit received and not confirmed, ms since 1970; undefined when there is none */
  readonly oldestCommitTimeMs: number | undefined;
  /** The last contact with every Kafka cluster of the slot succeeded */
  readonly areBrokersReachable: boolean;
}

/** The slot's row in pg_replication_slots, read at intervals. */
export interface ServerSlotView {
  /** `reserved`, `extended`, `unreserved`, `lost` */
  readonly walStatus: string | undefined;
  /** WAL that the server keeps for the slot */
  readonly retainedWalBytes: number | undefined;
  /** WAL that can be written before the slot may be invalidated; undefined = no limit (max_slot_wal_keep_size -1) */
  readonly safeWalBytes: number | undefined;
  /** Position that the server has stored as confirmed; undefined for a slot without one */
  readonly confirmedFlushLsn: Lsn | undefined;
  /** End of the server's WAL when the row was read */
  readonly serverLsn: Lsn;
  /** Walsender that holds the slot */
  readonly activePid: number | undefined;
}

/** The slot holder, as seen by a standby. */
export interface HolderView {
  /** Process id of its walsender */
  readonly pid: number;
  /** Time since its last message to the server; undefined where our role may not see it */
  readonly silentMs: number | undefined;
}

/** What a standby found when it last checked everything that it needs to take over. */
export interface TakeoverView {
  /** What would keep it from delivering; undefined = nothing */
  readonly failure: FailureView | undefined;
}

/** Why an attempt to stream failed: message and advice for an operator, reason for a counter. */
export interface FailureView {
  readonly message: string;
  readonly advice: string | undefined;
  readonly reason: FailureReason;
  /** ms since 1970 */
  readonly atMs: number;
}

/**
 * State, positions and counters of one slot. Its sessions write here, plain numbers on the record path; the HTTP listener
 * reads. It decides nothing: `readiness.ts` judges whether the stream is ready.
 */
export class SlotStatus {
  /** db_ref */
  readonly database: string;
  readonly slot: string;
  /** By name, in the order of the configuration */
  readonly namespaces: ReadonlyMap<string, NamespaceCounts>;
  /** From the commit, by the server's clock, to the receipt of its Commit message */
  readonly commitReceive = new LatencyHistogram();
  /** From the commit, by the server's clock, until Kafka has acknowledged everything up to it */
  readonly commitAcknowledge = new LatencyHistogram();
  /** From a Produce request to its response */
  readonly produceRoundTrip = new LatencyHistogram();
  /** Failed attempts by reason */
  readonly failureCounts = new Map<string, number>();
  receivedBytes = 0;
  /** Bytes of record batches that Kafka responded to, resends included */
  producedBytes = 0;
  producedBatchCount = 0;
  /** Resends of batches that Kafka did not acknowledge, by Kafka's error name */
  readonly resendCounts = new Map<string, number>();
  /** Of the current or the last session */
  stream: StreamView | undefined;
  server: ServerSlotView | undefined;
  /** As last seen; set on a standby only */
  holder: HolderView | undefined;
  /** Set on a standby only, once it has checked */
  takeover: TakeoverView | undefined;
  /** What is wrong while the stream goes on */
  readonly warnings = new SlotWarnings();
  lastFailure: FailureView | undefined;
  /** Failed attempts since a position was last confirmed */
  consecutiveFailureCount = 0;
  #state: SlotState = 'starting';
  /** ms since 1970 */
  #stateSinceMs = Date.now();
  #isProven = false;

  constructor(options: {
    readonly database: string;
    readonly slot: string;
    readonly namespaces: Iterable<string>;
  }) {
    this.database = options.database;
    this.slot = options.slot;
    this.namespaces = new Map(Array.from(options.namespaces, (name) => [name, createCounts()]));
  }

  get state(): SlotState {
    return this.#state;
  }

  /** Start of the current state, ms since 1970. */
  get stateSinceMs(): number {
    return this.#stateSinceMs;
  }

  /**
   * True when a position was confirmed since the last failure, or nothing was left to confirm. A stream that connects and
   * fails at the same row again and again is never proven.
   */
  get isProven(): boolean {
    return this.#isProven;
  }

  enter(state: SlotState): void {
    if (state === this.#state) return;
    // Only the slot holder knows them now; what this process saw while it held the slot is out of date.
    if (state === 'standby') {
      this.server = undefined;
      this.stream = undefined;
      this.warnings.forget();
    }
    this.#state = state;
    this.#stateSinceMs = Date.now();
  }

  /** Records that a position was confirmed, or that the stream is at the end of the WAL. */
  noteProven(): void {
    this.#isProven = true;
    this.consecutiveFailureCount = 0;
  }

  /** Counts a resend of batches. */
  noteResend(reason: string): void {
    this.resendCounts.set(reason, (this.resendCounts.get(reason) ?? 0) + 1);
  }

  /** Records a failed attempt. */
  noteFailure(failure: FailureView): void {
    this.#isProven = false;
    this.lastFailure = failure;
    this.consecutiveFailureCount++;
    this.failureCounts.set(failure.reason, (this.failureCounts.get(failure.reason) ?? 0) + 1);
  }
}

function createCounts(): NamespaceCounts {
  const none = (): KindCounts => ({ event: 0, lifecycle: 0 });
  return { received: none(), converted: none(), produced: none(), parked: none(), skipped: none() };
}
