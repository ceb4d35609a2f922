import { expect, test } from 'bun:test';
import { neededRelease } from '../../../../src/postgres/hazards/server-hazards.ts';

test.each([
  [140_018, '14.19'],
  [140_019, undefined],
  [150_000, '15.14'],
  [160_009, '16.10'],
  [160_010, undefined],
  [170_005, '17.6'],
  [170_010, undefined],
  [180_000, undefined],
])('a server of version %p needs %p', (versionNumber, release) => {
  expect(neededRelease(versionNumber)).toBe(release);
});
