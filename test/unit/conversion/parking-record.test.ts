import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { ByteWriter } from '../../../src/bytes/writer.ts';
import { encodeParkedRow } from '../../../src/conversion/parking-record.ts';
import { FrameReader } from '../../../src/postgres/replication/frames.ts';
import {
  type BeginMessage,
  MessageDecoder,
  type RelationMessage,
  type RowMessage,
} from '../../../src/postgres/replication/pgoutput.ts';
import {
  CAPTURES,
  type ColumnValue,
  copyData,
  EVENTS_COLUMNS,
  insert,
  int2,
  int8,
  jsonb,
  type OldTuple,
  PROCESS_STATUS_OID,
  PROCESSES_COLUMNS,
  readCapture,
  relationMessage,
  remove,
  snapshot,
  timestamptz,
  UNCHANGED,
  update,
} from '../../support/codecs/pgoutput.ts';
import { timestampMicros } from '../../support/codecs/vectors.ts';

const RELATION_ID = 16_400;
const EVENTS = relationMessage({ name: 'invoice_events', columns: EVENTS_COLUMNS });
const PROCESSES = relationMessage({ name: 'invoice_processes', columns: PROCESSES_COLUMNS.slice(0, 4) });
const BEGIN: BeginMessage = {
  tag: 'begin',
  finalLsn: 0x16_b374_d848n,
  commitTimeMicros: timestampMicros('2016-03-22 06:12:27.012345+00'),
  xid: 700,
};

interface ParkedColumn {
  readonly name?: string;
  readonly typeOid?: number;
  readonly value: { null?: true; unchanged?: true; text?: string; base64?: string };
}

interface ParkedValue {
  readonly key: { text?: string; base64?: string };
  readonly commitTime: string | null;
  readonly columns?: readonly ParkedColumn[];
  readonly oldColumns?: readonly ParkedColumn[];
}

interface Parked {
  readonly key: Buffer;
  readonly bytes: number;
  readonly value: ParkedValue;
}

const draft = { key: new ByteWriter(), value: new ByteWriter() };

function parkChange(relation: RelationMessage, change: RowMessage, begin = BEGIN): Parked {
  encodeParkedRow(
    {
      databaseRef: 'main',
      slot: 'invoicing',
      namespace: 'invoice',
      relation,
      change,
      begin,
      lsn: 0x16_b374_d800n,
      reason: 'Cannot convert a row: "reason"\n',
    },
    draft,
  );
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(draft.value.view());
  return { key: draft.key.toBuffer(), bytes: draft.value.length, value: JSON.parse(text) as ParkedValue };
}

function park(relation: RelationMessage, message: Buffer, begin = BEGIN): Parked {
  return parkChange(relation, new MessageDecoder().decode(message, 0) as RowMessage, begin);
}

/** The columns of a parked row, each as the bytes or the mark that was sent. */
function columnsOf(columns: readonly ParkedColumn[] | undefined): unknown {
  return columns?.map(({ value }) => {
    if (value.null) return null;
    if (value.unchanged) return UNCHANGED;
    return value.text === undefined ? Buffer.from(value.base64!, 'base64') : Buffer.from(value.text);
  });
}

function wireColumns(columns: unknown): unknown {
  const list = columns as readonly ColumnValue[] | undefined;
  return list?.map((column) => (typeof column === 'string' ? Buffer.from(column) : column));
}

describe('encodeParkedRow', () => {
  test('writes an inserted event whole', () => {
    const message = insert(RELATION_ID, [
      Buffer.from('счёт-1'),
      int8(255n),
      int2(-2),
      timestamptz(0n),
      jsonb('{}'),
      Buffer.of(0xff, 0x00),
    ]);
    const parked = park(EVENTS, message);
    expect(parked.key.toString()).toBe('invoice счёт-1');
    expect(parked.value as unknown).toEqual({
      database: 'main',
      slot: 'invoicing',
      namespace: 'invoice',
      schema: 'public',
      table: 'invoice_events',
      operation: 'insert',
      lsn: '16/B374D800',
      xid: 700,
      commitTime: '2016-03-22T06:12:27.012345Z',
      key: { text: 'invoice счёт-1' },
      reason: 'Cannot convert a row: "reason"\n',
      columns: [
        { name: 'process_id', typeOid: 1043, value: { text: 'счёт-1' } },
        { name: 'task_id', typeOid: 20, value: { base64: 'AAAAAAAAAP8=' } },
        { name: 'event_id', typeOid: 21, value: { base64: '//4=' } },
        { name: 'timestamp', typeOid: 1184, value: { base64: 'AAAAAAAAAAA=' } },
        { name: 'metadata', typeOid: 3802, value: { base64: 'AXt9' } },
        { name: 'payload', typeOid: 17, value: { base64: '/wA=' } },
      ],
    });
  });

  test('writes both rows of an update, and which columns were not sent', () => {
    const old: OldTuple = { kind: 'O', columns: [Buffer.from('p'), Buffer.from('running'), 'as text', null] };
    const { key, value } = park(PROCESSES, update(RELATION_ID, old, [UNCHANGED, 'error', UNCHANGED, null]));
    expect(key.toString()).toBe('invoice p');
    expect(value as unknown).toMatchObject({
      operation: 'update',
      oldKind: 'O',
      columns: [
        { name: 'process_id', value: { unchanged: true } },
        { name: 'status', typeOid: PROCESS_STATUS_OID, value: { text: 'error' } },
        { name: 'detail', value: { unchanged: true } },
        { name: 'aux_state', value: { null: true } },
      ],
      oldColumns: [
        { value: { text: 'p' } },
        { value: { base64: Buffer.from('running').toString('base64') } },
        { value: { text: 'as text' } },
        { value: { null: true } },
      ],
    });
  });

  test('writes an update without its old row, and a delete', () => {
    const updated = park(PROCESSES, update(RELATION_ID, undefined, [Buffer.from('p'), null, null, null]));
    expect(Object.keys(updated.value)).not.toContain('oldColumns');
    expect(Object.keys(updated.value)).not.toContain('oldKind');
    const old: OldTuple = { kind: 'K', columns: [Buffer.from('p'), null, null, null] };
    const deleted = park(PROCESSES, remove(RELATION_ID, old));
    expect(deleted.key.toString()).toBe('invoice p');
    expect(deleted.value as unknown).toMatchObject({ operation: 'delete', oldKind: 'K' });
    expect(Object.keys(deleted.value)).not.toContain('columns');
    expect(columnsOf(deleted.value.oldColumns)).toEqual([Buffer.from('p'), null, null, null]);
  });

  test('has the namespace alone as its key when the row has no process id', () => {
    const nameless = relationMessage({ name: 'invoice_events', columns: EVENTS_COLUMNS.slice(1) });
    expect(park(PROCESSES, insert(RELATION_ID, [null, 'init', null, null])).key.toString()).toBe('invoice');
    expect(park(EVENTS, insert(RELATION_ID, [])).key.toString()).toBe('invoice');
    expect(park(nameless, insert(RELATION_ID, ['1', '2', null, null, 'x'])).key.toString()).toBe('invoice');
    expect(park(PROCESSES, insert(RELATION_ID, ['', 'init', null, null])).key.toString()).toBe('invoice ');
  });

  test('writes columns without a name when the relation does not describe them', () => {
    const { value } = park(PROCESSES, insert(RELATION_ID, ['p', 'init', null, null, 'more', Buffer.of(1)]));
    expect(value.columns!.slice(4)).toEqual([{ value: { text: 'more' } }, { value: { base64: 'AQ==' } }]);
    expect(park(PROCESSES, insert(RELATION_ID, ['p'])).value.columns).toHaveLength(1);
  });

  test('writes text as base64 when it is not UTF-8, and when JSON would be longer', () => {
    const keyBytes = Buffer.of(0x61, 0xff);
    const { key, value } = park(PROCESSES, insert(RELATION_ID, [keyBytes, '\u0001'.repeat(99), 'a "quote"\n', null]));
    expect(key).toEqual(Buffer.concat([Buffer.from('invoice '), keyBytes]));
    expect(value.key).toEqual({ base64: key.toString('base64') });
    expect(value.columns!.map((column) => Object.keys(column.value))).toEqual([
      ['base64'],
      ['base64'],
      ['text'],
      ['null'],
    ]);
    const mark = '\ufeffmark';
    expect(park(PROCESSES, insert(RELATION_ID, [mark])).value.columns![0]!.value).toEqual({ text: mark });
  });

  test.each([
    ['1999-12-31 23:59:59.999999+00', '1999-12-31T23:59:59.999999Z'],
    ['2000-01-01 00:00:00+00', '2000-01-01T00:00:00.000000Z'],
    ['1969-12-31 23:59:59.000001+00', '1969-12-31T23:59:59.000001Z'],
  ])('writes the commit time %p as %p', (time, text) => {
    const begin = { ...BEGIN, commitTimeMicros: timestampMicros(time) };
    expect(park(EVENTS, insert(RELATION_ID, []), begin).value.commitTime).toBe(text);
  });

  test.each([
    [-63_113_904_000_000_000n, '0000-01-01T00:00:00.000000Z'],
    [-63_113_904_000_000_001n, null],
    [2n ** 63n - 1n, null],
    [-(2n ** 63n), null],
  ])('writes the commit time %p micros after 2000 as %p', (commitTimeMicros, text) => {
    expect(park(EVENTS, insert(RELATION_ID, []), { ...BEGIN, commitTimeMicros }).value.commitTime).toBe(text);
  });

  test.each(CAPTURES)('keeps every byte of the rows of %s', (capture) => {
    const reader = new FrameReader();
    const relations = new Map<number, RelationMessage>();
    let rowCount = 0;
    for (const { bytes } of readCapture(capture)) {
      reader.start(copyData(bytes));
      const message = reader.next()!;
      if (message.tag === 'relation') relations.set(message.relationId, message);
      if (message.tag !== 'insert' && message.tag !== 'update' && message.tag !== 'delete') continue;
      const { newTuple, oldTuple } = snapshot(message) as { newTuple?: unknown; oldTuple?: unknown };
      const { value } = parkChange(relations.get(message.relationId)!, message);
      expect(columnsOf(value.columns)).toEqual(wireColumns(newTuple));
      expect(columnsOf(value.oldColumns)).toEqual(wireColumns(oldTuple));
      rowCount++;
    }
    expect(rowCount).toBeGreaterThan(10);
  });
});

const anyColumn: fc.Arbitrary<ColumnValue> = fc.oneof(
  fc.constant(null),
  fc.constant(UNCHANGED),
  fc.string({ unit: 'binary', maxLength: 60 }),
  fc.string({ unit: fc.constantFrom('\u0001', '"', '\\', '\u007f', 'ж', '\u2028') }),
  fc.uint8Array({ maxLength: 300 }),
);
const anyColumns = fc.array(anyColumn, { maxLength: 12 });
const anyRelation = fc
  .array(
    fc.record({
      name: fc.oneof(
        fc.constantFrom('process_id', 'status', 'payload', '__proto__', ''),
        fc.string({ unit: 'binary' }),
      ),
      typeOid: fc.oneof(fc.constantFrom(17, 25, 1043, 3802), fc.nat(0xffff_ffff)),
    }),
    { maxLength: 12 },
  )
  .map((columns) => relationMessage({ name: 'invoice_events', columns }));
const anyOld = fc.record({ kind: fc.constantFrom('K' as const, 'O' as const), columns: anyColumns });
const anyChange = fc.oneof(
  anyColumns.map((columns) => ({ newTuple: columns, oldTuple: undefined, bytes: insert(RELATION_ID, columns) })),
  fc.tuple(fc.option(anyOld, { nil: undefined }), anyColumns).map(([old, columns]) => ({
    newTuple: columns,
    oldTuple: old?.columns,
    bytes: update(RELATION_ID, old, columns),
  })),
  anyOld.map((old) => ({ newTuple: undefined, oldTuple: old.columns, bytes: remove(RELATION_ID, old) })),
);

test('encodeParkedRow keeps every byte of any row, within 4/3 of its size, its names and 64 bytes a column', () => {
  const anyTime = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
  const frameBytes = park(relationMessage({ name: 'invoice_events', columns: [] }), insert(RELATION_ID, [])).bytes;
  fc.assert(
    fc.property(anyRelation, anyChange, anyTime, (relation, change, commitTimeMicros) => {
      const { bytes, value } = park(relation, change.bytes, { ...BEGIN, commitTimeMicros });
      expect(columnsOf(value.columns)).toEqual(wireColumns(change.newTuple?.map(asBuffer)));
      expect(columnsOf(value.oldColumns)).toEqual(wireColumns(change.oldTuple?.map(asBuffer)));
      const nameBytes = relation.columns.reduce((sum, { name }) => sum + Buffer.byteLength(JSON.stringify(name)), 0);
      const columnCount = (change.newTuple?.length ?? 0) + (change.oldTuple?.length ?? 0);
      const keyBytes = (4 / 3) * 300;
      const bound = frameBytes + 50 + keyBytes + (4 / 3) * change.bytes.length + 2 * nameBytes + 64 * columnCount;
      expect(bytes).toBeLessThanOrEqual(bound);
    }),
    { numRuns: 2_000, seed: 20_160_322 },
  );
});

function asBuffer(column: ColumnValue): ColumnValue {
  return column instanceof Uint8Array ? Buffer.from(column) : column;
}
