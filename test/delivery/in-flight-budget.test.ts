import { expect, test } from 'bun:test';
import { inFlightBudgetBytes } from '../../src/delivery/in-flight-budget.ts';

const KIB = 1024;

test.each([
  [1, 1024 * KIB],
  [8, 1024 * KIB],
  [16, 512 * KIB],
  [20, Math.floor((8 * 1024 * KIB) / 20)],
  [32, 256 * KIB],
  [1000, 256 * KIB],
])('inFlightBudgetBytes of %d slots', (slotCount, bytes) => {
  expect(inFlightBudgetBytes(slotCount)).toBe(bytes);
});
