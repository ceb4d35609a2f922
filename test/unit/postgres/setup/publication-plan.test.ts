import { describe, expect, test } from 'bun:test';
import type { PublishSettings } from '../../../../src/config/config.ts';
import type { TableFacts } from '../../../../src/postgres/setup/preconditions.ts';
import {
  describeEntries,
  describeOmissions,
  describeUncovered,
  entriesOf,
  type NamespaceTables,
  type PublicationFacts,
  type PublicationPlan,
  planAdvice,
  planPublication,
  planSql,
  refusal,
} from '../../../../src/postgres/setup/publication-plan.ts';

const SYSTEM = '7710967555485513451';

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
const withoutIdentity = { ...tables, processes: { ...tables.processes, replicaIdentity: 'd' as const } };

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

const WHOLE_ROWS: PublishSettings = { replicaIdentity: 'full', publishColumns: 'all' };
const nothing: PublicationPlan = {
  action: 'none',
  setsIdentity: false,
  setsTables: false,
  setsOperations: false,
  columnLists: {},
  marks: false,
  findings: [],
  omissions: [],
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
      { action: 'mend', setsTables: true, findings: ['it does not hold public."a""b_events"'] },
    ],
    [
      'the tables, with a mark, where none is there',
      { ...publication, tables: [] },
      tables,
      {
        action: 'mend',
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
        action: 'mend',
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
      { action: 'mend', setsTables: true, findings: ['it holds 2 other tables'] },
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
        action: 'mend',
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
        action: 'mend',
        setsOperations: true,
        setsIdentity: true,
        findings: ['it does not publish update, delete', 'replica identity of the processes table is not FULL'],
      },
    ],
    [
      'a person where it is FOR ALL TABLES',
      { ...publication, forAllTables: true, tables: [] },
      tables,
      { action: 'refuse', findings: ['it is FOR ALL TABLES'] },
    ],
  ])('asks for %s', (_, facts, given, expected) => {
    const plan = planPublication(facts, given, WHOLE_ROWS);
    expect(plan).toEqual({ ...nothing, ...expected, omissions: plan.omissions });
    // What is there beside takes nothing away, and replica identity is about the old tuple alone.
    const isOmission = (finding: string) => /^it (does not|has)/.test(finding);
    expect(plan.omissions).toEqual(plan.findings.filter(isOmission));
    if (facts !== undefined) expect(describeOmissions(facts, given)).toEqual([...plan.omissions]);
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
    const { action, setsIdentity, findings, omissions } = planPublication(facts, given, settings);
    return { action, setsIdentity, findings, omissions };
  };
  const none = { action: 'none', setsIdentity: false, findings: [], omissions: [] } as const;

  test('leaves the identity to the operator, whatever it is', () => {
    for (const given of [indexed, tables, withoutIdentity]) expect(plan(publication, given, ROWS)).toEqual(none);
  });

  test('sets FULL again, and takes the lists away in the same transaction, when the setting is gone', () => {
    const facts = listed(processesList, eventsList);
    expect(plan(facts, indexed, WHOLE_ROWS)).toEqual({
      action: 'mend',
      setsIdentity: true,
      findings: [
        'its column list on public."a""b_processes" is not asked for',
        'its column list on public."a""b_events" is not asked for',
        'replica identity of the processes table is not FULL',
      ],
      // All that records are made of was published all the time.
      omissions: [],
    });
    expect(planSql(planPublication(facts, indexed, WHOLE_ROWS), indexed, SYSTEM)).toBe(
      'BEGIN; ALTER TABLE public."a""b_processes" REPLICA IDENTITY FULL; ' +
        'LOCK TABLE public."a""b_events" IN SHARE ROW EXCLUSIVE MODE; ' +
        'ALTER PUBLICATION "a""b" SET TABLE public."a""b_processes", public."a""b_events"; COMMIT;',
    );
  });

  test('names the columns of records when they are to be published alone', () => {
    expect(plan(publication, indexed, COLUMNS)).toMatchObject({
      action: 'mend',
      setsIdentity: false,
      findings: [
        'it publishes columns of public."a""b_processes" that are not needed',
        'it publishes columns of public."a""b_events" that are not needed',
      ],
      omissions: [],
    });
    const sql = planSql(planPublication(publication, indexed, COLUMNS), indexed, SYSTEM);
    expect(sql).toContain(
      'SET TABLE public."a""b_processes" ("process_id", "status", "detail"), ' +
        'public."a""b_events" ("process_id", "event_id", "timestamp", "metadata", "payload");',
    );
    expect(planSql(planPublication(undefined, indexed, COLUMNS), indexed, SYSTEM)).toContain(
      'CREATE PUBLICATION "a""b" FOR TABLE public."a""b_processes" ("process_id", "status", "detail"), ',
    );
  });

  test('takes a list that holds more, and one with a column that is missing for an omission', () => {
    expect(plan(listed([...processesList, 'metadata'], eventsList), indexed, COLUMNS)).toEqual(none);
    const finding = 'it has a column list on public."a""b_processes" without "detail"';
    const facts = listed(['process_id', 'status'], eventsList);
    expect(plan(facts, indexed, COLUMNS)).toMatchObject({
      action: 'mend',
      findings: [finding],
      omissions: [finding],
    });
    expect(describeOmissions(facts, indexed)).toEqual([finding]);
  });

  test('covers the replica identity, or updates of the writer would be refused', () => {
    const uncovered =
      'its column list on public."a""b_processes" does not cover the replica identity, so that updates and deletes fail';
    const wide = table(`a"b_processes`, 1, {
      replicaIdentity: 'i',
      identityColumns: ['created_at', 'process_id', 'status'],
    });
    const facts = listed(processesList, eventsList);
    expect(plan(facts, { ...indexed, processes: wide }, COLUMNS)).toMatchObject({
      action: 'mend',
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
    expect(plan(facts, tables, COLUMNS).action).toBe('mend');

    expect(describeUncovered(facts, { ...indexed, processes: wide })).toEqual([uncovered]);
    expect(describeUncovered(listed(processesList, null), tables)).toEqual([uncovered]);
    expect(describeUncovered(facts, indexed)).toEqual([]);
    expect(describeUncovered(publication, tables)).toEqual([]);
  });
});

describe('planSql', () => {
  const sql = (facts: PublicationFacts | undefined, given = tables) =>
    planSql(planPublication(facts, given, WHOLE_ROWS), given, SYSTEM);

  test('is identity, lock, publication and mark, in this order and in one transaction, for a creation', () => {
    const text = sql(undefined, withoutIdentity);
    expect(text).toStartWith(
      'BEGIN; ALTER TABLE public."a""b_processes" REPLICA IDENTITY FULL; ' +
        'LOCK TABLE public."a""b_events" IN SHARE ROW EXCLUSIVE MODE; ' +
        `CREATE PUBLICATION "a""b" FOR TABLE public."a""b_processes", public."a""b_events" WITH (publish = 'insert, update, delete'); ` +
        'DO ',
    );
    expect(text).toEndWith(' COMMIT;');
  });

  test('is one statement without a transaction for one change', () => {
    expect(sql({ ...publication, operations: [] })).toBe(
      `ALTER PUBLICATION "a""b" SET (publish = 'insert, update, delete');`,
    );
    expect(sql(publication, withoutIdentity)).toBe('ALTER TABLE public."a""b_processes" REPLICA IDENTITY FULL;');
  });

  test('replaces a publication FOR ALL TABLES in one transaction', () => {
    expect(sql({ ...publication, forAllTables: true })).toBe(
      `BEGIN; DROP PUBLICATION "a""b"; CREATE PUBLICATION "a""b" FOR TABLE public."a""b_processes", public."a""b_events" WITH (publish = 'insert, update, delete'); COMMIT;`,
    );
  });

  test('planAdvice names the one who may run it, and a superuser where that is nobody', () => {
    const advice = (facts: PublicationFacts | undefined, given = tables) =>
      planAdvice(planPublication(facts, given, WHOLE_ROWS), given, facts, SYSTEM);
    const filtered = { ...publication, tables: [plain(1)] };
    expect(advice(undefined)).toStartWith(
      'Run as "app", who also needs CREATE on the database, or a superuser: BEGIN; LOCK',
    );
    expect(advice(filtered)).toStartWith('Run as "app" or a superuser: BEGIN; LOCK');
    expect(advice({ ...filtered, owner: 'dba' })).toStartWith('Run as a superuser: BEGIN; LOCK');
    expect(advice({ ...publication, owner: 'dba' }, withoutIdentity)).toStartWith('Run as "app" or a superuser: ALTER');
  });

  test('refusal lists what was found', () => {
    const facts = { ...publication, forAllTables: true };
    expect(refusal(planPublication(facts, tables, WHOLE_ROWS), tables, facts, SYSTEM).detail).toBe(
      'publication "a""b" is not as it must be: it is FOR ALL TABLES',
    );
  });
});

describe('the entries of a publication', () => {
  const facts = new Map([tables.processes, tables.events].map((table) => [table.name, table]));
  const known = entriesOf(publication, facts).entryOids;

  test('are told apart by the names of their tables, and rise', () => {
    const mixed = { ...publication, tables: [plain(9), plain(2), plain(1)] };
    expect(entriesOf(mixed, facts)).toEqual({ entryOids: [10_001, 10_002], otherEntryOids: [10_009] });
    expect(entriesOf(mixed, new Map())).toEqual({ entryOids: [], otherEntryOids: [10_001, 10_002, 10_009] });
  });

  test.each<[string, PublicationFacts['tables'], readonly number[] | undefined, string[]]>([
    ['are as they were', [plain(1), plain(2)], known, []],
    ['are not known', [plain(3), plain(2)], undefined, []],
    ['are less: what is missing is seen without them', [plain(1)], known, []],
    ['have an addition of another name', [plain(1), plain(2), plain(3)], known, []],
    [
      'hold a table anew',
      [{ ...plain(1), entryOid: 7 }, plain(2)],
      known,
      ['a table of it was taken out and put back'],
    ],
    [
      'hold a table under another name',
      [{ ...plain(3), entryOid: 10_001 }, plain(2)],
      known,
      ['a table of it has another name or schema now'],
    ],
  ])('that %s', (_, entries, knownOids, findings) => {
    expect(describeEntries(entriesOf({ ...publication, tables: entries }, facts), knownOids)).toEqual(findings);
  });
});
