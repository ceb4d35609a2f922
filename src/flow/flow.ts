import type { Logger } from 'pino';
import type postgres from 'postgres';
import type { StatusLabels } from '../conversion/relation.ts';
import { settlesWithin } from '../deadline.ts';
import { InvalidRowError, NotifierError, SourceError } from '../errors.ts';
import type { TopicChange } from '../kafka/produce/topic-watch.ts';
import { formatLsn, type Lsn } from '../lsn.ts';
import { lsnInContext, SQL_STATE, sqlStateOf } from '../postgres/client/errors.ts';
import { droppedPublicationError } from '../postgres/continuity/loss.ts';
import { wallClockMs } from '../postgres/replication/clock.ts';
import { FrameReader, type KeepaliveMessage, type ReplicationMessage } from '../postgres/replication/frames.ts';
import { LargeRowReader } from '../postgres/replication/large-row.ts';
import type { BeginMessage, CommitMessage, LogicalMessage, RowMessage } from '../postgres/replication/pgoutput.ts';
import { MARKER_PREFIX } from '../postgres/replication/publication-marker.ts';
import { type ReplicationStream, replicationEndedError } from '../postgres/replication/stream.ts';
import { judgeMissingPublication, type StreamingPlan } from '../postgres/setup/streaming-plan.ts';
import type { SlotStatus, StreamView } from '../status/slot-status.ts';
import { noteGarbage } from './garbage-collection.ts';
import type { Progress } from './progress.ts';
import { restAfterRead } from './read-pacing.ts';
import { RowDelivery } from './row-delivery.ts';
import type { Sinks } from './sinks.ts';

/** Difference between the end of WAL that a query reports and the one that a walsender reports: the header of a page */
const WAL_PAGE_HEADER_BYTES = 40n;

/** What is kept of a large row, its record, and the texts of a parked one, are garbage soon after it was processed */
const COPIES_OF_LARGE_ROW = 4;

/** What a flow learns for the next one of its slot. */
export interface FlowMemory {
  /** Smallest LSN at which each publication is known to have existed, by name */
  readonly publicationExistedAt: ReadonlyMap<string, Lsn>;
  /** Unconfigured relations that have been logged, as schema.table */
  readonly warnedRelations: Set<string>;
  readonly statusLabels: StatusLabels;
  /**
   * Commit LSN of a transaction with a row that could not be delivered. When it comes again, its rows are only tried until
   * all are valid: sent each time, the rows before the invalid one would accumulate in Kafka with every attempt.
   */
  refusedCommitLsn: Lsn | undefined;
}

/** Options of Flow. */
export interface FlowOptions {
  /** Open and not started */
  readonly replication: ReplicationStream;
  /** Open and not started */
  readonly sinks: Sinks;
  readonly databaseRef: string;
  readonly slot: string;
  /** Of the slot; their publications have the same names */
  readonly namespaces: ReadonlySet<string>;
  /** Names of their tables, by OID, when the session began */
  readonly tables: ReadonlyMap<number, string>;
  readonly plan: StreamingPlan;
  /** Unacknowledged bytes at which the flow stops reading */
  readonly inFlightBudgetBytes: number;
  /** Most bytes of the values of a row that its record is made of; a larger row is invalid */
  readonly maxRowBytes: number;
  /** Longest wait for Kafka after the server could not find a publication: the slot is not held meanwhile */
  readonly shutdownTimeoutMs: number;
  /** End of the server's WAL when the session began: a stream that has come this far has caught up */
  readonly currentLsn: Lsn;
  readonly progress: Progress;
  readonly memory: FlowMemory;
  readonly status: SlotStatus;
  readonly log: Logger;
}

/**
 * Why a session ends between two transactions, and another one begins at once: a publication can be streamed from here on,
 * a topic has another partition count, or a transaction that was refused is valid now.
 */
export type RenewalReason = 'publication boundary' | 'changed topic' | 'corrected transaction';

/**
 * How a flow ends:
 * - `renew`: between two transactions, and everything before that is acknowledged
 * - `failed`: with `deliverFirst`, everything before the failure is acknowledged
 */
export type FlowEnd =
  | { readonly kind: 'renew'; readonly reason: RenewalReason }
  | { readonly kind: 'failed'; readonly error: unknown; readonly deliverFirst: boolean };

/**
 * The running stream of one slot: frames in, records out, LSNs back. It runs from its construction until `ended`.
 *
 * Rows go to Kafka as they come, before their Commit has arrived (protocol version 1 sends committed transactions only),
 * so memory does not depend on the size of a transaction. Records of one read of the socket are flushed together; the flow
 * pauses the socket to bound what is unacknowledged.
 */
export class Flow implements StreamView {
  readonly #options: FlowOptions;
  readonly #replication: ReplicationStream;
  readonly #sinks: Sinks;
  readonly #rows: RowDelivery;
  readonly #progress: Progress;
  readonly #reader = new FrameReader();
  readonly #largeRows: LargeRowReader;
  readonly #ended = Promise.withResolvers<FlowEnd>();
  readonly #drained = Promise.withResolvers<void>();

  /** The transaction that is being received */
  #begin: BeginMessage | undefined;
  /** Commit time of the transaction that was received last, as a number: exact until the year 2285 */
  #lastCommitMicros = Number.POSITIVE_INFINITY;
  /** Set when the flow takes no more WAL: by `drain`, or at a boundary */
  #isDraining = false;
  /** Set when a stop waits for the end of the open transaction */
  #onTransactionEnd: (() => void) | undefined;
  /** Set when this session ends with the open transaction */
  #renewsAtCommit: RenewalReason | undefined;
  #isFlushScheduled = false;

  constructor(options: FlowOptions) {
    const { replication, sinks, status, memory } = options;
    this.#options = options;
    this.#replication = replication;
    this.#sinks = sinks;
    this.#progress = options.progress;
    this.#rows = new RowDelivery({
      ...options,
      warnedRelations: memory.warnedRelations,
      statusLabels: memory.statusLabels,
    });
    this.#largeRows = new LargeRowReader({
      neededColumns: (tuple) => this.#rows.neededColumns(tuple),
      maxRowBytes: options.maxRowBytes,
    });
    sinks.start({
      onAcknowledged: () => this.#onAcknowledged(),
      onResend: (reason) => status.noteResend(reason),
      onProduced: ({ roundTripMs, batchCount, bytes }) => {
        status.produceRoundTrip.observe(roundTripMs / 1000);
        status.producedBatchCount += batchCount;
        status.producedBytes += bytes;
      },
      onTopicChanged: (change) => this.#onTopicChanged(change),
      onFailed: (error) => this.fail(error),
    });
    replication.start({
      onChunk: (chunk) => {
        this.#noteReceived(chunk);
        this.#onChunk(chunk);
      },
      onPart: (part) => this.#onPart(part),
      onNotice: (notice) => this.#onNotice(notice),
    });
    void replication.closed.then((error) => this.#onClosed(error));
  }

  get receivedLsn(): Lsn {
    return this.#progress.written;
  }

  get flushedLsn(): Lsn {
    return this.#progress.flushed;
  }

  get lastInboundMs(): number {
    return this.#replication.statuses.lastInboundMs;
  }

  get lastProgressMs(): number {
    return this.#replication.statuses.lastProgressMs;
  }

  get silenceLimitMs(): number {
    return this.#replication.statuses.silenceLimitMs;
  }

  get isPaused(): boolean {
    return this.#replication.isPaused;
  }

  get inFlightSinceMs(): number | undefined {
    return this.#sinks.inFlightSinceMs;
  }

  get oldestCommitTimeMs(): number | undefined {
    const micros = this.#progress.oldestPendingCommitMicros ?? this.#begin?.commitTimeMicros;
    return micros === undefined ? undefined : wallClockMs(micros);
  }

  get areBrokersReachable(): boolean {
    return this.#sinks.areBrokersReachable;
  }

  /** Resolves once, with the first end of the flow; never rejects. */
  get ended(): Promise<FlowEnd> {
    return this.#ended.promise;
  }

  /**
   * Takes WAL to the end of the transaction that is being received, whose rows the next session would repeat; resolves
   * there, or at once between two transactions. The flow takes nothing after that.
   */
  finishTransaction(): Promise<void> {
    if (this.#begin === undefined || this.#isDraining) return Promise.resolve();
    const finished = Promise.withResolvers<void>();
    this.#onTransactionEnd = finished.resolve;
    return finished.promise;
  }

  /** Takes no more WAL; resolves when everything received is acknowledged. Statuses go on. */
  drain(): Promise<void> {
    this.#isDraining = true;
    this.#replication.pause();
    this.#sinks.flush();
    this.#onAcknowledged();
    return this.#drained.promise;
  }

  /** Ends the flow at once with an error, located as far as it is known here. */
  fail(error: unknown): void {
    this.#isDraining = true;
    this.#end({ kind: 'failed', error: this.#locate(error), deliverFirst: false });
  }

  /** Ends the flow with an error when everything before it is acknowledged, unless another failure ends it sooner. */
  #failAfterDelivery(error: unknown): void {
    void this.drain().then(() => this.#end({ kind: 'failed', error: this.#locate(error), deliverFirst: true }));
  }

  /** Ends the flow when everything received is acknowledged, unless a failure ends it sooner. */
  #renew(reason: RenewalReason): void {
    void this.drain().then(() => this.#end({ kind: 'renew', reason }));
  }

  #end(end: FlowEnd): void {
    this.#ended.resolve(end);
  }

  #locate(error: unknown): unknown {
    const { databaseRef, slot } = this.#options;
    return error instanceof NotifierError ? error.locate({ database: databaseRef, slot }) : error;
  }

  /** The server, or the network, has ended the replication connection. */
  #onClosed(error: Error | undefined): void {
    if (error === undefined) {
      this.fail(replicationEndedError());
    } else if (sqlStateOf(error) === SQL_STATE.undefinedObject) {
      // What was received with a publication may be streamed without it next time, so Kafka must acknowledge it first.
      this.#failAfterDelivery(error);
      void settlesWithin(this.#options.shutdownTimeoutMs, this.#drained.promise).then((isDrained) => {
        if (!isDrained) this.fail(undeliveredError(error));
      });
    } else {
      this.fail(error);
    }
  }

  #noteReceived({ length }: Buffer): void {
    noteGarbage(length);
    this.#options.status.receivedBytes += length;
  }

  #onPart(part: Buffer): void {
    this.#noteReceived(part);
    if (this.#isDraining) return;
    let message: Buffer | undefined;
    try {
      message = this.#largeRows.push(part);
    } catch (error) {
      this.#failAfterDelivery(this.#locateRow(error));
      return;
    }
    if (message === undefined) {
      // What came before it does not wait for its end.
      this.#scheduleFlush();
      return;
    }
    const { length } = message;
    this.#onChunk(message);
    // Before the record is sent: what it was made of is gone by then.
    message = undefined;
    this.#reader.release();
    this.#rows.release();
    noteGarbage(COPIES_OF_LARGE_ROW * length);
  }

  #onChunk(chunk: Buffer): void {
    if (this.#isDraining) return;
    const reader = this.#reader;
    reader.start(chunk);
    try {
      for (let message = reader.next(); message !== undefined; message = reader.next()) {
        this.#dispatch(message);
        if (this.#isDraining) return;
      }
    } catch (error) {
      if (error instanceof InvalidRowError) this.#options.memory.refusedCommitLsn = this.#begin?.finalLsn;
      // What came before the row is valid: unless it is delivered and confirmed, every retry would send it again.
      this.#failAfterDelivery(this.#locateRow(error));
      return;
    }
    this.#scheduleFlush();
    this.#restInBacklog();
  }

  #onNotice(notice: postgres.Notice): void {
    const publication = this.#options.plan.streamed.find(
      (name) => notice.code === SQL_STATE.objectNotInPrerequisiteState && isQuoted(name, notice.message ?? ''),
    );
    if (publication === undefined) {
      const facts = { event: 'replication_notice', code: notice.code, severity: notice.severity };
      this.#options.log.info(facts, 'notice on the replication connection');
      return;
    }
    const changeLsn = lsnInContext(notice.where);
    const existedAtLsn = this.#options.memory.publicationExistedAt.get(publication);
    if (judgeMissingPublication({ changeLsn, existedAtLsn }) === 'dropped') {
      const { databaseRef, slot } = this.#options;
      const confirmedLsn = this.#progress.flushed;
      const error = droppedPublicationError([publication], { confirmedLsn, databaseRef, slot });
      this.fail(error.locate({ namespace: publication }));
    }
  }

  /**
   * The next session uses the new partition count. It begins between two transactions: nothing is then in flight, and no
   * record of a process can overtake another one into a different partition.
   */
  #onTopicChanged(change: TopicChange): void {
    const { log } = this.#options;
    if (change.toPartitions === 0) {
      const { topic } = change;
      log.warn({ event: 'topic_deleted', topic }, 'a topic has been deleted; the slot waits until it exists again');
    } else {
      log.warn(
        { event: 'topic_partitions_changed', ...change },
        'the partition count of a topic has changed; records after the current transaction use the new count',
      );
    }
    this.#renewsAtCommit ??= 'changed topic';
    if (this.#begin === undefined) this.#renew(this.#renewsAtCommit);
  }

  #dispatch(message: ReplicationMessage): void {
    switch (message.tag) {
      case 'insert':
      case 'update':
      case 'delete':
        this.#onRow(message);
        break;
      case 'begin':
        this.#onBegin(message);
        break;
      case 'commit':
        this.#onCommit(message);
        break;
      case 'keepalive':
        this.#onKeepalive(message);
        break;
      case 'relation':
        this.#rows.describe(message);
        break;
      case 'message':
        this.#onLogicalMessage(message);
        break;
      case 'truncate':
      case 'type':
      case 'origin':
        break;
    }
  }

  #onBegin(message: BeginMessage): void {
    if (this.#reachBoundaryBefore(message.finalLsn)) return;
    this.#begin = message;
    this.#lastCommitMicros = Number(message.commitTimeMicros);
    this.#rows.isRehearsing = message.finalLsn === this.#options.memory.refusedCommitLsn;
    this.#progress.begin();
  }

  #onRow(message: RowMessage): void {
    const begin = this.#begin;
    // A row is in an XLogData frame, which has an LSN.
    this.#rows.deliver(message, begin && { begin, lsn: this.#reader.walStart ?? begin.finalLsn });
  }

  #onCommit(message: CommitMessage): void {
    this.#begin = undefined;
    const { memory, status } = this.#options;
    if (this.#rows.isRehearsing) {
      // All of its rows are valid now, and none was sent: the next session sends them.
      memory.refusedCommitLsn = undefined;
      this.#renew('corrected transaction');
      return;
    }
    status.commitReceive.observe((Date.now() - wallClockMs(message.commitTimeMicros)) / 1000);
    this.#progress.commit(message.endLsn, message.commitTimeMicros);
    if (this.#renewsAtCommit !== undefined) this.#renew(this.#renewsAtCommit);
    if (this.#onTransactionEnd !== undefined) {
      this.#onTransactionEnd();
      void this.drain();
    }
  }

  #onKeepalive({ walEnd, replyRequested }: KeepaliveMessage): void {
    if (replyRequested) this.#replication.statuses.noteReplyRequest();
    // The server may be past a boundary, after which there are rows that it was not asked for and that are owed.
    if (!this.#reachBoundaryBefore(walEnd)) {
      this.#progress.keepalive(walEnd);
      if (this.#progress.isIdle && walEnd + WAL_PAGE_HEADER_BYTES >= this.#options.currentLsn)
        this.#options.status.noteProven();
    }
    this.#replication.statuses.sendIfDue();
  }

  #onLogicalMessage(message: LogicalMessage): void {
    if (!message.transactional || message.prefix !== MARKER_PREFIX) return;
    const publication = message.content.toString();
    if (this.#options.plan.boundaries.some((one) => one.kind === 'marker' && one.publication === publication)) {
      this.#renewsAtCommit = 'publication boundary';
    }
  }

  /** True when this position lies at or after a boundary: everything before the boundary is received, and the flow ends. */
  #reachBoundaryBefore(lsn: Lsn): boolean {
    const { plan, currentLsn, log } = this.#options;
    // A transaction whose marker the catalogs showed when the session was prepared had ended by then.
    const reached = plan.boundaries.find((one) => (one.kind === 'lsn' ? one.lsn <= lsn : currentLsn < lsn));
    if (reached === undefined) return false;
    const { kind, publication, lsn: fromLsn } = reached;
    if (kind === 'marker') {
      log.warn(
        {
          event: 'publication_mark_missing',
          namespace: publication,
          fromLsn: formatLsn(fromLsn),
          toLsn: formatLsn(currentLsn),
          advice: 'Compare the tables of the namespace with its topics for this range',
        },
        'the WAL has no mark of the publication at the LSN in its comment: rows of the namespace in this range are not delivered',
      );
    }
    this.#progress.reached(kind === 'lsn' ? fromLsn : currentLsn);
    this.#renew('publication boundary');
    return true;
  }

  #scheduleFlush(): void {
    if (this.#isFlushScheduled) return;
    this.#isFlushScheduled = true;
    queueMicrotask(() => {
      this.#isFlushScheduled = false;
      const sinks = this.#sinks;
      const replication = this.#replication;
      if (sinks.bufferedBytes >= this.#options.inFlightBudgetBytes && !replication.isPaused) replication.pause();
      // One flush for all chunks of a read: a request for each of them would be small.
      if (!replication.isHandingOver) sinks.flush();
      const { walStart } = this.#reader;
      if (walStart !== undefined) {
        this.#progress.received(walStart);
        replication.statuses.noteData();
      }
      replication.statuses.sendIfDue();
    });
  }

  #restInBacklog(): void {
    const { sentMicros } = this.#reader;
    if (sentMicros === undefined) return;
    const readBytes = this.#replication.lastReadBytes;
    const restMs = restAfterRead({ readBytes, lagMs: (sentMicros - this.#lastCommitMicros) / 1000 });
    if (restMs > 0) this.#replication.rest(restMs);
  }

  #onAcknowledged(): void {
    const sinks = this.#sinks;
    const lowest = sinks.lowestUnacknowledged;
    const { flushed } = this.#progress;
    this.#progress.acknowledgedBelow(lowest);
    if (this.#progress.flushed > flushed) this.#options.status.noteProven();
    if (this.#isDraining) {
      if (lowest === Number.POSITIVE_INFINITY) this.#drained.resolve();
    } else if (this.#replication.isPaused && sinks.bufferedBytes < this.#options.inFlightBudgetBytes) {
      this.#replication.statuses.noteInbound();
      this.#replication.resume();
    }
    this.#replication.statuses.sendIfDue();
  }

  #locateRow(error: unknown): unknown {
    if (!(error instanceof NotifierError)) return error;
    // Relation frames carry no position: the transaction's is the best that is known.
    const lsn = this.#reader.walStart || this.#begin?.finalLsn;
    return error.locate({ lsn: lsn === undefined ? undefined : formatLsn(lsn) });
  }
}

function undeliveredError(cause: Error): SourceError {
  return new SourceError('Cannot look for a publication before Kafka has acknowledged what was received', {
    code: 'received_not_acknowledged',
    advice: 'Look at the log entries about Kafka: the next attempt looks for the publication again',
    cause,
  });
}

/** The quotation marks of PostgreSQL's messages, in the languages that it speaks. */
const QUOTES = ['""', '«»', '„“', '“”', '»«', '「」'] as const;

/** True when a message of the server names this object, and not one whose name contains it. */
function isQuoted(name: string, message: string): boolean {
  return QUOTES.some(([open, close]) => message.includes(`${open}${name}${close}`));
}
