import { expect, test } from 'bun:test';
import { createTopicLimits, takeUpLimits } from '../../src/kafka/topic-limits.ts';

test('what was learned of a topic holds until its limit is raised, also while nobody looked', () => {
  const limits = createTopicLimits();
  takeUpLimits(limits, new Map([['one', 1000]]));
  for (const topic of ['one', 'two']) {
    limits.learnedBatchBytes.set(topic, 500);
    limits.refusedRecordBytes.set(topic, 900);
  }
  takeUpLimits(limits, new Map([['one', 1000]]));
  takeUpLimits(limits, new Map([['one', 800]]));
  expect([limits.learnedBatchBytes.size, limits.refusedRecordBytes.size]).toEqual([2, 2]);
  takeUpLimits(
    limits,
    new Map([
      ['one', 801],
      // Read for the first time: nothing says that it was raised.
      ['two', 5000],
    ]),
  );
  expect([...limits.learnedBatchBytes.keys(), ...limits.refusedRecordBytes.keys()]).toEqual(['two', 'two']);
  expect(Object.fromEntries(limits.maxMessageBytes)).toEqual({ one: 801, two: 5000 });
});
