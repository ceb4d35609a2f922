import { expect, test } from 'bun:test';
import { type SlotsSample, slotEnds, slotRates } from './slot-rates.ts';

const samples: readonly SlotsSample[] = [
  { atMs: 1_000, parts: [0, 0] },
  { atMs: 2_000, parts: [0.4, 0] },
  { atMs: 3_000, parts: [0.6, 0.3] },
  { atMs: 4_000, parts: [1, 0.5] },
  { atMs: 5_000, parts: [1, 1] },
];

test('slotEnds says when each slot was done', () => {
  expect(slotEnds(samples)).toEqual([4_000, 5_000]);
  expect(slotEnds(samples.slice(0, 4))).toEqual([4_000, Infinity]);
});

test('slotRates counts the time in which all are at work', () => {
  const rates = slotRates(samples, [1_000, 2_000]);
  expect(rates[0]).toBeCloseTo(0.3, 9);
  expect(rates[1]).toBeCloseTo(0.25, 9);
});

test('slotRates takes the whole time of each where they never work at once', () => {
  expect(slotRates(samples, [1_000, 4_500])).toEqual([1 / 3, 2]);
});
