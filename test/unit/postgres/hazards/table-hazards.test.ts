import { describe, expect, test } from 'bun:test';
import type {
  OtherPublication,
  PublicationFacts,
  PublishingFacts,
} from '../../../../src/postgres/catalog/publications.ts';
import type { TableFacts } from '../../../../src/postgres/catalog/tables.ts';
import { findTableHazards, type TableHazardCode } from '../../../../src/postgres/hazards/table-hazards.ts';
import { PUBLICATION, plainEntry, TABLES } from '../../../support/postgres/catalog-facts.ts';

const { namespace, processes, events } = TABLES;

function facts({
  change = {},
  others = [],
  publishesStoredColumns = false,
}: {
  readonly change?: Partial<TableFacts>;
  readonly others?: readonly OtherPublication[];
  readonly publishesStoredColumns?: boolean;
}): PublishingFacts {
  const tables = [{ ...processes, ...change }, events];
  return {
    publications: new Map([[namespace, { ...PUBLICATION, publishesStoredColumns }]]),
    tables: new Map(tables.map((table) => [table.name, table])),
    others,
  };
}

const found = (of: PublishingFacts): string[][] =>
  findTableHazards([namespace], of).map(({ code, effect }) => [code, effect]);
const other = (change: Partial<OtherPublication> = {}): OtherPublication => ({
  name: 'analytics',
  tableOid: processes.oid,
  columns: null,
  filterColumns: [],
  publishesStoredColumns: false,
  ...change,
});
/** A table that an index identifies. */
const INDEX = { replicaIdentity: 'i', identityColumns: ['process_id', 'status'] } as const;

/** Expects one hazard of a table with an index in another publication, or none. */
function expectRefusal(publication: Partial<OtherPublication>, code: TableHazardCode, what: string | undefined): void {
  const hazards = findTableHazards([namespace], facts({ change: INDEX, others: [other(publication)] }));
  expect(hazards.map((hazard) => [hazard.code, hazard.effect])).toEqual(
    what === undefined ? [] : [[code, 'refuses_updates']],
  );
  expect(hazards[0]?.detail ?? '').toContain(what ?? '');
}

describe('findTableHazards', () => {
  test('finds nothing about ordinary tables, nor about tables that do not exist', () => {
    expect(found(facts({ others: [other()] }))).toEqual([]);
    expect(findTableHazards(['absent'], facts({}))).toEqual([]);
  });

  test('child tables hide rows, and are named', () => {
    const of = facts({ change: { children: ['public.one', 'public."Two"'] } });
    expect(findTableHazards([namespace], of)).toEqual([
      {
        code: 'table_children',
        effect: 'hides_rows',
        namespace,
        table: processes.name,
        detail: 'public."a""b_processes" has child tables (public.one, public."Two"), whose rows reach no topic',
        objects: ['public.one', 'public."Two"'],
      },
    ]);
  });

  test.each([
    [['running', 'error'], undefined],
    [['running', 'error', 'init'], undefined],
    [[], undefined],
    [['running', 'mistake'], 'lacks error, and has mistake as well, to and from which no record is made'],
    [['init', 'running', 'error', 'paused'], 'has paused as well, to and from which no record is made'],
  ])('of the statuses %j: %s', (statusLabels, what) => {
    const hazards = findTableHazards([namespace], facts({ change: { statusLabels } }));
    expect(hazards.map(({ code, effect, detail }) => [code, effect, detail])).toEqual(
      what === undefined
        ? []
        : [['status_labels', 'hides_changes', `the type of column status of public."a""b_processes" ${what}`]],
    );
  });

  test('rules with INSTEAD hide changes, and are named', () => {
    const [hazard] = findTableHazards([namespace], facts({ change: { insteadRules: ['move'] } }));
    expect(hazard).toMatchObject({ code: 'table_rules', effect: 'hides_changes', objects: ['move'] });
    expect(hazard?.detail).toContain('has rules with INSTEAD ("move")');
  });

  const whole = { oid: 9, name: 'public.whole' };
  const holdsWhole = { tables: [...PUBLICATION.tables, plainEntry(whole.oid)] };
  test.each<[string, Partial<TableFacts>, Partial<PublicationFacts>, string[]]>([
    ['an unlogged table', { persistence: 'u' }, {}, ['table_unlogged']],
    ['a partition', { ancestors: [whole] }, { publishesViaRoot: true }, []],
    ['a partition with its root', { ancestors: [whole] }, holdsWhole, []],
    [
      'a partition by its root',
      { ancestors: [whole] },
      { ...holdsWhole, publishesViaRoot: true },
      ['published_as_root'],
    ],
    ['one by its schema', { ancestors: [whole] }, { holdsPublic: true, publishesViaRoot: true }, ['published_as_root']],
    [
      'one whose root is in another schema',
      { ancestors: [{ oid: 9, name: 'other.whole' }] },
      { holdsPublic: true, publishesViaRoot: true },
      [],
    ],
    ['no partition', {}, { ...holdsWhole, publishesViaRoot: true }, []],
  ])('of the rows of %s are hidden', (_what, change, publication, expected) => {
    const of = { ...facts({ change }), publications: new Map([[namespace, { ...PUBLICATION, ...publication }]]) };
    expect(found(of)).toEqual(expected.map((code) => [code, 'hides_rows']));
  });

  test.each<[readonly string[] | null, string | undefined]>([
    [null, undefined],
    [['process_id', 'status', 'detail'], undefined],
    [['process_id', 'detail'], 'without "status", of its replica identity'],
  ])('of the column list %j of another publication over a table with an index', (columns, what) => {
    expectRefusal({ columns }, 'identity_column_list', what);
  });

  test.each<[readonly string[], string | undefined]>([
    [[], undefined],
    [['process_id', 'status'], undefined],
    [['status', 'detail', 'type'], 'with a row filter on "detail", "type", not of its replica identity'],
  ])('of a row filter of another publication on %j over a table with an index', (filterColumns, what) => {
    expectRefusal({ filterColumns }, 'identity_row_filter', what);
    expect(found(facts({ others: [other({ filterColumns })] }))).toEqual([]);
  });

  const list = ['identity_column_list', 'refuses_updates'];
  const generated = ['identity_stored_columns', 'refuses_updates'];
  const virtual = ['identity_virtual_columns', 'refuses_updates'];
  const stored = [{ name: 'party', isStored: true }];
  test.each([
    ['a column list of another publication', { others: [other({ columns: ['process_id', 'status'] })] }, [list]],
    ['a column list on another table', { others: [other({ columns: ['process_id'], tableOid: 77 })] }, []],
    ['a stored generated column', { change: { generatedColumns: stored } }, [generated]],
    ['one that is published', { change: { generatedColumns: stored }, publishesStoredColumns: true }, []],
    [
      'one that another publication does not publish',
      { change: { generatedColumns: stored }, publishesStoredColumns: true, others: [other()] },
      [generated],
    ],
    [
      'a virtual one, which nothing publishes',
      { change: { generatedColumns: [{ name: 'party', isStored: false }] }, publishesStoredColumns: true },
      [virtual],
    ],
  ])('with REPLICA IDENTITY FULL: %s', (_, change, expected) => {
    expect(found(facts(change))).toEqual(expected);
    // An index identifies rows by its own columns.
    expect(found(facts({ ...change, change: { ...('change' in change ? change.change : {}), ...INDEX } }))).toEqual([]);
  });

  test('judges the identity that the table will have', () => {
    const change = { replicaIdentity: 'd', generatedColumns: stored } as const;
    expect(findTableHazards([namespace], facts({ change }), () => true).map(({ code }) => code)).toEqual([
      'identity_stored_columns',
    ]);
  });
});
