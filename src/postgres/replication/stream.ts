/**
 * The replication connection of one slot. The driver logs in, starts the replication, writes, and reports errors and the
 * end. CopyData does not pass through it: as a stream of one chunk per row that costs more than all the work on the row
 * (backlog a: 5.0 against 3.4 us).
 * Source: PostgreSQL manual, "Streaming Replication Protocol", START_REPLICATION ... LOGICAL.
 */
import type { Duplex } from 'node:stream';
import type { Logger } from 'pino';
import type postgres from 'postgres';
import type { DatabaseEndpoint } from '../../config/config.ts';
import { SourceError } from '../../errors.ts';
import { connectReplication, startCopyBoth } from '../client/connect.ts';
import { listenForFatalError } from '../client/fatal-error.ts';
import { OwnedConnection } from '../client/owned-connection.ts';
import { publicationNames, quoteIdentifier, quoteLiteral } from '../client/quote.ts';
import { liftTransactionTimeout } from '../client/transaction.ts';
import { CopyDataInbox, type CopyDataReceiver } from './copy-data.ts';
import type { LivenessTimings } from './liveness.ts';
import { type ReportedPositions, StatusUpdates } from './status-updates.ts';

/** Options of ReplicationStream. */
export interface ReplicationStreamOptions {
  readonly slot: string;
  /** Of the server that was prepared: after a failover the same address may lead to another one */
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** Drops the connection, also while it is being opened */
  readonly signal: AbortSignal;
  /** Names of the publications to stream, at least one: PostgreSQL 14 and 15 refuse an empty list */
  readonly publications: readonly string[];
  /** What statuses report */
  readonly positions: ReportedPositions;
  readonly timings: LivenessTimings;
  /** See `StatusUpdatesOptions` */
  readonly isAtWork: () => Promise<boolean>;
  readonly log: Logger;
}

/** The application_name of the walsender of a slot, which names it in synchronous_standby_names; the server cuts it at 63 bytes. */
export function walsenderName(slot: string): string {
  return `cdc-notifier ${slot}`;
}

/** Takes what a stream brings. */
export interface ReplicationHandlers extends CopyDataReceiver {
  /** Called with notices of this connection, such as PostgreSQL 18's warning about a publication that it cannot load */
  readonly onNotice: (notice: postgres.Notice) => void;
}

/**
 * Frames come in as chunks, status updates go out; the stream decides nothing. It is paused until `start` gives it
 * handlers: until then it holds the slot, statuses go out, and nothing is read or confirmed.
 */
export class ReplicationStream {
  /** The status updates of this connection, running from the beginning */
  readonly statuses: StatusUpdates;
  /** Resolves when the stream has ended: with the error that ended it, or undefined when the server closed it in good order */
  readonly closed: Promise<Error | undefined>;
  readonly #stream: Duplex;
  readonly #copyData: CopyDataInbox;
  readonly #connection: Disposable;
  readonly #notices: NoticeBox;
  #isClosed = false;

  private constructor(
    opened: {
      readonly stream: Duplex;
      readonly connection: Disposable;
      readonly copyData: CopyDataInbox;
      readonly notices: NoticeBox;
      readonly fatalError: () => Error | undefined;
    },
    { positions, timings, isAtWork }: ReplicationStreamOptions,
  ) {
    const { stream } = opened;
    this.#stream = stream;
    this.#connection = opened.connection;
    this.#copyData = opened.copyData;
    this.#notices = opened.notices;
    const ended = Promise.withResolvers<Error | undefined>();
    this.closed = ended.promise.finally(() => {
      this.#isClosed = true;
    });
    // Only its end comes through the driver's stream, which reports it to a stream that is read.
    stream.resume();
    stream.once('end', () => ended.resolve(opened.fatalError()));
    // The driver destroys the stream with an ERROR of the server, or with CONNECTION_CLOSED. Later errors add nothing.
    stream.on('error', (error) => ended.resolve(opened.fatalError() ?? error));
    stream.once('close', () => ended.resolve(opened.fatalError()));
    this.statuses = new StatusUpdates({
      positions,
      timings,
      write: (status) => {
        if (stream.writable) stream.write(status);
      },
      isPaused: () => this.isPaused,
      isAtWork,
      onDead: ended.resolve,
    });
  }

  /**
   * Connects and starts replication at the slot's confirmed LSN (which 0/0 asks for).
   * @throws SourceError when the connection leads to another server, and whatever driver and server raise: 55006 when
   *   another process streams from the slot
   */
  static async open(database: DatabaseEndpoint, options: ReplicationStreamOptions): Promise<ReplicationStream> {
    const { slot, publications, signal } = options;
    const notices = new NoticeBox();
    let copyData: CopyDataInbox | undefined;
    let fatalError: () => Error | undefined = () => undefined;
    const connection = new OwnedConnection(connectReplication, database, {
      applicationName: walsenderName(slot),
      log: options.log,
      onNotice: (notice) => notices.put(notice),
      onSocket: (socket) => {
        copyData = new CopyDataInbox(socket);
        fatalError = listenForFatalError(socket);
      },
    });
    signal.addEventListener('abort', () => connection[Symbol.dispose](), { once: true });
    try {
      signal.throwIfAborted();
      // A transaction that takes longer to stream than the limit would end the connection at every attempt.
      await connection.sql.unsafe(liftTransactionTimeout('session'));
      await refuseAnotherServer(connection.sql, options);
      const stream = await startCopyBoth(
        connection.sql,
        `START_REPLICATION SLOT ${quoteIdentifier(slot)} LOGICAL 0/0 (proto_version '1', ` +
          `publication_names ${quoteLiteral(publicationNames(publications))}, binary 'true', messages 'true')`,
      );
      return new ReplicationStream({ stream, connection, copyData: copyData!, notices, fatalError }, options);
    } catch (error) {
      connection[Symbol.dispose]();
      throw error;
    }
  }

  /** Hands over what comes in from now on, and what has come since the stream was opened; statuses report positions. */
  start({ onChunk, onPart, onNotice }: ReplicationHandlers): void {
    this.statuses.start();
    this.#notices.onNotice = onNotice;
    this.#copyData.start({
      onChunk: (chunk) => {
        this.statuses.noteInbound();
        onChunk(chunk);
      },
      onPart: (part) => {
        this.statuses.noteInbound();
        onPart(part);
      },
    });
  }

  /** True once `closed` has resolved. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** True until `start`, and from `pause` to `resume`. */
  get isPaused(): boolean {
    return this.#copyData.isPaused;
  }

  /** Hands over no more chunks; the server stops sending when the buffers in between are full. Statuses still go out. */
  pause(): void {
    this.#copyData.pause();
  }

  resume(): void {
    this.#copyData.resume();
  }

  /** True while another chunk of the same read is about to come. */
  get isHandingOver(): boolean {
    return this.#copyData.isHandingOver;
  }

  /** Size in bytes of the reads that were handed over last, see CopyDataInbox. */
  get lastReadBytes(): number {
    return this.#copyData.lastReadBytes;
  }

  /** Reads nothing for this time, while the stream goes on; see CopyDataInbox. */
  rest(durationMs: number): void {
    this.#copyData.rest(durationMs);
  }

  /** Sends a last status and CopyDone. The server answers with its own, which ends the stream; until then chunks may come. */
  finish(): void {
    this.statuses.stop();
    this.statuses.send();
    this.resume();
    if (this.#stream.writable) this.#stream.end();
  }

  /** Drops the connection at once, whatever the server does. */
  destroy(): void {
    this.statuses.stop();
    this.#connection[Symbol.dispose]();
  }
}

/** The error of a stream whose `closed` resolves without one while it is still needed. */
export function replicationEndedError(): SourceError {
  return new SourceError('The server ended the replication', { code: 'replication_ended' });
}

/** Keeps notices until a handler is there: the first ones come with the answer to START_REPLICATION. */
class NoticeBox {
  #held: postgres.Notice[] = [];
  #onNotice: ((notice: postgres.Notice) => void) | undefined;

  set onNotice(handler: (notice: postgres.Notice) => void) {
    this.#onNotice = handler;
    for (const notice of this.#held.splice(0)) handler(notice);
  }

  put(notice: postgres.Notice): void {
    if (this.#onNotice === undefined) this.#held.push(notice);
    else this.#onNotice(notice);
  }
}

/**
 * What was read about the slot holds for the server that it was read from. A confirmation to another server, whose WAL
 * differs after that position, would skip transactions.
 */
async function refuseAnotherServer(
  sql: postgres.Sql,
  expected: Pick<ReplicationStreamOptions, 'systemIdentifier' | 'timeline'>,
): Promise<void> {
  const [row] = await sql.unsafe('IDENTIFY_SYSTEM');
  if (row?.systemid === expected.systemIdentifier && Number(row.timeline) === expected.timeline) return;
  throw new SourceError(
    `Cannot start replication: the connection leads to system ${row?.systemid}, timeline ${row?.timeline}, but the slot ` +
      `was prepared on system ${expected.systemIdentifier}, timeline ${expected.timeline}`,
    {
      code: 'another_server',
      advice: 'No action is needed right after a failover: the next attempt prepares the slot on the new server',
    },
  );
}
