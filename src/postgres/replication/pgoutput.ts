/**
 * pgoutput, the messages of PostgreSQL's logical replication: protocol version 1, no streaming, no two-phase.
 * Input is the payload of an XLogData frame (frames.ts). Row messages are decoded without copying: a tuple keeps the
 * offsets of its columns within the chunk, and a reader takes a column from there.
 * Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
import { ByteReader } from '../../bytes/reader.ts';
import { MalformedError } from '../../errors.ts';
import type { Lsn } from '../../lsn.ts';

const FORMAT = 'pgoutput';

const BEGIN = 0x42; // 'B'
const COMMIT = 0x43; // 'C'
const ORIGIN = 0x4f; // 'O'
const RELATION = 0x52; // 'R'
const TYPE = 0x59; // 'Y'
const INSERT = 0x49; // 'I'
const UPDATE = 0x55; // 'U'
const DELETE = 0x44; // 'D'
const TRUNCATE = 0x54; // 'T'
const MESSAGE = 0x4d; // 'M'

const NEW_TUPLE = 0x4e; // 'N'
const KEY_TUPLE = 0x4b; // 'K'
const OLD_TUPLE = 0x4f; // 'O'

const NULL_COLUMN = 0x6e; // 'n'
const UNCHANGED_COLUMN = 0x75; // 'u'
const TEXT_COLUMN = 0x74; // 't'
const BINARY_COLUMN = 0x62; // 'b'

/** Of our own, in place of 't' or 'b': a value that was left out while its row arrived (large-row.ts); its length follows. */
export const OMITTED_COLUMN = 0x78; // 'x'

const NEW_TUPLE_DUE = "the new tuple's 'N'";
const OLD_TUPLE_DUE = "the old tuple's 'O' or 'K'";

/** Bytes before a column's value: its kind and the i32 length. */
export const COLUMN_HEADER_BYTES = 5;

/** PostgreSQL's MaxTupleAttributeNumber: no tuple has more columns. */
const MAX_COLUMN_COUNT = 1664;

/** In place of a column's length: the column is NULL. */
export const NULL = -1;

/** In place of a column's length: a TOASTed value that the update did not change and the server did not send. */
export const UNCHANGED_TOAST = -2;

/** In place of a column's length: a value of a large row that was left out as it arrived; `starts` has its length. */
export const OMITTED = -3;

/** Kinds of messages that can be larger than memory allows. */
export const MESSAGE_KIND = { insert: INSERT, update: UPDATE, delete: DELETE, logical: MESSAGE } as const;

/** True for the byte before an old row or key. */
export function isOldTuple(kind: number): boolean {
  return kind === OLD_TUPLE || kind === KEY_TUPLE;
}

/** True for the kind of a column that is followed by length and value. */
export function hasValue(kind: number): boolean {
  return kind === TEXT_COLUMN || kind === BINARY_COLUMN;
}

/**
 * The columns of one row, as offsets into the chunk. The arrays are longer than `columnCount`, and their rest is left over
 * from earlier rows: compare `columnCount` with the relation's before you read a column.
 */
export interface Tuple {
  /** The chunk that the row arrived in */
  readonly bytes: Buffer;
  readonly columnCount: number;
  /** Offset of each column's value in `bytes`; the value's length for OMITTED; meaningless for NULL and UNCHANGED_TOAST */
  readonly starts: Int32Array;
  /** Length of each column's value in bytes, or NULL, UNCHANGED_TOAST or OMITTED */
  readonly lengths: Int32Array;
}

/** Begin, 'B': i64 final LSN, i64 commit time, u32 xid. */
export interface BeginMessage {
  readonly tag: 'begin';
  /** LSN of the transaction's commit record */
  readonly finalLsn: Lsn;
  /** Microseconds since 2000-01-01 UTC */
  readonly commitTimeMicros: bigint;
  readonly xid: number;
}

/** Commit, 'C': u8 flags (0), i64 commit LSN, i64 end LSN, i64 commit time. */
export interface CommitMessage {
  readonly tag: 'commit';
  readonly commitLsn: Lsn;
  /** End of the transaction: the position to confirm once all of it is delivered */
  readonly endLsn: Lsn;
  /** Microseconds since 2000-01-01 UTC */
  readonly commitTimeMicros: bigint;
}

/** Origin, 'O': i64 commit LSN on the origin server, name. */
export interface OriginMessage {
  readonly tag: 'origin';
  readonly commitLsn: Lsn;
  readonly name: string;
}

/** A column of a Relation: u8 flags (1 = part of the key), name, u32 type OID, i32 type modifier. */
export interface RelationColumn {
  readonly name: string;
  readonly typeOid: number;
  readonly typeModifier: number;
  readonly isKey: boolean;
}

/** default, nothing, full, index (pg_class.relreplident) */
export type ReplicaIdentity = 'd' | 'n' | 'f' | 'i';

/** Relation, 'R': u32 id, schema ('' = pg_catalog), name, u8 replica identity, u16 column count, columns. */
export interface RelationMessage {
  readonly tag: 'relation';
  readonly relationId: number;
  readonly schema: string;
  readonly name: string;
  readonly replicaIdentity: ReplicaIdentity;
  readonly columns: readonly RelationColumn[];
}

/** Type, 'Y': u32 OID, schema ('' = pg_catalog), name. */
export interface TypeMessage {
  readonly tag: 'type';
  readonly typeOid: number;
  readonly schema: string;
  readonly name: string;
}

/** Insert, 'I': u32 relation id, 'N', tuple. */
export interface InsertMessage {
  readonly tag: 'insert';
  readonly relationId: number;
  readonly newTuple: Tuple;
}

/** Update, 'U': u32 relation id, optionally 'K' or 'O' and the old tuple, 'N', new tuple. */
export interface UpdateMessage {
  readonly tag: 'update';
  readonly relationId: number;
  /** 'K': the old tuple has the key columns only; 'O': it has all (replica identity FULL) */
  readonly oldKind: 'K' | 'O' | undefined;
  /** Present when `oldKind` is */
  readonly oldTuple: Tuple | undefined;
  readonly newTuple: Tuple;
}

/** Delete, 'D': u32 relation id, 'K' or 'O', old tuple. */
export interface DeleteMessage {
  readonly tag: 'delete';
  readonly relationId: number;
  readonly oldKind: 'K' | 'O';
  readonly oldTuple: Tuple;
}

/** Truncate, 'T': u32 relation count, u8 options (1 = CASCADE, 2 = RESTART IDENTITY), u32 relation ids. */
export interface TruncateMessage {
  readonly tag: 'truncate';
  readonly options: number;
  readonly relationIds: readonly number[];
}

/** Message of pg_logical_emit_message, 'M': u8 flags (1 = transactional), i64 LSN, prefix, u32 length, content. */
export interface LogicalMessage {
  readonly tag: 'message';
  readonly transactional: boolean;
  readonly lsn: Lsn;
  readonly prefix: string;
  /** Shares the chunk's memory */
  readonly content: Buffer;
}

/** A change of one row. */
export type RowMessage = InsertMessage | UpdateMessage | DeleteMessage;

/** All messages of pgoutput's protocol version 1. */
export type PgoutputMessage =
  | RowMessage
  | BeginMessage
  | CommitMessage
  | OriginMessage
  | RelationMessage
  | TypeMessage
  | TruncateMessage
  | LogicalMessage;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** True when the column was sent in binary format, false for text. Only for columns that have a value. */
export function isBinary(tuple: Tuple, column: number): boolean {
  return tuple.bytes[tuple.starts[column]! - COLUMN_HEADER_BYTES] === BINARY_COLUMN;
}

/**
 * Decodes one message after another. It reuses its row messages and tuples: **a row message is valid only until the next
 * call of `decode`**; all other messages may be kept (the content of a logical message as long as its chunk).
 */
export class MessageDecoder {
  readonly #old = createTuple();
  readonly #new = createTuple();
  readonly #insert: Mutable<InsertMessage> = { tag: 'insert', relationId: 0, newTuple: this.#new };
  readonly #update: Mutable<UpdateMessage> = {
    tag: 'update',
    relationId: 0,
    oldKind: undefined,
    oldTuple: undefined,
    newTuple: this.#new,
  };
  readonly #delete: Mutable<DeleteMessage> = { tag: 'delete', relationId: 0, oldKind: 'O', oldTuple: this.#old };

  /**
   * Decodes the message `bytes[start..end)`.
   * @throws MalformedError, whose offset counts from the beginning of `bytes`, when the message is cut short, is followed
   *   by other bytes, has an unknown kind, or holds a value outside the protocol
   */
  decode(bytes: Buffer, start: number, end = bytes.length): PgoutputMessage {
    // Row messages first: all others are rare.
    const kind = start < end ? bytes[start] : undefined;
    switch (kind) {
      case INSERT:
        return this.#decodeInsert(bytes, start + 1, end);
      case UPDATE:
        return this.#decodeUpdate(bytes, start + 1, end);
      case DELETE:
        return this.#decodeDelete(bytes, start + 1, end);
      default:
        return decodeRareMessage(bytes, start, end);
    }
  }

  #decodeInsert(bytes: Buffer, start: number, end: number): InsertMessage {
    const insert = this.#insert;
    insert.relationId = readRelationId(bytes, start, end);
    const newAt = start + 4;
    if (newAt >= end || bytes[newAt] !== NEW_TUPLE) throw unexpectedByte(bytes, { at: newAt, end }, NEW_TUPLE_DUE);
    expectEnd(decodeTuple(this.#new, bytes, newAt + 1, end), end);
    return insert;
  }

  #decodeUpdate(bytes: Buffer, start: number, end: number): UpdateMessage {
    const update = this.#update;
    update.relationId = readRelationId(bytes, start, end);
    let at = start + 4;
    const kind = at < end ? bytes[at] : undefined;
    if (kind === OLD_TUPLE || kind === KEY_TUPLE) {
      update.oldKind = kind === OLD_TUPLE ? 'O' : 'K';
      update.oldTuple = this.#old;
      at = decodeTuple(this.#old, bytes, at + 1, end);
    } else {
      update.oldKind = undefined;
      update.oldTuple = undefined;
    }
    if (at >= end || bytes[at] !== NEW_TUPLE) throw unexpectedByte(bytes, { at, end }, NEW_TUPLE_DUE);
    expectEnd(decodeTuple(this.#new, bytes, at + 1, end), end);
    return update;
  }

  #decodeDelete(bytes: Buffer, start: number, end: number): DeleteMessage {
    const message = this.#delete;
    message.relationId = readRelationId(bytes, start, end);
    const at = start + 4;
    const kind = at < end ? bytes[at] : undefined;
    if (kind !== OLD_TUPLE && kind !== KEY_TUPLE) throw unexpectedByte(bytes, { at, end }, OLD_TUPLE_DUE);
    message.oldKind = kind === OLD_TUPLE ? 'O' : 'K';
    expectEnd(decodeTuple(this.#old, bytes, at + 1, end), end);
    return message;
  }
}

function createTuple(): Mutable<Tuple> {
  return {
    bytes: Buffer.alloc(0),
    columnCount: 0,
    starts: new Int32Array(MAX_COLUMN_COUNT),
    lengths: new Int32Array(MAX_COLUMN_COUNT),
  };
}

/**
 * TupleData: u16 column count, then for each column its kind ('n' NULL, 'u' unchanged TOAST, 't' text, 'b' binary) and,
 * for the last two, i32 length and value. Returns the offset after it.
 */
function decodeTuple(tuple: Mutable<Tuple>, bytes: Buffer, start: number, end: number): number {
  if (start + 2 > end) throw new MalformedError(FORMAT, end, 'the column count is cut short');
  const columnCount = (bytes[start]! << 8) | bytes[start + 1]!;
  if (columnCount > MAX_COLUMN_COUNT) {
    throw new MalformedError(FORMAT, start, `${columnCount} columns where ${MAX_COLUMN_COUNT} are possible`);
  }
  const { starts, lengths } = tuple;
  let at = start + 2;
  for (let column = 0; column < columnCount; column++) {
    const kind = at < end ? bytes[at] : undefined;
    if (kind === BINARY_COLUMN || kind === TEXT_COLUMN) {
      const valueStart = at + COLUMN_HEADER_BYTES;
      if (valueStart > end) throw new MalformedError(FORMAT, end, 'the length of a column is cut short');
      const length = (bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!;
      if (length < 0 || length > end - valueStart) {
        throw new MalformedError(FORMAT, at + 1, `column length ${length} where ${end - valueStart} bytes are left`);
      }
      starts[column] = valueStart;
      lengths[column] = length;
      at = valueStart + length;
    } else if (kind === NULL_COLUMN || kind === UNCHANGED_COLUMN) {
      lengths[column] = kind === NULL_COLUMN ? NULL : UNCHANGED_TOAST;
      at++;
    } else if (kind === OMITTED_COLUMN && at + COLUMN_HEADER_BYTES <= end) {
      starts[column] = bytes.readInt32BE(at + 1);
      lengths[column] = OMITTED;
      at += COLUMN_HEADER_BYTES;
    } else {
      throw unexpectedByte(bytes, { at, end }, 'a column kind');
    }
  }
  tuple.bytes = bytes;
  tuple.columnCount = columnCount;
  return at;
}

function readRelationId(bytes: Buffer, at: number, end: number): number {
  if (at + 4 > end) throw new MalformedError(FORMAT, end, 'the relation id is cut short');
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

function decodeRareMessage(bytes: Buffer, start: number, end: number): PgoutputMessage {
  // From 0, because offsets in errors count from there.
  const reader = new ByteReader(FORMAT, bytes, 0, end);
  reader.offset = start;
  const message = decodeRareBody(reader);
  expectEnd(reader.offset, end);
  return message;
}

function decodeRareBody(reader: ByteReader): PgoutputMessage {
  const start = reader.offset;
  const kind = reader.u8();
  switch (kind) {
    case BEGIN:
      return { tag: 'begin', finalLsn: reader.u64(), commitTimeMicros: reader.i64(), xid: reader.u32() };
    case COMMIT:
      readFlags(reader, 0);
      return { tag: 'commit', commitLsn: reader.u64(), endLsn: reader.u64(), commitTimeMicros: reader.i64() };
    case RELATION:
      return decodeRelation(reader);
    case TYPE:
      return { tag: 'type', typeOid: reader.u32(), schema: reader.cstring(), name: reader.cstring() };
    case ORIGIN:
      return { tag: 'origin', commitLsn: reader.u64(), name: reader.cstring() };
    case TRUNCATE:
      return decodeTruncate(reader);
    case MESSAGE: {
      const transactional = readFlags(reader, 1) === 1;
      const lsn = reader.u64();
      const prefix = reader.cstring();
      return { tag: 'message', transactional, lsn, prefix, content: reader.bytes(reader.u32()) };
    }
    default:
      throw new MalformedError(FORMAT, start, `unknown message kind ${hex(kind)}`);
  }
}

function decodeRelation(reader: ByteReader): RelationMessage {
  const relationId = reader.u32();
  const schema = reader.cstring();
  const name = reader.cstring();
  const replicaIdentity = decodeReplicaIdentity(reader);
  const columnCount = reader.u16();
  const columns: RelationColumn[] = [];
  for (let column = 0; column < columnCount; column++) {
    const isKey = readFlags(reader, 1) === 1;
    columns.push({ name: reader.cstring(), typeOid: reader.u32(), typeModifier: reader.i32(), isKey });
  }
  return { tag: 'relation', relationId, schema, name, replicaIdentity, columns };
}

function decodeReplicaIdentity(reader: ByteReader): ReplicaIdentity {
  const start = reader.offset;
  const identity = String.fromCharCode(reader.u8());
  if (identity === 'd' || identity === 'n' || identity === 'f' || identity === 'i') return identity;
  throw new MalformedError(FORMAT, start, 'unknown replica identity');
}

function decodeTruncate(reader: ByteReader): TruncateMessage {
  const relationCount = reader.u32();
  const options = readFlags(reader, 3);
  const relationIds: number[] = [];
  // Each id is read from bytes that exist, so a wrong count ends at the first missing one.
  for (let index = 0; index < relationCount; index++) relationIds.push(reader.u32());
  return { tag: 'truncate', options, relationIds };
}

/** Reads a byte of flags. A bit outside `known` has a meaning that this service does not know: an error is safer. */
function readFlags(reader: ByteReader, known: number): number {
  const start = reader.offset;
  const flags = reader.u8();
  if ((flags & ~known) !== 0) throw new MalformedError(FORMAT, start, `unknown flags ${hex(flags)}`);
  return flags;
}

/** CopyData gives the length of its message; more bytes mean that decoder and server disagree on the format. */
function expectEnd(at: number, end: number): void {
  if (at !== end) throw new MalformedError(FORMAT, at, `${end - at} bytes after the message`);
}

function unexpectedByte(
  bytes: Buffer,
  { at, end }: { readonly at: number; readonly end: number },
  expected: string,
): MalformedError {
  const detail = at >= end ? `the bytes end where ${expected} is due` : `${hex(bytes[at]!)} in place of ${expected}`;
  return new MalformedError(FORMAT, Math.min(at, end), detail);
}

/** A byte in the notation of the protocol's documentation, `0x77`. */
export function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, '0')}`;
}
