/**
 * Publications: what one must hold, what is wrong with one that exists, and the statements that put it right. A namespace
 * has a publication of its own name for its tables `NS_processes` and `NS_events`.
 *
 * Source: PostgreSQL manual, "CREATE PUBLICATION", "ALTER PUBLICATION", system catalogs pg_publication*.
 */
import type { Sql } from 'postgres';
import type { PublishSettings } from '../../config/config.ts';
import { RECORD_COLUMNS } from '../../progressor/tables.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from '../client/quote.ts';
import { creationCommentParts, MARKER_PREFIX } from '../replication/publication-marker.ts';
import type { Mistake, TableFacts } from './preconditions.ts';
import { hasStatusIndex } from './replica-identity.ts';

/** Operations that a publication must publish. Truncate may be there too: it emits nothing. */
const NEEDED_OPERATIONS = ['insert', 'update', 'delete'] as const;

/** One publication as the catalogs describe it. */
export interface PublicationFacts {
  readonly name: string;
  readonly oid: number;
  readonly owner: string;
  readonly forAllTables: boolean;
  /** Published operations */
  readonly operations: readonly string[];
  readonly tables: readonly PublishedTable[];
  /** FOR TABLES IN SCHEMA (PostgreSQL 15) */
  readonly schemaCount: number;
  /** Schema public, with every table of it, is among those */
  readonly holdsPublic: boolean;
  /** COMMENT ON PUBLICATION */
  readonly comment: string | undefined;
}

/** A table of a publication. */
export interface PublishedTable {
  readonly oid: number;
  /** Of its entry in the publication (pg_publication_rel): a table that was taken out and put back has another */
  readonly entryOid: number;
  /** Has a row filter (PostgreSQL 15) */
  readonly filtered: boolean;
  /** Its column list (PostgreSQL 15); null = all columns */
  readonly columns: readonly string[] | null;
}

/** Reads those of the publications that exist, by name. */
export async function readPublications(
  control: Sql,
  names: readonly string[],
  serverMajor: number,
): Promise<Map<string, PublicationFacts>> {
  // Row filters, column lists and schemas came with PostgreSQL 15, and so did their catalogs.
  const modern = serverMajor >= 15;
  // One statement, so that what is read of a publication was all true at one time.
  const publications = await control`
    SELECT oid::int8 AS oid, pubname, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate,
      pg_get_userbyid(pubowner) AS owner, obj_description(oid, 'pg_publication') AS comment,
      (
        SELECT coalesce(json_agg(json_build_object('oid', prrelid::int8, 'entryOid', oid::int8,
          'filtered', ${modern ? control`prqual IS NOT NULL` : control`false`},
          'columns', ${
            modern
              ? control`(SELECT json_agg(attname ORDER BY attnum) FROM pg_attribute
                  WHERE attrelid = prrelid AND attnum = ANY (prattrs::int2[]))`
              : control`NULL`
          }) ORDER BY prrelid), '[]')
        FROM pg_publication_rel WHERE prpubid = pg_publication.oid
      ) AS tables,
      ${
        modern
          ? control`(
              SELECT coalesce(json_agg(pnnspid = 'public'::regnamespace), '[]')
              FROM pg_publication_namespace WHERE pnpubid = pg_publication.oid
            )`
          : control`'[]'::json`
      } AS schemas
    FROM pg_publication WHERE pubname IN ${control([...names])}`;
  return new Map(
    publications.map((row) => [
      row.pubname as string,
      {
        name: row.pubname,
        oid: Number(row.oid),
        owner: row.owner,
        forAllTables: row.puballtables,
        operations: ['insert', 'update', 'delete', 'truncate'].filter((operation) => row[`pub${operation}`]),
        tables: row.tables,
        schemaCount: row.schemas.length,
        holdsPublic: row.schemas.includes(true),
        comment: row.comment ?? undefined,
      },
    ]),
  );
}

/** OIDs of those of the publications that exist, by name: another one under the same name has another. */
export async function readPublicationOids(control: Sql, names: readonly string[]): Promise<Map<string, number>> {
  const rows = await control`
    SELECT pubname, oid::int8 AS oid FROM pg_publication WHERE pubname IN ${control([...names])}`;
  return new Map(rows.map((row) => [row.pubname as string, Number(row.oid)]));
}

/** The tables of one namespace. */
export interface NamespaceTables {
  readonly namespace: string;
  readonly processes: TableFacts;
  readonly events: TableFacts;
}

/** Names of the tables of these namespaces. */
export function tableNames(namespaces: readonly string[]): string[] {
  return namespaces.flatMap((namespace) => [`${namespace}_processes`, `${namespace}_events`]);
}

/** The tables of one namespace; undefined unless both are there. */
export function tablesOf(namespace: string, facts: ReadonlyMap<string, TableFacts>): NamespaceTables | undefined {
  const [processes, events] = tableNames([namespace]).map((name) => facts.get(name));
  return processes === undefined || events === undefined ? undefined : { namespace, processes, events };
}

/** The tables of a publication by their entries in it, whose OIDs rise. */
export interface PublicationEntries {
  /** Of the tables of its namespace */
  readonly entryOids: readonly number[];
  /** Of tables with other names */
  readonly otherEntryOids: readonly number[];
}

/** @param facts of the namespace's tables, as far as they exist, by name */
export function entriesOf(
  { name, tables }: PublicationFacts,
  facts: ReadonlyMap<string, TableFacts>,
): PublicationEntries {
  const needed = tableNames([name]).map((table) => facts.get(table)?.oid);
  const entries = tables.toSorted((one, other) => one.entryOid - other.entryOid);
  return {
    entryOids: entries.filter(({ oid }) => needed.includes(oid)).map(({ entryOid }) => entryOid),
    otherEntryOids: entries.filter(({ oid }) => !needed.includes(oid)).map(({ entryOid }) => entryOid),
  };
}

/**
 * By what a publication has left changes out since its entries were `knownOids`, although it may do no more: one entry never
 * has the OID of another. Nothing where they are not known.
 */
export function describeEntries(
  { entryOids, otherEntryOids }: PublicationEntries,
  knownOids: readonly number[] | undefined,
): string[] {
  if (knownOids === undefined) return [];
  const isPutBack = entryOids.some((oid) => !knownOids.includes(oid));
  const isRenamed = otherEntryOids.some((oid) => knownOids.includes(oid));
  return [
    ...(isPutBack ? ['a table of it was taken out and put back'] : []),
    // What is written to it comes under its new name, which is nobody's.
    ...(isRenamed ? ['a table of it has another name or schema now'] : []),
  ];
}

/** What has to be done so that a namespace is published as it must be. */
export interface PublicationPlan {
  /**
   * `none`: it is. `create`: there is no publication. `mend`: there is one, with other contents. `identity`: only the
   * replica identity of processes is not FULL. `refuse`: a person must decide.
   */
  readonly action: 'none' | 'create' | 'mend' | 'identity' | 'refuse';
  /** ALTER TABLE ... REPLICA IDENTITY FULL is part of it */
  readonly setsIdentity: boolean;
  /** Which statement for the publication is part of it; `tables` includes the operations */
  readonly setsTables: boolean;
  readonly setsOperations: boolean;
  readonly columnLists: ColumnLists;
  /**
   * The publication begins to exist for its tables here, so that its beginning is marked in the WAL and in its comment.
   * Not for one that published any table before: rows since then are owed, and a mark would hide them.
   */
  readonly marks: boolean;
  /** What was found, for the log: `it does not publish update`; empty for `none` and `create` */
  readonly findings: readonly string[];
  /** Those findings by which changes of the two tables are not published, or not whole */
  readonly omissions: readonly string[];
}

/** The columns to name for each of the two tables; absent = none, which publishes all. */
export interface ColumnLists {
  readonly processes?: readonly string[] | undefined;
  readonly events?: readonly string[] | undefined;
}

/**
 * PostgreSQL refuses every update and delete of a table, for everybody, while a column list of it does not cover its replica
 * identity, and FULL is covered by no list at all. So there is none before the index is there.
 */
function planColumnLists({ publishColumns }: PublishSettings, { processes, events }: NamespaceTables): ColumnLists {
  if (publishColumns === 'all' || !hasStatusIndex(processes)) return {};
  const list = (table: TableFacts, columns: readonly string[]) =>
    table.replicaIdentity === 'f' ? undefined : [...new Set([...columns, ...table.identityColumns])];
  return { processes: list(processes, RECORD_COLUMNS.processes), events: list(events, RECORD_COLUMNS.events) };
}

/** Compares what there is with what must be. */
export function planPublication(
  publication: PublicationFacts | undefined,
  tables: NamespaceTables,
  settings: PublishSettings,
): PublicationPlan {
  const columnLists = planColumnLists(settings, tables);
  const setsIdentity = settings.replicaIdentity === 'full' && tables.processes.replicaIdentity !== 'f';
  const same = { setsIdentity, columnLists };
  if (publication === undefined) {
    const nothing = { findings: [], omissions: [] };
    return { action: 'create', ...same, setsTables: true, setsOperations: false, marks: true, ...nothing };
  }
  if (publication.forAllTables) {
    const findings = ['it is FOR ALL TABLES'];
    const refused = { setsTables: false, setsOperations: false, marks: false, findings, omissions: [] };
    return { action: 'refuse', ...same, ...refused };
  }
  const tableOmissions = describeTableOmissions(publication, tables);
  const tableFindings = [
    ...tableOmissions,
    ...describeColumnLists(publication, tables, columnLists),
    ...describeExcess(publication, [tables.processes, tables.events]),
  ];
  const operationFindings = describeMissingOperations(publication);
  const setsTables = tableFindings.length > 0;
  const setsOperations = operationFindings.length > 0;
  return {
    action: setsTables || setsOperations ? 'mend' : setsIdentity ? 'identity' : 'none',
    ...same,
    setsTables,
    setsOperations,
    marks: publication.tables.length === 0 && publication.schemaCount === 0,
    findings: [
      ...tableFindings,
      ...operationFindings,
      ...(setsIdentity ? ['replica identity of the processes table is not FULL'] : []),
    ],
    omissions: [...tableOmissions, ...operationFindings],
  };
}

/** By what a publication leaves changes of the two tables out, or columns that records are made of. */
export function describeOmissions(publication: PublicationFacts, tables: NamespaceTables): string[] {
  if (publication.forAllTables) return [];
  return [...describeTableOmissions(publication, tables), ...describeMissingOperations(publication)];
}

function describeMissingOperations({ operations }: PublicationFacts): string[] {
  const missing = NEEDED_OPERATIONS.filter((operation) => !operations.includes(operation));
  return missing.length === 0 ? [] : [`it does not publish ${missing.join(', ')}`];
}

function describeTableOmissions(publication: PublicationFacts, { processes, events }: NamespaceTables): string[] {
  const findings: string[] = [];
  // Whatever is said of single tables beside it, all of their changes are published.
  if (publication.holdsPublic) return findings;
  for (const [table, columns] of [
    [processes, RECORD_COLUMNS.processes],
    [events, RECORD_COLUMNS.events],
  ] as const) {
    const published = entryOf(publication, table);
    if (published === undefined) findings.push(`it does not hold ${quoteTable(table.name)}`);
    if (published?.filtered) findings.push(`it has a row filter on ${quoteTable(table.name)}`);
    const missing = published === undefined ? [] : missingColumns(published, columns);
    if (missing.length > 0)
      findings.push(
        `it has a column list on ${quoteTable(table.name)} without ${missing.map(quoteIdentifier).join(', ')}`,
      );
  }
  return findings;
}

/** Column lists that are other than they should be, and yet hold all that records are made of. */
function describeColumnLists(
  publication: PublicationFacts,
  { processes, events }: NamespaceTables,
  wanted: ColumnLists,
): string[] {
  const findings: string[] = [];
  for (const [table, recordColumns, wantedColumns] of [
    [processes, RECORD_COLUMNS.processes, wanted.processes],
    [events, RECORD_COLUMNS.events, wanted.events],
  ] as const) {
    const published = entryOf(publication, table);
    if (published === undefined || missingColumns(published, recordColumns).length > 0) continue;
    const name = quoteTable(table.name);
    if (wantedColumns === undefined) {
      if (published.columns !== null) findings.push(`its column list on ${name} is not asked for`);
    } else if (published.columns === null) findings.push(`it publishes columns of ${name} that are not needed`);
    else if (!coversIdentity(published, table)) findings.push(uncovered(table));
  }
  return findings;
}

/** Column lists by which PostgreSQL refuses updates and deletes of a table, to everybody. */
export function describeUncovered(publication: PublicationFacts, { processes, events }: NamespaceTables): string[] {
  return [processes, events].flatMap((table) => {
    const published = entryOf(publication, table);
    return published === undefined || coversIdentity(published, table) ? [] : [uncovered(table)];
  });
}

function coversIdentity(published: PublishedTable, { replicaIdentity, identityColumns }: TableFacts): boolean {
  if (published.columns === null) return true;
  return replicaIdentity !== 'f' && missingColumns(published, identityColumns).length === 0;
}

function uncovered({ name }: TableFacts): string {
  return `its column list on ${quoteTable(name)} does not cover the replica identity, so that updates and deletes fail`;
}

function entryOf({ tables }: PublicationFacts, { oid }: TableFacts): PublishedTable | undefined {
  return tables.find((table) => table.oid === oid);
}

function missingColumns(published: PublishedTable, columns: readonly string[]): string[] {
  const list = published.columns;
  return list === null ? [] : columns.filter((column) => !list.includes(column));
}

function describeExcess(publication: PublicationFacts, needed: readonly TableFacts[]): string[] {
  const findings: string[] = [];
  const others = publication.tables.filter(({ oid }) => !needed.some((table) => table.oid === oid)).length;
  if (others > 0) findings.push(`it holds ${others} other table${others === 1 ? '' : 's'}`);
  if (publication.schemaCount > 0) findings.push('it is FOR TABLES IN SCHEMA');
  return findings;
}

/** ALTER TABLE ... REPLICA IDENTITY FULL of a processes table. */
function identityStatement(processes: string): string {
  return `ALTER TABLE ${quoteTable(processes)} REPLICA IDENTITY FULL`;
}

/** The statement that makes writers of the events table wait until the publication is there. */
function lockStatement(events: string): string {
  return `LOCK TABLE ${quoteTable(events)} IN SHARE ROW EXCLUSIVE MODE`;
}

/** A publication without tables: it exists in the WAL's view of the catalogs, and publishes nothing. */
export function createEmptyStatement(namespace: string): string {
  return `CREATE PUBLICATION ${quoteIdentifier(namespace)} WITH (publish = '${NEEDED_OPERATIONS.join(', ')}')`;
}

/** The statements for the publication itself that a plan consists of, in their order. */
function publicationStatements(plan: PublicationPlan, tables: NamespaceTables): string[] {
  const name = quoteIdentifier(tables.namespace);
  const { columnLists } = plan;
  const list = `${tableClause(tables.processes, columnLists.processes)}, ${tableClause(tables.events, columnLists.events)}`;
  const operations = `(publish = '${NEEDED_OPERATIONS.join(', ')}')`;
  if (plan.action === 'create') return [`CREATE PUBLICATION ${name} FOR TABLE ${list} WITH ${operations}`];
  if (plan.action === 'refuse') {
    return [`DROP PUBLICATION ${name}`, `CREATE PUBLICATION ${name} FOR TABLE ${list} WITH ${operations}`];
  }
  return [
    ...(plan.setsTables ? [`ALTER PUBLICATION ${name} SET TABLE ${list}`] : []),
    ...(plan.setsOperations ? [`ALTER PUBLICATION ${name} SET ${operations}`] : []),
  ];
}

function tableClause({ name }: TableFacts, columns: readonly string[] | undefined): string {
  const list = columns === undefined ? '' : ` (${columns.map(quoteIdentifier).join(', ')})`;
  return `${quoteTable(name)}${list}`;
}

/** All statements of a plan, in their order; to be run as one transaction. */
export function planStatements(plan: PublicationPlan, tables: NamespaceTables, systemIdentifier: string): string[] {
  return [
    ...(plan.setsIdentity ? [identityStatement(tables.processes.name)] : []),
    ...(plan.setsTables ? [lockStatement(tables.events.name)] : []),
    ...publicationStatements(plan, tables),
    ...(plan.marks ? [markStatement(tables.namespace, systemIdentifier)] : []),
  ];
}

/** Exactly what somebody with the rights has to run in place of us. */
export function planSql(plan: PublicationPlan, tables: NamespaceTables, systemIdentifier: string): string {
  const statements = planStatements(plan, tables, systemIdentifier);
  const text = statements.map((statement) => `${statement};`).join(' ');
  return statements.length === 1 ? text : `BEGIN; ${text} COMMIT;`;
}

/** Advice for a plan that our role may not carry out, or must not. */
export function planAdvice(
  plan: PublicationPlan,
  tables: NamespaceTables,
  publication: PublicationFacts | undefined,
  systemIdentifier: string,
): string {
  const owners = new Set([
    ...(plan.setsIdentity || plan.setsTables || plan.action === 'refuse' ? [tables.processes.owner] : []),
    ...(plan.setsTables || plan.action === 'refuse' ? [tables.events.owner] : []),
    ...(publication === undefined || plan.action === 'identity' ? [] : [publication.owner]),
  ]);
  const who =
    owners.size === 1
      ? `as ${quoteIdentifier([...owners][0]!)}${plan.action === 'create' ? ', who also needs CREATE on the database,' : ''} or a superuser`
      : 'as a superuser';
  return `Run ${who}: ${planSql(plan, tables, systemIdentifier)}`;
}

/** The mistake of a publication that we do not change ourselves. */
export function refusal(
  plan: PublicationPlan,
  tables: NamespaceTables,
  publication: PublicationFacts | undefined,
  systemIdentifier: string,
): Mistake {
  return {
    detail: `publication ${quoteIdentifier(tables.namespace)} is not as it must be: ${plan.findings.join('; ')}`,
    advice: planAdvice(plan, tables, publication, systemIdentifier),
  };
}

/**
 * Marks a publication's beginning: in the WAL by a transactional message, and for ourselves by a comment that says where
 * that message lies and in whose WAL. (A dump and restore carries the comment to another server, where the position means
 * nothing.) One statement, because the comment cannot be a parameter.
 */
export function markStatement(namespace: string, systemIdentifier: string): string {
  const [start, end] = creationCommentParts(systemIdentifier);
  // On one line, so that it can be pasted from a log.
  const body =
    `DECLARE lsn pg_lsn; BEGIN lsn := pg_logical_emit_message(true, ${quoteLiteral(MARKER_PREFIX)}::text, ` +
    `${quoteLiteral(namespace)}::text); EXECUTE format('COMMENT ON PUBLICATION %I IS %L', ${quoteLiteral(namespace)}, ` +
    `${quoteLiteral(start)} || lsn || ${quoteLiteral(end)}); END`;
  return `DO ${quoteLiteral(body)}`;
}
