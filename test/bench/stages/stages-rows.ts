/** Input of the stages: frames as a walsender sends them, and the output of each stage for the next. */
import { ByteWriter } from '../../../src/bytes/writer.ts';
import { convertChange, type RecordDraft } from '../../../src/conversion/convert.ts';
import { resolveRelation, type SourceRelation } from '../../../src/conversion/relation.ts';
import { FrameReader } from '../../../src/postgres/replication/frames.ts';
import type { InsertMessage, RowMessage, Tuple, UpdateMessage } from '../../../src/postgres/replication/pgoutput.ts';
import * as wire from '../../support/codecs/pgoutput.ts';

const EVENTS = 16_401;
const PROCESSES = 16_402;
const NAMESPACE = 'default/default';
const AUX_STATE_BYTES = 64;
const METADATA = wire.jsonb('{"format_version": 1}');

/** About 2024-01-01, in microseconds since 2000-01-01: the commit of every row here. */
export const COMMIT_TIME_MICROS = 757_382_400_000_000n;

/** Bytes of one chunk: it fits into the CPU caches, like a chunk that the service has just read. */
const CHUNK_BYTES = 512 * 1024;
const MIN_ROW_COUNT = 16;

/** Rows of one table, as frames and decoded. */
export interface Rows<M extends RowMessage> {
  readonly relation: SourceRelation;
  /** One frame a row and nothing else */
  readonly chunk: Buffer;
  /** The same rows, decoded, each with columns of its own: the decoder would reuse them */
  readonly messages: readonly M[];
}

/** Inserts into events that cycle through `payloads`. */
export function eventRows(payloads: readonly Buffer[]): Rows<InsertMessage> {
  const payloadBytes = (payloads[0] as Buffer).length;
  const rowCount = Math.max(MIN_ROW_COUNT, Math.floor(CHUNK_BYTES / payloadBytes));
  const columnsOf = (row: number) => [
    Buffer.from(processId(row)),
    wire.int8(1n),
    wire.int2(1 + (row % 100)),
    wire.timestamptz(COMMIT_TIME_MICROS + BigInt(row * 1_000)),
    METADATA,
    payloads[row % payloads.length] as Buffer,
  ];
  const inserts = Array.from({ length: rowCount }, (_, row) => wire.insert(EVENTS, columnsOf(row)));
  const description = { relationId: EVENTS, name: `${NAMESPACE}_events`, columns: wire.EVENTS_COLUMNS };
  return rows(description, inserts, keepInsert);
}

/** Updates of processes that change `aux_state` and have no record, with the old row of replica identity FULL. */
export function neutralUpdateRows(): Rows<UpdateMessage> {
  const columnsOf = (row: number, auxState: number) => [
    Buffer.from(processId(row)),
    Buffer.from('running'),
    null,
    Buffer.alloc(AUX_STATE_BYTES, auxState),
    wire.timestamptz(COMMIT_TIME_MICROS),
    METADATA,
    null,
    Buffer.from('running'),
    wire.timestamptz(COMMIT_TIME_MICROS),
  ];
  const updates = Array.from({ length: 1_000 }, (_, row) =>
    wire.update(PROCESSES, { kind: 'O', columns: columnsOf(row, row) }, columnsOf(row, row + 1)),
  );
  const description = { relationId: PROCESSES, name: `${NAMESPACE}_processes`, columns: wire.PROCESSES_COLUMNS };
  return rows(description, updates, keepUpdate);
}

/** Empty transactions: Begin and Commit, one frame each. */
export function emptyTransactions(count: number): Buffer {
  const frames = Array.from({ length: count }, (_, index) =>
    wire.transaction([], { commitLsn: BigInt(0x1000 * (index + 1)), commitTimeMicros: COMMIT_TIME_MICROS }),
  );
  return wire.copyData(...frames.flat());
}

/** Different records that stages cycle through: few, because in the service a record is still in the first-level cache. */
const RECORD_COUNT = 32;

/** As many records as rows, converted from the first rows, each with buffers of its own. */
export function recordsOf({ relation, messages }: Rows<RowMessage>): RecordDraft[] {
  const drafts = messages.slice(0, RECORD_COUNT).map((message) => {
    const draft = { key: new ByteWriter(), value: new ByteWriter() };
    convertChange(relation, message, COMMIT_TIME_MICROS, draft);
    return draft;
  });
  return messages.map((_, row) => drafts[row % drafts.length] as RecordDraft);
}

function processId(row: number): string {
  return `process${String(row).padStart(8, '0')}`;
}

function rows<M extends RowMessage>(
  description: wire.RelationOptions,
  bodies: readonly Buffer[],
  keep: (message: RowMessage) => M,
): Rows<M> {
  const relation = resolveRelation(wire.relationMessage(description), new Set([NAMESPACE])) as SourceRelation;
  const chunk = wire.copyData(...bodies.map((body, row) => wire.xlogData(body, BigInt(0x1000 * (row + 1)))));
  const reader = new FrameReader();
  reader.start(chunk);
  const messages: M[] = [];
  for (let message = reader.next(); message !== undefined; message = reader.next()) {
    messages.push(keep(message as RowMessage));
  }
  return { relation, chunk, messages };
}

function keepInsert(message: RowMessage): InsertMessage {
  const insert = message as InsertMessage;
  return { ...insert, newTuple: keepTuple(insert.newTuple) };
}

function keepUpdate(message: RowMessage): UpdateMessage {
  const update = message as UpdateMessage;
  return { ...update, oldTuple: keepTuple(update.oldTuple as Tuple), newTuple: keepTuple(update.newTuple) };
}

function keepTuple({ bytes, columnCount, starts, lengths }: Tuple): Tuple {
  return { bytes, columnCount, starts: starts.slice(0, columnCount), lengths: lengths.slice(0, columnCount) };
}
