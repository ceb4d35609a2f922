/**
 * Brings one namespace's publication and replica identity to what they must be. Decisions are `planPublication`'s; here
 * are the transactions, their locks and their failures.
 */
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import type { PublishSettings } from '../../config/config.ts';
import { type ErrorPlace, SetupError } from '../../errors.ts';
import type { Lsn } from '../../lsn.ts';
import { describeSessions, lockHolders, openWriters } from '../catalog/blocking-sessions.ts';
import { quoteIdentifier } from '../client/quote.ts';
import { SQL_STATE, sqlStateOf } from '../client/sql-state.ts';
import { runTransaction } from '../client/transaction.ts';
import { parseCreationComment } from '../replication/publication-marker.ts';
import { majorOf, readTables, type ServerFacts } from './preconditions.ts';
import {
  createEmptyStatement,
  describeEntries,
  describeOmissions,
  describeUncovered,
  entriesOf,
  type NamespaceTables,
  type PublicationFacts,
  type PublicationPlan,
  planAdvice,
  planPublication,
  planStatements,
  readPublications,
  refusal,
  tableNames,
  tablesOf,
} from './publication-plan.ts';
import { tellsStatusChanges } from './replica-identity.ts';

/** A DDL statement that waits for a lock makes all later comers wait behind it. */
const LOCK_TIMEOUT_MS = 2_000;
/** Bounds what is no wait for a lock. */
const STATEMENT_TIMEOUT_MS = 30_000;
/** How long the writers that were there before a publication are waited for. */
const WRITERS_TIMEOUT_MS = 10_000;
const WRITERS_INTERVAL_MS = 50;
/** Each pass reads, plans and acts. More than these are needed only when others change the same things all the time. */
const MAX_PASSES = 5;

/** Somebody else made or changed the same thing at the same moment: look again. */
const COLLISIONS: readonly string[] = [
  SQL_STATE.duplicateObject,
  SQL_STATE.uniqueViolation,
  // "tuple concurrently updated" has no code of its own.
  SQL_STATE.internalError,
];

/** However the configuration has it: with either of them every change of a status is seen. */
const IDENTITY_FINDING =
  'replica identity of the processes table is neither FULL nor an index over process_id and status';

/** What publishing depends on, beside the tables. */
export interface PublishContext {
  readonly server: ServerFacts;
  /** Of the namespace */
  readonly settings: PublishSettings;
  /** The slot is there already, so that transactions from before the publication may still be streamed */
  readonly slotExists: boolean;
  readonly place: ErrorPlace;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** A publication that is as it must be. */
export interface PreparedPublication {
  /** The namespace */
  readonly name: string;
  readonly oid: number;
  /** See `PublicationEntries` */
  readonly entryOids: readonly number[];
  /**
   * LSN of the transactional message that marks its creation (equal to that message's LSN in pgoutput); undefined for a
   * publication that a person made, or that came with a restored dump
   */
  readonly createdAtLsn: Lsn | undefined;
}

/**
 * By what publications that exist leave changes out at present, or the status before them (replica identity), each with its namespace;
 * empty when nothing is left out. A table that does not exist is none of it: nobody writes to it. Two short queries that
 * lock nothing.
 */
export async function publicationMistakes(
  control: Sql,
  {
    namespaces,
    serverMajor,
    entryOids,
  }: {
    readonly namespaces: readonly string[];
    readonly serverMajor: number;
    /** Of the publications as they are to be, by name (`PublicationEntries`) */
    readonly entryOids?: ReadonlyMap<string, readonly number[]>;
  },
): Promise<readonly string[]> {
  const publications = await readPublications(control, namespaces, serverMajor);
  const facts = await readTables(control, tableNames(namespaces));
  return namespaces.flatMap((namespace) => {
    const publication = publications.get(namespace);
    const tables = tablesOf(namespace, facts);
    if (publication === undefined) return [];
    return [
      ...(tables === undefined ? [] : describeOmissions(publication, tables)),
      // Nothing is lost, but the next start mends it.
      ...(tables === undefined ? [] : describeUncovered(publication, tables)),
      ...describeEntries(entriesOf(publication, facts), entryOids?.get(namespace)),
      ...(tables === undefined || tellsStatusChanges(tables.processes) ? [] : [IDENTITY_FINDING]),
    ].map((finding) => `publication ${quoteIdentifier(namespace)}: ${finding}`);
  });
}

/** Checks one namespace's publication, creates or mends it; raises SetupError where that is not possible. */
export async function ensurePublication(
  control: Sql,
  tables: NamespaceTables,
  context: PublishContext,
): Promise<PreparedPublication> {
  const { namespace } = tables;
  let current = tables;
  for (let pass = 1; ; pass += 1) {
    context.signal.throwIfAborted();
    const publication = await readPublication(control, namespace, context.server);
    const plan = planPublication(publication, current, context.settings);
    if (plan.action === 'none' && publication !== undefined) {
      const createdAtLsn = parseCreationComment(publication.comment, context.server.systemIdentifier);
      const facts = new Map([current.processes, current.events].map((table) => [table.name, table]));
      return {
        name: namespace,
        oid: publication.oid,
        entryOids: entriesOf(publication, facts).entryOids,
        createdAtLsn,
      };
    }
    try {
      await carryOut(control, { plan, publication, tables: current }, context);
    } catch (error) {
      if (pass >= MAX_PASSES || !COLLISIONS.includes(sqlStateOf(error) ?? '')) throw error;
    }
    if (pass >= MAX_PASSES) {
      throw new SetupError(
        `Cannot prepare slot: publication ${quoteIdentifier(namespace)} or its tables change all the time`,
        { place: { ...context.place, namespace }, advice: 'Find out who else changes them', mayPass: true },
      );
    }
    current = await refreshTables(control, current);
  }
}

async function readPublication(
  control: Sql,
  namespace: string,
  server: ServerFacts,
): Promise<PublicationFacts | undefined> {
  return (await readPublications(control, [namespace], majorOf(server.versionNumber))).get(namespace);
}

async function refreshTables(
  control: Sql,
  { namespace, processes, events }: NamespaceTables,
): Promise<NamespaceTables> {
  const facts = await readTables(control, [processes.name, events.name]);
  return { namespace, processes: facts.get(processes.name) ?? processes, events: facts.get(events.name) ?? events };
}

/** One plan and what it was made from. */
interface Task {
  readonly plan: PublicationPlan;
  readonly publication: PublicationFacts | undefined;
  readonly tables: NamespaceTables;
}

async function carryOut(control: Sql, task: Task, context: PublishContext): Promise<void> {
  const { plan, tables } = task;
  const place = { ...context.place, namespace: tables.namespace };
  const mayOwn = tables.processes.isOwner && tables.events.isOwner;
  if (plan.action === 'refuse' || (plan.marks && !mayOwn)) {
    const { detail, advice } =
      plan.action === 'refuse'
        ? refusal(plan, tables, task.publication, context.server.systemIdentifier)
        : notOwner(task, context.server);
    throw new SetupError(`Cannot prepare slot: ${detail}`, { place, advice });
  }
  if (plan.marks && mustForerun(context)) {
    if (plan.action === 'create') return runDdl(control, [createEmptyStatement(tables.namespace)], task, context);
    await openWritersEnded(control, place, context.signal);
  }
  await runDdl(control, planStatements(plan, tables, context.server.systemIdentifier), task, context);
  report(task, context.log);
}

/**
 * Up to PostgreSQL 17 a slot cannot stream, with a publication, any transaction that wrote anything before that
 * publication came into being, however late it commits. One that is open at that moment would stand between the rows
 * that are owed from the publication's creation on and the place from which it can be streamed. So for an existing slot
 * the publication comes into being without tables first; it gets them, and its mark, when the transactions that were open
 * then are over.
 */
function mustForerun(context: PublishContext): boolean {
  return context.slotExists && majorOf(context.server.versionNumber) <= 17;
}

async function openWritersEnded(control: Sql, place: ErrorPlace, signal: AbortSignal): Promise<void> {
  const awaited = new Set((await openWriters(control, 'database')).map(({ xid }) => xid));
  const deadline = performance.now() + WRITERS_TIMEOUT_MS;
  while (awaited.size > 0) {
    signal.throwIfAborted();
    const open = (await openWriters(control, 'database')).filter(({ xid }) => awaited.has(xid));
    if (open.length === 0) return;
    if (performance.now() > deadline) {
      throw new SetupError(
        `Cannot add namespace to slot: it waited ${WRITERS_TIMEOUT_MS} ms for open transactions to end, ${describeSessions(open)}`,
        { place, advice: 'Wait until these transactions end, or end them', mayPass: true },
      );
    }
    await new Promise((resolve) => setTimeout(resolve, WRITERS_INTERVAL_MS));
  }
}

/** Runs statements in one transaction that waits for locks no longer than it may. */
async function runDdl(control: Sql, statements: readonly string[], task: Task, context: PublishContext): Promise<void> {
  // While a lock is held, the wait for the next is shorter than anybody's deadlock_timeout: in a cycle with a writer it
  // is then always we who give up, and never the writer who is cancelled.
  const furtherLockTimeoutMs = Math.max(1, Math.min(LOCK_TIMEOUT_MS, Math.floor(context.server.deadlockTimeoutMs / 2)));
  const [first, ...further] = statements;
  try {
    await runTransaction(control, [
      `SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`,
      `SET LOCAL statement_timeout = ${STATEMENT_TIMEOUT_MS}`,
      first!,
      `SET LOCAL lock_timeout = ${furtherLockTimeoutMs}`,
      ...further,
    ]);
  } catch (error) {
    throw (await explain(control, error, task, context)) ?? error;
  }
}

/** Gives a failed transaction's error its cause and cure, where they are known. */
async function explain(
  control: Sql,
  error: unknown,
  task: Task,
  context: PublishContext,
): Promise<SetupError | undefined> {
  const { tables } = task;
  const place = { ...context.place, namespace: tables.namespace };
  switch (sqlStateOf(error)) {
    case SQL_STATE.insufficientPrivilege: {
      const { detail, advice } = notOwner(task, context.server);
      return new SetupError(`Cannot prepare slot: ${detail}`, { place, advice, cause: error });
    }
    case SQL_STATE.lockNotAvailable:
    case SQL_STATE.deadlockDetected:
    case SQL_STATE.queryCanceled: {
      const holders = await lockHolders(control, [tables.processes.oid, tables.events.oid]);
      const whom = holders.length === 0 ? 'sessions that have ended since' : describeSessions(holders);
      return new SetupError(
        `Cannot prepare slot: tables of namespace ${quoteIdentifier(tables.namespace)} are locked by ${whom}`,
        { place, advice: 'Wait until these transactions end, or end them', cause: error, mayPass: true },
      );
    }
    default:
      return undefined;
  }
}

function notOwner(
  { plan, tables, publication }: Task,
  { role, systemIdentifier }: ServerFacts,
): { detail: string; advice: string } {
  const needed =
    plan.action === 'create'
      ? `create publication ${quoteIdentifier(tables.namespace)}`
      : plan.action === 'identity'
        ? `set the replica identity of the processes table of namespace ${quoteIdentifier(tables.namespace)}`
        : `change publication ${quoteIdentifier(tables.namespace)}`;
  const why = plan.findings.length === 0 ? '' : ` (${plan.findings.join('; ')})`;
  return {
    detail: `role ${role} may not ${needed}${why}`,
    advice: planAdvice(plan, tables, publication, systemIdentifier),
  };
}

function report({ plan, tables }: Task, log: Logger): void {
  const { namespace } = tables;
  if (plan.marks) {
    log.info({ namespace }, 'created publication');
  } else if (plan.action === 'mend') {
    log.warn(
      { namespace, findings: plan.findings },
      'changed publication that was not as it must be; changes that it left out before are not delivered',
    );
  }
  if (plan.setsIdentity && !plan.marks) {
    log.warn(
      { namespace, table: tables.processes.name },
      'set replica identity of processes to FULL; updates written before cannot be judged, on_missing_old_tuple of the namespace says what becomes of them',
    );
  }
}
