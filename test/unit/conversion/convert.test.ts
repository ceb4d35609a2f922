import { describe, expect, test } from 'bun:test';
import { ByteWriter } from '../../../src/bytes/writer.ts';
import { convertChange, type RecordDraft } from '../../../src/conversion/convert.ts';
import { resolveRelation, type SourceRelation } from '../../../src/conversion/relation.ts';
import { InvalidRowError, MalformedError, MissingOldTupleError, type NotifierError } from '../../../src/errors.ts';
import { FrameReader } from '../../../src/postgres/replication/frames.ts';
import type { RelationMessage, ReplicaIdentity, RowMessage } from '../../../src/postgres/replication/pgoutput.ts';
import {
  CAPTURES,
  type ColumnValue,
  copyData,
  EVENTS_COLUMNS,
  insert,
  int2,
  int4,
  int8,
  jsonb,
  type OldTuple,
  PROCESSES_COLUMNS,
  readCapture,
  relationMessage,
  remove,
  timestamptz,
  truncate,
  UNCHANGED,
  update,
  xlogData,
} from '../../support/codecs/pgoutput.ts';
import { decodeSinkEvent } from '../../support/codecs/thrift-reader.ts';
import {
  hasHashOrder,
  readEventVectors,
  readInvalidVectors,
  readLifecycleVectors,
  timestampMicros,
  withoutHashOrder,
} from '../../support/codecs/vectors.ts';

const NAMESPACE = 'default/default';
const RELATION_ID = 16_400;
const COMMIT_TIME = timestampMicros('2026-11-22 06:21:59.750000+00');
const COMMIT_TIME_TEXT = '2026-11-22T06:21:59Z';
const PROCESS_ID = 'идентификатор-1';
const KEY = `${NAMESPACE} ${PROCESS_ID}`;

/** ETF of `{arr, []}`, the shortest of all payloads. */
const EMPTY_ARRAY = Buffer.from('8368026400036172726a', 'hex');
const EMPTY_ARRAY_THRIFT = '0f00080c0000000000';

interface ConvertedRecord {
  readonly kind: string;
  readonly key: string;
  /** Hexadecimal */
  readonly value: string;
}

const draft: RecordDraft = { key: new ByteWriter(), value: new ByteWriter() };

function convertMessage(
  relation: SourceRelation,
  bytes: Buffer,
  commitTime = COMMIT_TIME,
): ConvertedRecord | undefined {
  const reader = new FrameReader();
  reader.start(copyData(xlogData(bytes)));
  const kind = convertChange(relation, reader.next() as RowMessage, commitTime, draft);
  if (kind === undefined) return undefined;
  return { kind, key: draft.key.view().toString(), value: draft.value.view().toString('hex') };
}

function resolved(message: RelationMessage): SourceRelation {
  const relation = resolveRelation(message, new Set([NAMESPACE]));
  if (relation === undefined) throw new Error('The relation is not configured');
  return relation;
}

type Columns = readonly { name: string; typeOid: number; isKey?: boolean }[];

function relationOf(kind: 'processes' | 'events', columns: Columns, replicaIdentity: ReplicaIdentity = 'f') {
  return resolved(relationMessage({ name: `${NAMESPACE}_${kind}`, columns, replicaIdentity }));
}

const PROCESSES = relationOf('processes', PROCESSES_COLUMNS);
const EVENTS = relationOf('events', EVENTS_COLUMNS, 'd');

/** A row of processes; columns that conversion must not read hold values that would change its result. */
function processRow(values: Record<string, ColumnValue>, columns: Columns = PROCESSES_COLUMNS): ColumnValue[] {
  const defaults: Record<string, ColumnValue> = {
    process_id: Buffer.from(PROCESS_ID),
    status: Buffer.from('running'),
    detail: null,
    aux_state: Buffer.from('error'),
    created_at: timestamptz(0x7fff_ffff_ffff_ffffn),
    metadata: jsonb('{"format_version": "x"}'),
    previous_status: Buffer.from('error'),
  };
  return columns.map(({ name }) => values[name] ?? (name in values ? null : (defaults[name] ?? null)));
}

function eventRow(values: Record<string, ColumnValue> = {}, columns: Columns = EVENTS_COLUMNS): ColumnValue[] {
  const defaults: Record<string, ColumnValue> = {
    process_id: Buffer.from(PROCESS_ID),
    task_id: int8(1n),
    event_id: int2(7),
    timestamp: timestamptz(timestampMicros('2016-03-22 06:12:27.999999+00')),
    metadata: null,
    payload: EMPTY_ARRAY,
  };
  return columns.map(({ name }) => (name in values ? values[name]! : (defaults[name] ?? null)));
}

/** Thrift of a string or binary: its length and its bytes. */
const sized = (text: string): string =>
  int4(Buffer.byteLength(text)).toString('hex') + Buffer.from(text).toString('hex');

function lifecycleValue(event: string, createdAt = COMMIT_TIME_TEXT, processId = PROCESS_ID): string {
  const head = `0b0001${sized(NAMESPACE)}0b0002${sized(processId)}0b0003${sized(createdAt)}`;
  return `${head}0c00040c0001${event}000000`;
}

const CREATED = '0c000100';
const REMOVED = '0c000300';
const REPAIRED = '0c00020c00010c0001000000';
const failed = (reason: string): string => `0c00020c00010c00020b0001${sized(reason)}000000`;

function eventValue(
  values: { eventId?: bigint; createdAt?: string; formatVersion?: number; data?: string } = {},
): string {
  const { eventId = 7n, createdAt = '2016-03-22T06:12:27Z', formatVersion, data = EMPTY_ARRAY_THRIFT } = values;
  return [
    `0c00010b0001${sized(NAMESPACE)}0b0002${sized(PROCESS_ID)}`,
    `0a0003${int8(eventId).toString('hex')}0b0004${sized(createdAt)}`,
    formatVersion === undefined ? '' : `080005${int4(formatVersion).toString('hex')}`,
    `0c0006${data}0000`,
  ].join('');
}

function failureOf(relation: SourceRelation, bytes: Buffer): NotifierError {
  try {
    convertMessage(relation, bytes);
  } catch (error) {
    return error as NotifierError;
  }
  throw new Error('Converted a row that is invalid');
}

describe('convertChange of events', () => {
  test('emits an inserted event', () => {
    expect(convertMessage(EVENTS, insert(RELATION_ID, eventRow()))).toEqual({
      kind: 'event',
      key: KEY,
      value: eventValue(),
    });
  });

  test.each([
    ['update', update(RELATION_ID, undefined, eventRow())],
    ['update with the key', update(RELATION_ID, { kind: 'K', columns: eventRow() }, eventRow())],
    ['update with the row', update(RELATION_ID, { kind: 'O', columns: eventRow() }, eventRow({ payload: UNCHANGED }))],
    ['delete of the key', remove(RELATION_ID, { kind: 'K', columns: eventRow({ payload: null }) })],
    ['delete of the row', remove(RELATION_ID, { kind: 'O', columns: eventRow() })],
  ])('emits nothing for an %s', (_name, bytes) => {
    expect(convertMessage(EVENTS, bytes)).toBeUndefined();
  });

  test('reads columns where the Relation says they are', () => {
    const columns = [{ name: 'added', typeOid: 17 }, ...[...EVENTS_COLUMNS].reverse()];
    const relation = relationOf('events', columns);
    expect(convertMessage(relation, insert(RELATION_ID, eventRow({}, columns)))?.value).toBe(eventValue());
  });

  test.each([
    [21, int2(-32_768), -32_768n],
    [21, int2(32_767), 32_767n],
    [23, int4(-2_147_483_648), -2_147_483_648n],
    [20, int8(9_007_199_254_740_993n), 9_007_199_254_740_993n],
    [20, int8(-0x8000_0000_0000_0000n), -0x8000_0000_0000_0000n],
  ])('reads event_id of type OID %i', (typeOid, bytes, eventId) => {
    const columns = EVENTS_COLUMNS.map((column) => (column.name === 'event_id' ? { ...column, typeOid } : column));
    const row = insert(RELATION_ID, eventRow({ event_id: bytes }));
    expect(convertMessage(relationOf('events', columns), row)?.value).toBe(eventValue({ eventId }));
  });

  test('takes the commit time for a timestamp that is NULL', () => {
    const row = insert(RELATION_ID, eventRow({ timestamp: null }));
    expect(convertMessage(EVENTS, row)?.value).toBe(eventValue({ createdAt: COMMIT_TIME_TEXT }));
  });

  test.each([
    [null, undefined],
    [jsonb('{}'), undefined],
    [jsonb('[1]'), undefined],
    [jsonb('{"format_version": null}'), undefined],
    [jsonb('{"format_version": 3}'), 3],
    [jsonb('{"a": {"format_version": 9}, "format_version": -2147483648}'), -2_147_483_648],
  ])('reads format_version from the metadata (%#)', (metadata, formatVersion) => {
    const row = insert(RELATION_ID, eventRow({ metadata }));
    const expected = formatVersion === undefined ? eventValue() : eventValue({ formatVersion });
    expect(convertMessage(EVENTS, row)?.value).toBe(expected);
  });

  test('reads the metadata of each row, whatever the row before it had', () => {
    const relation = relationOf('events', EVENTS_COLUMNS);
    const long = JSON.stringify({ format_version: 5, padding: 'x'.repeat(100) });
    const versions: [ColumnValue, number | undefined][] = [
      [jsonb('{"format_version": 1}'), 1],
      [jsonb('{"format_version": 1}'), 1],
      [jsonb('{"format_version": 2}'), 2],
      [jsonb(long), 5],
      [jsonb(long.replace('5', '6')), 6],
      [null, undefined],
      [jsonb('{"format_version": 2}'), 2],
      [jsonb('{}'), undefined],
      [jsonb('{"format_version": 12}'), 12],
    ];
    for (const [metadata, formatVersion] of versions) {
      const expected = formatVersion === undefined ? eventValue() : eventValue({ formatVersion });
      expect(convertMessage(relation, insert(RELATION_ID, eventRow({ metadata })))?.value).toBe(expected);
    }
    const fresh = relationOf('events', EVENTS_COLUMNS);
    expect(failureOf(fresh, insert(RELATION_ID, eventRow({ metadata: Buffer.alloc(0) })))).toBeInstanceOf(
      InvalidRowError,
    );
    for (const _again of [1, 2]) {
      const invalid = insert(RELATION_ID, eventRow({ metadata: jsonb('{"format_version": 1.0}') }));
      expect(failureOf(fresh, invalid)).toBeInstanceOf(InvalidRowError);
    }
  });

  test('reads process_id in text format', () => {
    const row = insert(RELATION_ID, eventRow({ process_id: PROCESS_ID }));
    expect(convertMessage(EVENTS, row)).toEqual({ kind: 'event', key: KEY, value: eventValue() });
  });

  const missing = 'was not sent: it is an unchanged TOAST value, and no old row has it';
  const invalid: [string, Record<string, ColumnValue>, string, string | undefined][] = [
    ['NULL process_id', { process_id: null }, 'column "process_id" is NULL', undefined],
    ['absent process_id', { process_id: UNCHANGED }, `column "process_id" ${missing}`, undefined],
    ['NULL event_id', { event_id: null }, 'column "event_id" is NULL', KEY],
    ['absent event_id', { event_id: UNCHANGED }, `column "event_id" ${missing}`, KEY],
    ['event_id as text', { event_id: '7' }, 'column "event_id" is in text format instead of binary', KEY],
    ['event_id of 3 bytes', { event_id: Buffer.alloc(3) }, 'column "event_id" has 3 bytes instead of 2, 4 or 8', KEY],
    ['NULL payload', { payload: null }, 'column "payload" is NULL', KEY],
    ['absent payload', { payload: UNCHANGED }, `column "payload" ${missing}`, KEY],
    ['payload as text', { payload: '\\x83' }, 'column "payload" is in text format instead of binary', KEY],
    ['absent timestamp', { timestamp: UNCHANGED }, `column "timestamp" ${missing}`, KEY],
    ['timestamp as text', { timestamp: '2024' }, 'column "timestamp" is in text format instead of binary', KEY],
    ['timestamp of 4 bytes', { timestamp: int4(1) }, 'column "timestamp" has 4 bytes instead of 8', KEY],
    ['absent metadata', { metadata: UNCHANGED }, `column "metadata" ${missing}`, KEY],
    ['metadata as text', { metadata: '{}' }, 'column "metadata" is in text format instead of binary', KEY],
    ['empty metadata', { metadata: Buffer.alloc(0) }, 'column "metadata" is not in version 1 of binary jsonb', KEY],
    [
      'jsonb version 2',
      { metadata: Buffer.from([2, 0x7b, 0x7d]) },
      'column "metadata" is not in version 1 of binary jsonb',
      KEY,
    ],
  ];

  test.each(invalid)('refuses %s', (_name, values, reason, key) => {
    const error = failureOf(EVENTS, insert(RELATION_ID, eventRow(values)));
    expect(error).toBeInstanceOf(InvalidRowError);
    expect(error.message).toBe(`Cannot convert a row of table "default/default_events": ${reason}`);
    expect(error.place).toEqual({ namespace: NAMESPACE, table: 'default/default_events', key });
  });

  test.each([
    ['infinity', { timestamp: timestamptz(0x7fff_ffff_ffff_ffffn) }],
    ['-infinity', { timestamp: timestamptz(-0x8000_0000_0000_0000n) }],
    ['year 10000', { timestamp: timestamptz(timestampMicros('9999-12-31 23:59:59+00') + 1_000_000n) }],
    ['format_version 1.0', { metadata: jsonb('{"format_version": 1.0}') }],
    ['format_version "1"', { metadata: jsonb('{"format_version": "1"}') }],
    ['format_version over i32', { metadata: jsonb('{"format_version": 2147483648}') }],
  ])('refuses %s, and names the row', (_name, values) => {
    const error = failureOf(EVENTS, insert(RELATION_ID, eventRow(values)));
    expect(error).toBeInstanceOf(InvalidRowError);
    expect(error.message).toStartWith('Cannot convert a row of table "default/default_events": ');
    expect(error.place).toEqual({ namespace: NAMESPACE, table: 'default/default_events', key: KEY });
  });

  test('says what is wrong with a payload, and keeps it as the cause', () => {
    const error = failureOf(EVENTS, insert(RELATION_ID, eventRow({ payload: Buffer.from([130, 97, 1]) })));
    expect(error).toBeInstanceOf(InvalidRowError);
    expect(error.cause).toBeInstanceOf(MalformedError);
    expect(error.cause).toMatchObject({ format: 'ETF', offset: 0 });
    expect(error.code).toBe('payload_malformed');
    expect(error.message).toBe(
      `Cannot convert a row of table "default/default_events": column "payload": ${(error.cause as Error).message}`,
    );
    expect(error.place.key).toBe(KEY);
  });

  test('gives every cause a code of its own', () => {
    const codeOf = (values: Record<string, ColumnValue>) =>
      failureOf(EVENTS, insert(RELATION_ID, eventRow(values))).code;
    const causes: [string, Record<string, ColumnValue>][] = [
      ['column_null', { event_id: null }],
      ['unchanged_toast', { payload: UNCHANGED }],
      ['column_text_format', { payload: '\\x83' }],
      ['event_id_size', { event_id: Buffer.alloc(3) }],
      ['timestamp_size', { timestamp: int4(1) }],
      ['timestamp_infinite', { timestamp: timestamptz(0x7fff_ffff_ffff_ffffn) }],
      ['timestamp_year', { timestamp: timestamptz(0x7fff_ffff_ffff_fffen) }],
      ['metadata_format', { metadata: Buffer.alloc(0) }],
      ['metadata_malformed', { metadata: jsonb('{') }],
      ['format_version_repeated', { metadata: jsonb('{"format_version": 1, "format_version": 1}') }],
      ['format_version_type', { metadata: jsonb('{"format_version": 1.0}') }],
      ['format_version_range', { metadata: jsonb('{"format_version": 2147483648}') }],
      ['payload_malformed', { payload: Buffer.alloc(0) }],
    ];
    expect(causes.map(([, values]) => codeOf(values))).toEqual(causes.map(([code]) => code));
    expect(failureOf(EVENTS, insert(RELATION_ID, [])).code).toBe('column_count');
    expect(failureOf(PROCESSES, update(RELATION_ID, undefined, processRow({}))).code).toBe('missing_old_tuple');
  });

  test('refuses a row with another number of columns than its Relation, so that it reads nothing of earlier rows', () => {
    const short = eventRow().slice(0, 5);
    expect(failureOf(EVENTS, insert(RELATION_ID, short)).message).toBe(
      'Cannot convert a row of table "default/default_events": the row has 5 columns, its relation 6',
    );
    expect(failureOf(EVENTS, insert(RELATION_ID, [...eventRow(), null]))).toBeInstanceOf(InvalidRowError);
  });

  test('converts again after a row that failed', () => {
    failureOf(EVENTS, insert(RELATION_ID, eventRow({ payload: EMPTY_ARRAY.subarray(0, 9) })));
    expect(convertMessage(EVENTS, insert(RELATION_ID, eventRow()))?.value).toBe(eventValue());
  });
});

describe('convertChange of processes', () => {
  const full = (values: Record<string, ColumnValue>): OldTuple => ({ kind: 'O', columns: processRow(values) });
  const status = (label: string): Record<string, ColumnValue> => ({ status: Buffer.from(label) });
  const lifecycle = (event: string): ConvertedRecord => ({ kind: 'lifecycle', key: KEY, value: lifecycleValue(event) });

  test.each(['init', 'running', 'error', 'other'])('emits created for an insert with status %s', (label) => {
    expect(convertMessage(PROCESSES, insert(RELATION_ID, processRow(status(label))))).toEqual(lifecycle(CREATED));
  });

  // Every pair of statuses, with an unknown label; a pair that is not in the table emits nothing.
  const labels = ['init', 'running', 'error', 'other'];
  const emitted: Record<string, ConvertedRecord> = {
    'running error': lifecycle(failed('причина')),
    'init error': lifecycle(failed('причина')),
    'error running': lifecycle(REPAIRED),
  };
  const transitions = labels.flatMap((from) => labels.map((to) => [from, to] as const));

  test.each(transitions)('update of status %s to %s', (from, to) => {
    const bytes = update(
      RELATION_ID,
      full(status(from)),
      processRow({ ...status(to), detail: Buffer.from('причина') }),
    );
    expect(convertMessage(PROCESSES, bytes)).toEqual(emitted[`${from} ${to}`] as ConvertedRecord);
  });

  test('reads statuses in text format as well', () => {
    const old: OldTuple = { kind: 'O', columns: processRow({ status: 'running' }) };
    expect(convertMessage(PROCESSES, update(RELATION_ID, old, processRow({ status: 'error', detail: 'x' })))).toEqual(
      lifecycle(failed('x')),
    );
  });

  test('a status that only begins like a known one is another one', () => {
    for (const label of ['err', 'errors', 'errOr', '']) {
      expect(
        convertMessage(PROCESSES, update(RELATION_ID, full(status('running')), processRow(status(label)))),
      ).toBeUndefined();
    }
  });

  test('a label that the status type does not have is refused, whichever way the status changes', () => {
    const message = relationMessage({ name: `${NAMESPACE}_processes`, columns: PROCESSES_COLUMNS });
    const labels = new Map([[NAMESPACE, ['running', 'error', 'paused']]]);
    const relation = resolveRelation(message, new Set([NAMESPACE]), labels)!;
    const changed = (from: string, to: string) =>
      convertMessage(relation, update(RELATION_ID, full(status(from)), processRow(status(to))));
    for (const [from, to] of [
      ['running', 'paused'],
      ['paused', 'error'],
      ['init', 'running'],
    ] as const) {
      expect(changed(from, to)).toBeUndefined();
    }
    for (const [from, to] of [
      ['running', 'failed'],
      ['failed', 'error'],
      ['failed', 'running'],
    ] as const) {
      expect(() => changed(from, to)).toThrow('column "status" has the unknown label "failed"');
    }
  });

  const reasons: [string, ColumnValue, ColumnValue, string][] = [
    ['NULL', null, 'old detail', 'unknown'],
    ['empty', Buffer.alloc(0), 'old detail', ''],
    ['unchanged TOAST', UNCHANGED, 'деталь', 'деталь'],
    ['text', 'as text', null, 'as text'],
  ];
  test.each(reasons)('takes the reason from a detail that is %s', (_name, detail, before, reason) => {
    const old = full({ ...status('running'), detail: before });
    const bytes = update(RELATION_ID, old, processRow({ ...status('error'), detail }));
    expect(convertMessage(PROCESSES, bytes)).toEqual(lifecycle(failed(reason)));
  });

  test('takes unknown for a detail that is unchanged TOAST although the old one is NULL', () => {
    const bytes = update(RELATION_ID, full(status('init')), processRow({ ...status('error'), detail: UNCHANGED }));
    expect(convertMessage(PROCESSES, bytes)).toEqual(lifecycle(failed('unknown')));
  });

  test('takes process_id from the old tuple when it is unchanged TOAST', () => {
    const repaired = update(
      RELATION_ID,
      full(status('error')),
      processRow({ ...status('running'), process_id: UNCHANGED }),
    );
    expect(convertMessage(PROCESSES, repaired)).toEqual(lifecycle(REPAIRED));
  });

  test('emits nothing for a change of the primary key, and the new key when the status changed too', () => {
    const old = full({ ...status('error'), process_id: Buffer.from('old') });
    expect(convertMessage(PROCESSES, update(RELATION_ID, old, processRow(status('error'))))).toBeUndefined();
    expect(convertMessage(PROCESSES, update(RELATION_ID, old, processRow(status('running'))))).toEqual(
      lifecycle(REPAIRED),
    );
  });

  test('emits nothing for a status that is unchanged TOAST', () => {
    const bytes = update(RELATION_ID, full(status('running')), processRow({ status: UNCHANGED }));
    expect(convertMessage(PROCESSES, bytes)).toBeUndefined();
  });

  test('reads only the status of an update that does not change it', () => {
    const broken: Record<string, ColumnValue> = { process_id: null, detail: UNCHANGED };
    const bytes = update(
      RELATION_ID,
      full({ ...status('error'), ...broken }),
      processRow({ ...status('error'), ...broken }),
    );
    expect(convertMessage(PROCESSES, bytes)).toBeUndefined();
  });

  test.each([
    ['key', { kind: 'K', columns: processRow({ status: null, detail: null }) }],
    ['row', { kind: 'O', columns: processRow({}) }],
  ] as const)('emits removed for a delete with the %s', (_name, old) => {
    expect(convertMessage(PROCESSES, remove(RELATION_ID, old))).toEqual(lifecycle(REMOVED));
  });

  test('reads columns where a Relation says they are that came in mid-stream', () => {
    const before = PROCESSES_COLUMNS.slice(0, 7);
    const dropped = [...PROCESSES_COLUMNS].reverse().filter((column) => column.name !== 'aux_state');
    for (const columns of [before, PROCESSES_COLUMNS, dropped]) {
      const old: OldTuple = { kind: 'O', columns: processRow(status('running'), columns) };
      const bytes = update(RELATION_ID, old, processRow({ ...status('error'), detail: Buffer.from('r') }, columns));
      expect(convertMessage(relationOf('processes', columns), bytes)).toEqual(lifecycle(failed('r')));
    }
  });

  test.each([
    ['no old tuple', undefined, 'd', 'DEFAULT'],
    ['only the key of the old tuple', { kind: 'K', columns: processRow({ status: null }) }, 'i', 'USING INDEX'],
    ['no old tuple', undefined, 'n', 'NOTHING'],
  ] as const)('refuses an update with %s (replica identity %s)', (_name, old, identity, identityName) => {
    const relation = relationOf('processes', PROCESSES_COLUMNS, identity);
    for (const label of ['error', 'running', 'init']) {
      const error = failureOf(relation, update(RELATION_ID, old, processRow(status(label))));
      expect(error).toBeInstanceOf(MissingOldTupleError);
      expect(error.message).toBe(
        'Cannot convert a row of table "default/default_processes": the update was sent without the values it replaced ' +
          `(replica identity ${identityName} when it was written), so it does not show whether the status changed`,
      );
      expect(error.advice).toContain('Set on_missing_old_tuple: skip for namespace "default/default"');
      expect(error.place).toEqual({ namespace: NAMESPACE, table: 'default/default_processes', key: KEY });
    }
  });

  describe('of a table that is identified by an index over process_id and status', () => {
    const columns = PROCESSES_COLUMNS.map((column) => ({
      ...column,
      isKey: column.name === 'process_id' || column.name === 'status',
    }));
    const byStatus = relationOf('processes', columns, 'i');
    // What PostgreSQL sends of an old key: all other columns are NULL, whatever they were.
    const key = (status: string, processId = PROCESS_ID): OldTuple => ({
      kind: 'K',
      columns: columns.map(({ name }) =>
        name === 'process_id' ? Buffer.from(processId) : name === 'status' ? Buffer.from(status) : null,
      ),
    });

    test.each(labels)('an update without the old key leaves status %s alone', (label) => {
      const bytes = update(RELATION_ID, undefined, processRow({ ...status(label), detail: UNCHANGED }));
      expect(convertMessage(byStatus, bytes)).toBeUndefined();
    });

    test.each(transitions)(
      'update of status %s to %s gives the record that it gives with the whole old row',
      (from, to) => {
        const row = processRow({ ...status(to), detail: Buffer.from('причина') });
        expect(convertMessage(byStatus, update(RELATION_ID, key(from), row))).toEqual(
          emitted[`${from} ${to}`] as ConvertedRecord,
        );
      },
    );

    test('emits nothing for a change of the primary key, and the new key when the status changed too', () => {
      expect(
        convertMessage(byStatus, update(RELATION_ID, key('error', 'old'), processRow(status('error')))),
      ).toBeUndefined();
      expect(convertMessage(byStatus, update(RELATION_ID, key('error', 'old'), processRow(status('running'))))).toEqual(
        lifecycle(REPAIRED),
      );
    });

    test('takes process_id from the old key when it is unchanged TOAST', () => {
      const row = processRow({ ...status('running'), process_id: UNCHANGED });
      expect(convertMessage(byStatus, update(RELATION_ID, key('error'), row))).toEqual(lifecycle(REPAIRED));
    });

    test('takes unknown for a detail that is NULL, and never for one that was left out', () => {
      const failing = (detail: ColumnValue) =>
        update(RELATION_ID, key('running'), processRow({ ...status('error'), detail }));
      expect(convertMessage(byStatus, failing(null))).toEqual(lifecycle(failed('unknown')));
      const error = failureOf(byStatus, failing(UNCHANGED));
      expect(error).toBeInstanceOf(InvalidRowError);
      expect(error.message).toContain('column "detail" was not sent: it is an unchanged TOAST value');
      expect(error.place.key).toBe(KEY);
    });

    test('emits removed for a delete with the key', () => {
      expect(convertMessage(byStatus, remove(RELATION_ID, key('error')))).toEqual(lifecycle(REMOVED));
    });

    test('reads a whole old row as well, and the columns of a list', () => {
      const listed = columns.filter(({ name }) => ['process_id', 'status', 'detail'].includes(name));
      const relation = relationOf('processes', listed, 'i');
      const row = processRow({ ...status('error'), detail: Buffer.from('r') }, listed);
      const old: OldTuple = { kind: 'K', columns: processRow({ ...status('running') }, listed) };
      expect(convertMessage(relation, update(RELATION_ID, old, row))).toEqual(lifecycle(failed('r')));
      expect(convertMessage(relation, update(RELATION_ID, undefined, row))).toBeUndefined();
      const whole = update(RELATION_ID, full(status('error')), processRow(status('running')));
      expect(convertMessage(byStatus, whole)).toEqual(lifecycle(REPAIRED));
    });

    test.each([
      ['the index was dropped, and no column is of the key', [], 'i'],
      ['status is not of the key', ['process_id'], 'i'],
      ['process_id is not of the key', ['status'], 'i'],
      ['the columns are those of the primary key', ['process_id', 'status'], 'd'],
    ] as const)('an update without the old key proves nothing where %s', (_name, keys, identity) => {
      const marked = PROCESSES_COLUMNS.map((column) => ({
        ...column,
        isKey: (keys as readonly string[]).includes(column.name),
      }));
      const relation = relationOf('processes', marked, identity);
      const error = failureOf(relation, update(RELATION_ID, undefined, processRow(status('error'))));
      expect(error).toBeInstanceOf(MissingOldTupleError);
    });
  });

  test('names no key of an update that has neither an old tuple nor a process_id', () => {
    const error = failureOf(PROCESSES, update(RELATION_ID, undefined, processRow({ process_id: UNCHANGED })));
    expect(error).toBeInstanceOf(MissingOldTupleError);
    expect(error.place.key).toBeUndefined();
  });

  const missing = 'was not sent: it is an unchanged TOAST value, and no old row has it';
  const running = full(status('running'));
  test.each([
    ['insert with NULL status', insert(RELATION_ID, processRow({ status: null })), 'column "status" is NULL', KEY],
    [
      'insert with NULL process_id',
      insert(RELATION_ID, processRow({ process_id: null })),
      'column "process_id" is NULL',
      undefined,
    ],
    [
      'update to NULL status',
      update(RELATION_ID, running, processRow({ status: null })),
      'column "status" is NULL',
      undefined,
    ],
    [
      'update from NULL status',
      update(RELATION_ID, full({ status: null }), processRow({})),
      'column "status" is NULL',
      undefined,
    ],
    [
      'both NULL',
      update(RELATION_ID, full({ status: null }), processRow({ status: null })),
      'column "status" is NULL',
      undefined,
    ],
    [
      'absent old status',
      update(RELATION_ID, full({ status: UNCHANGED }), processRow({ status: UNCHANGED })),
      `column "status" ${missing}`,
      undefined,
    ],
    [
      'absent detail in both tuples',
      update(
        RELATION_ID,
        full({ ...status('running'), detail: UNCHANGED }),
        processRow({ ...status('error'), detail: UNCHANGED }),
      ),
      `column "detail" ${missing}`,
      KEY,
    ],
    [
      'failure with NULL process_id',
      update(RELATION_ID, running, processRow({ ...status('error'), process_id: null })),
      'column "process_id" is NULL',
      undefined,
    ],
    [
      'delete without process_id',
      remove(RELATION_ID, { kind: 'K', columns: processRow({ process_id: null }) }),
      'column "process_id" is NULL',
      undefined,
    ],
    [
      'new tuple of another width',
      update(RELATION_ID, running, processRow({}).slice(1)),
      'the row has 8 columns, its relation 9',
      undefined,
    ],
    [
      'old tuple of another width',
      update(RELATION_ID, { kind: 'O', columns: processRow({}).slice(1) }, processRow({})),
      'the row has 8 columns, its relation 9',
      undefined,
    ],
  ])('refuses %s', (_name, bytes, reason, key) => {
    const error = failureOf(PROCESSES, bytes);
    expect(error).toBeInstanceOf(InvalidRowError);
    expect(error).not.toBeInstanceOf(MissingOldTupleError);
    expect(error.message).toBe(`Cannot convert a row of table "default/default_processes": ${reason}`);
    expect(error.place).toEqual({ namespace: NAMESPACE, table: 'default/default_processes', key });
  });
});

describe('golden vectors', () => {
  const relationIn = (namespace: string, kind: 'processes' | 'events'): SourceRelation => {
    const columns = kind === 'events' ? EVENTS_COLUMNS : PROCESSES_COLUMNS;
    return resolveRelation(relationMessage({ name: `${namespace}_${kind}`, columns }), new Set([namespace]))!;
  };

  test('every event row gives the key and the value of the service replaced', () => {
    const vectors = readEventVectors();
    let sameBytes = 0;
    for (const vector of vectors) {
      const row = eventRow({
        process_id: Buffer.from(vector.process_id),
        event_id: int2(vector.event_id),
        timestamp: timestamptz(timestampMicros(vector.timestamp)),
        metadata: vector.format_version === null ? null : jsonb(`{"format_version": ${vector.format_version}}`),
        payload: Buffer.from(vector.payload_hex, 'hex'),
      });
      const record = convertMessage(relationIn(vector.ns, 'events'), insert(RELATION_ID, row))!;
      expect([record.kind, record.key]).toEqual(['event', vector.key]);
      const [ours, theirs] = [record.value, vector.value_hex].map(
        (hex) => decodeSinkEvent(Buffer.from(hex, 'hex')).event,
      );
      if (hasHashOrder(theirs!.data)) {
        // Erlang orders big maps by a hash of its VM: there, and only there, entries are compared without their order.
        const ordered = [ours!, theirs!].map((event) => ({ ...event, data: withoutHashOrder(event.data) }));
        expect(ordered[0]).toEqual(ordered[1]!);
        expect(record.value.length).toBe(vector.value_hex.length);
      } else {
        expect(record.value).toBe(vector.value_hex.toLowerCase());
        sameBytes++;
      }
    }
    expect(sameBytes).toBeGreaterThan(100);
    expect(vectors.length).toBe(150);
  });

  test('every lifecycle event has the key and the value of the service replaced', () => {
    const vectors = readLifecycleVectors();
    for (const vector of vectors) {
      const row = (label: string): ColumnValue[] =>
        processRow({
          process_id: Buffer.from(vector.process_id),
          status: Buffer.from(label),
          detail: vector.reason === null ? null : Buffer.from(vector.reason),
        });
      const changes = {
        created: insert(RELATION_ID, row('init')),
        failed: update(RELATION_ID, { kind: 'O', columns: row('running') }, row('error')),
        repaired: update(RELATION_ID, { kind: 'O', columns: row('error') }, row('running')),
        removed: remove(RELATION_ID, { kind: 'O', columns: row('running') }),
      };
      const commitTime = timestampMicros(vector.created_at.replace('T', ' ').replace('Z', '+00'));
      expect(convertMessage(relationIn(vector.ns, 'processes'), changes[vector.event], commitTime)).toEqual({
        kind: 'lifecycle',
        key: vector.key,
        value: vector.value_hex.toLowerCase(),
      });
    }
    expect(vectors.length).toBe(37);
  });

  test('every payload that the service replaced rejects is refused with its reason', () => {
    const vectors = readInvalidVectors();
    for (const { why, payload_hex } of vectors) {
      const error = failureOf(EVENTS, insert(RELATION_ID, eventRow({ payload: Buffer.from(payload_hex, 'hex') })));
      if (!(error instanceof InvalidRowError)) throw new Error(`${why} gave ${error}`);
      expect(error.cause).toBeInstanceOf(MalformedError);
    }
    expect(vectors.length).toBe(20);
  });
});

describe('captures from a real server', () => {
  test.each(CAPTURES.filter((name) => name.endsWith('binary')))('%s converts as the table of changes says', (name) => {
    const namespaces = new Set([NAMESPACE, 'заявка "тест"']);
    const reader = new FrameReader();
    const relations = new Map<number, SourceRelation>();
    const seen: string[] = [];
    let commitTime = 0n;
    for (const { bytes } of readCapture(name)) {
      reader.start(copyData(bytes));
      const message = reader.next()!;
      if (message.tag === 'begin') commitTime = message.commitTimeMicros;
      if (message.tag === 'relation') {
        const relation = resolveRelation(message, namespaces);
        if (relation !== undefined) relations.set(message.relationId, relation);
      }
      if (message.tag !== 'insert' && message.tag !== 'update' && message.tag !== 'delete') continue;
      const relation = relations.get(message.relationId);
      if (relation === undefined) continue;
      let outcome: string | undefined;
      try {
        outcome = convertChange(relation, message, commitTime, draft);
        if (outcome !== undefined) {
          const isDetailed = draft.value.view().includes('сломалось') || draft.value.view().includes('деталь деталь');
          outcome = `${draft.key.view()}${isDetailed ? ' with its reason' : ''}`;
        }
      } catch (error) {
        outcome = (error as Error).name;
      }
      seen.push(`${relation.kind} ${message.tag}: ${outcome}`);
    }
    expect(seen).toEqual([
      'processes insert: default/default p-1',
      'events insert: default/default p-1',
      'processes update: MissingOldTupleError',
      'processes insert: default/default p-2',
      'processes update: MissingOldTupleError',
      'processes delete: default/default p-3',
      'processes insert: default/default p-4',
      'processes update: MissingOldTupleError',
      'processes update: undefined',
      'processes update: default/default p-1',
      'processes update: default/default p-1 with its reason',
      'processes update: default/default p-4',
      'processes update: default/default p-4 with its reason',
      'processes delete: default/default p-4',
      'processes update: default/default p-1',
      'events insert: InvalidRowError',
      'events insert: InvalidRowError',
      'events update: undefined',
      'events delete: undefined',
      'events insert: InvalidRowError',
      'processes insert: заявка "тест" идентификатор',
    ]);
  });

  test('a truncate is no row change', () => {
    const reader = new FrameReader();
    reader.start(copyData(xlogData(truncate([RELATION_ID]))));
    expect(reader.next()?.tag).toBe('truncate');
  });
});
