/**
 * The frames inside CopyData messages from a walsender: XLogData and primary keepalives. (status-updates.ts: the way back.)
 * A chunk is what one read of the socket brought, as whole CopyData messages one after the other (backend-messages.ts):
 * u8 'd', i32 length that counts itself, one frame.
 * Source: https://www.postgresql.org/docs/current/protocol-replication.html, START_REPLICATION
 */
import { MalformedError } from '../../errors.ts';
import type { Lsn } from '../../lsn.ts';
import { MESSAGE_HEADER_BYTES, messageEnd } from './backend-messages.ts';
import { hex, MessageDecoder, type PgoutputMessage } from './pgoutput.ts';

const FORMAT = 'replication frame';

const XLOG_DATA = 0x77; // 'w'
const PRIMARY_KEEPALIVE = 0x6b; // 'k'

/** XLogData, 'w': u64 WAL start, u64 WAL end, i64 server clock, then one pgoutput message. */
const XLOG_DATA_HEADER_BYTES = 25;
const PRIMARY_KEEPALIVE_BYTES = 18;

/** Primary keepalive, 'k': u64 WAL end, i64 server clock, u8 reply requested. */
export interface KeepaliveMessage {
  readonly tag: 'keepalive';
  /** End of WAL on the server, as far as this connection has sent it */
  readonly walEnd: Lsn;
  /** The server wants a status update at once */
  readonly replyRequested: boolean;
}

/** Everything that a walsender sends after START_REPLICATION. */
export type ReplicationMessage = PgoutputMessage | KeepaliveMessage;

/**
 * Reads the frames of one replication connection.
 *
 *     reader.start(chunk);
 *     for (let message = reader.next(); message !== undefined; message = reader.next()) ...
 *
 * A row message (insert, update, delete) is valid only until the next call of `next` or `start`: its objects are reused.
 */
export class FrameReader {
  readonly #decoder = new MessageDecoder();
  #chunk: Buffer = Buffer.alloc(0);
  #frameStart = 0;
  #frameEnd = 0;
  #offset = 0;

  /** Begins with a chunk; the rest of the last one is dropped. */
  start(chunk: Buffer): void {
    this.#chunk = chunk;
    this.#frameStart = 0;
    this.#frameEnd = 0;
    this.#offset = 0;
  }

  /**
   * Decodes the next frame of the chunk; undefined at its end.
   * @throws MalformedError, whose offset counts from the beginning of the chunk, when the bytes are no valid frame or
   *   message; the connection is then unusable
   */
  next(): ReplicationMessage | undefined {
    const chunk = this.#chunk;
    if (this.#offset >= chunk.length) return undefined;
    const start = this.#offset + MESSAGE_HEADER_BYTES;
    const end = messageEnd(chunk, this.#offset);
    if (end === undefined || end > chunk.length) throw new MalformedError(FORMAT, chunk.length, 'it is cut short');
    this.#offset = end;
    this.#frameStart = start;
    this.#frameEnd = end;
    const kind = start < end ? chunk[start] : undefined;
    if (kind === XLOG_DATA) {
      const messageStart = start + XLOG_DATA_HEADER_BYTES;
      if (messageStart > end) throw new MalformedError(FORMAT, end, 'the XLogData header is cut short');
      return this.#decoder.decode(chunk, messageStart, end);
    }
    if (kind === PRIMARY_KEEPALIVE) return decodeKeepalive(chunk, start, end);
    throw new MalformedError(FORMAT, start, kind === undefined ? 'it is empty' : `unknown frame kind ${hex(kind)}`);
  }

  /** Lets go of the chunk, all of whose frames were returned; the facts about the last one stay. */
  release(): void {
    const head = this.#chunk.subarray(
      this.#frameStart,
      Math.min(this.#frameEnd, this.#frameStart + XLOG_DATA_HEADER_BYTES),
    );
    this.start(Buffer.from(head));
    this.#offset = head.length;
    this.#frameEnd = head.length;
  }

  /**
   * When the server sent the XLogData frame that `next` returned last, by its clock, microseconds since 2000-01-01;
   * undefined for a keepalive and before the first frame.
   */
  get sentMicros(): number | undefined {
    if (this.#frameEnd - this.#frameStart < XLOG_DATA_HEADER_BYTES) return undefined;
    if (this.#chunk[this.#frameStart] !== XLOG_DATA) return undefined;
    return readMicros(this.#chunk, this.#frameStart + 17);
  }

  /**
   * LSN of the XLogData frame that `next` returned last or failed on; undefined for a keepalive and before the first
   * frame. Read from the bytes on demand. Relation and Type frames carry 0.
   */
  get walStart(): Lsn | undefined {
    if (this.#frameEnd - this.#frameStart < XLOG_DATA_HEADER_BYTES) return undefined;
    if (this.#chunk[this.#frameStart] !== XLOG_DATA) return undefined;
    return this.#chunk.readBigUInt64BE(this.#frameStart + 1);
  }
}

/** Microseconds since 2000-01-01 by the server's clock, as a number: exact until the year 2255. */
function readMicros(bytes: Buffer, at: number): number {
  return bytes.readInt32BE(at) * 0x1_0000_0000 + bytes.readUInt32BE(at + 4);
}

function decodeKeepalive(chunk: Buffer, start: number, end: number): KeepaliveMessage {
  if (end - start !== PRIMARY_KEEPALIVE_BYTES) {
    throw new MalformedError(
      FORMAT,
      start,
      `a keepalive of ${end - start} bytes in place of ${PRIMARY_KEEPALIVE_BYTES}`,
    );
  }
  const reply = chunk[start + 17]!;
  if (reply > 1) throw new MalformedError(FORMAT, start + 17, 'the reply request of a keepalive is neither 0 nor 1');
  return {
    tag: 'keepalive',
    walEnd: chunk.readBigUInt64BE(start + 1),
    replyRequested: reply === 1,
  };
}
