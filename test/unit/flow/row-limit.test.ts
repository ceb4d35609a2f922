import { expect, test } from 'bun:test';
import { defaultMaxRowBytes } from '../../../src/flow/row-limit.ts';

const MIB = 1024 * 1024;

test.each([
  [16 * MIB, 1, 2 * MIB],
  [512 * MIB, 1, 32 * MIB],
  [512 * MIB, 4, 8 * MIB],
  [512 * MIB, 20, 2 * MIB],
  [64 * 1024 * MIB, 1, 1024 * MIB],
])('a process that may use %d bytes for %d slots takes rows of %d bytes', (memoryBytes, slotCount, rowBytes) => {
  expect(defaultMaxRowBytes(memoryBytes, slotCount)).toBe(rowBytes);
});
