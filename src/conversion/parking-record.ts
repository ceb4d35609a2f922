/**
 * The record of the parking topic for a row that cannot become a record of its own topic.
 *
 * Key: namespace, a space, process id, as in every other record of the process, so that parked rows of one process stay in
 * order; the namespace alone when the row has no process id. Value: one JSON object in UTF-8:
 *
 * ```
 * { "database": "main", "slot": "invoicing", "namespace": "invoice", "schema": "public", "table": "invoice_events",
 *   "operation": "insert" | "update" | "delete", "lsn": "16/B374D848", "xid": 700,
 *   "commitTime": "2016-03-22T06:12:27.012345Z",  // null outside the years 0 to 9999
 *   "key": VALUE, "reason": "Cannot convert a row of table ...",
 *   "columns": [{ "name": "process_id", "typeOid": 1043, "value": VALUE }, ...],  // none for a delete
 *   "oldKind": "K" | "O", "oldColumns": [...] }  // the old row; K: columns that are not part of the key are null
 * ```
 *
 * VALUE is `{"null":true}`; `{"omittedBytes":123}` for a value of this size that was not kept (postgres/replication/large-row.ts); `{"unchanged":true}` for a TOASTed value that the update left unchanged; `{"text":"..."}` for
 * PostgreSQL's text form; `{"base64":"..."}` for its binary form, for text that is not UTF-8, and where it is shorter than
 * text. So the object has at most 4/3 of the row's bytes, and for each column its name and 64 bytes.
 */
import { isUtf8 } from 'node:buffer';
import type { ByteWriter } from '../bytes/writer.ts';
import { formatLsn, type Lsn } from '../lsn.ts';
import {
  type BeginMessage,
  isBinary,
  NULL,
  OMITTED,
  type RelationMessage,
  type RowMessage,
  type Tuple,
  UNCHANGED_TOAST,
} from '../postgres/replication/pgoutput.ts';
import { valueBytes } from './columns.ts';
import type { RecordDraft } from './convert.ts';
import { TEXT_TYPES } from './relation.ts';
import { formatTimestamp } from './timestamp.ts';

/** Column that holds the process id, in both tables. */
const PROCESS_ID = 'process_id';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** Those that JSON writes with one letter, such as \n; other control characters take a u and four digits */
const SHORT_ESCAPES: ReadonlySet<number> = new Set([8, 9, 10, 12, 13]);

const MICROS_PER_SECOND = 1_000_000n;
/** From the year 0 to 2000-01-01: added to a time, it makes every moment since the year 0 positive. */
const SHIFT_MICROS = 63_113_904_000n * MICROS_PER_SECOND;

/** A row to be parked. */
export interface ParkedRow {
  /** db_ref of the configuration */
  readonly databaseRef: string;
  readonly slot: string;
  readonly namespace: string;
  /** The relation of the row; the row may have other columns than it describes */
  readonly relation: RelationMessage;
  readonly change: RowMessage;
  /** Begin of the transaction that changed the row */
  readonly begin: BeginMessage;
  /** Position of the change in the WAL */
  readonly lsn: Lsn;
  /** Why the row is parked: the message of its error */
  readonly reason: string;
}

/** Writes the parking record to `draft`, whose writers it resets. Never throws, for any row that pgoutput can decode. */
export function encodeParkedRow(row: ParkedRow, draft: RecordDraft): void {
  const { relation, change, begin } = row;
  const newTuple = change.tag === 'delete' ? undefined : change.newTuple;
  const oldTuple = change.tag === 'insert' ? undefined : change.oldTuple;
  writeKey(row, [newTuple, oldTuple], draft.key);
  const parked = {
    database: row.databaseRef,
    slot: row.slot,
    namespace: row.namespace,
    schema: relation.schema,
    table: relation.name,
    operation: change.tag,
    lsn: formatLsn(row.lsn),
    xid: begin.xid,
    commitTime: formatCommitTime(begin.commitTimeMicros),
    key: textOrBase64(draft.key.view()),
    reason: row.reason,
    columns: newTuple && describeColumns(relation, newTuple),
    oldKind: change.tag === 'insert' ? undefined : change.oldKind,
    oldColumns: oldTuple && describeColumns(relation, oldTuple),
  };
  const json = JSON.stringify(parked);
  const value = draft.value.reset();
  // Into its storage at once: a large row is not copied once more.
  value.reserve(Buffer.byteLength(json));
  value.length = value.bytes.write(json);
}

/** Takes the process id from the first tuple that has it: only the old one has an unchanged TOAST value. */
function writeKey(row: ParkedRow, tuples: readonly (Tuple | undefined)[], key: ByteWriter): void {
  key.reset().copy(Buffer.from(row.namespace));
  const column = row.relation.columns.findIndex(({ name }) => name === PROCESS_ID);
  const tuple = tuples.find((one) => one && column >= 0 && column < one.columnCount && one.lengths[column]! >= 0);
  if (tuple === undefined) return;
  key.u8(0x20).copy(valueBytes(tuple, column));
}

/** Columns of a tuple, which may have more or fewer than its relation; columns that it does not describe have no name. */
function describeColumns(relation: RelationMessage, tuple: Tuple): object[] {
  return Array.from({ length: tuple.columnCount }, (_, column) => {
    const description = relation.columns[column];
    const typeOid = description?.typeOid;
    return { name: description?.name, typeOid, value: describeValue(tuple, column, typeOid) };
  });
}

function describeValue(tuple: Tuple, column: number, typeOid: number | undefined): object {
  if (tuple.lengths[column] === NULL) return { null: true };
  if (tuple.lengths[column] === UNCHANGED_TOAST) return { unchanged: true };
  if (tuple.lengths[column] === OMITTED) return { omittedBytes: tuple.starts[column] };
  const bytes = valueBytes(tuple, column);
  const isText = !isBinary(tuple, column) || (typeOid !== undefined && TEXT_TYPES.includes(typeOid));
  return isText ? textOrBase64(bytes) : { base64: bytes.toString('base64') };
}

function textOrBase64(bytes: Buffer): object {
  const base64Bytes = 4 * Math.ceil(bytes.length / 3);
  // JSON takes six bytes for a control character: without a bound such a row outgrows every parking topic.
  const isText = isUtf8(bytes) && jsonBytes(bytes) <= base64Bytes;
  return isText ? { text: bytes.toString() } : { base64: bytes.toString('base64') };
}

/** Bytes of a text in JSON, without its quotes; counted, because a large text would be in memory several times. */
function jsonBytes(utf8: Buffer): number {
  let count = utf8.length;
  for (const byte of utf8) {
    if (byte < 0x20) count += SHORT_ESCAPES.has(byte) ? 1 : 5;
    else if (byte === QUOTE || byte === BACKSLASH) count += 1;
  }
  return count;
}

/** RFC 3339 with microseconds; null outside the years 0 to 9999, which may be why the row is parked. */
function formatCommitTime(microsSince2000: bigint): string | null {
  try {
    const seconds = formatTimestamp(microsSince2000).toString('latin1', 0, 19);
    const micros = (microsSince2000 + SHIFT_MICROS) % MICROS_PER_SECOND;
    return `${seconds}.${micros.toString().padStart(6, '0')}Z`;
  } catch {
    return null;
  }
}
