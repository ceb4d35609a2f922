/**
 * A row change that is too large to be held whole: read while it arrives, and given on as the same CopyData message without
 * the values that no record needs. In their place stands the kind OMITTED_COLUMN with the length that the value had.
 */
import { MalformedError } from '../../errors.ts';
import { MESSAGE_HEADER_BYTES } from './backend-messages.ts';
import {
  COLUMN_HEADER_BYTES,
  hasValue,
  isOldTuple,
  MESSAGE_KIND,
  OMITTED_COLUMN,
  type RowMessage,
} from './pgoutput.ts';

const FORMAT = 'large row';

const XLOG_DATA = 0x77; // 'w'
/** Headers of CopyData and of XLogData */
const HEADERS_BYTES = MESSAGE_HEADER_BYTES + 25;
/** Flags and LSN of a logical message */
const LOGICAL_HEADER_BYTES = 9;

const OMIT_FROM_BYTES = 1024;
/** Least capacity that is added at a time */
const GROWTH_BYTES = 64 * 1024;

/** One of the tuples of a row change. */
export interface TupleRole {
  readonly relationId: number;
  readonly operation: RowMessage['tag'];
  readonly version: 'old' | 'new';
}

/** Decides what of a large row is kept. */
export interface LargeRowPolicy {
  /** Positions of the columns of a tuple that its record may be made of */
  neededColumns(tuple: TupleRole): readonly number[];
  /** Of the needed values of a tuple, no more bytes than this are kept; a value above it is omitted */
  readonly maxRowBytes: number;
  /** A value that is not needed is omitted from this size on; smaller ones help the reader of a parked row */
  readonly omitFromBytes?: number;
}

/** What the parser does with the next bytes of the message. */
interface Step {
  readonly action: 'keep' | 'skip';
  readonly bytes: number;
}

const keep = (bytes: number): Step => ({ action: 'keep', bytes });
const skip = (bytes: number): Step => ({ action: 'skip', bytes });

const OPERATIONS: ReadonlyMap<number, RowMessage['tag']> = new Map([
  [MESSAGE_KIND.insert, 'insert'],
  [MESSAGE_KIND.update, 'update'],
  [MESSAGE_KIND.delete, 'delete'],
]);

/**
 * Condenses one CopyData message after another, each given in pieces as the socket brings them.
 *
 * What is no row is kept whole, but for a logical message: none of this size is of the service, so its text is dropped.
 */
export class LargeRowReader {
  readonly #policy: LargeRowPolicy;
  #kept: Buffer = EMPTY;
  #keptBytes = 0;
  /** Bytes of the message that no step has taken yet */
  #unreadBytes = 0;
  #steps: Iterator<Step, void> | undefined;
  #step: Step | undefined;
  #stepBytes = 0;

  constructor(policy: LargeRowPolicy) {
    this.#policy = policy;
  }

  /**
   * Takes a piece of a message, the first one with its whole header; returns the message with its last piece.
   * @throws MalformedError when it is no valid row; the connection is then unusable
   */
  push(piece: Buffer): Buffer | undefined {
    if (this.#steps === undefined) this.#begin(piece);
    let at = 0;
    while (at < piece.length) {
      const step = this.#step;
      if (step === undefined) throw new MalformedError(FORMAT, at, `${this.#unreadBytes} bytes after the message`);
      const end = Math.min(at + this.#stepBytes, piece.length);
      if (step.action === 'keep') this.#keep(piece, at, end);
      this.#stepBytes -= end - at;
      this.#unreadBytes -= end - at;
      at = end;
      if (this.#stepBytes === 0) this.#next();
    }
    return this.#unreadBytes === 0 ? this.#finish() : undefined;
  }

  #begin(piece: Buffer): void {
    this.#unreadBytes = piece.readUInt32BE(1) + 1;
    this.#keptBytes = 0;
    this.#steps = this.#parse();
    this.#next();
  }

  #next(): void {
    // A step without bytes would wait for a piece that need not come.
    do {
      const next = this.#steps!.next();
      this.#step = next.done === true ? undefined : next.value;
      this.#stepBytes = this.#step?.bytes ?? 0;
    } while (this.#step !== undefined && this.#stepBytes === 0);
    if (this.#stepBytes > this.#unreadBytes) {
      throw new MalformedError(FORMAT, this.#keptBytes, `${this.#stepBytes} bytes where ${this.#unreadBytes} are left`);
    }
    if (this.#step?.action === 'keep') this.#reserve(this.#stepBytes);
  }

  #finish(): Buffer {
    if (this.#step !== undefined) throw new MalformedError(FORMAT, this.#keptBytes, 'it is cut short');
    const message = this.#kept.subarray(0, this.#keptBytes);
    message.writeUInt32BE(message.length - 1, 1);
    this.#steps = undefined;
    this.#kept = EMPTY;
    return message;
  }

  #keep(piece: Buffer, start: number, end: number): void {
    piece.copy(this.#kept, this.#keptBytes, start, end);
    this.#keptBytes += end - start;
  }

  /** Grows by what is needed, not by a factor: a large value is in memory once. */
  #reserve(bytes: number): void {
    if (this.#keptBytes + bytes <= this.#kept.length) return;
    const larger = Buffer.allocUnsafeSlow(this.#keptBytes + bytes + GROWTH_BYTES);
    this.#kept.copy(larger, 0, 0, this.#keptBytes);
    this.#kept = larger;
  }

  *#parse(): Generator<Step, void> {
    yield keep(HEADERS_BYTES + 1);
    const kind = this.#kept[HEADERS_BYTES]!;
    const operation = OPERATIONS.get(kind);
    if (this.#kept[MESSAGE_HEADER_BYTES] !== XLOG_DATA) {
      yield keep(this.#unreadBytes);
    } else if (operation !== undefined) {
      yield keep(4);
      const relationId = this.#kept.readUInt32BE(this.#keptBytes - 4);
      while (this.#unreadBytes > 0) {
        yield keep(1);
        const version = isOldTuple(this.#kept[this.#keptBytes - 1]!) ? 'old' : 'new';
        yield* this.#parseTuple({ relationId, operation, version });
      }
    } else if (kind === MESSAGE_KIND.logical) {
      yield keep(LOGICAL_HEADER_BYTES);
      yield skip(this.#unreadBytes);
      this.#reserve(COLUMN_HEADER_BYTES);
      // An empty prefix, and content of length 0
      this.#kept.fill(0, this.#keptBytes, this.#keptBytes + 5);
      this.#keptBytes += 5;
    } else {
      yield keep(this.#unreadBytes);
    }
  }

  *#parseTuple(tuple: TupleRole): Generator<Step, void> {
    const { omitFromBytes = OMIT_FROM_BYTES } = this.#policy;
    const needed = this.#policy.neededColumns(tuple);
    let roomBytes = this.#policy.maxRowBytes;
    yield keep(2);
    const columnCount = this.#kept.readUInt16BE(this.#keptBytes - 2);
    for (let column = 0; column < columnCount; column++) {
      yield keep(1);
      const kindAt = this.#keptBytes - 1;
      if (!hasValue(this.#kept[kindAt]!)) continue;
      yield keep(4);
      const length = this.#kept.readUInt32BE(this.#keptBytes - 4);
      const isKept = length < omitFromBytes || (needed.includes(column) && length <= roomBytes);
      if (!isKept) this.#kept[kindAt] = OMITTED_COLUMN;
      else roomBytes -= length;
      yield isKept ? keep(length) : skip(length);
    }
  }
}

const EMPTY = Buffer.alloc(0);
