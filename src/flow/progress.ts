import type { Lsn } from '../lsn.ts';

/** A commit whose records are not all acknowledged. */
interface PendingCommit {
  endLsn: Lsn;
  /** Server's clock at the commit, microseconds since 2000-01-01 UTC */
  readonly commitTimeMicros: bigint;
  /** Ordinal of the last record at or before this commit */
  readonly lastOrdinal: number;
  /** End of the transaction that made the last record; later commits without records only move `endLsn` */
  readonly recordEndLsn: Lsn | undefined;
}

/**
 * Which LSN may be confirmed to PostgreSQL: the accounting of one session, without any I/O.
 *
 * Every record of a session has an ordinal: 1, 2, 3 ... in WAL order. A commit is durable when every record up to it is
 * acknowledged, that is, when its last ordinal is lower than the lowest unacknowledged one. Two positions go to the server,
 * and both only rise: `written`, received by the service, and `flushed`, acknowledged by Kafka.
 */
export class Progress {
  #written: Lsn;
  #flushed: Lsn;
  /** Commits not yet durable, oldest first; those before #firstPending are durable and await a cheap removal */
  #pending: PendingCommit[] = [];
  #firstPending = 0;
  #lastOrdinal = 0;
  #lastOrdinalOfCommits = 0;
  #delivered: Lsn | undefined;
  /** Lowest unacknowledged ordinal; one past the last when all are acknowledged */
  #lowestUnacknowledged = 1;
  #inTransaction = false;
  /** Highest position between transactions up to which everything was received */
  #idleLsn: Lsn;
  readonly #onDurable: (commitTimeMicros: bigint) => void;

  /**
   * @param confirmedFlushLsn of the slot: no lower position is ever reported
   * @param onDurable called for each commit that has become durable, with the server's clock at that commit; commits
   *   without records after a pending one count as one with it
   */
  constructor(confirmedFlushLsn: Lsn, onDurable: (commitTimeMicros: bigint) => void = () => {}) {
    this.#onDurable = onDurable;
    this.#written = confirmedFlushLsn;
    this.#flushed = confirmedFlushLsn;
    this.#idleLsn = confirmedFlushLsn;
  }

  /** Received by the service. */
  get written(): Lsn {
    return this.#written;
  }

  /** Acknowledged by Kafka without a gap: the position to confirm. */
  get flushed(): Lsn {
    return this.#flushed;
  }

  /**
   * End of the last confirmed transaction that made a record; undefined without one. When the server's WAL takes another
   * course after this position, no record is missing, even if keepalives have confirmed more since.
   */
  get delivered(): Lsn | undefined {
    return this.#delivered;
  }

  /** True when every record of every commit that was received is acknowledged, and no transaction is being received. */
  get isIdle(): boolean {
    return !this.#inTransaction && this.#firstPending === this.#pending.length && this.#allAcknowledged;
  }

  /** Number of records that the session has made so far. */
  get lastOrdinal(): number {
    return this.#lastOrdinal;
  }

  /** Server's clock at the oldest commit that is not durable, microseconds since 2000-01-01 UTC; undefined when all are. */
  get oldestPendingCommitMicros(): bigint | undefined {
    return this.#firstPending < this.#pending.length ? this.#pending[this.#firstPending]!.commitTimeMicros : undefined;
  }

  get #allAcknowledged(): boolean {
    return this.#lowestUnacknowledged > this.#lastOrdinal;
  }

  begin(): void {
    this.#inTransaction = true;
  }

  /** Numbers the next record; it counts as unacknowledged from now on. */
  nextOrdinal(): number {
    return ++this.#lastOrdinal;
  }

  /** A Commit was received. Its end LSN is confirmed, not its commit LSN: that would bring the transaction again. */
  commit(endLsn: Lsn, commitTimeMicros: bigint): void {
    this.#inTransaction = false;
    this.received(endLsn);
    const last = this.#firstPending < this.#pending.length ? this.#pending.at(-1) : undefined;
    // A commit without records is durable with the one before it, so that many of them take no memory.
    if (last?.lastOrdinal === this.#lastOrdinal) last.endLsn = endLsn;
    else {
      const recordEndLsn = this.#lastOrdinal > this.#lastOrdinalOfCommits ? endLsn : undefined;
      this.#pending.push({ endLsn, commitTimeMicros, lastOrdinal: this.#lastOrdinal, recordEndLsn });
    }
    this.#lastOrdinalOfCommits = this.#lastOrdinal;
    this.#settle();
  }

  /** Data was received up to this position. Frames without a position (Relation, Type) carry 0 and change nothing. */
  received(lsn: Lsn): void {
    if (lsn > this.#written) this.#written = lsn;
  }

  /**
   * A keepalive reported the end of the server's WAL. Inside a transaction that is no position to resume from; between
   * transactions it is, once nothing before it is unacknowledged. Without this an idle slot would retain WAL without end.
   */
  keepalive(walEnd: Lsn): void {
    this.received(walEnd);
    if (!this.#inTransaction) this.reached(walEnd);
  }

  /** Between transactions: nothing before this position is still to be received, for example because it is not owed. */
  reached(lsn: Lsn): void {
    this.received(lsn);
    if (lsn > this.#idleLsn) this.#idleLsn = lsn;
    this.#settle();
  }

  /** Kafka has acknowledged every record below this ordinal; Infinity when nothing is outstanding. */
  acknowledgedBelow(ordinal: number): void {
    const lowest = Math.min(ordinal, this.#lastOrdinal + 1);
    if (lowest > this.#lowestUnacknowledged) this.#lowestUnacknowledged = lowest;
    this.#settle();
  }

  #settle(): void {
    // Records numbered since then may all be unacknowledged; those below never become so again.
    while (this.#firstPending < this.#pending.length) {
      const commit = this.#pending[this.#firstPending]!;
      if (commit.lastOrdinal >= this.#lowestUnacknowledged) break;
      if (commit.endLsn > this.#flushed) this.#flushed = commit.endLsn;
      if (commit.recordEndLsn !== undefined) this.#delivered = commit.recordEndLsn;
      this.#firstPending++;
      this.#onDurable(commit.commitTimeMicros);
    }
    if (this.#firstPending > 1024 && this.#firstPending * 2 > this.#pending.length) {
      this.#pending = this.#pending.slice(this.#firstPending);
      this.#firstPending = 0;
    }
    if (this.isIdle && this.#idleLsn > this.#flushed) this.#flushed = this.#idleLsn;
  }
}
