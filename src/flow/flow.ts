/**
 * The running stream of one slot: frames in, records out, LSNs back.
 *
 * Rows go to Kafka as they come, before their Commit has arrived (protocol version 1 sends committed transactions only),
 * so memory does not depend on the size of a transaction. Whatever was appended while the socket's last chunk was worked
 * off is flushed in one go; what is not acknowledged yet is bounded by pausing the socket.
 */

import type { Logger } from 'pino';
import type postgres from 'postgres';
import { InvalidRowError, NotifierError, SourceError } from '../errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../lsn.ts';
import { SQL_STATE } from '../postgres/client/errors.ts';
import { droppedPublicationError } from '../postgres/continuity/loss.ts';
import { wallClockMs } from '../postgres/replication/clock.ts';
import { FrameReader, type KeepaliveMessage, type ReplicationMessage } from '../postgres/replication/frames.ts';
import { type LivenessTimings, silenceLimitMs } from '../postgres/replication/liveness.ts';
import type { BeginMessage, CommitMessage, LogicalMessage, RowMessage } from '../postgres/replication/pgoutput.ts';
import { MARKER_PREFIX } from '../postgres/replication/publication-marker.ts';
import { StandbyDialogue } from '../postgres/replication/status-updates.ts';
import type { ReplicationStream } from '../postgres/replication/stream.ts';
import { judgeMissingPublication, type StreamingPlan } from '../postgres/setup/streaming-plan.ts';
import type { SlotMemory } from '../slot/memory.ts';
import type { SlotStatus, StreamView } from '../status/slot-status.ts';
import { noteGarbage } from './garbage-collection.ts';
import type { Progress } from './progress.ts';
import { restAfterRead } from './read-pacing.ts';
import { RowDelivery } from './row-delivery.ts';
import type { Sinks } from './sinks.ts';

/** What may lie between the end of WAL that a query tells and the one that a walsender tells: the header of a page */
const WAL_PAGE_HEADER_BYTES = 40n;

/** What a flow is given beside the two connections. */
export interface FlowOptions {
  readonly databaseRef: string;
  readonly slot: string;
  /** Of the slot; their publications bear the same names */
  readonly namespaces: ReadonlySet<string>;
  readonly plan: StreamingPlan;
  readonly timings: LivenessTimings;
  /** Unacknowledged bytes at which no more is taken until some of them are acknowledged */
  readonly inFlightBudgetBytes: number;
  /** End of the server's WAL when the session began: who has come so far has caught up */
  readonly currentLsn: Lsn;
  readonly progress: Progress;
  readonly memory: SlotMemory;
  readonly status: SlotStatus;
  readonly log: Logger;
}

/**
 * Why a session ends between two transactions and another one begins at once: a publication can be read from here on, a
 * topic has other partitions, or a transaction that was refused would be taken now.
 */
export type EndReason = 'publication boundary' | 'changed topic' | 'mended transaction';

/** See the head of this file. */
export class Flow implements StreamView {
  readonly #options: FlowOptions;
  readonly #progress: Progress;
  readonly #reader = new FrameReader();
  readonly #outcome = Promise.withResolvers<EndReason>();

  #sinks: Sinks | undefined;
  #rows: RowDelivery | undefined;
  #replication: ReplicationStream | undefined;
  #dialogue: StandbyDialogue | undefined;
  /** The transaction that is being received */
  #begin: BeginMessage | undefined;
  /** Commit time of the transaction that was received last, as a number: exact until the year 2285 */
  #lastCommitMicros = Number.POSITIVE_INFINITY;
  /** Set when no more WAL is to be taken: by `drain`, or at a boundary */
  #draining = false;
  #drained = Promise.withResolvers<void>();
  /** Set when this session ends with the open transaction */
  #endsAtCommit: EndReason | undefined;
  #flushScheduled = false;

  constructor(options: FlowOptions) {
    this.#options = options;
    this.#progress = options.progress;
    this.#outcome.promise.catch(() => {}); // whoever waits for it also sees it
  }

  get receivedLsn(): Lsn {
    return this.#progress.written;
  }

  get flushedLsn(): Lsn {
    return this.#progress.flushed;
  }

  get lastInboundMs(): number {
    return this.#dialogue?.lastInboundMs ?? performance.now();
  }

  get standsSinceMs(): number {
    return this.#dialogue?.standsSinceMs ?? performance.now();
  }

  get silenceLimitMs(): number {
    return silenceLimitMs(this.#options.timings);
  }

  get isPaused(): boolean {
    return this.#replication?.isPaused ?? false;
  }

  get inFlightSinceMs(): number | undefined {
    return this.#sinks?.inFlightSinceMs;
  }

  get oldestCommitTimeMs(): number | undefined {
    const micros = this.#progress.oldestPendingCommitMicros ?? this.#begin?.commitTimeMicros;
    return micros === undefined ? undefined : wallClockMs(micros);
  }

  get areBrokersReachable(): boolean {
    return this.#sinks?.areBrokersReachable ?? true;
  }

  /** Resolves when the session has ended between two transactions, all before that acknowledged; rejects with what broke it. */
  get outcome(): Promise<EndReason> {
    return this.#outcome.promise;
  }

  /** Begins to read the stream and to work on what it brings. */
  start(replication: ReplicationStream, sinks: Sinks): void {
    this.#replication = replication;
    this.#sinks = sinks;
    this.#rows = new RowDelivery({
      ...this.#options,
      sinks,
      warnedRelations: this.#options.memory.warnedRelations,
    });
    this.#dialogue = new StandbyDialogue({
      replication,
      progress: this.#progress,
      timings: this.#options.timings,
      onDead: () => this.fail(deadServerError()),
    });
    replication.resume();
    if (this.#endsAtCommit !== undefined) this.#end(this.#endsAtCommit);
  }

  /** Takes no more WAL; resolves when everything that was taken is acknowledged. Statuses go on. */
  drain(): Promise<void> {
    this.#draining = true;
    this.#replication?.pause();
    this.#sinks?.flush();
    this.#noteAcknowledged();
    return this.#drained.promise;
  }

  /**
   * Ends this session between two transactions, so that the next one begins with what has changed in Kafka: nothing is
   * then in flight, and no record of a process can overtake another one into a different partition.
   */
  endAtCommit(reason: EndReason): void {
    this.#endsAtCommit ??= reason;
    if (this.#begin === undefined && this.#sinks !== undefined) this.#end(reason);
  }

  /** Sends the last status and CopyDone; the stream ends when the server has answered. */
  finish(): void {
    this.stop();
    this.#dialogue!.sendStatus();
    this.#replication!.finish();
  }

  /** Ends all activity; the stream and the sinks are the caller's to close. */
  stop(): void {
    this.#dialogue?.stop();
    this.#draining = true;
  }

  /** Ends the flow with an error, located as far as it is known here. */
  fail(error: unknown): void {
    this.stop();
    this.#outcome.reject(
      error instanceof NotifierError
        ? error.locate({ database: this.#options.databaseRef, slot: this.#options.slot })
        : error,
    );
  }

  /** To be called with every chunk of the stream. */
  readonly onChunk = (chunk: Buffer): void => {
    this.#dialogue!.noteInbound();
    noteGarbage(chunk.length);
    this.#options.status.receivedBytes += chunk.length;
    if (this.#draining) return;
    const reader = this.#reader;
    reader.start(chunk);
    try {
      for (let message = reader.next(); message !== undefined; message = reader.next()) {
        this.#dispatch(message);
        if (this.#draining) return;
      }
    } catch (error) {
      if (error instanceof InvalidRowError) this.#options.memory.refusedCommitLsn = this.#begin?.finalLsn;
      this.#failWhenDrained(this.#locateRow(error));
      return;
    }
    this.#scheduleFlush();
    this.#restWhenBehind();
  };

  /** To be called when Kafka has acknowledged something. */
  readonly onAcknowledged = (): void => this.#noteAcknowledged();

  /** To be called with every notice on the replication connection. */
  readonly onNotice = (notice: postgres.Notice): void => {
    // The name stands in the message; of several that fit, the longest is meant.
    const [publication] = this.#options.plan.streamed
      .filter((name) => notice.code === SQL_STATE.objectNotInPrerequisiteState && notice.message?.includes(name))
      .sort((one, other) => other.length - one.length);
    if (publication === undefined) {
      this.#options.log.info({ code: notice.code, severity: notice.severity }, 'notice on the replication connection');
      return;
    }
    const changeLsn = lsnInContext(notice.where);
    const existedAtLsn = this.#options.memory.publicationExistedAt.get(publication);
    if (judgeMissingPublication({ changeLsn, existedAtLsn }) === 'dropped') {
      const { databaseRef, slot } = this.#options;
      const confirmedLsn = this.#progress.flushed;
      this.fail(
        droppedPublicationError([publication], { confirmedLsn, databaseRef, slot }).locate({ namespace: publication }),
      );
    }
  };

  /** What came before a row that cannot be converted is good: unless it is delivered and confirmed, every retry would send it again. */
  #failWhenDrained(error: unknown): void {
    this.drain().then(
      () => this.fail(error),
      () => {},
    );
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
        this.#rows!.describe(message);
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
    this.#rows!.isRehearsing = message.finalLsn === this.#options.memory.refusedCommitLsn;
    this.#progress.begin();
  }

  #onRow(message: RowMessage): void {
    const begin = this.#begin;
    this.#rows!.deliver(message, begin && { begin, lsn: this.#reader.walStart! });
  }

  #onCommit(message: CommitMessage): void {
    this.#begin = undefined;
    const { memory, status } = this.#options;
    if (this.#rows!.isRehearsing) {
      // All of its rows are good now, and none was sent: the next session does that.
      memory.refusedCommitLsn = undefined;
      this.#end('mended transaction');
      return;
    }
    status.commitReceive.observe((Date.now() - wallClockMs(message.commitTimeMicros)) / 1000);
    this.#progress.commit(message.endLsn, message.commitTimeMicros);
    if (this.#endsAtCommit !== undefined) this.#end(this.#endsAtCommit);
  }

  #onKeepalive({ walEnd, replyRequested }: KeepaliveMessage): void {
    if (replyRequested) this.#dialogue!.noteReplyRequest();
    // The server may be past a boundary, with rows behind it that it was not asked for: those are owed.
    if (!this.#reachBoundaryBefore(walEnd)) {
      this.#progress.keepalive(walEnd);
      if (this.#progress.isIdle && walEnd + WAL_PAGE_HEADER_BYTES >= this.#options.currentLsn)
        this.#options.status.noteProven();
    }
    this.#dialogue!.sendStatusIfDue();
  }

  #onLogicalMessage(message: LogicalMessage): void {
    if (!message.transactional || message.prefix !== MARKER_PREFIX) return;
    const publication = message.content.toString();
    if (this.#options.plan.boundaries.some((one) => one.kind === 'marker' && one.publication === publication)) {
      this.#endsAtCommit = 'publication boundary';
    }
  }

  /** True when this position lies behind a boundary: everything before the boundary has been received, no more is taken. */
  #reachBoundaryBefore(lsn: Lsn): boolean {
    const reached = this.#options.plan.boundaries.find((one) => one.kind === 'lsn' && one.lsn <= lsn);
    if (reached === undefined) return false;
    this.#progress.keepalive(reached.lsn);
    this.#end('publication boundary');
    return true;
  }

  #end(reason: EndReason): void {
    this.drain().then(
      () => this.#outcome.resolve(reason),
      () => {},
    );
  }

  #scheduleFlush(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    queueMicrotask(() => {
      this.#flushScheduled = false;
      const sinks = this.#sinks!;
      const replication = this.#replication!;
      if (sinks.bufferedBytes >= this.#options.inFlightBudgetBytes && !replication.isPaused) replication.pause();
      // One flush for all chunks of a read: a request for each of them would be small.
      if (!replication.isHandingOver) sinks.flush();
      const { walStart } = this.#reader;
      if (walStart !== undefined) {
        this.#progress.received(walStart);
        this.#dialogue!.noteData();
      }
      this.#dialogue!.sendStatusIfDue();
    });
  }

  #restWhenBehind(): void {
    const { sentMicros } = this.#reader;
    if (sentMicros === undefined) return;
    const readBytes = this.#replication!.lastReadBytes;
    const restMs = restAfterRead({ readBytes, behindMs: (sentMicros - this.#lastCommitMicros) / 1000 });
    if (restMs > 0) this.#replication!.rest(restMs);
  }

  #noteAcknowledged(): void {
    const sinks = this.#sinks;
    if (sinks === undefined) return;
    const lowest = sinks.lowestUnacknowledged;
    const { flushed } = this.#progress;
    this.#progress.acknowledgedBelow(lowest);
    if (this.#progress.flushed > flushed) this.#options.status.noteProven();
    if (this.#draining) {
      if (lowest === Number.POSITIVE_INFINITY) this.#drained.resolve();
    } else if (this.#replication!.isPaused && sinks.bufferedBytes < this.#options.inFlightBudgetBytes) {
      this.#dialogue!.noteInbound();
      this.#replication!.resume();
    }
    this.#dialogue!.sendStatusIfDue();
  }

  #locateRow(error: unknown): unknown {
    if (!(error instanceof NotifierError)) return error;
    // Relation frames carry no position: then the transaction's must do.
    const lsn = this.#reader.walStart || this.#begin?.finalLsn;
    return error.locate({ lsn: lsn === undefined ? undefined : formatLsn(lsn) });
  }
}

/** LSN in the CONTEXT of an error or notice of a decoding server (`..., associated LSN 0/1A2B3C4D`), in any language. */
export function lsnInContext(where: string | undefined): Lsn | undefined {
  const found = where?.match(/\b[0-9A-F]{1,8}\/[0-9A-F]{1,8}\b(?!.*\b[0-9A-F]{1,8}\/[0-9A-F]{1,8}\b)/s);
  return found ? parseLsn(found[0]) : undefined;
}

function deadServerError(): SourceError {
  return new SourceError('Lost the replication connection: the server does not answer', {
    advice: 'Check the network between this service and PostgreSQL',
  });
}
