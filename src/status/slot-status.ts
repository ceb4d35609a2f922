/**
 * What one slot says of itself. Its sessions write here, plain numbers on the record path; the HTTP listener reads.
 * Nothing in here decides anything: whether a stream is ready is `readiness.ts`'s verdict.
 */
import type { Lsn } from '../lsn.ts';
import { LatencyHistogram } from './latency-histogram.ts';

/**
 * - `starting`: connecting and checking
 * - `standby`: another process streams from the slot, this one takes over when it is released
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

/** What became of the rows of one namespace since the process started. */
export interface NamespaceCounts {
  /** Row changes that came in; of most updates of processes nothing is to be told */
  readonly received: KindCounts;
  /** Records made of them */
  readonly converted: KindCounts;
  /** Records that Kafka has acknowledged */
  readonly produced: KindCounts;
  /** Rows that could not be delivered and went to the parking topic, acknowledged there */
  readonly parked: KindCounts;
  /** Updates passed over by `on_missing_old_tuple: skip` */
  readonly skipped: KindCounts;
}

/** What a running session knows at any moment. Times without a name of their own are performance.now(), in ms. */
export interface StreamView {
  /** Received by us */
  readonly receivedLsn: Lsn;
  /** Acknowledged by Kafka */
  readonly flushedLsn: Lsn;
  /** When the server was last heard of */
  readonly lastInboundMs: number;
  /** A server that is alive is never silent for longer: by then it has answered our question */
  readonly silenceLimitMs: number;
  /** Since when `receivedLsn` has not risen */
  readonly standsSinceMs: number;
  /** We do not read at present, because Kafka has to catch up */
  readonly isPaused: boolean;
  /** Since when the oldest thing that Kafka has not acknowledged is with us; undefined when there is none */
  readonly inFlightSinceMs: number | undefined;
  /** Wall clock of the oldest commit that is received and not confirmed, ms since 1970; undefined when there is none */
  readonly oldestCommitTimeMs: number | undefined;
  /** The last contact with every Kafka cluster of the slot succeeded */
  readonly areBrokersReachable: boolean;
}

/** The slot as the server describes it (pg_replication_slots), asked for at intervals. */
export interface ServerSlotView {
  /** `reserved`, `extended`, `unreserved`, `lost` */
  readonly walStatus: string | undefined;
  /** WAL that the server keeps for the slot */
  readonly retainedWalBytes: number | undefined;
  /** WAL that may still be written before the slot is in danger; undefined = no limit (max_slot_wal_keep_size -1) */
  readonly safeWalBytes: number | undefined;
  /** Where the server's WAL ended then */
  readonly serverLsn: Lsn;
  /** Process that has the slot */
  readonly activePid: number | undefined;
}

/** The process that has the slot while this one stands by. */
export interface HolderView {
  /** Of its walsender */
  readonly pid: number;
  /** Since when the server has not heard of it; undefined where our role may not know */
  readonly silentMs: number | undefined;
}

/** Why an attempt to stream ended, for a person and for a counter. */
export interface FailureView {
  readonly message: string;
  readonly advice: string | undefined;
  /** Short and fixed: `server-stopping`, `kafka-refused` */
  readonly reason: string;
  /** ms since 1970 */
  readonly atMs: number;
}

/** See the head of this file. */
export class SlotStatus {
  /** db_ref */
  readonly database: string;
  readonly slot: string;
  /** By name, in the order of the configuration */
  readonly namespaces: ReadonlyMap<string, NamespaceCounts>;
  /** From the commit on the server's clock to the receipt of its Commit */
  readonly commitReceive = new LatencyHistogram();
  /** From the commit on the server's clock until all up to it was acknowledged */
  readonly commitAcknowledge = new LatencyHistogram();
  /** From a Produce request to its answer */
  readonly produceRoundTrip = new LatencyHistogram();
  /** Failed attempts by reason */
  readonly failureCounts = new Map<string, number>();
  receivedBytes = 0;
  /** Bytes of record batches that Kafka answered for, resends included */
  producedBytes = 0;
  producedBatchCount = 0;
  /** How often batches were sent again because Kafka did not acknowledge them, by Kafka's name of why */
  readonly resendCounts = new Map<string, number>();
  /** Of the present or the last session */
  stream: StreamView | undefined;
  server: ServerSlotView | undefined;
  /** As it was last seen; of a standby only */
  holder: HolderView | undefined;
  lastFailure: FailureView | undefined;
  /** Attempts that failed since something was last confirmed */
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

  /** When the present state began, ms since 1970. */
  get stateSinceMs(): number {
    return this.#stateSinceMs;
  }

  /**
   * True when something was confirmed since the last failure, or nothing was left to confirm: a stream that connects and
   * fails at the same row again and again is never proven.
   */
  get isProven(): boolean {
    return this.#isProven;
  }

  enter(state: SlotState): void {
    if (state === this.#state) return;
    // The process that streams knows; what this one saw when it had the slot is true no more.
    if (state === 'standby') {
      this.server = undefined;
      this.stream = undefined;
    }
    this.#state = state;
    this.#stateSinceMs = Date.now();
  }

  /** The stream has moved, or stands at the end of the WAL. */
  noteProven(): void {
    this.#isProven = true;
    this.consecutiveFailureCount = 0;
  }

  /** Batches are sent again. */
  noteResend(reason: string): void {
    this.resendCounts.set(reason, (this.resendCounts.get(reason) ?? 0) + 1);
  }

  /** An attempt has failed. */
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
