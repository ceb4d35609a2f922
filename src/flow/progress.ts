/**
 * What may be confirmed to PostgreSQL, and when: the accounting of one session, without any I/O.
 *
 * Every record of a session has an ordinal: 1, 2, 3 ... in WAL order. A commit is durable when every record up to it is
 * acknowledged, that is, when its last ordinal lies below the lowest ordinal that is not. Two numbers go to the server,
 * and both only ever rise: `written`, what we have received, and `flushed`, what Kafka has.
 */
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

/** See the head of this file. */
export class Progress {
  #written: Lsn;
  #flushed: Lsn;
  /** Commits not yet durable, oldest first; those before #firstPending are done and wait for a cheap removal. */
  #pending: PendingCommit[] = [];
  #firstPending = 0;
  #lastOrdinal = 0;
  #lastOrdinalOfCommits = 0;
  #delivered: Lsn | undefined;
  /** Lowest ordinal that is not acknowledged; one past the last when all are */
  #lowestUnacknowledged = 1;
  #inTransaction = false;
  /** WAL end of the last keepalive that came between transactions */
  #keepaliveLsn: Lsn;
  readonly #onDurable: (commitTimeMicros: bigint) => void;

  /**
   * @param confirmedFlushLsn where the slot stands: nothing below it is ever told to the server again
   * @param onDurable called for each commit that has become durable, with the server's clock at that commit; commits
   *   that made no record behind one that is pending count as one with it
   */
  constructor(confirmedFlushLsn: Lsn, onDurable: (commitTimeMicros: bigint) => void = () => {}) {
    this.#onDurable = onDurable;
    this.#written = confirmedFlushLsn;
    this.#flushed = confirmedFlushLsn;
    this.#keepaliveLsn = confirmedFlushLsn;
  }

  /** Received by us. */
  get written(): Lsn {
    return this.#written;
  }

  /** Acknowledged by Kafka, up to here and without a gap. */
  get flushed(): Lsn {
    return this.#flushed;
  }

  /**
   * End of the last transaction that made a record and is confirmed; undefined without one. The server's WAL may go
   * another way behind it without anybody missing anything, whatever keepalives have confirmed since.
   */
  get delivered(): Lsn | undefined {
    return this.#delivered;
  }

  /** True when every record of every commit that was received is acknowledged, and no transaction is being received. */
  get isIdle(): boolean {
    return !this.#inTransaction && this.#firstPending === this.#pending.length && this.#allAcknowledged;
  }

  /** Number of records that the session has made. */
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

  /** A Commit was received. Its end LSN is what is confirmed, not its commit LSN: that would bring it again. */
  commit(endLsn: Lsn, commitTimeMicros: bigint): void {
    this.#inTransaction = false;
    this.received(endLsn);
    const last = this.#firstPending < this.#pending.length ? this.#pending.at(-1) : undefined;
    // A commit that made no record is durable with the one before it: however many there are, they take no room.
    if (last?.lastOrdinal === this.#lastOrdinal) last.endLsn = endLsn;
    else {
      const recordEndLsn = this.#lastOrdinal > this.#lastOrdinalOfCommits ? endLsn : undefined;
      this.#pending.push({ endLsn, commitTimeMicros, lastOrdinal: this.#lastOrdinal, recordEndLsn });
    }
    this.#lastOrdinalOfCommits = this.#lastOrdinal;
    this.#settle();
  }

  /** Something was received up to here. Frames without a position (Relation, Type) carry 0 and change nothing. */
  received(lsn: Lsn): void {
    if (lsn > this.#written) this.#written = lsn;
  }

  /**
   * A keepalive told where the server's WAL ends. Inside a transaction that is no place to resume from; outside it is,
   * once nothing before it is queued or in flight. Without it an idle slot would hold WAL for ever.
   */
  keepalive(walEnd: Lsn): void {
    this.received(walEnd);
    if (!this.#inTransaction && walEnd > this.#keepaliveLsn) this.#keepaliveLsn = walEnd;
    this.#settle();
  }

  /** Kafka has acknowledged every record below this ordinal; Infinity when nothing is outstanding. */
  acknowledgedBelow(ordinal: number): void {
    const lowest = Math.min(ordinal, this.#lastOrdinal + 1);
    if (lowest > this.#lowestUnacknowledged) this.#lowestUnacknowledged = lowest;
    this.#settle();
  }

  #settle(): void {
    // Records that were numbered since may all be outstanding; those below the mark never become so again.
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
    if (this.isIdle && this.#keepaliveLsn > this.#flushed) this.#flushed = this.#keepaliveLsn;
  }
}
