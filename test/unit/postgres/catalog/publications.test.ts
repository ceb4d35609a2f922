import { describe, expect, test } from 'bun:test';
import { entriesOf, type PublicationFacts } from '../../../../src/postgres/catalog/publications.ts';
import type { NamespaceTables, TableFacts } from '../../../../src/postgres/catalog/tables.ts';

function table(name: string, oid: number, change: Partial<TableFacts> = {}): TableFacts {
  return {
    name,
    oid,
    kind: 'r',
    persistence: 'p',
    replicaIdentity: 'f',
    identityColumns: [],
    owner: 'app',
    isOwner: true,
    ...change,
  };
}

const tables: NamespaceTables = {
  namespace: `a"b`,
  processes: table(`a"b_processes`, 1),
  events: table(`a"b_events`, 2, { replicaIdentity: 'd', identityColumns: ['process_id', 'event_id'] }),
};

const plain = (oid: number) => ({ oid, entryOid: oid + 10_000, filtered: false, columns: null });
const publication: PublicationFacts = {
  name: `a"b`,
  oid: 10,
  owner: 'app',
  forAllTables: false,
  operations: ['insert', 'update', 'delete'],
  tables: [plain(1), plain(2)],
  schemaCount: 0,
  holdsPublic: false,
  comment: undefined,
};

describe('the entries of a publication', () => {
  const facts = new Map([tables.processes, tables.events].map((each) => [each.name, each]));

  test('are separated by the names of their tables, in ascending order', () => {
    const mixed = { ...publication, tables: [plain(9), plain(2), plain(1)] };
    expect(entriesOf(mixed, facts)).toEqual({ entryOids: [10_001, 10_002], otherEntryOids: [10_009] });
    expect(entriesOf(mixed, new Map())).toEqual({ entryOids: [], otherEntryOids: [10_001, 10_002, 10_009] });
  });
});
