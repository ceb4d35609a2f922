import { describe, expect, test } from 'bun:test';
import { InvalidRowError, MissingOldTupleError, RecordTooLargeError } from '../../../src/errors.ts';
import { decideInvalidRow } from '../../../src/flow/invalid-row-policy.ts';

describe('decideInvalidRow', () => {
  const invalid = new InvalidRowError('x', { code: 'x' });
  const tooLarge = new RecordTooLargeError('x');
  const withoutOldTuple = new MissingOldTupleError('x');

  test.each([
    ['an invalid row fails', invalid, 'stop', false, 'fail'],
    ['on_missing_old_tuple says nothing about other invalid rows', invalid, 'skip', false, 'fail'],
    ['an invalid row is parked where there is a parking topic', invalid, 'stop', true, 'park'],
    ['a record that is too large fails', tooLarge, 'stop', false, 'fail'],
    ['a record that is too large is parked where there is a parking topic', tooLarge, 'stop', true, 'park'],
    ['an update without old tuple fails', withoutOldTuple, 'stop', false, 'fail'],
    ['an update without old tuple is parked where there is a parking topic', withoutOldTuple, 'stop', true, 'park'],
    ['an update without old tuple is skipped if the setting says so', withoutOldTuple, 'skip', false, 'skip'],
    ['the setting goes before the parking topic', withoutOldTuple, 'skip', true, 'skip'],
  ] as const)('%s', (_, error, onMissingOldTuple, canPark, action) => {
    expect(decideInvalidRow(error, { onMissingOldTuple, canPark })).toBe(action);
  });
});
