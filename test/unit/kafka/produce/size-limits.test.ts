import { describe, expect, test } from 'bun:test';
import {
  createSizeLimits,
  type ExceededLimit,
  exceededLimit,
  noteRefusedBatch,
  noteRefusedRecord,
  type SizeLimits,
  updateLimits,
} from '../../../../src/kafka/produce/size-limits.ts';

test('what was learned about a topic holds until its limit is raised, also if it was raised unobserved', () => {
  const limits = createSizeLimits(104_857_600);
  updateLimits(limits, new Map([['one', 1000]]));
  for (const topic of ['one', 'two']) {
    limits.learnedBatchBytes.set(topic, 500);
    noteRefusedRecord(limits, topic, { plainBytes: 900, wireBytes: 900 });
  }
  updateLimits(limits, new Map([['one', 1000]]));
  updateLimits(limits, new Map([['one', 800]]));
  expect([limits.learnedBatchBytes.size, limits.refusedRecords.size]).toEqual([2, 2]);
  updateLimits(
    limits,
    new Map([
      ['one', 801],
      // Read for the first time: nothing says that it was raised.
      ['two', 5000],
    ]),
  );
  expect([...limits.learnedBatchBytes.keys(), ...limits.refusedRecords.keys()]).toEqual(['two', 'two']);
  expect(Object.fromEntries(limits.maxMessageBytes)).toEqual({ one: 801, two: 5000 });
});

describe('exceededLimit', () => {
  const limitsOf = (maxBytes: number | undefined, ...refused: (readonly [plainBytes: number, wireBytes: number])[]) => {
    const limits = createSizeLimits(104_857_600);
    if (maxBytes !== undefined) limits.maxMessageBytes.set('t', maxBytes);
    for (const [plainBytes, wireBytes] of refused) noteRefusedRecord(limits, 't', { plainBytes, wireBytes });
    return limits;
  };

  test.each<[string, SizeLimits, [plainBytes: number, wireBytes: number], ExceededLimit | undefined]>([
    ['nothing is known', limitsOf(undefined), [1e8, 1e8], undefined],
    [
      'it is larger than a request',
      limitsOf(undefined),
      [2e8, 104_857_041],
      { of: 'request', limitBytes: 104_857_600, neededBytes: 104_857_601 },
    ],
    ['a record fits', limitsOf(1000), [1000, 1000], undefined],
    ['a record does not fit', limitsOf(1000), [1001, 1001], { of: 'topic', limitBytes: 1000, neededBytes: 1001 }],
    ['a record fits compressed', limitsOf(1000), [5000, 1000], undefined],
    [
      'a record does not fit compressed',
      limitsOf(1000),
      [5000, 1001],
      { of: 'topic', limitBytes: 1000, neededBytes: 1001 },
    ],
    [
      'the very same was refused',
      limitsOf(1000, [5000, 50]),
      [5000, 50],
      { of: 'topic', limitBytes: 4999, neededBytes: 5000 },
    ],
    ['a larger one that compresses better', limitsOf(undefined, [5000, 2000]), [9000, 1999], undefined],
    ['a smaller one that compresses worse', limitsOf(1000, [5000, 50]), [4999, 900], undefined],
    [
      'of two refused ones the smaller counts',
      limitsOf(1000, [5000, 60], [4000, 70]),
      [4000, 60],
      {
        of: 'topic',
        limitBytes: 3999,
        neededBytes: 4000,
      },
    ],
  ])('%s', (_, limits, [plainBytes, wireBytes], expected) => {
    expect(exceededLimit(limits, 't', { plainBytes, wireBytes })).toEqual(expected);
  });
});

test('a refused batch of several records halves the batches of its topic, one of a single record marks that record', () => {
  const limits = createSizeLimits(104_857_600);
  noteRefusedBatch(limits, { topic: 't', recordCount: 2, plainLength: 1_001, length: 300 });
  expect(limits.learnedBatchBytes.get('t')).toBe(501);
  expect(limits.refusedRecords.size).toBe(0);
  noteRefusedBatch(limits, { topic: 't', recordCount: 1, plainLength: 400, length: 300 });
  expect(limits.learnedBatchBytes.get('t')).toBe(501);
  expect(limits.refusedRecords.get('t')).toEqual({ plainBytes: 400, wireBytes: 300 });
});
