import { describe, expect, test } from 'bun:test';
import { dropSql, isInvalidated, type SlotFacts, slotMistake } from '../../../../src/postgres/catalog/slots.ts';

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
  synced: false,
  confirmedFlushLsn: 1n,
  retainedWalBytes: 16,
  safeWalBytes: undefined,
  serverLsn: 1n,
};

describe('slotMistake', () => {
  test.each<[Partial<SlotFacts>, string | undefined]>([
    [{}, undefined],
    [{ active: true, walStatus: 'unreserved' }, undefined],
    [
      { type: 'physical', plugin: undefined, database: undefined, confirmedFlushLsn: undefined },
      'slot "cdc_slot" is a physical slot, and must be logical',
    ],
    [{ plugin: 'wal2json' }, 'slot "cdc_slot" has output plugin wal2json, and must have pgoutput'],
    [{ database: 'other' }, 'slot "cdc_slot" belongs to database "other", not to "main"'],
    [{ temporary: true }, 'slot "cdc_slot" is temporary: another session made it and drops it at its end'],
    // What becomes of it is judged by continuity.
    [{ walStatus: 'lost', invalidationReason: 'wal_removed' }, undefined],
  ])('judges %j', (change, detail) => {
    expect(slotMistake({ ...slot, ...change }, 'main')?.detail).toBe(detail as string);
  });

  test('dropSql quotes the name', () => {
    expect(dropSql('cdc_slot')).toBe(`SELECT pg_drop_replication_slot('cdc_slot');`);
  });
});

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
