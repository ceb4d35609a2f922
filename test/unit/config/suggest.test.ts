import { expect, test } from 'bun:test';
import { didYouMean, nearestName } from '../../../src/config/suggest.ts';

test.each([
  ['prot', ['host', 'port', 'password'], 'port'],
  ['PORT', ['host', 'port'], 'port'],
  ['reconect_timeout', ['resend_timeout', 'reconnect_timeout'], 'reconnect_timeout'],
  ['hosts', ['host', 'port'], 'host'],
  ['something_else', ['host', 'port'], undefined],
  ['x', ['a', 'b'], undefined],
  ['port', [], undefined],
])('nearestName of %s among %p is %s', (given, known, nearest) => {
  expect(nearestName(given, known)).toBe(nearest as string);
});

test('didYouMean is empty when no name is near', () => {
  expect(didYouMean('prot', ['port'])).toBe('; did you mean "port"?');
  expect(didYouMean('zzz', ['port'])).toBe('');
});
