import { describe, expect, test } from 'bun:test';
import type { PublishSettings } from '../../../../src/config/config.ts';
import type { PublicationFacts } from '../../../../src/postgres/catalog/publications.ts';
import type { NamespaceTables } from '../../../../src/postgres/catalog/tables.ts';
import { describeOmissions, describeUncovered } from '../../../../src/postgres/hazards/publication-hazards.ts';
import { type PublicationPlan, planPublication } from '../../../../src/postgres/setup/publication-plan.ts';
import { planSql } from '../../../../src/postgres/setup/publication-sql.ts';
import {
  DATABASE,
  plainEntry as plain,
  PUBLICATION as publication,
  table,
  TABLES as tables,
  TABLES_WITHOUT_IDENTITY as withoutIdentity,
} from '../../../support/postgres/catalog-facts.ts';

const WHOLE_ROWS: PublishSettings = { replicaIdentity: 'full', publishColumns: 'all' };
const planOf = (
  facts: PublicationFacts | undefined,
  given: NamespaceTables,
  settings: PublishSettings,
  otherReaders: readonly string[] = [],
) => planPublication(facts, given, { settings, database: DATABASE, otherReaders });
const nothing: PublicationPlan = {
  action: 'none',
  setsIdentity: false,
  setsTables: false,
  setsOperations: false,
  columnLists: {},
  keepsExcess: false,
  marks: false,
  findings: [],
};

describe('planPublication', () => {
  test.each<[string, PublicationFacts | undefined, NamespaceTables, Partial<PublicationPlan>]>([
    ['nothing for one that is right', publication, tables, {}],
    [
      'nothing for one that publishes truncate too',
      { ...publication, operations: ['insert', 'update', 'delete', 'truncate'] },
      tables,
      {},
    ],
    ['creation where there is none', undefined, tables, { action: 'create', setsTables: true, marks: true }],
    [
      'creation with identity',
      undefined,
      withoutIdentity,
      { action: 'create', setsTables: true, setsIdentity: true, marks: true },
    ],
    [
      'identity alone',
      publication,
      withoutIdentity,
      { action: 'identity', setsIdentity: true, findings: ['replica identity of the processes table is not FULL'] },
    ],
    [
      'the tables, without a mark, where one is there',
      { ...publication, tables: [plain(1)] },
      tables,
      { action: 'change', setsTables: true, findings: ['it does not hold public."a""b_events"'] },
    ],
    [
      'the tables, with a mark, where none is there',
      { ...publication, tables: [] },
      tables,
      {
        action: 'change',
        setsTables: true,
        marks: true,
        findings: ['it does not hold public."a""b_processes"', 'it does not hold public."a""b_events"'],
      },
    ],
    [
      'the tables, without a mark, where a schema published them',
      { ...publication, tables: [], schemaCount: 1 },
      tables,
      {
        action: 'change',
        setsTables: true,
        findings: [
          'it does not hold public."a""b_processes"',
          'it does not hold public."a""b_events"',
          'it is FOR TABLES IN SCHEMA',
        ],
      },
    ],
    [
      'the tables where there are others',
      { ...publication, tables: [plain(1), plain(2), plain(3), plain(4)] },
      tables,
      { action: 'change', setsTables: true, findings: ['it holds 2 other tables'] },
    ],
    [
      'the tables where they are cut',
      {
        ...publication,
        tables: [
          { oid: 1, entryOid: 1, filtered: true, columns: null },
          { oid: 2, entryOid: 1, filtered: false, columns: ['process_id', 'event_id', 'metadata'] },
        ],
      },
      tables,
      {
        action: 'change',
        setsTables: true,
        findings: [
          'it has a row filter on public."a""b_processes"',
          'it has a column list on public."a""b_events" without "timestamp", "payload"',
        ],
      },
    ],
    [
      'the operations',
      { ...publication, operations: ['insert', 'truncate'] },
      withoutIdentity,
      {
        action: 'change',
        setsOperations: true,
        setsIdentity: true,
        findings: ['it does not publish update, delete', 'replica identity of the processes table is not FULL'],
      },
    ],
    [
      'an operator where it is FOR ALL TABLES',
      { ...publication, forAllTables: true, tables: [] },
      tables,
      { action: 'refuse', findings: ['it is FOR ALL TABLES'] },
    ],
  ])('asks for %s', (_, facts, given, expected) => {
    const plan = planOf(facts, given, WHOLE_ROWS);
    expect(plan).toEqual({ ...nothing, ...expected });
    // What is published in addition leaves nothing out, and the replica identity is only about the old tuple.
    const isOmission = (finding: string) => /^it (does not|has)/.test(finding);
    if (facts !== undefined) expect(describeOmissions(facts, given)).toEqual(plan.findings.filter(isOmission));
  });
});

describe('planPublication with a status index', () => {
  const ROWS: PublishSettings = { replicaIdentity: 'status_index', publishColumns: 'all' };
  const COLUMNS: PublishSettings = { replicaIdentity: 'status_index', publishColumns: 'needed' };
  const indexed = {
    ...tables,
    processes: table(`a"b_processes`, 1, { replicaIdentity: 'i', identityColumns: ['process_id', 'status'] }),
  };
  const processesList = ['process_id', 'status', 'detail'];
  const eventsList = ['process_id', 'event_id', 'timestamp', 'metadata', 'payload'];
  const listed = (processes: readonly string[] | null, events: readonly string[] | null): PublicationFacts => ({
    ...publication,
    tables: [
      { ...plain(1), columns: processes },
      { ...plain(2), columns: events },
    ],
  });
  const plan = (facts: PublicationFacts | undefined, given: NamespaceTables, settings: PublishSettings) => {
    const { action, setsIdentity, findings } = planOf(facts, given, settings);
    const omissions: readonly string[] = facts === undefined ? [] : describeOmissions(facts, given);
    return { action, setsIdentity, findings, omissions };
  };
  const sqlOf = (publication: PublicationFacts | undefined, settings: PublishSettings) => {
    const plan = planOf(publication, indexed, settings);
    return planSql({ plan, publication, tables: indexed, database: DATABASE });
  };
  const none = { action: 'none', setsIdentity: false, findings: [], omissions: [] } as const;

  test('leaves every identity to the operator', () => {
    for (const given of [indexed, tables, withoutIdentity]) expect(plan(publication, given, ROWS)).toEqual(none);
  });

  test('sets FULL again, and takes the lists away in the same transaction, when the setting is gone', () => {
    const facts = listed(processesList, eventsList);
    expect(plan(facts, indexed, WHOLE_ROWS)).toEqual({
      action: 'change',
      setsIdentity: true,
      findings: [
        'its column list on public."a""b_processes" is not asked for',
        'its column list on public."a""b_events" is not asked for',
        'replica identity of the processes table is not FULL',
      ],
      // All that records are made of was published all the time.
      omissions: [],
    });
    const sql = sqlOf(facts, WHOLE_ROWS);
    expect(sql).toStartWith(
      'BEGIN; ALTER TABLE public."a""b_processes" REPLICA IDENTITY FULL; ' +
        'LOCK TABLE public."a""b_events" IN SHARE ROW EXCLUSIVE MODE; SELECT set_config(',
    );
    expect(sql).toContain('ALTER PUBLICATION "a""b" SET TABLE public."a""b_processes", public."a""b_events"; DO');
  });

  test('names the columns of records when they are to be published alone', () => {
    expect(plan(publication, indexed, COLUMNS)).toMatchObject({
      action: 'change',
      setsIdentity: false,
      findings: [
        'it publishes columns of public."a""b_processes" that are not needed',
        'it publishes columns of public."a""b_events" that are not needed',
      ],
      omissions: [],
    });
    const sql = sqlOf(publication, COLUMNS);
    expect(sql).toContain(
      'SET TABLE public."a""b_processes" ("process_id", "status", "detail"), ' +
        'public."a""b_events" ("process_id", "event_id", "timestamp", "metadata", "payload");',
    );
    expect(sqlOf(undefined, COLUMNS)).toContain(
      'CREATE PUBLICATION "a""b" FOR TABLE public."a""b_processes" ("process_id", "status", "detail"), ',
    );
  });

  test('accepts a list that holds more, and treats a missing column as an omission', () => {
    expect(plan(listed([...processesList, 'metadata'], eventsList), indexed, COLUMNS)).toEqual(none);
    const finding = 'it has a column list on public."a""b_processes" without "detail"';
    const facts = listed(['process_id', 'status'], eventsList);
    expect(plan(facts, indexed, COLUMNS)).toMatchObject({
      action: 'change',
      findings: [finding],
      omissions: [finding],
    });
    expect(describeOmissions(facts, indexed)).toEqual([finding]);
  });

  test('covers the replica identity: PostgreSQL refuses updates of the writer otherwise', () => {
    const uncovered =
      'its column list on public."a""b_processes" does not cover the replica identity, so that updates and deletes fail';
    const wide = table(`a"b_processes`, 1, {
      replicaIdentity: 'i',
      identityColumns: ['created_at', 'process_id', 'status'],
    });
    const facts = listed(processesList, eventsList);
    expect(plan(facts, { ...indexed, processes: wide }, COLUMNS)).toMatchObject({
      action: 'change',
      findings: [uncovered],
      omissions: [],
    });
    expect(
      plan(listed([...processesList, 'created_at'], eventsList), { ...indexed, processes: wide }, COLUMNS),
    ).toEqual(none);
    // No list covers FULL.
    const fullEvents = {
      ...indexed,
      events: { ...indexed.events, replicaIdentity: 'f' as const, identityColumns: [] },
    };
    expect(plan(listed(processesList, null), fullEvents, COLUMNS)).toEqual(none);
    expect(plan(facts, fullEvents, COLUMNS).findings).toEqual([
      'its column list on public."a""b_events" is not asked for',
    ]);
    expect(plan(publication, tables, COLUMNS)).toEqual(none);
    expect(plan(facts, tables, COLUMNS).action).toBe('change');

    expect(describeUncovered(facts, { ...indexed, processes: wide })).toEqual([uncovered]);
    expect(describeUncovered(listed(processesList, null), tables)).toEqual([uncovered]);
    expect(describeUncovered(facts, indexed)).toEqual([]);
    expect(describeUncovered(publication, tables)).toEqual([]);
  });

  test.each<[string, PublicationFacts, readonly string[]]>([
    ['which another program has created', { ...publication, comment: undefined }, []],
    ['while another program is seen that may read it', publication, ['slot cache_00']],
  ])('never takes columns from a publication %s', (_, facts, otherReaders) => {
    expect(planOf(facts, indexed, COLUMNS, otherReaders)).toMatchObject({ action: 'none', columnLists: {} });
    // A list that it has is completed, and keeps what it holds.
    const cut = { ...facts, tables: [{ ...plain(1), columns: ['process_id', 'aux_state'] }, plain(2)] };
    expect(planOf(cut, indexed, COLUMNS, otherReaders)).toMatchObject({
      action: 'change',
      columnLists: { processes: ['process_id', 'status', 'detail', 'aux_state'], events: undefined },
    });
  });

  test('does not begin with lists where another program may read the new publication', () => {
    expect(planOf(undefined, indexed, COLUMNS, ['slot cache_00'])).toMatchObject({ action: 'create', columnLists: {} });
  });
});

describe('a publication of another program', () => {
  const foreign = { ...publication, comment: 'of the search index' };

  test('keeps its other tables and schemas', () => {
    for (const facts of [
      { ...foreign, tables: [plain(1), plain(2), plain(3)] },
      { ...foreign, schemaCount: 1 },
    ]) {
      expect(planOf(facts, tables, WHOLE_ROWS)).toMatchObject({ action: 'none', findings: [] });
    }
  });

  test('keeps them when a table is added or its filter removed, and its operations when others are added', () => {
    const facts = {
      ...foreign,
      tables: [{ ...plain(1), filtered: true }, plain(3)],
      operations: ['insert', 'truncate'],
    };
    const plan = planOf(facts, tables, WHOLE_ROWS);
    const sql = planSql({ plan, publication: facts, tables, database: DATABASE });
    expect(sql).toContain(
      'ALTER PUBLICATION "a""b" DROP TABLE public."a""b_processes"; ALTER PUBLICATION "a""b" ADD TABLE public."a""b_processes"; ' +
        'ALTER PUBLICATION "a""b" ADD TABLE public."a""b_events"; ' +
        `ALTER PUBLICATION "a""b" SET (publish = 'insert, update, delete, truncate');`,
    );
    expect(sql).not.toContain('SET TABLE');
  });
});
