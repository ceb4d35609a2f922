import { describe, expect, test } from 'bun:test';
import type { SlotFacts } from '../../../../src/postgres/catalog/slots.ts';
import { dropSlotSql, planSlot } from '../../../../src/postgres/setup/create-slot.ts';
import { SLOT as slot } from '../../../support/postgres/catalog-facts.ts';

describe('planSlot', () => {
  const plan = (existing: SlotFacts | undefined, { mustReplace = false, failover = false } = {}) => {
    const { drop, create, setFailover } = planSlot("it's", {
      existing: existing && { ...existing, name: "it's" },
      mustReplace,
      settings: { failover },
      role: 'reader',
    });
    return [drop, create, setFailover].map((statement) => statement?.sql);
  };
  const CREATE = `SELECT pg_create_logical_replication_slot('it''s', 'pgoutput')`;

  test('creates a slot where there is none', () => {
    expect(plan(undefined)).toEqual([undefined, CREATE, undefined]);
    expect(plan(undefined, { failover: true })).toEqual([
      undefined,
      `SELECT pg_create_logical_replication_slot('it''s', 'pgoutput', failover => true)`,
      undefined,
    ]);
  });

  test('leaves a slot alone that is as configured, and one that is more', () => {
    const nothing = [undefined, undefined, undefined];
    expect(plan(slot)).toEqual(nothing);
    expect(plan({ ...slot, failover: true })).toEqual(nothing);
    expect(plan({ ...slot, failover: true }, { failover: true })).toEqual(nothing);
  });

  test('makes an existing slot a failover slot', () => {
    expect(plan(slot, { failover: true })).toEqual([
      undefined,
      undefined,
      `ALTER_REPLICATION_SLOT "it's" ( FAILOVER true )`,
    ]);
  });

  test('replaces a slot, but only if it is still the one that was looked at', () => {
    expect(plan({ ...slot, confirmedFlushLsn: 0x16_b374_d848n, walStatus: 'lost' }, { mustReplace: true })).toEqual([
      `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'it''s' ` +
        `AND confirmed_flush_lsn IS NOT DISTINCT FROM '16/B374D848'::pg_lsn AND wal_status IS NOT DISTINCT FROM 'lost'`,
      CREATE,
      undefined,
    ]);
    const unknown = { ...slot, confirmedFlushLsn: undefined, walStatus: undefined };
    expect(plan(unknown, { mustReplace: true })[0]).toEndWith(
      'IS NOT DISTINCT FROM NULL::pg_lsn AND wal_status IS NOT DISTINCT FROM NULL',
    );
  });
});

test('dropSlotSql removes slot and ledger, and quotes both names', () => {
  expect(dropSlotSql('cdc_slot')).toBe(
    `SELECT pg_drop_replication_slot('cdc_slot'); DROP PUBLICATION IF EXISTS "cdc-notifier:cdc_slot";`,
  );
});
