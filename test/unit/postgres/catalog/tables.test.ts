import { describe, expect, test } from 'bun:test';
import {
  hasStatusIndex,
  showsStatusChanges,
  type TableFacts,
  tableNames,
  tablesOf,
} from '../../../../src/postgres/catalog/tables.ts';

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
  test.each<[string, Partial<TableFacts>, boolean, boolean]>([
    ['an index over both columns', {}, true, true],
    ['an index over more', { identityColumns: ['status', 'created_at', 'process_id'] }, true, true],
    ['FULL', { replicaIdentity: 'f', identityColumns: [] }, false, true],
    ['an index without status', { identityColumns: ['process_id'] }, false, false],
    ['an index that was dropped', { identityColumns: [] }, false, false],
    ['the primary key', { replicaIdentity: 'd', identityColumns: ['process_id'] }, false, false],
    ['a primary key over both columns', { replicaIdentity: 'd' }, false, false],
    ['NOTHING', { replicaIdentity: 'n', identityColumns: [] }, false, false],
  ])('that is %s', (_, change, isIndex, shows) => {
    const facts = { ...table, ...change };
    expect(hasStatusIndex(facts)).toBe(isIndex);
    expect(showsStatusChanges(facts)).toBe(shows);
  });
});

test('tablesOf finds the two tables of a namespace, and nothing unless both exist', () => {
  const [processes, events] = tableNames(['a"b']).map((name) => ({ ...table, name }));
  expect(processes?.name).toBe('a"b_processes');
  const facts = new Map([processes, events].map((each) => [each!.name, each!]));
  expect(tablesOf('a"b', facts)).toEqual({ namespace: 'a"b', processes: processes!, events: events! });
  facts.delete('a"b_events');
  expect(tablesOf('a"b', facts)).toBeUndefined();
});
