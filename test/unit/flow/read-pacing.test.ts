import { expect, test } from 'bun:test';
import { restAfterRead } from '../../../src/flow/read-pacing.ts';

const KIB = 1024;

test.each([
  ['a small read out of a backlog', { readBytes: 400, lagMs: 100 }, 6],
  ['a read of hours ago', { readBytes: 63 * KIB, lagMs: 7_200_000 }, 6],
  ['a small read that is up to date', { readBytes: 400, lagMs: 99 }, 0],
  ['a large read out of a backlog', { readBytes: 64 * KIB, lagMs: 5_000 }, 0],
  ['a read before any transaction', { readBytes: 40, lagMs: Number.NEGATIVE_INFINITY }, 0],
])('restAfterRead after %s', (_, situation, restMs) => {
  expect(restAfterRead(situation)).toBe(restMs);
});
