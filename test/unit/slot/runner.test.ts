import { expect, test } from 'bun:test';
import { type Renewal, repeats } from '../../../src/slot/runner.ts';

test.each<[string, Renewal | undefined, boolean]>([
  ['the first', undefined, false],
  ['one that confirmed more', { reason: 'publication boundary', confirmedLsn: 0x30n }, false],
  ['one for another reason', { reason: 'changed topic', confirmedLsn: 0x40n }, false],
  ['one at the same position for the same reason', { reason: 'publication boundary', confirmedLsn: 0x40n }, true],
])('a renewal after %s is a repetition: %p', (_, former, expected) => {
  expect(repeats({ reason: 'publication boundary', confirmedLsn: 0x40n }, former)).toBe(expected);
});
