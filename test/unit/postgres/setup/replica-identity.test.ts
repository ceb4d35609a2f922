import { describe, expect, test } from 'bun:test';
import type { ServerFacts, TableFacts } from '../../../../src/postgres/setup/preconditions.ts';
import {
  columnListMistake,
  hasStatusIndex,
  statusIndexMistake,
  tellsStatusChanges,
} from '../../../../src/postgres/setup/replica-identity.ts';

const table: TableFacts = {
  name: `a"b_processes`,
  oid: 16_384,
  kind: 'r',
  persistence: 'p',
  replicaIdentity: 'i',
  identityColumns: ['process_id', 'status'],
  owner: 'progressor',
  isOwner: false,
};

describe('the replica identity of a processes table', () => {
  test.each<[string, Partial<TableFacts>, boolean, boolean]>([
    ['an index over both columns', {}, true, true],
    ['an index over more', { identityColumns: ['status', 'created_at', 'process_id'] }, true, true],
    ['FULL', { replicaIdentity: 'f', identityColumns: [] }, false, true],
    ['an index without status', { identityColumns: ['process_id'] }, false, false],
    ['an index that was dropped', { identityColumns: [] }, false, false],
    ['the primary key', { replicaIdentity: 'd', identityColumns: ['process_id'] }, false, false],
    ['a primary key over both columns', { replicaIdentity: 'd' }, false, false],
    ['NOTHING', { replicaIdentity: 'n', identityColumns: [] }, false, false],
  ])('that is %s', (_, change, isIndex, tells) => {
    const facts = { ...table, ...change };
    expect(hasStatusIndex(facts)).toBe(isIndex);
    expect(tellsStatusChanges(facts)).toBe(tells);
    expect(statusIndexMistake('a"b', facts) === undefined).toBe(tells);
  });

  test('is refused with the statements that put it right, for any name', () => {
    expect(statusIndexMistake('a"b', { ...table, identityColumns: ['process_id'] })).toEqual({
      table: `a"b_processes`,
      detail:
        'the replica identity of public."a""b_processes" is neither an index over process_id and status nor FULL, so that updates do not tell whether the status changed',
      advice:
        'Run as its owner progressor, one statement after the other: ' +
        'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "a""b_identity" ON public."a""b_processes" (process_id, status); ' +
        'ALTER TABLE public."a""b_processes" REPLICA IDENTITY USING INDEX "a""b_identity";',
    });
  });
});

test('an index that was dropped is told as what it is, with the cure that is quick', () => {
  expect(statusIndexMistake('a"b', { ...table, identityColumns: [] })).toEqual({
    table: `a"b_processes`,
    detail:
      'the index that identifies rows of public."a""b_processes" was dropped: PostgreSQL refuses their updates and deletes, to everybody',
    advice: 'Run as its owner progressor: ALTER TABLE public."a""b_processes" REPLICA IDENTITY FULL;',
  });
});

test('columnListMistake refuses servers before PostgreSQL 15', () => {
  const server = (versionNumber: number) => ({ versionNumber, version: '14.23' }) as ServerFacts;
  expect(columnListMistake(server(150_000))).toBeUndefined();
  expect(columnListMistake(server(140_023))?.detail).toBe('PostgreSQL 14.23 has no column lists');
});
