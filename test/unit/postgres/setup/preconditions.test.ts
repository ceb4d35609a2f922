import { describe, expect, test } from 'bun:test';
import type { ServerFacts } from '../../../../src/postgres/catalog/server.ts';
import type { SlotFacts } from '../../../../src/postgres/catalog/slots.ts';
import type { TableFacts } from '../../../../src/postgres/catalog/tables.ts';
import {
  eventsIdentityMistake,
  failoverMistake,
  serverMistake,
  slotMistake,
  tableMistake,
} from '../../../../src/postgres/setup/preconditions.ts';
import { SLOT as slot } from '../../../support/postgres/catalog-facts.ts';

const server: ServerFacts = {
  versionNumber: 140_023,
  version: '14.23',
  inRecovery: false,
  walLevel: 'logical',
  databaseOid: 16_384,
  role: `odd "role"`,
  sessionRole: `odd "role"`,
  encoding: 'UTF8',
  database: 'main',
  maxReplicationSlots: 10,
  slotCount: 9,
  maxWalSenders: 10,
  walSenderCount: 9,
  walSenderTimeoutMs: 60_000,
  deadlockTimeoutMs: 1_000,
  systemIdentifier: '7710967555485513451',
  timeline: 1,
};
const all = { slot: true, sender: true };

describe('serverMistake', () => {
  test('finds nothing when everything is there, the last free slot and sender included', () => {
    expect(serverMistake(server, all)).toBeUndefined();
  });

  test.each<[Partial<ServerFacts>, string, string]>([
    [{ versionNumber: 130_020, version: '13.20' }, 'PostgreSQL 13.20 is too old', 'PostgreSQL 14 or newer'],
    [{ inRecovery: true, timeline: undefined }, 'the server is a standby (in recovery)', 'primary'],
    [{ walLevel: 'replica' }, 'wal_level is replica, and must be logical', 'ALTER SYSTEM SET wal_level = logical;'],
    [{ slotCount: 10 }, 'all 10 replication slots of the server are in use', 'max_replication_slots'],
    [{ walSenderCount: 10 }, 'all 10 WAL senders of the server are in use', 'max_wal_senders'],
    [{ maxWalSenders: 0, walSenderCount: 0 }, 'all 0 WAL senders of the server are in use', 'max_wal_senders'],
  ])('refuses %j', (change, detail, advice) => {
    const mistake = serverMistake({ ...server, ...change }, all);
    expect(mistake?.detail).toBe(detail);
    expect(mistake?.advice).toContain(advice);
  });

  test('asks for a free slot or sender only where one is needed', () => {
    const full = { ...server, slotCount: 10, walSenderCount: 10 };
    expect(serverMistake(full, { slot: false, sender: false })).toBeUndefined();
    expect(serverMistake(full, { slot: false, sender: true })?.detail).toContain('WAL senders');
  });
});

const table: TableFacts = {
  name: 'a/b_events',
  oid: 16_384,
  kind: 'r',
  persistence: 'p',
  replicaIdentity: 'd',
  identityColumns: ['process_id', 'event_id'],
  children: [],
  insteadRules: [],
  ancestors: [],
  generatedColumns: [],
  statusLabels: [],
  owner: 'progressor',
  isOwner: false,
};

describe('tableMistake', () => {
  test.each<[TableFacts | undefined, string | undefined]>([
    [table, undefined],
    [undefined, 'table public."a/b_events" does not exist'],
    [{ ...table, kind: 'p' }, 'public."a/b_events" is a partitioned table, and must be an ordinary table'],
    [{ ...table, kind: 'v' }, 'public."a/b_events" is a view, and must be an ordinary table'],
    [{ ...table, kind: 'c' }, 'public."a/b_events" is not a table, and must be an ordinary table'],
    [{ ...table, persistence: 'u' }, 'table public."a/b_events" is unlogged, so its changes are not in the WAL'],
  ])('judges %j', (facts, detail) => {
    expect(tableMistake('a/b_events', facts)?.detail).toBe(detail as string);
  });

  test('eventsIdentityMistake refuses a table whose updates would fail once it is published', () => {
    expect(eventsIdentityMistake(table)).toBeUndefined();
    expect(eventsIdentityMistake({ ...table, replicaIdentity: 'f', identityColumns: [] })).toBeUndefined();
    expect(eventsIdentityMistake({ ...table, identityColumns: [] })).toEqual({
      code: 'events_identity',
      table: 'a/b_events',
      detail:
        'table public."a/b_events" has no replica identity, so that publishing it would make its updates and deletes fail',
      advice:
        'Add its primary key (process_id, event_id), or run as its owner progressor: ALTER TABLE public."a/b_events" REPLICA IDENTITY FULL;',
    });
  });
});

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
    [{ temporary: true }, 'slot "cdc_slot" is temporary: the session that created it drops it when it ends'],
    [
      { twoPhase: true },
      'slot "cdc_slot" has two_phase, which streams prepared transactions in messages that this service does not read',
    ],
    // What becomes of it is judged by continuity.
    [{ walStatus: 'lost', invalidationReason: 'wal_removed' }, undefined],
  ])('judges %j', (change, detail) => {
    expect(slotMistake({ ...slot, ...change }, 'main')?.detail).toBe(detail as string);
  });
});

test('failoverMistake refuses servers before PostgreSQL 17, and names the setting', () => {
  const place = { database: 'main', slot: 'cdc_slot' };
  expect(failoverMistake({ ...server, versionNumber: 170_000 }, place)).toBeUndefined();
  const mistake = failoverMistake(server, place);
  expect(mistake?.detail).toBe('PostgreSQL 14.23 has no failover slots');
  expect(mistake?.advice).toContain('slots.main.cdc_slot.failover');
});
