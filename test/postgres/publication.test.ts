import { describe, expect, test } from 'bun:test';
import type { TableFacts } from '../../src/postgres/preconditions.ts';
import {
  describeEntries,
  entriesOf,
  type NamespaceTables,
  type PublicationFacts,
  type PublicationPlan,
  parseCreationComment,
  planAdvice,
  planPublication,
  planSql,
  refusal,
} from '../../src/postgres/publication.ts';

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
  events: table(`a"b_events`, 2, { replicaIdentity: 'd' }),
};
const withoutIdentity = { ...tables, processes: { ...tables.processes, replicaIdentity: 'd' as const } };

const plain = (oid: number) => ({ oid, entryOid: oid + 10_000, filtered: false, columnList: false });
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

const nothing: PublicationPlan = {
  action: 'none',
  setsIdentity: false,
  setsTables: false,
  setsOperations: false,
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
          { oid: 1, entryOid: 1, filtered: true, columnList: false },
          { oid: 2, entryOid: 1, filtered: false, columnList: true },
        ],
      },
      tables,
      {
        action: 'mend',
        setsTables: true,
        findings: ['it has a row filter on public."a""b_processes"', 'it has a column list on public."a""b_events"'],
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
    const plan = planPublication(facts, given);
    expect(plan).toEqual({ ...nothing, ...expected, omissions: plan.omissions });
    // What is there beside takes nothing away, and replica identity is about the old tuple alone.
    const isOmission = (finding: string) => /^it (does not|has)/.test(finding);
    expect(plan.omissions).toEqual(plan.findings.filter(isOmission));
  });
});

describe('planSql', () => {
  const sql = (facts: PublicationFacts | undefined, given = tables) =>
    planSql(planPublication(facts, given), given, SYSTEM);

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
      planAdvice(planPublication(facts, given), given, facts, SYSTEM);
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
    expect(refusal(planPublication(facts, tables), tables, facts, SYSTEM).detail).toBe(
      'publication "a""b" is not as it must be: it is FOR ALL TABLES',
    );
  });
});

describe('parseCreationComment', () => {
  test.each<[string | undefined, bigint | undefined]>([
    [`cdc-notifier: created at 16/B374D848 of system ${SYSTEM}`, 0x16_b374d848n],
    ['cdc-notifier: created at 16/B374D848 of system 1', undefined],
    [`see cdc-notifier: created at 16/B374D848 of system ${SYSTEM}`, undefined],
    [`cdc-notifier: created at nowhere of system ${SYSTEM}`, undefined],
    ['made by hand', undefined],
    [undefined, undefined],
  ])('reads %p as %p', (comment, lsn) => {
    expect(parseCreationComment(comment, SYSTEM)).toBe(lsn as bigint);
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
