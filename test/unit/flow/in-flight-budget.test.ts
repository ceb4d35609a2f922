import { expect, test } from 'bun:test';
import { inFlightBudgetBytes } from '../../../src/flow/in-flight-budget.ts';

const KIB = 1024;

test.each([
  [1, 1024 * KIB],
  [6, 1024 * KIB],
  [12, 512 * KIB],
  [20, Math.floor((6 * 1024 * KIB) / 20)],
  [24, 256 * KIB],
  [1000, 256 * KIB],
])('inFlightBudgetBytes gives each of %d slots %d bytes', (slotCount, bytes) => {
  expect(inFlightBudgetBytes(slotCount)).toBe(bytes);
});
