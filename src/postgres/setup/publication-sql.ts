/** The statements for a publication and a replica identity, as a start runs them and as advice prints them. Pure. */
import { type PublicationFacts, publishedTable } from '../catalog/publications.ts';
import type { NamespaceTables, TableFacts } from '../catalog/tables.ts';
import { SQL_STATE } from '../client/errors.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from '../client/quote.ts';
import { NEEDED_OPERATIONS } from '../hazards/publication-hazards.ts';
import {
  COMMENT_START,
  creationCommentParts,
  MARKER_PREFIX,
  type MarkedDatabase,
} from '../replication/publication-marker.ts';
import type { PublicationPlan } from './publication-plan.ts';
import { roleOf, type Statement, statementsText } from './statements.ts';

/** One namespace, and what a plan for it was made from. */
export interface PublicationTask {
  readonly plan: PublicationPlan;
  /** Undefined = it does not exist */
  readonly publication: PublicationFacts | undefined;
  readonly tables: NamespaceTables;
  readonly database: MarkedDatabase;
}

const OPERATIONS = publishing(NEEDED_OPERATIONS);

/**
 * All statements of a plan in their order, to be run as one transaction.
 *
 * Both tables are locked whenever the publication is created or altered. The order is that of progressor's transactions, which
 * write processes before events: the other order would meet them in a cycle.
 */
export function planStatements(task: PublicationTask): Statement[] {
  const { plan, tables } = task;
  const alters = plan.setsTables || plan.setsOperations || plan.action === 'refuse';
  const replacesEntries = plan.action === 'change' && plan.setsTables && !plan.marks;
  return [
    ...(plan.setsIdentity ? [identityStatement(tables.processes)] : []),
    ...(alters && !plan.setsIdentity ? [lockStatement(tables.processes)] : []),
    ...(alters ? [lockStatement(tables.events)] : []),
    ...(replacesEntries ? [formerEntriesStatement(task)] : []),
    ...publicationStatements(task),
    ...(plan.marks ? [markStatement(task)] : []),
    ...(replacesEntries ? [successionStatement(task)] : []),
  ];
}

/** What an operator runs instead of the service. */
export function planSql(task: PublicationTask): string {
  return statementsText(planStatements(task));
}

/** What an operator runs before a migration of listed columns, which PostgreSQL refuses; nothing is lost by it. */
export function removeListsSql(task: PublicationTask): string {
  return planSql({
    ...task,
    plan: { ...task.plan, action: 'change', setsTables: true, marks: false, columnLists: {} },
  });
}

/** Advice for statements of a plan that the service may not or must not run. */
export function planAdvice(task: PublicationTask, statements: readonly Statement[]): string {
  const role = roleOf(statements);
  const privilege = task.plan.action === 'create' ? ' (which also needs CREATE on the database)' : '';
  const asRole = role === undefined ? 'as a superuser' : `as ${quoteIdentifier(role)}${privilege} or as a superuser`;
  return `Run ${asRole}: ${statementsText(statements)}`;
}

/** A publication without tables: it exists for the WAL that follows, and publishes nothing. */
export function createEmptyStatement(tables: NamespaceTables): Statement {
  const sql = `CREATE PUBLICATION ${quoteIdentifier(tables.namespace)} WITH ${OPERATIONS}`;
  return { sql, role: ownerOf(tables), lock: undefined, tables: [] };
}

function identityStatement({ name, owner }: TableFacts): Statement {
  const sql = `ALTER TABLE ${quoteTable(name)} REPLICA IDENTITY FULL`;
  return { sql, role: owner, lock: 'ACCESS EXCLUSIVE', tables: [name] };
}

/**
 * Makes writers of a table wait until the publication is as configured. A transaction that wrote to the table before and
 * commits after would otherwise come without that row, on any version. Older servers (`hazards/server-hazards.ts`) would also
 * decode its later changes, and those of transactions after it, with the publication as it was before.
 */
function lockStatement({ name, owner }: TableFacts): Statement {
  const lock = 'SHARE ROW EXCLUSIVE';
  return { sql: `LOCK TABLE ${quoteTable(name)} IN ${lock} MODE`, role: owner, lock, tables: [name] };
}

/** The statements for the publication itself, in their order. */
function publicationStatements(task: PublicationTask): Statement[] {
  const { plan, publication, tables } = task;
  const { action, columnLists } = plan;
  const { processes, events } = tables;
  const name = quoteIdentifier(tables.namespace);
  const list = `${tableClause(processes, columnLists.processes)}, ${tableClause(events, columnLists.events)}`;
  const locked = { lock: 'SHARE UPDATE EXCLUSIVE', tables: [processes.name, events.name] } as const;
  const unlocked = { lock: undefined, tables: [] } as const;
  const create: Statement = {
    sql: `CREATE PUBLICATION ${name} FOR TABLE ${list} WITH ${OPERATIONS}`,
    role: ownerOf(tables),
    ...locked,
  };
  if (action === 'create') return [create];
  const owner = publication?.owner;
  if (action === 'refuse') return [{ sql: `DROP PUBLICATION ${name}`, role: owner, ...unlocked }, create];
  const alterTables = (action: string): Statement => ({
    sql: `ALTER PUBLICATION ${name} ${action}`,
    role: ownerOf(tables) === owner ? owner : undefined,
    ...locked,
  });
  const setTables = plan.keepsExcess ? replaceTables(task).map(alterTables) : [alterTables(`SET TABLE ${list}`)];
  const operations = publishing(new Set([...NEEDED_OPERATIONS, ...(publication?.operations ?? [])]));
  const setOperations = { sql: `ALTER PUBLICATION ${name} SET ${operations}`, role: owner, ...unlocked };
  return [...(plan.setsTables ? setTables : []), ...(plan.setsOperations ? [setOperations] : [])];
}

/** Sets those of the two tables that differ, and leaves all others in the publication. */
function replaceTables({
  plan: { columnLists },
  publication,
  tables: { processes, events },
}: PublicationTask): string[] {
  return [
    { table: processes, list: columnLists.processes },
    { table: events, list: columnLists.events },
  ].flatMap(({ table, list }) => {
    const present = publication && publishedTable(publication, table);
    const isSame = present !== undefined && !present.filtered && (present.columns ?? []).join() === (list ?? []).join();
    if (isSame) return [];
    return [
      ...(present === undefined ? [] : [`DROP TABLE ${quoteTable(table.name)}`]),
      `ADD TABLE ${tableClause(table, list)}`,
    ];
  });
}

function publishing(operations: Iterable<string>): string {
  return `(publish = '${[...operations].join(', ')}')`;
}

function tableClause({ name }: TableFacts, columns: readonly string[] | undefined): string {
  const list = columns === undefined ? '' : ` (${columns.map(quoteIdentifier).join(', ')})`;
  return `${quoteTable(name)}${list}`;
}

/** The owner of both tables; undefined when they have different ones. */
function ownerOf({ processes, events }: NamespaceTables): string | undefined {
  return processes.owner === events.owner ? processes.owner : undefined;
}

/**
 * Writes both marks of the publication's creation (publication-marker.ts): one statement, as a comment takes no parameter.
 *
 * Two processes may find the same empty publication. The tables are locked here, so the later one sees the mark of the other,
 * and must not write another: rows after the first mark are owed.
 */
function markStatement({ publication, tables, database }: PublicationTask): Statement {
  const { namespace } = tables;
  const [start, end] = creationCommentParts(database);
  const body =
    `DECLARE lsn pg_lsn; BEGIN ${publication === undefined ? '' : unmarkedGuard(namespace, publication)}lsn := pg_logical_emit_message(true, ${quoteLiteral(MARKER_PREFIX)}::text, ` +
    `${quoteLiteral(namespace)}::text); EXECUTE format('COMMENT ON PUBLICATION %I IS %L', ${quoteLiteral(namespace)}, ` +
    `${quoteLiteral(start)} || lsn || ${quoteLiteral(end)}); END`;
  const role = publication === undefined ? ownerOf(tables) : publication.owner;
  return { sql: `DO ${quoteLiteral(body)}`, role, lock: undefined, tables: [] };
}

function unmarkedGuard(namespace: string, { comment }: PublicationFacts): string {
  const found = `(SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = ${quoteLiteral(namespace)})`;
  const known = comment === undefined ? 'NULL' : quoteLiteral(comment);
  return (
    `IF ${found} IS DISTINCT FROM ${known} THEN RAISE EXCEPTION USING ERRCODE = '${SQL_STATE.duplicateObject}', ` +
    `MESSAGE = 'the publication was marked by another session'; END IF; `
  );
}

/** Where a transaction keeps the entries that it is about to replace. */
const FORMER_ENTRIES = 'cdc_notifier.former_entries';

/** The entries of the two tables in the publication, as a list of OIDs; NULL when there is none. */
function entriesQuery({ namespace, processes, events }: NamespaceTables): string {
  return (
    `SELECT string_agg(r.oid::text, ',' ORDER BY r.oid) FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid ` +
    `WHERE p.pubname = ${quoteLiteral(namespace)} AND r.prrelid IN (${[processes, events].map(({ name }) => `${quoteLiteral(quoteTable(name))}::regclass`).join(', ')})`
  );
}

/** Keeps the entries for `successionStatement`. */
function formerEntriesStatement({ tables, publication }: PublicationTask): Statement {
  const sql = `SELECT set_config('${FORMER_ENTRIES}', coalesce((${entriesQuery(tables)}), ''), true)`;
  return { sql, role: publication?.owner, lock: undefined, tables: [] };
}

/**
 * Says in the comment that the present entries follow the former ones, with nothing in between (publication-marker.ts), so that
 * a ledger with the former ones shows no loss. A comment of another program stays as it is.
 */
function successionStatement({ publication, tables }: PublicationTask): Statement {
  const name = quoteLiteral(tables.namespace);
  const start = quoteLiteral(COMMENT_START);
  const body =
    `DECLARE former text := current_setting('${FORMER_ENTRIES}'); present text := (${entriesQuery(tables)}); stored text; BEGIN ` +
    `SELECT obj_description(oid, 'pg_publication') INTO stored FROM pg_publication WHERE pubname = ${name}; ` +
    `IF former <> '' AND present <> former AND coalesce(starts_with(stored, ${start}), true) THEN ` +
    `EXECUTE format('COMMENT ON PUBLICATION %I IS %L', ${name}, ${start} || ` +
    `coalesce(substring(stored FROM 'created at [^;]+') || '; ', '') || 'entries ' || present || ' follow ' || former); ` +
    'END IF; END';
  return { sql: `DO ${quoteLiteral(body)}`, role: publication?.owner, lock: undefined, tables: [] };
}
