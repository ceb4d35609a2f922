import { describe, expect, test } from 'bun:test';
import { dropSql, type SlotFacts, slotMistake } from '../../src/postgres/slot.ts';

const slot: SlotFacts = {
  name: 'cdc_slot',
  type: 'logical',
  plugin: 'pgoutput',
  database: 'main',
  temporary: false,
  active: false,
  walStatus: 'reserved',
  invalidationReason: undefined,
  confirmedFlushLsn: 1n,
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
    [
      { walStatus: 'lost' },
      'slot "cdc_slot" was invalidated by the server: changes since its last confirmation can no longer be streamed',
    ],
    [
      { walStatus: 'unreserved', invalidationReason: 'idle_timeout' },
      'slot "cdc_slot" was invalidated by the server (idle_timeout): changes since its last confirmation can no longer be streamed',
    ],
  ])('judges %j', (change, detail) => {
    expect(slotMistake({ ...slot, ...change }, 'main')?.detail).toBe(detail as string);
  });

  test('tells how to drop a lost slot, and that something is lost', () => {
    const advice = slotMistake({ ...slot, walStatus: 'lost' }, 'main')!.advice;
    expect(advice).toContain(dropSql('cdc_slot'));
    expect(advice).toContain('changes that are lost');
    expect(dropSql('cdc_slot')).toBe(`SELECT pg_drop_replication_slot('cdc_slot');`);
  });
});
