import { describe, expect, test } from 'bun:test';
import { isInvalidated, type SlotFacts } from '../../../../src/postgres/catalog/slots.ts';
import { SLOT as slot } from '../../../support/postgres/catalog-facts.ts';

describe('isInvalidated', () => {
  test.each<[Partial<SlotFacts>, boolean]>([
    [{}, false],
    [{ walStatus: 'unreserved' }, false],
    [{ walStatus: 'lost' }, true],
    [{ walStatus: 'unreserved', invalidationReason: 'idle_timeout' }, true],
    [{ confirmedFlushLsn: undefined }, true],
  ])('judges %j', (change, expected) => {
    expect(isInvalidated({ ...slot, ...change })).toBe(expected);
  });
});
