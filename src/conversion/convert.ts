/**
 * Which change of a row gives which record, and its key and value. Values are Thrift of machinegun-proto,
 * event_sink.thrift and lifecycle_sink.thrift:
 *
 * | change                                        | record                                          |
 * |-----------------------------------------------|-------------------------------------------------|
 * | insert into events                            | event                                           |
 * | insert into processes                         | lifecycle: created                              |
 * | update of processes, init or running -> error | lifecycle: status_changed, failed with `detail` |
 * | update of processes, error -> running         | lifecycle: status_changed, working              |
 * | delete from processes                         | lifecycle: removed                              |
 * | every other change                            | none                                            |
 */
import type { ByteWriter } from '../bytes/writer.ts';
import { InvalidRowError } from '../errors.ts';
import {
  type DeleteMessage,
  type InsertMessage,
  type RowMessage,
  type Tuple,
  UNCHANGED_TOAST,
  type UpdateMessage,
} from '../postgres/replication/pgoutput.ts';
import { NEEDED_STATUSES, STATUSES } from '../progressor/tables.ts';
import {
  checkColumnCount,
  isSameValue,
  isValue,
  readEventId,
  readFormatVersion,
  readTimestamp,
  requireBinary,
  requireValue,
  valueBytes,
} from './columns.ts';
import { EventPayload } from './payload/payload.ts';
import type { EventsRelation, ProcessesRelation, SourceRelation } from './relation.ts';
import { describeFailure, missingOldTuple } from './row-errors.ts';
import { type MachineLifecycleEvent, writeLifecycleEvent, writeSinkEvent } from './thrift/mg-proto.ts';
import { formatTimestamp } from './timestamp.ts';
import { readFailureReason, tupleWithValue } from './unchanged-toast.ts';

const STATUS_INIT = Buffer.from('init');
const STATUS_RUNNING = Buffer.from('running');
const STATUS_ERROR = Buffer.from('error');

// The lifecycle events that are the same for every process.
const CREATED: MachineLifecycleEvent = { created: {} };
const REPAIRED: MachineLifecycleEvent = { status_changed: { new_status: { working: {} } } };
const REMOVED: MachineLifecycleEvent = { removed: {} };

/** Where `convertChange` writes a record. It resets both writers; they hold the record until the next call. */
export interface RecordDraft {
  readonly key: ByteWriter;
  readonly value: ByteWriter;
}

/** Which topic of its namespace a record belongs to: eventsink_topic or lifecycle_topic. */
export type RecordKind = 'event' | 'lifecycle';

/**
 * Converts one change into a record, written to `draft`; undefined when the change gives none (the contents of `draft` are
 * then undefined). `commitTimeMicros` is the commit time of its transaction, in microseconds since 2000-01-01.
 * @throws InvalidRowError when the row cannot become a record; MissingOldTupleError for an update of processes without the
 *   values that it replaced. Their place has namespace, table and, where it is known, the record key
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
    throw describeFailure(error, relation, keyOf(draft));
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
  checkColumnCount(tuple, relation.columnCount);
  const processId = readProcessId(relation, tuple, draft);
  const payload = relation.payload;
  requireBinary(tuple, payload, 'payload');
  const payloadStart = tuple.starts[payload]!;
  const event = {
    source_ns: relation.namespaceBytes,
    source_id: processId,
    event_id: readEventId(tuple, relation.eventId),
    created_at: readTimestamp(tuple, relation.timestamp, commitTimeMicros),
    format_version: readFormatVersion(tuple, relation.metadata, relation.formatVersions),
    data: new EventPayload(tuple.bytes, payloadStart, payloadStart + tuple.lengths[payload]!),
  };
  draft.value.reset();
  writeSinkEvent(draft.value, { event });
  return 'event';
}

/** Insert into processes: created, for every status. */
function convertCreation(
  relation: ProcessesRelation,
  change: InsertMessage,
  commitTimeMicros: bigint,
  draft: RecordDraft,
): RecordKind {
  const tuple = change.newTuple;
  checkColumnCount(tuple, relation.columnCount);
  const processId = readProcessId(relation, tuple, draft);
  requireValue(tuple, relation.status, 'status');
  return writeLifecycle(relation, processId, commitTimeMicros, CREATED, draft);
}

/** Delete from processes: removed. The old tuple may have the key columns only, so the status is not read. */
function convertRemoval(
  relation: ProcessesRelation,
  change: DeleteMessage,
  commitTimeMicros: bigint,
  draft: RecordDraft,
): RecordKind {
  const tuple = change.oldTuple;
  checkColumnCount(tuple, relation.columnCount);
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
  checkColumnCount(newTuple, relation.columnCount);
  const { isIdentifiedByStatus } = relation;
  if (oldTuple === undefined && isIdentifiedByStatus) return undefined;
  const hasOldStatus = change.oldKind === 'O' || isIdentifiedByStatus;
  if (oldTuple === undefined || !hasOldStatus) {
    // The key helps the reader of the error, which is complete without it.
    if (newTuple.lengths[relation.processId]! >= 0) readProcessId(relation, newTuple, draft);
    throw missingOldTuple(relation, keyOf(draft));
  }
  checkColumnCount(oldTuple, relation.columnCount);

  const { status } = relation;
  requireValue(oldTuple, status, 'status');
  // Every step of a process updates its row without changing the status: such an update must cost next to nothing.
  if (newTuple.lengths[status] === UNCHANGED_TOAST || isSameValue(oldTuple, newTuple, status)) return undefined;
  requireValue(newTuple, status, 'status');

  if (isValue(newTuple, status, STATUS_ERROR)) {
    if (!isValue(oldTuple, status, STATUS_RUNNING) && !isValue(oldTuple, status, STATUS_INIT)) {
      return ignoreTransition(relation, { oldTuple, newTuple, draft });
    }
    const processId = readProcessId(relation, tupleWithValue(newTuple, oldTuple, relation.processId), draft);
    const oldRow = change.oldKind === 'O' ? oldTuple : undefined;
    const failed = { reason: readFailureReason(newTuple, oldRow, relation.detail) };
    const event = { status_changed: { new_status: { failed } } };
    return writeLifecycle(relation, processId, commitTimeMicros, event, draft);
  }
  if (isValue(newTuple, status, STATUS_RUNNING) && isValue(oldTuple, status, STATUS_ERROR)) {
    const processId = readProcessId(relation, tupleWithValue(newTuple, oldTuple, relation.processId), draft);
    return writeLifecycle(relation, processId, commitTimeMicros, REPAIRED, draft);
  }
  return ignoreTransition(relation, { oldTuple, newTuple, draft });
}

/**
 * A change of the status that gives no record. A label that the status type does not have, or has in place of one that gives
 * records, may be another name of that one.
 */
function ignoreTransition(
  relation: ProcessesRelation,
  { oldTuple, newTuple, draft }: { readonly oldTuple: Tuple; readonly newTuple: Tuple; readonly draft: RecordDraft },
): undefined {
  const labels = relation.statusLabels.get(relation.namespace);
  if (labels === undefined) return undefined;
  const isWhole = NEEDED_STATUSES.every((status) => labels.includes(status));
  for (const tuple of [oldTuple, newTuple]) {
    const label = valueBytes(tuple, relation.status).toString();
    if (STATUSES.some((status) => status === label) || (isWhole && labels.includes(label))) continue;
    readProcessId(relation, tupleWithValue(newTuple, oldTuple, relation.processId), draft);
    throw new InvalidRowError(`column "status" has the unknown label "${label}"`, {
      code: 'status_unknown',
      advice:
        'If a label of the status type was renamed, give it its name back (ALTER TYPE ... RENAME VALUE); to go on, set on_invalid: park ' +
        'for the namespace, and compare the process with the topic',
    });
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
    // The commit time, not the wall clock: a replay gives the same bytes.
    created_at: formatTimestamp(commitTimeMicros),
    data: { machine: event },
  });
  return 'lifecycle';
}

/** Reads the process id, and writes the record key: namespace, a space, process id. */
function readProcessId(relation: SourceRelation, tuple: Tuple, draft: RecordDraft): Buffer {
  requireValue(tuple, relation.processId, 'process_id');
  const processId = valueBytes(tuple, relation.processId);
  draft.key.copy(relation.keyPrefix).copy(processId);
  return processId;
}

/** The record key, as text; undefined before it is written. */
function keyOf(draft: RecordDraft): string | undefined {
  return draft.key.length === 0 ? undefined : draft.key.view().toString();
}
