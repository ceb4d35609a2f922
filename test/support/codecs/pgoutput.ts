/**
 * Builds the messages of a walsender, one function a message, and shows decoded messages as plain values. Independent of the
 * decoder, so that the two do not share a mistake.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ReplicationMessage } from '../../../src/postgres/replication/frames.ts';
import type {
  PgoutputMessage,
  RelationColumn,
  RelationMessage,
  ReplicaIdentity,
  Tuple,
} from '../../../src/postgres/replication/pgoutput.ts';

/** A TOASTed column that the update left unchanged. */
export const UNCHANGED = Symbol('unchanged TOAST');

/** A column as it is sent: NULL, unchanged TOAST, text format (string) or binary format (bytes). */
export type ColumnValue = null | typeof UNCHANGED | string | Uint8Array;

const u8 = (value: number): Buffer => Buffer.from([value]);
const letter = (value: string): Buffer => Buffer.from(value, 'latin1');
const cstring = (value: string): Buffer => Buffer.from(`${value}\0`);

/** Big-endian two's complement of 2 bytes: int2 in binary format. */
export function int2(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

/** Big-endian two's complement of 4 bytes: int4 in binary format. */
export function int4(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value | 0);
  return bytes;
}

/** Big-endian two's complement of 8 bytes: int8 in binary format. */
export function int8(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt.asIntN(64, value));
  return bytes;
}

/** timestamptz in binary format, from microseconds since 2000-01-01. */
export const timestamptz = int8;

/** jsonb in binary format. */
export function jsonb(text: string): Buffer {
  return Buffer.concat([u8(1), Buffer.from(text)]);
}

function tuple(columns: readonly ColumnValue[]): Buffer {
  const parts = columns.map((column) => {
    if (column === null) return letter('n');
    if (column === UNCHANGED) return letter('u');
    const value = typeof column === 'string' ? Buffer.from(column) : column;
    return Buffer.concat([letter(typeof column === 'string' ? 't' : 'b'), int4(value.length), value]);
  });
  return Buffer.concat([int2(columns.length), ...parts]);
}

/** Begin. */
export function begin(options: { finalLsn?: bigint; commitTimeMicros?: bigint; xid?: number } = {}): Buffer {
  const { finalLsn = 0x16_b374_d848n, commitTimeMicros = 0n, xid = 700 } = options;
  return Buffer.concat([letter('B'), int8(finalLsn), int8(commitTimeMicros), int4(xid)]);
}

/** Commit. */
export function commit(options: { commitLsn?: bigint; endLsn?: bigint; commitTimeMicros?: bigint } = {}): Buffer {
  const { commitLsn = 0x16_b374_d848n, endLsn = 0x16_b374_d878n, commitTimeMicros = 0n } = options;
  return Buffer.concat([letter('C'), u8(0), int8(commitLsn), int8(endLsn), int8(commitTimeMicros)]);
}

/** Origin. */
export function origin(commitLsn: bigint, name: string): Buffer {
  return Buffer.concat([letter('O'), int8(commitLsn), cstring(name)]);
}

/** Options of `relation`. */
export interface RelationOptions {
  readonly relationId?: number;
  readonly schema?: string;
  readonly name: string;
  readonly replicaIdentity?: ReplicaIdentity;
  readonly columns: readonly { name: string; typeOid: number; typeModifier?: number; isKey?: boolean }[];
}

/** Relation. */
export function relation(options: RelationOptions): Buffer {
  const { relationId = 16_400, schema = 'public', name, replicaIdentity = 'f', columns } = options;
  const parts = columns.map((column) =>
    Buffer.concat([
      u8(column.isKey === true ? 1 : 0),
      cstring(column.name),
      int4(column.typeOid),
      int4(column.typeModifier ?? -1),
    ]),
  );
  return Buffer.concat([
    letter('R'),
    int4(relationId),
    cstring(schema),
    cstring(name),
    letter(replicaIdentity),
    int2(columns.length),
    ...parts,
  ]);
}

/** The message of `relation`, decoded. */
export function relationMessage(options: RelationOptions): RelationMessage {
  const { relationId = 16_400, schema = 'public', name, replicaIdentity = 'f' } = options;
  const columns: RelationColumn[] = options.columns.map((column) => ({
    name: column.name,
    typeOid: column.typeOid,
    typeModifier: column.typeModifier ?? -1,
    isKey: column.isKey === true,
  }));
  return { tag: 'relation', relationId, schema, name, replicaIdentity, columns };
}

/** OID of the enum process_status in the tests. */
export const PROCESS_STATUS_OID = 16_386;

/** Columns of a processes table, as new databases have them. */
export const PROCESSES_COLUMNS = [
  { name: 'process_id', typeOid: 1043, typeModifier: 260, isKey: true },
  { name: 'status', typeOid: PROCESS_STATUS_OID },
  { name: 'detail', typeOid: 25 },
  { name: 'aux_state', typeOid: 17 },
  { name: 'created_at', typeOid: 1184 },
  { name: 'metadata', typeOid: 3802 },
  { name: 'corrupted_by', typeOid: 20 },
  { name: 'previous_status', typeOid: PROCESS_STATUS_OID },
  { name: 'status_changed_at', typeOid: 1184 },
] as const;

/** Columns of an events table. */
export const EVENTS_COLUMNS = [
  { name: 'process_id', typeOid: 1043, typeModifier: 260, isKey: true },
  { name: 'task_id', typeOid: 20 },
  { name: 'event_id', typeOid: 21, isKey: true },
  { name: 'timestamp', typeOid: 1184 },
  { name: 'metadata', typeOid: 3802 },
  { name: 'payload', typeOid: 17 },
] as const;

/** Type. */
export function type(typeOid: number, schema: string, name: string): Buffer {
  return Buffer.concat([letter('Y'), int4(typeOid), cstring(schema), cstring(name)]);
}

/** Insert. */
export function insert(relationId: number, columns: readonly ColumnValue[]): Buffer {
  return Buffer.concat([letter('I'), int4(relationId), letter('N'), tuple(columns)]);
}

/** The old tuple of an update or a delete: 'K' with the key columns, 'O' with all. */
export interface OldTuple {
  readonly kind: 'K' | 'O';
  readonly columns: readonly ColumnValue[];
}

/** Update. */
export function update(relationId: number, old: OldTuple | undefined, columns: readonly ColumnValue[]): Buffer {
  const oldPart = old === undefined ? Buffer.alloc(0) : Buffer.concat([letter(old.kind), tuple(old.columns)]);
  return Buffer.concat([letter('U'), int4(relationId), oldPart, letter('N'), tuple(columns)]);
}

/** Delete. */
export function remove(relationId: number, old: OldTuple): Buffer {
  return Buffer.concat([letter('D'), int4(relationId), letter(old.kind), tuple(old.columns)]);
}

/** Truncate; options 1 = CASCADE, 2 = RESTART IDENTITY. */
export function truncate(relationIds: readonly number[], options = 0): Buffer {
  return Buffer.concat([letter('T'), int4(relationIds.length), u8(options), ...relationIds.map(int4)]);
}

/** Logical message. */
export function logicalMessage(options: {
  transactional: boolean;
  lsn: bigint;
  prefix: string;
  content: Uint8Array;
}): Buffer {
  const { transactional, lsn, prefix, content } = options;
  return Buffer.concat([
    letter('M'),
    u8(transactional ? 1 : 0),
    int8(lsn),
    cstring(prefix),
    int4(content.length),
    content,
  ]);
}

/** XLogData frame around one message. `sentMicros`: the server's clock, microseconds since 2000-01-01. */
export function xlogData(message: Uint8Array, walStart = 0x16_b374_d848n, sentMicros = 0n): Buffer {
  return Buffer.concat([letter('w'), int8(walStart), int8(walStart), int8(sentMicros), message]);
}

/** The XLogData frame with another sending time. */
export function sentAt(frame: Buffer, sentMicros: bigint): Buffer {
  const changed = Buffer.from(frame);
  changed.writeBigInt64BE(sentMicros, 17);
  return changed;
}

/** Keepalive frame. */
export function keepalive(walEnd: bigint, options: { clockMicros?: bigint; replyRequested?: boolean } = {}): Buffer {
  const { clockMicros = 0n, replyRequested = false } = options;
  return Buffer.concat([letter('k'), int8(walEnd), int8(clockMicros), u8(replyRequested ? 1 : 0)]);
}

/** A chunk as one read of the socket gives it: a CopyData message around each frame. */
export function copyData(...frames: readonly Uint8Array[]): Buffer {
  return Buffer.concat(frames.flatMap((frame) => [letter('d'), int4(frame.length + 4), frame]));
}

/** Frames of a whole transaction: Begin, the messages, Commit; one frame each. */
export function transaction(
  messages: readonly Uint8Array[],
  options: { commitLsn?: bigint; endLsn?: bigint; commitTimeMicros?: bigint; xid?: number } = {},
): Buffer[] {
  const { commitLsn = 0x16_b374_d848n, endLsn = commitLsn + 0x30n, commitTimeMicros = 0n, xid = 700 } = options;
  return [
    xlogData(begin({ finalLsn: commitLsn, commitTimeMicros, xid }), commitLsn),
    ...messages.map((message) => xlogData(message, commitLsn)),
    xlogData(commit({ commitLsn, endLsn, commitTimeMicros }), endLsn),
  ];
}

/** A copy of a message with tuples as lists of column values, which a test can compare and keep. */
export function snapshot(message: ReplicationMessage | PgoutputMessage): unknown {
  switch (message.tag) {
    case 'insert':
      return { ...message, newTuple: columnsOf(message.newTuple) };
    case 'update':
      return {
        ...message,
        oldTuple: message.oldTuple === undefined ? undefined : columnsOf(message.oldTuple),
        newTuple: columnsOf(message.newTuple),
      };
    case 'delete':
      return { ...message, oldTuple: columnsOf(message.oldTuple) };
    case 'message':
      return { ...message, content: Buffer.from(message.content) };
    default:
      return structuredClone(message);
  }
}

function columnsOf(decoded: Tuple): ColumnValue[] {
  const columns: ColumnValue[] = [];
  for (let column = 0; column < decoded.columnCount; column++) {
    const length = decoded.lengths[column]!;
    const start = decoded.starts[column]!;
    if (length === -1) columns.push(null);
    else if (length === -2) columns.push(UNCHANGED);
    else {
      const value = Buffer.from(decoded.bytes.subarray(start, start + length));
      columns.push(decoded.bytes[start - 5] === 0x74 ? value.toString() : value);
    }
  }
  return columns;
}

/** A frame of a real server, and what caused it. */
export interface CapturedFrame {
  readonly note: string;
  readonly bytes: Buffer;
}

/** Captures in test/fixtures/pgoutput: PostgreSQL's major version and the format of columns. */
export const CAPTURES = ['postgres-14-binary', 'postgres-14-text', 'postgres-18-binary', 'postgres-18-text'] as const;

/** Reads one capture. */
export function readCapture(name: (typeof CAPTURES)[number]): CapturedFrame[] {
  const file = join(import.meta.dirname, '../../fixtures/pgoutput', `${name}.jsonl`);
  return readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => {
      const { note, hex } = JSON.parse(line) as { note: string; hex: string };
      return { note, bytes: Buffer.from(hex, 'hex') };
    });
}
