/**
 * The replication connection of one slot: frames come in as chunks, status updates go out. It decides nothing.
 *
 * The driver logs in, starts the replication, writes, and hears of errors and of the end. CopyData does not pass through
 * it: as a stream of one chunk a row that costs more than all that is done to the row (backlog a: 5.0 against 3.4 us).
 * Source: PostgreSQL manual, "Streaming Replication Protocol", START_REPLICATION ... LOGICAL.
 */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Logger } from 'pino';
import type postgres from 'postgres';
import type { DatabaseEndpoint } from '../../config/config.ts';
import { SourceError } from '../../errors.ts';
import { connectReplication, startCopyBoth } from '../client/connect.ts';
import { publicationNames, quoteIdentifier, quoteLiteral } from '../client/quote.ts';
import { CopyDataInbox } from './copy-data.ts';
import { listenForLastWords } from './fatal-error.ts';

/** What to stream, from whom, and who works on it. */
export interface ReplicationStreamOptions {
  readonly slot: string;
  /** Of the server that was prepared: after a failover the same address may lead to another one */
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** Drops the connection, also while it is being made */
  readonly signal: AbortSignal;
  /** Publications whose tables are wanted, at least one: PostgreSQL 14 and 15 refuse an empty list */
  readonly publications: readonly string[];
  /** Whole CopyData messages; see FrameReader */
  readonly onChunk: (chunk: Buffer) => void;
  /** Warnings that the server sends on this very connection, such as a publication that it cannot load */
  readonly onNotice: (notice: postgres.Notice) => void;
  /** Called once: with the error that ended the stream, or with undefined when the server closed it in good order */
  readonly onClosed: (error: Error | undefined) => void;
  readonly log: Logger;
}

/** See the head of this file. */
export class ReplicationStream {
  readonly #stream: Duplex;
  readonly #copyData: CopyDataInbox;

  private constructor(stream: Duplex, copyData: CopyDataInbox, options: ReplicationStreamOptions) {
    this.#stream = stream;
    this.#copyData = copyData;
    let closed = false;
    const close = (error: Error | undefined) => {
      if (closed) return;
      closed = true;
      options.onClosed(error);
    };
    // Nothing comes on it but its end, which nobody is told of before he reads.
    stream.resume();
    stream.once('end', () => close(undefined));
    // The driver destroys the stream with an ERROR of the server, or with CONNECTION_CLOSED. Later errors add nothing.
    stream.on('error', close);
    stream.once('close', () => close(undefined));
  }

  /**
   * Connects and starts replication at the slot's confirmed LSN (which 0/0 asks for). The stream is paused: nothing is
   * handed over before `resume`.
   * @throws whatever the driver or the server says, for instance 55006 when the slot is in use
   */
  static async open(database: DatabaseEndpoint, options: ReplicationStreamOptions): Promise<ReplicationStream> {
    let socket: Socket | undefined;
    let copyData: CopyDataInbox | undefined;
    let lastWords: (() => Error | undefined) | undefined;
    const sql = connectReplication(database, {
      applicationName: `cdc-notifier ${options.slot}`,
      log: options.log,
      onNotice: options.onNotice,
      onSocket: (opened) => {
        socket = opened;
        if (options.signal.aborted) opened.destroy();
        copyData = new CopyDataInbox(opened, options.onChunk);
        lastWords = listenForLastWords(opened);
      },
    });
    options.signal.addEventListener('abort', () => socket?.destroy(), { once: true });
    try {
      await refuseAnotherServer(sql, options);
      const stream = await startCopyBoth(
        sql,
        `START_REPLICATION SLOT ${quoteIdentifier(options.slot)} LOGICAL 0/0 (proto_version '1', ` +
          `publication_names ${quoteLiteral(publicationNames(options.publications))}, binary 'true', messages 'true')`,
      );
      return new ReplicationStream(stream, copyData!, {
        ...options,
        onClosed: (error) => options.onClosed(lastWords?.() ?? error),
      });
    } catch (error) {
      socket?.destroy();
      throw error;
    }
  }

  /** True while `pause` holds the server back. */
  get isPaused(): boolean {
    return this.#copyData.isPaused;
  }

  /** Hands nothing over any more; the server stops sending when the buffers between us are full. Statuses still go out. */
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

  /** Size of the read that the last chunk was in. */
  get lastReadBytes(): number {
    return this.#copyData.lastReadBytes;
  }

  /** Reads nothing for so long, while the stream goes on; see CopyDataInbox. */
  rest(durationMs: number): void {
    this.#copyData.rest(durationMs);
  }

  /** Sends a standby status update. Does nothing on a stream that has ended. */
  writeStatus(status: Buffer): void {
    if (this.#stream.writable) this.#stream.write(status);
  }

  /** Sends CopyDone. The server answers with its own, which ends the stream; until then chunks may still come. */
  finish(): void {
    this.resume();
    if (this.#stream.writable) this.#stream.end();
  }

  /**
   * Drops the connection at once, whatever the server is doing. Not by the driver's own end, which waits until the
   * server has read what lies in its socket.
   */
  destroy(): void {
    this.#copyData.destroy();
  }
}

/**
 * What was read of the slot holds for the server that it was read from. Confirmed to another one, whose WAL went other
 * ways from there, it would pass over transactions.
 */
async function refuseAnotherServer(
  sql: postgres.Sql,
  expected: Pick<ReplicationStreamOptions, 'systemIdentifier' | 'timeline'>,
): Promise<void> {
  const [row] = await sql.unsafe('IDENTIFY_SYSTEM');
  if (row?.systemid === expected.systemIdentifier && Number(row.timeline) === expected.timeline) return;
  throw new SourceError(
    `Cannot start replication: the connection leads to system ${row?.systemid}, timeline ${row?.timeline}, and not to ` +
      `system ${expected.systemIdentifier}, timeline ${expected.timeline}, which was prepared`,
    { advice: 'Nothing is to be done when a failover has just happened: the slot is prepared again' },
  );
}
