import { describe, expect, test } from 'bun:test';
import { InvalidRowError, MissingOldTupleError, RecordTooLargeError } from '../../../src/errors.ts';
import { decideInvalidRow } from '../../../src/flow/invalid-row-policy.ts';

describe('decideInvalidRow', () => {
  const invalid = new InvalidRowError('x', { code: 'x' });
  const tooLarge = new RecordTooLargeError('x');
  const withoutOldTuple = new MissingOldTupleError('x');

  test.each([
    [invalid, 'stop', false, 'fail'],
    [invalid, 'skip', false, 'fail'],
    [invalid, 'stop', true, 'park'],
    [tooLarge, 'stop', false, 'fail'],
    [tooLarge, 'stop', true, 'park'],
    [withoutOldTuple, 'stop', false, 'fail'],
    [withoutOldTuple, 'stop', true, 'park'],
    [withoutOldTuple, 'skip', false, 'skip'],
    [withoutOldTuple, 'skip', true, 'skip'],
  ] as const)(
    '%p with on_missing_old_tuple %s and a parking topic %p: %s',
    (error, onMissingOldTuple, canPark, action) => {
      expect(decideInvalidRow(error, { onMissingOldTuple, canPark })).toBe(action);
    },
  );
});
