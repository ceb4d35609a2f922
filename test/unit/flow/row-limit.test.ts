import { expect, test } from 'bun:test';
import { defaultMaxRowBytes } from '../../../src/flow/row-limit.ts';

const MIB = 1024 * 1024;

test.each([
  [16 * MIB, 2 * MIB],
  [512 * MIB, 32 * MIB],
  [64 * 1024 * MIB, 1024 * MIB],
])('a process that may use %d bytes takes rows of %d bytes', (memoryBytes, rowBytes) => {
  expect(defaultMaxRowBytes(memoryBytes)).toBe(rowBytes);
});
