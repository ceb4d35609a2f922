import { describe, expect, test } from 'bun:test';
import { isInvalidated, type SlotFacts } from '../../../../src/postgres/catalog/slots.ts';

const slot: SlotFacts = {
  name: 'cdc_slot',
  type: 'logical',
  plugin: 'pgoutput',
  database: 'main',
  temporary: false,
  active: false,
  activePid: undefined,
  walStatus: 'reserved',
  invalidationReason: undefined,
  failover: false,
  confirmedFlushLsn: 1n,
  retainedWalBytes: 16,
  safeWalBytes: undefined,
  serverLsn: 1n,
};

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
