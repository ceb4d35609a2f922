import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { MalformedError } from '../../../../src/errors.ts';
import { FrameReader } from '../../../../src/postgres/replication/frames.ts';
import { type LargeRowPolicy, LargeRowReader, type TupleRole } from '../../../../src/postgres/replication/large-row.ts';
import { NULL, OMITTED, type Tuple, UNCHANGED_TOAST } from '../../../../src/postgres/replication/pgoutput.ts';
import {
  type ColumnValue,
  copyData,
  insert,
  logicalMessage,
  remove,
  UNCHANGED,
  update,
  xlogData,
} from '../../../support/codecs/pgoutput.ts';

const RELATION = 16_400;
const LARGE = Buffer.alloc(5_000, 'x');

/** The columns of a tuple as they are in a test: omitted values as their size. */
function columnsOf(tuple: Tuple | undefined): unknown[] | undefined {
  return (
    tuple &&
    Array.from({ length: tuple.columnCount }, (_, column) => {
      const length = tuple.lengths[column]!;
      const start = tuple.starts[column]!;
      if (length === NULL) return null;
      if (length === UNCHANGED_TOAST) return 'unchanged';
      return length === OMITTED ? start : tuple.bytes.toString('latin1', start, start + length);
    })
  );
}

/** What is left of a message that comes in these pieces. */
function condense(frame: Buffer, policy: Partial<LargeRowPolicy>, cuts: readonly number[] = []) {
  const reader = new LargeRowReader({ neededColumns: () => [], maxRowBytes: 100_000, ...policy });
  const message = copyData(frame);
  const ends = [...cuts.filter((cut) => cut >= 5 && cut < message.length).sort((a, b) => a - b), message.length];
  let start = 0;
  let condensed: Buffer | undefined;
  for (const end of ends) {
    expect(condensed).toBeUndefined();
    condensed = reader.push(message.subarray(start, end));
    start = end;
  }
  return condensed!;
}

function decode(chunk: Buffer): unknown {
  const reader = new FrameReader();
  reader.start(chunk);
  const message = reader.next()!;
  expect(reader.walStart).toBe(0x16_b374_d848n);
  if (message.tag === 'message') return [message.lsn, message.prefix, message.content.length];
  if (message.tag === 'insert') return columnsOf(message.newTuple);
  if (message.tag === 'delete') return columnsOf(message.oldTuple);
  return message.tag === 'update' ? [columnsOf(message.oldTuple), columnsOf(message.newTuple)] : message;
}

const row = (message: Buffer): Buffer => xlogData(message);

describe('LargeRowReader', () => {
  test('leaves out values that are not needed, wherever the message is cut', () => {
    const columns: ColumnValue[] = ['p-1', LARGE, null, UNCHANGED, LARGE, 'text'];
    const frame = row(update(RELATION, { kind: 'O', columns }, columns));
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 5, max: frame.length + 5 }), { maxLength: 20 }), (cuts) => {
        const asked: TupleRole[] = [];
        const neededColumns = (tuple: TupleRole) => {
          asked.push(tuple);
          return tuple.version === 'new' ? [4] : [];
        };
        expect(decode(condense(frame, { neededColumns }, cuts))).toEqual([
          ['p-1', 5_000, null, 'unchanged', 5_000, 'text'],
          ['p-1', 5_000, null, 'unchanged', LARGE.toString(), 'text'],
        ]);
        const change = { relationId: RELATION, operation: 'update' } as const;
        expect(asked).toEqual([
          { ...change, version: 'old' },
          { ...change, version: 'new' },
        ]);
      }),
    );
  });

  test('leaves out a needed value that is above the limit of the row together with those before it', () => {
    const frame = row(insert(RELATION, ['p-1', LARGE, LARGE, Buffer.alloc(1_500, 'y')]));
    const policy = { neededColumns: () => [0, 1, 2, 3], maxRowBytes: 7_000 };
    expect(decode(condense(frame, policy))).toEqual(['p-1', LARGE.toString(), 5_000, 'y'.repeat(1_500)]);
  });

  test('keeps less than the row: what is left is small', () => {
    const frame = row(remove(RELATION, { kind: 'O', columns: ['p-1', Buffer.alloc(3_000_000)] }));
    const condensed = condense(frame, {}, [1_000_000, 2_000_000]);
    expect(condensed.buffer.byteLength).toBeLessThan(500_000);
    expect(decode(condensed)).toEqual(['p-1', 3_000_000]);
  });

  test('drops the text of a logical message', () => {
    const content = Buffer.alloc(100_000);
    const frame = row(logicalMessage({ transactional: true, lsn: 7n, prefix: 'others', content }));
    expect(decode(condense(frame, {}, [40, 50_000]))).toEqual([7n, '', 0]);
  });

  const whole = row(insert(RELATION, ['p-1', LARGE]));
  test.each([
    ['a column that is longer than the message', whole.subarray(0, -1)],
    ['bytes after the row', Buffer.concat([whole, Buffer.of(1)])],
  ])('refuses %s', (_what, frame) => {
    expect(() => condense(frame, {})).toThrow(MalformedError);
  });
});
