/**
 * What travels inside CopyData on a replication connection: XLogData and keepalives come in, status updates go out.
 * A chunk is what one read of the socket brought, as whole CopyData messages one behind the other (message-splitter.ts):
 * u8 'd', i32 length that counts itself, one frame.
 * Source: https://www.postgresql.org/docs/current/protocol-replication.html, START_REPLICATION
 */
import { ByteWriter } from '../../bytes/writer.ts';
import { MalformedError } from '../../errors.ts';
import type { Lsn } from '../../lsn.ts';
import { MESSAGE_HEADER_BYTES, messageEnd } from './backend-messages.ts';
import { hex, MessageDecoder, type PgoutputMessage } from './pgoutput.ts';

const FORMAT = 'replication frame';

const XLOG_DATA = 0x77; // 'w'
const PRIMARY_KEEPALIVE = 0x6b; // 'k'
const STANDBY_STATUS_UPDATE = 0x72; // 'r'

/** XLogData, 'w': u64 WAL start, u64 WAL end, i64 server clock, then one pgoutput message. */
const XLOG_DATA_HEADER_BYTES = 25;
const PRIMARY_KEEPALIVE_BYTES = 18;
const STANDBY_STATUS_UPDATE_BYTES = 34;

/** Primary keepalive, 'k': u64 WAL end, i64 server clock, u8 reply requested. */
export interface KeepaliveMessage {
  readonly tag: 'keepalive';
  /** End of WAL on the server, as far as this connection has sent it */
  readonly walEnd: Lsn;
  /** Microseconds since 2000-01-01 UTC */
  readonly serverClockMicros: bigint;
  readonly replyRequested: boolean;
}

/** Everything that the server sends after START_REPLICATION. */
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

  /** Takes a chunk; what was left of the last one is forgotten. */
  start(chunk: Buffer): void {
    this.#chunk = chunk;
    this.#frameStart = 0;
    this.#frameEnd = 0;
    this.#offset = 0;
  }

  /**
   * Decodes the next frame of the chunk; undefined when the chunk is used up. Throws MalformedError, whose offset counts
   * from the beginning of the chunk, when the bytes are no frame or hold no message; then the connection is of no more use.
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
    serverClockMicros: chunk.readBigInt64BE(start + 9),
    replyRequested: reply === 1,
  };
}

/** What a standby status update says. */
export interface StandbyStatus {
  /** Received */
  readonly written: Lsn;
  /** Safe on this side: the server keeps no WAL before it */
  readonly flushed: Lsn;
  readonly applied: Lsn;
  /** Our clock, in microseconds since 2000-01-01 UTC */
  readonly clockMicros: bigint;
  /** Asks the server for a keepalive at once */
  readonly replyRequested: boolean;
}

/**
 * Encodes a standby status update, 34 bytes: 'r', u64 written, u64 flushed, u64 applied, i64 clock, u8 reply requested.
 * Each LSN goes out as it is: the protocol wants the position after the last byte, which a commit's end LSN already is.
 */
export function encodeStandbyStatusUpdate(status: StandbyStatus): Buffer {
  return new ByteWriter(STANDBY_STATUS_UPDATE_BYTES)
    .u8(STANDBY_STATUS_UPDATE)
    .i64(BigInt.asIntN(64, status.written))
    .i64(BigInt.asIntN(64, status.flushed))
    .i64(BigInt.asIntN(64, status.applied))
    .i64(status.clockMicros)
    .u8(status.replyRequested ? 1 : 0)
    .toBuffer();
}
