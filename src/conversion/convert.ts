/**
 * Row changes of progressor's tables, made into Kafka records: key and value. Which change gives which record is the
 * table in config/guide/consumers.md, "Topics"; values are Thrift of machinegun-proto, event_sink.thrift and lifecycle_sink.thrift.
 * Columns are found by name in the Relation message, and read as offsets from the chunk that the row arrived in.
 */
import type { ByteWriter } from '../bytes/writer.ts';
import { type ErrorPlace, InvalidRowError, MalformedError, MissingOldTupleError } from '../errors.ts';
import {
  type DeleteMessage,
  type InsertMessage,
  isBinary,
  NULL,
  type RelationMessage,
  type ReplicaIdentity,
  type RowMessage,
  type Tuple,
  UNCHANGED_TOAST,
  type UpdateMessage,
} from '../postgres/replication/pgoutput.ts';
import { identifiesStatus, parseTableName } from '../progressor/tables.ts';
import { readFormatVersion } from './format-version.ts';
import { EventPayload } from './payload/payload.ts';
import { type MachineLifecycleEvent, writeLifecycleEvent, writeSinkEvent } from './thrift/mg-proto.ts';
import { formatTimestamp } from './timestamp.ts';

/** Schema that progressor's tables live in. */
const SCHEMA = 'public';

/** OIDs of the types that a column may have; PostgreSQL's pg_type.dat. */
const TEXT_TYPES = [25, 1043]; // text, varchar
const INTEGER_TYPES = [21, 23, 20]; // int2, int4, int8
const TIMESTAMP_TYPES = [1184]; // timestamptz
const JSONB_TYPES = [3802];
const BYTEA_TYPES = [17];

/** FirstNormalObjectId: types with an OID from here on were created by users. An enum has no fixed OID. */
const FIRST_USER_TYPE_OID = 16384;

const JSONB_VERSION = 1;

/** Longer metadata holds more than a version, so that it hardly ever repeats: it is not worth a memo. */
const MAX_MEMO_BYTES = 64;

const STATUS_INIT = Buffer.from('init');
const STATUS_RUNNING = Buffer.from('running');
const STATUS_ERROR = Buffer.from('error');

/** Reason of a failure whose `detail` is NULL. */
const UNKNOWN_REASON = Buffer.from('unknown');

// The lifecycle events that are the same for every process.
const CREATED: MachineLifecycleEvent = { created: {} };
const REPAIRED: MachineLifecycleEvent = { status_changed: { new_status: { working: {} } } };
const REMOVED: MachineLifecycleEvent = { removed: {} };

interface AnyRelation {
  readonly relationId: number;
  readonly namespace: string;
  /** As PostgreSQL names it, without quotes */
  readonly table: string;
  readonly replicaIdentity: ReplicaIdentity;
  readonly columnCount: number;
  readonly namespaceBytes: Buffer;
  /** Namespace and a space: what every record key begins with */
  readonly keyPrefix: Buffer;
}

/** An events table, with the positions of the columns that are needed, from 0. */
export interface EventsRelation extends AnyRelation {
  readonly kind: 'events';
  readonly processId: number;
  readonly eventId: number;
  readonly timestamp: number;
  readonly metadata: number;
  readonly payload: number;
  readonly metadataMemo: MetadataMemo;
}

/**
 * The metadata that was read last and what it says. All events of a namespace that one release wrote have the same
 * metadata, and comparing its few bytes costs a tenth of reading them as JSON.
 */
interface MetadataMemo {
  text: Buffer;
  formatVersion: number | undefined;
}

/** A processes table, with the positions of the columns that are needed, from 0. */
export interface ProcessesRelation extends AnyRelation {
  readonly kind: 'processes';
  readonly processId: number;
  readonly status: number;
  readonly detail: number;
  /** An update without an old tuple left the status alone: its index identifies rows, and the status is part of the key */
  readonly isIdentifiedByStatus: boolean;
}

/** A configured table as its last Relation message describes it. */
export type SourceRelation = EventsRelation | ProcessesRelation;

/** Where `convertChange` puts a record. Both writers are reset by it, and hold the record until they are given again. */
export interface RecordDraft {
  readonly key: ByteWriter;
  readonly value: ByteWriter;
}

/** Which topic of its namespace a record belongs to: eventsink_topic or lifecycle_topic. */
export type RecordKind = 'event' | 'lifecycle';

/**
 * Makes of a Relation message what `convertChange` needs. Undefined when the table is not the processes or events table
 * of one of `namespaces` in schema public. Throws InvalidRowError when a column that is needed is absent or of a type
 * that cannot be read.
 */
export function resolveRelation(message: RelationMessage, namespaces: ReadonlySet<string>): SourceRelation | undefined {
  if (message.schema !== SCHEMA) return undefined;
  const name = parseTableName(message.name);
  if (name === undefined || !namespaces.has(name.namespace)) return undefined;
  const common = {
    relationId: message.relationId,
    namespace: name.namespace,
    table: message.name,
    replicaIdentity: message.replicaIdentity,
    columnCount: message.columns.length,
    namespaceBytes: Buffer.from(name.namespace),
    keyPrefix: Buffer.from(`${name.namespace} `),
  };
  const column = (columnName: string, isReadable: (typeOid: number) => boolean): number => {
    const position = message.columns.findIndex((candidate) => candidate.name === columnName);
    const place = { namespace: name.namespace, table: message.name };
    if (position < 0) {
      throw new InvalidRowError(`Cannot read table "${message.name}": it has no column "${columnName}"`, { place });
    }
    const { typeOid } = message.columns[position]!;
    if (!isReadable(typeOid)) {
      throw new InvalidRowError(
        `Cannot read table "${message.name}": column "${columnName}" has the unexpected type with OID ${typeOid}`,
        { place },
      );
    }
    return position;
  };
  if (name.kind === 'events') {
    return {
      kind: 'events',
      ...common,
      processId: column('process_id', (oid) => TEXT_TYPES.includes(oid)),
      eventId: column('event_id', (oid) => INTEGER_TYPES.includes(oid)),
      timestamp: column('timestamp', (oid) => TIMESTAMP_TYPES.includes(oid)),
      metadata: column('metadata', (oid) => JSONB_TYPES.includes(oid)),
      payload: column('payload', (oid) => BYTEA_TYPES.includes(oid)),
      metadataMemo: { text: Buffer.alloc(0), formatVersion: undefined },
    };
  }
  if (name.kind === 'processes') {
    return {
      kind: 'processes',
      ...common,
      processId: column('process_id', (oid) => TEXT_TYPES.includes(oid)),
      status: column('status', (oid) => oid >= FIRST_USER_TYPE_OID),
      detail: column('detail', (oid) => TEXT_TYPES.includes(oid)),
      isIdentifiedByStatus:
        message.replicaIdentity === 'i' &&
        identifiesStatus(message.columns.filter(({ isKey }) => isKey).map(({ name }) => name)),
    };
  }
  return undefined;
}

/**
 * Converts one change into a record, written to `draft`; undefined when the change gives none (`draft` is then left in
 * any state). `commitTimeMicros` is that of the change's transaction, in microseconds since 2000-01-01.
 * Throws InvalidRowError when the row cannot become a record, and MissingOldTupleError when an update of processes came
 * without the values it replaced. Their place names namespace, table and, where it is known, the record's key.
 */
export function convertChange(
  relation: SourceRelation,
  change: RowMessage,
  commitTimeMicros: bigint,
  draft: RecordDraft,
): RecordKind | undefined {
  draft.key.reset();
  try {
    if (relation.kind === 'events') {
      return change.tag === 'insert' ? convertEvent(relation, change, commitTimeMicros, draft) : undefined;
    }
    switch (change.tag) {
      case 'insert':
        return convertCreation(relation, change, commitTimeMicros, draft);
      case 'update':
        return convertUpdate(relation, change, commitTimeMicros, draft);
      case 'delete':
        return convertRemoval(relation, change, commitTimeMicros, draft);
    }
  } catch (error) {
    throw describeFailure(error, relation, draft);
  }
}

/** Insert into events: the event itself. */
function convertEvent(
  relation: EventsRelation,
  change: InsertMessage,
  commitTimeMicros: bigint,
  draft: RecordDraft,
): RecordKind {
  const tuple = change.newTuple;
  checkColumnCount(relation, tuple);
  const processId = readProcessId(relation, tuple, draft);
  const payload = relation.payload;
  requireBinary(tuple, payload, 'payload');
  const payloadStart = tuple.starts[payload]!;
  const event = {
    source_ns: relation.namespaceBytes,
    source_id: processId,
    event_id: readEventId(tuple, relation.eventId),
    created_at: readTimestamp(tuple, relation.timestamp, commitTimeMicros),
    format_version: readMetadata(tuple, relation.metadata, relation.metadataMemo),
    data: new EventPayload(tuple.bytes, payloadStart, payloadStart + tuple.lengths[payload]!),
  };
  draft.value.reset();
  writeSinkEvent(draft.value, { event });
  return 'event';
}

/** Insert into processes: created, whatever the status is. */
function convertCreation(
  relation: ProcessesRelation,
  change: InsertMessage,
  commitTimeMicros: bigint,
  draft: RecordDraft,
): RecordKind {
  const tuple = change.newTuple;
  checkColumnCount(relation, tuple);
  const processId = readProcessId(relation, tuple, draft);
  requireValue(tuple, relation.status, 'status');
  return writeLifecycle(relation, processId, commitTimeMicros, CREATED, draft);
}

/** Delete from processes: removed. A tuple of key columns is enough, so the status is not looked at. */
function convertRemoval(
  relation: ProcessesRelation,
  change: DeleteMessage,
  commitTimeMicros: bigint,
  draft: RecordDraft,
): RecordKind {
  const tuple = change.oldTuple;
  checkColumnCount(relation, tuple);
  const processId = readProcessId(relation, tuple, draft);
  return writeLifecycle(relation, processId, commitTimeMicros, REMOVED, draft);
}

/** Update of processes: failed, repaired, or (nearly always) nothing. */
function convertUpdate(
  relation: ProcessesRelation,
  change: UpdateMessage,
  commitTimeMicros: bigint,
  draft: RecordDraft,
): RecordKind | undefined {
  const { oldTuple, newTuple } = change;
  checkColumnCount(relation, newTuple);
  const { isIdentifiedByStatus } = relation;
  if (oldTuple === undefined && isIdentifiedByStatus) return undefined;
  const tellsStatus = change.oldKind === 'O' || isIdentifiedByStatus;
  if (oldTuple === undefined || !tellsStatus) throw missingOldTuple(relation, change, draft);
  checkColumnCount(relation, oldTuple);

  const { status } = relation;
  requireValue(oldTuple, status, 'status');
  // Every step of a process updates its row and leaves the status alone: such an update must cost next to nothing.
  if (newTuple.lengths[status] === UNCHANGED_TOAST || isSameValue(oldTuple, newTuple, status)) return undefined;
  requireValue(newTuple, status, 'status');

  if (isValue(newTuple, status, STATUS_ERROR)) {
    if (!isValue(oldTuple, status, STATUS_RUNNING) && !isValue(oldTuple, status, STATUS_INIT)) return undefined;
    const processId = readProcessId(relation, withValue(newTuple, oldTuple, relation.processId), draft);
    // In a key the detail is NULL whatever it was: who left a TOASTed one alone leaves nothing to read it from.
    const detailTuple = change.oldKind === 'O' ? withValue(newTuple, oldTuple, relation.detail) : newTuple;
    const failed = { reason: readReason(detailTuple, relation.detail) };
    const event = { status_changed: { new_status: { failed } } };
    return writeLifecycle(relation, processId, commitTimeMicros, event, draft);
  }
  if (isValue(newTuple, status, STATUS_RUNNING) && isValue(oldTuple, status, STATUS_ERROR)) {
    const processId = readProcessId(relation, withValue(newTuple, oldTuple, relation.processId), draft);
    return writeLifecycle(relation, processId, commitTimeMicros, REPAIRED, draft);
  }
  return undefined;
}

function writeLifecycle(
  relation: ProcessesRelation,
  processId: Buffer,
  commitTimeMicros: bigint,
  event: MachineLifecycleEvent,
  draft: RecordDraft,
): RecordKind {
  draft.value.reset();
  writeLifecycleEvent(draft.value, {
    machine_ns: relation.namespaceBytes,
    machine_id: processId,
    // The commit time, not the clock: a replay gives the same bytes.
    created_at: formatTimestamp(commitTimeMicros),
    data: { machine: event },
  });
  return 'lifecycle';
}

/** Reads the process id and writes the record key that it makes: namespace, a space, process id. */
function readProcessId(relation: SourceRelation, tuple: Tuple, draft: RecordDraft): Buffer {
  requireValue(tuple, relation.processId, 'process_id');
  const start = tuple.starts[relation.processId]!;
  const processId = tuple.bytes.subarray(start, start + tuple.lengths[relation.processId]!);
  draft.key.copy(relation.keyPrefix).copy(processId);
  return processId;
}

function readEventId(tuple: Tuple, column: number): bigint {
  requireBinary(tuple, column, 'event_id');
  const start = tuple.starts[column]!;
  switch (tuple.lengths[column]) {
    case 2:
      return BigInt(tuple.bytes.readInt16BE(start));
    case 4:
      return BigInt(tuple.bytes.readInt32BE(start));
    case 8:
      return tuple.bytes.readBigInt64BE(start);
    default:
      throw new InvalidRowError(`column "event_id" has ${tuple.lengths[column]} bytes, no size of an integer`);
  }
}

/** RFC 3339 text of the event's timestamp, or of its transaction's commit time when it is NULL. */
function readTimestamp(tuple: Tuple, column: number, commitTimeMicros: bigint): Buffer {
  if (tuple.lengths[column] === NULL) return formatTimestamp(commitTimeMicros);
  requireBinary(tuple, column, 'timestamp');
  if (tuple.lengths[column] !== 8) {
    throw new InvalidRowError(`column "timestamp" has ${tuple.lengths[column]} bytes in place of 8`);
  }
  return formatTimestamp(tuple.bytes.readBigInt64BE(tuple.starts[column]!));
}

/** format_version out of the metadata. Binary jsonb: u8 version (1), then JSON text. */
function readMetadata(tuple: Tuple, column: number, memo: MetadataMemo): number | undefined {
  if (tuple.lengths[column] === NULL) return undefined;
  requireBinary(tuple, column, 'metadata');
  const start = tuple.starts[column]!;
  const length = tuple.lengths[column]!;
  if (length === 0 || tuple.bytes[start] !== JSONB_VERSION) {
    throw new InvalidRowError('column "metadata" is not in version 1 of binary jsonb');
  }
  if (isValue(tuple, column, memo.text)) return memo.formatVersion;
  const formatVersion = readFormatVersion(tuple.bytes, start + 1, start + length);
  if (length <= MAX_MEMO_BYTES) {
    memo.text = Buffer.from(tuple.bytes.subarray(start, start + length));
    memo.formatVersion = formatVersion;
  }
  return formatVersion;
}

function readReason(tuple: Tuple, column: number): Buffer {
  if (tuple.lengths[column] === NULL) return UNKNOWN_REASON;
  requireValue(tuple, column, 'detail');
  const start = tuple.starts[column]!;
  return tuple.bytes.subarray(start, start + tuple.lengths[column]!);
}

/** The tuple to read a column from: the old one when the new one leaves a TOASTed value out because it did not change. */
function withValue(newTuple: Tuple, oldTuple: Tuple, column: number): Tuple {
  return newTuple.lengths[column] === UNCHANGED_TOAST ? oldTuple : newTuple;
}

function isValue(tuple: Tuple, column: number, value: Buffer): boolean {
  const length = tuple.lengths[column]!;
  if (length !== value.length) return false;
  const start = tuple.starts[column]!;
  for (let index = 0; index < length; index++) {
    if (tuple.bytes[start + index] !== value[index]) return false;
  }
  return true;
}

/** Compares the bytes of a column in two tuples of one message; false unless both have a value. */
function isSameValue(left: Tuple, right: Tuple, column: number): boolean {
  const length = left.lengths[column]!;
  if (length < 0 || length !== right.lengths[column]) return false;
  const leftStart = left.starts[column]!;
  const rightStart = right.starts[column]!;
  for (let index = 0; index < length; index++) {
    if (left.bytes[leftStart + index] !== right.bytes[rightStart + index]) return false;
  }
  return true;
}

/** What lies behind a tuple's column count is left over from earlier rows, so it is compared before any column is read. */
function checkColumnCount(relation: SourceRelation, tuple: Tuple): void {
  if (tuple.columnCount !== relation.columnCount) {
    throw new InvalidRowError(`the row has ${tuple.columnCount} columns, its relation ${relation.columnCount}`);
  }
}

function requireValue(tuple: Tuple, column: number, name: string): void {
  const length = tuple.lengths[column]!;
  if (length >= 0) return;
  const reason = length === NULL ? 'is NULL' : 'was left out as an unchanged TOAST value, and no old value came along';
  throw new InvalidRowError(`column "${name}" ${reason}`);
}

function requireBinary(tuple: Tuple, column: number, name: string): void {
  requireValue(tuple, column, name);
  if (!isBinary(tuple, column)) throw new InvalidRowError(`column "${name}" came in text format instead of binary`);
}

const IDENTITY_NAMES: Record<ReplicaIdentity, string> = { d: 'DEFAULT', n: 'NOTHING', f: 'FULL', i: 'USING INDEX' };

function missingOldTuple(relation: ProcessesRelation, change: UpdateMessage, draft: RecordDraft): MissingOldTupleError {
  // The key is only for the error's reader: without it the error still says enough.
  if (change.newTuple.lengths[relation.processId]! >= 0) readProcessId(relation, change.newTuple, draft);
  const identity = IDENTITY_NAMES[relation.replicaIdentity];
  return new MissingOldTupleError(
    `Cannot convert a row of table "${relation.table}": the update came without the values it replaced ` +
      `(replica identity ${identity} when it was written), so nobody can tell whether the status changed`,
    {
      place: placeOf(relation, draft),
      advice:
        `Set on_missing_old_tuple: skip for namespace "${relation.namespace}" to go on without the status changes ` +
        'that such updates may have made; updates written since the replica identity is FULL, or an index over process_id and status, are not affected',
    },
  );
}

/** Gives an error the table and the key; what is none of the service's own errors stays as it is. */
function describeFailure(error: unknown, relation: SourceRelation, draft: RecordDraft): unknown {
  if (error instanceof MissingOldTupleError) return error;
  const start = `Cannot convert a row of table "${relation.table}"`;
  const place = placeOf(relation, draft);
  if (error instanceof MalformedError) {
    return new InvalidRowError(`${start}: column "payload": ${error.message}`, { place, cause: error });
  }
  if (error instanceof InvalidRowError)
    return new InvalidRowError(`${start}: ${error.message}`, { place, cause: error });
  return error;
}

function placeOf(relation: SourceRelation, draft: RecordDraft): ErrorPlace {
  const key = draft.key.length === 0 ? undefined : draft.key.view().toString();
  return { namespace: relation.namespace, table: relation.table, key };
}
