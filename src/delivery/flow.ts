/**
 * The running stream of one slot: frames in, records out, LSNs back.
 *
 * Rows go to Kafka as they come, before their Commit has arrived (protocol version 1 sends committed transactions only),
 * so memory does not depend on the size of a transaction. Whatever was appended while the socket's last chunk was worked
 * off is flushed in one go; what is not acknowledged yet is bounded by pausing the socket.
 */

import type { Logger } from 'pino';
import type postgres from 'postgres';
import { ByteWriter } from '../bytes/writer.ts';
import { MissingOldTupleError, NotifierError, SourceError } from '../errors.ts';
import { droppedPublicationError } from '../postgres/continuity.ts';
import type { LivenessTimings } from '../postgres/liveness.ts';
import { formatLsn, type Lsn, parseLsn } from '../postgres/lsn.ts';
import type { BeginMessage, LogicalMessage, RelationMessage, RowMessage } from '../postgres/pgoutput.ts';
import { MARKER_PREFIX } from '../postgres/publication.ts';
import type { ReplicationStream } from '../postgres/replication-stream.ts';
import { SQL_STATE } from '../postgres/sql-state.ts';
import { FrameReader, type ReplicationMessage } from '../postgres/wire.ts';
import { convertChange, resolveRelation, type SourceRelation } from '../progressor/convert.ts';
import { noteGarbage } from './garbage.ts';
import type { Progress } from './progress.ts';
import type { Route, Sinks } from './sinks.ts';
import type { SlotMemory } from './slot-memory.ts';
import { StandbyDialogue } from './standby-dialogue.ts';
import { judgeMissingPublication, type StreamingPlan } from './streaming-plan.ts';

/** Unacknowledged bytes at which the socket is paused, and at which it is read again: enough for full rounds, no more. */
const PAUSE_AT_BYTES = 1024 * 1024;
const RESUME_AT_BYTES = 512 * 1024;

/** What a flow is given beside the two connections. */
export interface FlowOptions {
  readonly databaseRef: string;
  readonly slot: string;
  /** Of the slot; their publications bear the same names */
  readonly namespaces: ReadonlySet<string>;
  readonly plan: StreamingPlan;
  readonly timings: LivenessTimings;
  readonly progress: Progress;
  readonly memory: SlotMemory;
  readonly log: Logger;
}

/** Where a row of a relation goes; undefined = a relation that nobody configured. */
type RoutedRelation = { readonly relation: SourceRelation; readonly route: Route } | undefined;

/** See the head of this file. */
export class Flow {
  readonly #options: FlowOptions;
  readonly #progress: Progress;
  readonly #reader = new FrameReader();
  readonly #relations = new Map<number, RoutedRelation>();
  readonly #draft = { key: new ByteWriter(), value: new ByteWriter() };
  readonly #outcome = Promise.withResolvers<void>();

  #sinks: Sinks | undefined;
  #replication: ReplicationStream | undefined;
  #dialogue: StandbyDialogue | undefined;
  /** The transaction that is being received */
  #begin: BeginMessage | undefined;
  /** Set when no more WAL is to be taken: by `drain`, or at a boundary */
  #draining = false;
  #drained = Promise.withResolvers<void>();
  /** Markers seen in the open transaction that end this session */
  #markerSeen = false;
  #flushScheduled = false;

  constructor(options: FlowOptions) {
    this.#options = options;
    this.#progress = options.progress;
    this.#outcome.promise.catch(() => {}); // whoever waits for it also sees it
  }

  /** Resolves when a boundary was reached and all before it is confirmed; rejects with what ended the stream. */
  get outcome(): Promise<void> {
    return this.#outcome.promise;
  }

  /** Begins to read the stream and to work on what it brings. */
  start(replication: ReplicationStream, sinks: Sinks): void {
    this.#replication = replication;
    this.#sinks = sinks;
    this.#dialogue = new StandbyDialogue({
      replication,
      progress: this.#progress,
      timings: this.#options.timings,
      onDead: () => this.fail(deadServerError()),
    });
    replication.resume();
  }

  /** Takes no more WAL; resolves when everything that was taken is acknowledged. Statuses go on. */
  drain(): Promise<void> {
    this.#draining = true;
    this.#replication?.pause();
    this.#sinks?.flush();
    this.#noteAcknowledged();
    return this.#drained.promise;
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
    if (this.#draining) return;
    const reader = this.#reader;
    reader.start(chunk);
    try {
      for (let message = reader.next(); message !== undefined; message = reader.next()) {
        this.#dispatch(message);
        if (this.#draining) return;
      }
    } catch (error) {
      this.#failWhenDrained(this.#locateRow(error));
      return;
    }
    this.#scheduleFlush();
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
      this.fail(droppedPublicationError(publication, this.#progress.flushed));
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
        this.#begin = undefined;
        this.#progress.commit(message.endLsn);
        if (this.#markerSeen) this.#reachBoundary();
        break;
      case 'keepalive':
        if (message.replyRequested) this.#dialogue!.noteReplyRequest();
        // The server may be past a boundary, with rows behind it that it was not asked for: those are owed.
        if (!this.#reachBoundaryBefore(message.walEnd)) this.#progress.keepalive(message.walEnd);
        this.#dialogue!.sendStatusIfDue();
        break;
      case 'relation':
        this.#onRelation(message);
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
    this.#progress.begin();
  }

  #onRelation(message: RelationMessage): void {
    const relation = resolveRelation(message, this.#options.namespaces);
    if (relation === undefined) {
      this.#relations.set(message.relationId, undefined);
      this.#warnOfRelation(`${message.schema}.${message.name}`);
      return;
    }
    this.#relations.set(message.relationId, { relation, route: this.#sinks!.route(relation.namespace) });
  }

  #onRow(message: RowMessage): void {
    const routed = this.#relations.get(message.relationId);
    if (routed === undefined) {
      if (this.#relations.has(message.relationId)) return;
      throw new SourceError('Cannot read a row: its relation was not described before it');
    }
    const begin = this.#begin;
    if (begin === undefined) throw new SourceError('Cannot read a row: it came outside of a transaction');
    const { relation, route } = routed;
    const draft = this.#draft;
    try {
      const kind = convertChange(relation, message, begin.commitTimeMicros, draft);
      if (kind === undefined) return;
      const ordinal = this.#progress.nextOrdinal();
      this.#sinks!.append(route, kind, { key: draft.key, value: draft.value, ordinal });
    } catch (error) {
      if (error instanceof MissingOldTupleError && route.onMissingOldTuple === 'skip') {
        this.#noteSkippedRow(error);
        return;
      }
      throw error instanceof NotifierError
        ? error.locate({ namespace: relation.namespace, table: relation.table })
        : error;
    }
  }

  #onLogicalMessage(message: LogicalMessage): void {
    if (!message.transactional || message.prefix !== MARKER_PREFIX) return;
    const publication = message.content.toString();
    if (this.#options.plan.boundaries.some((one) => one.kind === 'marker' && one.publication === publication)) {
      this.#markerSeen = true;
    }
  }

  /** True when this position lies behind a boundary: everything before the boundary has been received, no more is taken. */
  #reachBoundaryBefore(lsn: Lsn): boolean {
    const reached = this.#options.plan.boundaries.find((one) => one.kind === 'lsn' && one.lsn <= lsn);
    if (reached === undefined) return false;
    this.#progress.keepalive(reached.lsn);
    this.#reachBoundary();
    return true;
  }

  #reachBoundary(): void {
    this.drain().then(
      () => this.#outcome.resolve(),
      () => {},
    );
  }

  #scheduleFlush(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    // The driver hands over all frames of a socket read in one go; one flush for all of them.
    queueMicrotask(() => {
      this.#flushScheduled = false;
      const sinks = this.#sinks!;
      sinks.flush();
      const { walStart } = this.#reader;
      if (walStart !== undefined) this.#progress.received(walStart);
      if (sinks.bufferedBytes >= PAUSE_AT_BYTES && !this.#replication!.isPaused) this.#replication!.pause();
      this.#dialogue!.sendStatusIfDue();
    });
  }

  #noteAcknowledged(): void {
    const sinks = this.#sinks;
    if (sinks === undefined) return;
    const lowest = sinks.lowestUnacknowledged;
    this.#progress.acknowledgedBelow(lowest);
    if (this.#draining) {
      if (lowest === Number.POSITIVE_INFINITY) this.#drained.resolve();
    } else if (this.#replication!.isPaused && sinks.bufferedBytes <= RESUME_AT_BYTES) {
      this.#dialogue!.noteInbound();
      this.#replication!.resume();
    }
    this.#dialogue!.sendStatusIfDue();
  }

  #noteSkippedRow(error: MissingOldTupleError): void {
    const { memory, log } = this.#options;
    memory.skippedRowCount++;
    const { namespace, table, key } = error.place;
    const lsn = this.#reader.walStart;
    log.warn(
      { namespace, table, key, lsn: lsn && formatLsn(lsn), skippedRowCount: memory.skippedRowCount },
      'an update without its old tuple was skipped, as on_missing_old_tuple says',
    );
  }

  #warnOfRelation(name: string): void {
    const { memory, log } = this.#options;
    if (memory.warnedRelations.has(name)) return;
    memory.warnedRelations.add(name);
    log.warn({ relation: name }, 'rows of a relation that is not configured are ignored');
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
