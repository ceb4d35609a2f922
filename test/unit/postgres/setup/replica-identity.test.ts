import { describe, expect, test } from 'bun:test';
import type { ServerFacts } from '../../../../src/postgres/catalog/server.ts';
import type { TableFacts } from '../../../../src/postgres/catalog/tables.ts';
import { columnListMistake, statusIndexMistake } from '../../../../src/postgres/setup/replica-identity.ts';

const table: TableFacts = {
  name: `a"b_processes`,
  oid: 16_384,
  kind: 'r',
  persistence: 'p',
  replicaIdentity: 'i',
  identityColumns: ['process_id', 'status'],
  children: [],
  insteadRules: [],
  ancestors: [],
  generatedColumns: [],
  statusLabels: [],
  owner: 'progressor',
  isOwner: false,
};

describe('the replica identity of a processes table', () => {
  test.each<[string, Partial<TableFacts>, boolean]>([
    ['an index over both columns', {}, true],
    ['FULL', { replicaIdentity: 'f', identityColumns: [] }, true],
    ['an index without status', { identityColumns: ['process_id'] }, false],
    ['the primary key', { replicaIdentity: 'd', identityColumns: ['process_id'] }, false],
  ])('passes or not: %s', (_, change, passes) => {
    expect(statusIndexMistake('a"b', { ...table, ...change }) === undefined).toBe(passes);
  });

  test('is refused with the statements that correct it, for any name', () => {
    expect(statusIndexMistake('a"b', { ...table, identityColumns: ['process_id'] })).toEqual({
      code: 'status_index_missing',
      table: `a"b_processes`,
      detail:
        'the replica identity of public."a""b_processes" is neither an index over process_id and status nor FULL, so that updates do not show whether the status changed',
      advice:
        'Run as its owner progressor, one statement after the other: ' +
        'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "a""b_identity" ON public."a""b_processes" (process_id, status); ' +
        'ALTER TABLE public."a""b_processes" REPLICA IDENTITY USING INDEX "a""b_identity";',
    });
  });
});

test('an index that was dropped is reported as such, with the remedy that is quick', () => {
  expect(statusIndexMistake('a"b', { ...table, identityColumns: [] })).toEqual({
    table: `a"b_processes`,
    code: 'status_index_dropped',
    detail:
      'the index that identifies rows of public."a""b_processes" was dropped: PostgreSQL refuses all updates and deletes of the table',
    advice: 'Run as its owner progressor: ALTER TABLE public."a""b_processes" REPLICA IDENTITY FULL;',
  });
});

test('columnListMistake refuses servers before PostgreSQL 15', () => {
  const server = (versionNumber: number) => ({ versionNumber, version: '14.23' }) as ServerFacts;
  expect(columnListMistake(server(150_000))).toBeUndefined();
  expect(columnListMistake(server(140_023))?.detail).toBe('PostgreSQL 14.23 has no column lists');
});
