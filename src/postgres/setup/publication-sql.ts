/** The statements for a publication and a replica identity, as a start runs them and as advice prints them. Pure. */
import type { PublicationFacts } from '../catalog/publications.ts';
import type { NamespaceTables, TableFacts } from '../catalog/tables.ts';
import { quoteIdentifier, quoteLiteral, quoteTable } from '../client/quote.ts';
import { NEEDED_OPERATIONS } from '../hazards/publication-hazards.ts';
import { creationCommentParts, MARKER_PREFIX } from '../replication/publication-marker.ts';
import type { PublicationPlan } from './publication-plan.ts';
import { roleOf, type Statement, statementsText } from './statements.ts';

/** One namespace, and what a plan for it was made from. */
export interface PublicationTask {
  readonly plan: PublicationPlan;
  /** Undefined = it does not exist */
  readonly publication: PublicationFacts | undefined;
  readonly tables: NamespaceTables;
  /** Of the server */
  readonly systemIdentifier: string;
}

const OPERATIONS = `(publish = '${NEEDED_OPERATIONS.join(', ')}')`;

/**
 * All statements of a plan in their order, to be run as one transaction.
 *
 * Both tables are locked whenever the publication is created or altered. The order is that of progressor's transactions, which
 * write processes before events: the other order would meet them in a cycle.
 */
export function planStatements(task: PublicationTask): Statement[] {
  const { plan, tables } = task;
  const alters = plan.setsTables || plan.setsOperations || plan.action === 'refuse';
  return [
    ...(plan.setsIdentity ? [identityStatement(tables.processes)] : []),
    ...(alters && !plan.setsIdentity ? [lockStatement(tables.processes)] : []),
    ...(alters ? [lockStatement(tables.events)] : []),
    ...publicationStatements(task),
    ...(plan.marks ? [markStatement(task)] : []),
  ];
}

/** What an operator runs instead of the service. */
export function planSql(task: PublicationTask): string {
  return statementsText(planStatements(task));
}

/** Advice for a plan that the service may not or must not run. */
export function planAdvice(task: PublicationTask): string {
  const role = roleOf(planStatements(task));
  const privilege = task.plan.action === 'create' ? ' (which also needs CREATE on the database)' : '';
  const asRole = role === undefined ? 'as a superuser' : `as ${quoteIdentifier(role)}${privilege} or as a superuser`;
  return `Run ${asRole}: ${planSql(task)}`;
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
 * commits after would otherwise come without that row, on any version. Servers before 14.18, 15.13, 16.9 and 17.5 would also
 * decode its later changes, and those of transactions after it, with the publication as it was before.
 */
function lockStatement({ name, owner }: TableFacts): Statement {
  const lock = 'SHARE ROW EXCLUSIVE';
  return { sql: `LOCK TABLE ${quoteTable(name)} IN ${lock} MODE`, role: owner, lock, tables: [name] };
}

/** The statements for the publication itself, in their order. */
function publicationStatements({ plan, publication, tables }: PublicationTask): Statement[] {
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
  const setTables = {
    sql: `ALTER PUBLICATION ${name} SET TABLE ${list}`,
    role: ownerOf(tables) === owner ? owner : undefined,
    ...locked,
  };
  const setOperations = { sql: `ALTER PUBLICATION ${name} SET ${OPERATIONS}`, role: owner, ...unlocked };
  return [...(plan.setsTables ? [setTables] : []), ...(plan.setsOperations ? [setOperations] : [])];
}

function tableClause({ name }: TableFacts, columns: readonly string[] | undefined): string {
  const list = columns === undefined ? '' : ` (${columns.map(quoteIdentifier).join(', ')})`;
  return `${quoteTable(name)}${list}`;
}

/** The owner of both tables; undefined when they have different ones. */
function ownerOf({ processes, events }: NamespaceTables): string | undefined {
  return processes.owner === events.owner ? processes.owner : undefined;
}

/** Writes both marks of the publication's creation (publication-marker.ts): one statement, as a comment takes no parameter. */
function markStatement({ publication, tables, systemIdentifier }: PublicationTask): Statement {
  const { namespace } = tables;
  const [start, end] = creationCommentParts(systemIdentifier);
  const body =
    `DECLARE lsn pg_lsn; BEGIN lsn := pg_logical_emit_message(true, ${quoteLiteral(MARKER_PREFIX)}::text, ` +
    `${quoteLiteral(namespace)}::text); EXECUTE format('COMMENT ON PUBLICATION %I IS %L', ${quoteLiteral(namespace)}, ` +
    `${quoteLiteral(start)} || lsn || ${quoteLiteral(end)}); END`;
  const role = publication === undefined ? ownerOf(tables) : publication.owner;
  return { sql: `DO ${quoteLiteral(body)}`, role, lock: undefined, tables: [] };
}
