/**
 * Brings the publication of a namespace and the replica identity of its processes table to what is configured:
 * `planPublication` decides; here are the transactions, their locks and their failures.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import type { PublishSettings } from '../../config/config.ts';
import { type ErrorPlace, SetupError } from '../../errors.ts';
import type { Lsn } from '../../lsn.ts';
import { describeSessions, lockHolders, openWriters } from '../catalog/blocking-sessions.ts';
import { readEventTriggers } from '../catalog/event-triggers.ts';
import { createdAtLsn, entriesOf, readPublications } from '../catalog/publications.ts';
import { majorOf, type ServerFacts } from '../catalog/server.ts';
import { type NamespaceTables, readTables } from '../catalog/tables.ts';
import { SQL_STATE, sqlStateOf } from '../client/errors.ts';
import { quoteIdentifier } from '../client/quote.ts';
import { type Mistake, mistakeError } from './preconditions.ts';
import { planPublication } from './publication-plan.ts';
import {
  createEmptyStatement,
  type PublicationTask,
  planAdvice,
  planStatements,
  removeListsSql,
} from './publication-sql.ts';
import { runStatements, type Statement } from './statements.ts';

/** A DDL statement that waits for a lock blocks every later session that wants a conflicting one. */
const LOCK_TIMEOUT_MS = 2_000;
/** Bounds waits for anything other than a lock. */
const STATEMENT_TIMEOUT_MS = 30_000;
/** How long to wait for the transactions that were open before a publication. */
const WRITERS_TIMEOUT_MS = 10_000;
const WRITERS_INTERVAL_MS = 50;
/** Each pass reads, plans and acts. More are needed only while another session keeps changing the same objects. */
const MAX_PASSES = 5;

/** Another session created or changed the same object at the same moment: read it again. */
const COLLISIONS: readonly string[] = [
  SQL_STATE.duplicateObject,
  SQL_STATE.uniqueViolation,
  // "tuple concurrently updated" has no code of its own.
  SQL_STATE.internalError,
];

/** What publishing depends on, beside the tables. */
export interface PublishContext {
  readonly server: ServerFacts;
  /** Of the namespace */
  readonly settings: PublishSettings;
  /** Slots and walsenders of other programs in the database */
  readonly otherReaders: readonly string[];
  /** The slot exists, so that transactions from before the publication may still be streamed */
  readonly slotExists: boolean;
  readonly place: ErrorPlace;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** A publication that is as configured. */
export interface PreparedPublication {
  /** The namespace */
  readonly name: string;
  readonly oid: number;
  /** See `PublicationEntries` */
  readonly entryOids: readonly number[];
  /** Names of the tables of the namespace, by OID */
  readonly tables: ReadonlyMap<number, string>;
  /** See `TableFacts` */
  readonly statusLabels: readonly string[];
  /**
   * LSN of the transactional message that marks its creation (equal to that message's LSN in pgoutput); undefined for a
   * publication that an operator created, or that came with a restored dump
   */
  readonly createdAtLsn: Lsn | undefined;
}

/**
 * Checks the publication of one namespace, and creates or changes it where needed.
 * @throws SetupError where that is not possible
 */
export async function ensurePublication(
  control: Sql,
  tables: NamespaceTables,
  context: PublishContext,
): Promise<PreparedPublication> {
  const { namespace } = tables;
  let current = tables;
  for (let pass = 1; ; pass += 1) {
    context.signal.throwIfAborted();
    const task = await planTask(control, current, context);
    if (task.plan.action === 'none' && task.publication !== undefined) {
      const { publication } = task;
      const facts = new Map([current.processes, current.events].map((table) => [table.name, table]));
      const { entryOids } = entriesOf(publication, facts);
      const lsn = createdAtLsn(publication, context.server);
      const names = new Map(Array.from(facts.values(), ({ oid, name }) => [oid, name]));
      const { statusLabels } = current.processes;
      return { name: namespace, oid: publication.oid, entryOids, tables: names, statusLabels, createdAtLsn: lsn };
    }
    try {
      await carryOut(control, task, context);
    } catch (error) {
      if (pass >= MAX_PASSES || !COLLISIONS.includes(sqlStateOf(error) ?? '')) throw error;
    }
    if (pass >= MAX_PASSES) {
      throw new SetupError(
        `Cannot prepare slot: publication ${quoteIdentifier(namespace)} or its tables change all the time`,
        {
          code: 'publication_unstable',
          place: { ...context.place, namespace },
          advice: 'Find the session or tool that keeps changing them, and stop it',
          mayPass: true,
        },
      );
    }
    current = await refreshTables(control, current);
  }
}

async function planTask(
  control: Sql,
  tables: NamespaceTables,
  { server, settings, otherReaders }: PublishContext,
): Promise<PublicationTask> {
  const publications = await readPublications(control, [tables.namespace], majorOf(server.versionNumber));
  const publication = publications.get(tables.namespace);
  const plan = planPublication(publication, tables, { settings, database: server, otherReaders });
  return { plan, publication, tables, database: server };
}

async function refreshTables(
  control: Sql,
  { namespace, processes, events }: NamespaceTables,
): Promise<NamespaceTables> {
  const facts = await readTables(control, [processes.name, events.name]);
  return { namespace, processes: facts.get(processes.name) ?? processes, events: facts.get(events.name) ?? events };
}

async function carryOut(control: Sql, task: PublicationTask, context: PublishContext): Promise<void> {
  const { plan, tables } = task;
  const place = { ...context.place, namespace: tables.namespace };
  if (plan.action === 'refuse') throw mistakeError(refusal(task), place);
  const isFirstStep = plan.action === 'create' && mustExistFirst(context);
  const statements = isFirstStep ? [createEmptyStatement(tables)] : planStatements(task);
  if (plan.marks && !isFirstStep && mustExistFirst(context)) {
    await waitForOpenWriters(control, place, context.signal);
  }
  const mayOwn = tables.processes.isOwner && tables.events.isOwner;
  if (plan.marks && !mayOwn) throw mistakeError(privilegeMistake(task, statements, context.server.role), place);
  await runDdl(control, statements, task, context);
  if (!isFirstStep) report(task, context.log);
}

/**
 * Up to PostgreSQL 17 a slot cannot stream, with a publication, any transaction that wrote something before the publication
 * was created, however late it commits. One that is open at that moment would lie between the rows that are owed from the
 * publication's creation on and the place from which it can be streamed. So for an existing slot the publication is created
 * without tables first; it gets them, and its mark, once the transactions that were open then have ended. An operator who runs
 * the statements is led through the same two steps, by the advice of two attempts.
 */
function mustExistFirst(context: PublishContext): boolean {
  return context.slotExists && majorOf(context.server.versionNumber) <= 17;
}

async function waitForOpenWriters(control: Sql, place: ErrorPlace, signal: AbortSignal): Promise<void> {
  const awaited = new Set((await openWriters(control, 'database')).map(({ xid }) => xid));
  const deadline = performance.now() + WRITERS_TIMEOUT_MS;
  while (awaited.size > 0) {
    signal.throwIfAborted();
    const open = (await openWriters(control, 'database')).filter(({ xid }) => awaited.has(xid));
    if (open.length === 0) return;
    if (performance.now() > deadline) {
      throw new SetupError(
        `Cannot add namespace to slot: waited ${WRITERS_TIMEOUT_MS} ms for open transactions to end: ${describeSessions(open)}`,
        {
          code: 'open_transactions',
          place,
          advice: 'Wait until these transactions end, or end them',
          mayPass: true,
        },
      );
    }
    await sleep(WRITERS_INTERVAL_MS);
  }
}

/** Runs statements in one transaction with bounded waits for locks. */
async function runDdl(
  control: Sql,
  statements: readonly Statement[],
  task: PublicationTask,
  context: PublishContext,
): Promise<void> {
  try {
    await runStatements(control, statements, {
      statementTimeoutMs: STATEMENT_TIMEOUT_MS,
      lockTimeoutMs: LOCK_TIMEOUT_MS,
      // While it holds a lock, the service waits less for the next one than any session's deadlock_timeout: in a cycle with
      // a writer, the service always gives up first, and the writer is never cancelled.
      furtherLockTimeoutMs: Math.max(1, Math.min(LOCK_TIMEOUT_MS, Math.floor(context.server.deadlockTimeoutMs / 2))),
    });
  } catch (error) {
    throw (await explain(control, error, { task, statements, context })) ?? error;
  }
}

/** Statements of a plan that failed. */
interface FailedStatements {
  readonly task: PublicationTask;
  readonly statements: readonly Statement[];
  readonly context: PublishContext;
}

/** The error of a failed transaction with its cause and remedy, where they are known. */
async function explain(
  control: Sql,
  error: unknown,
  { task, statements, context }: FailedStatements,
): Promise<SetupError | undefined> {
  const { processes, events, namespace } = task.tables;
  const place = { ...context.place, namespace };
  switch (sqlStateOf(error)) {
    case SQL_STATE.insufficientPrivilege:
      return mistakeError(privilegeMistake(task, statements, context.server.role), place, error);
    case SQL_STATE.lockNotAvailable:
    case SQL_STATE.deadlockDetected:
    case SQL_STATE.queryCanceled: {
      const holders = await lockHolders(control, [processes.oid, events.oid]);
      const sessions = holders.length === 0 ? 'sessions that have ended since' : describeSessions(holders);
      return new SetupError(
        `Cannot prepare slot: tables of namespace ${quoteIdentifier(namespace)} are locked by ${sessions}`,
        {
          code: 'tables_locked',
          place,
          advice: 'Wait until these transactions end, or end them',
          cause: error,
          mayPass: true,
        },
      );
    }
    default:
      return await explainByEventTriggers(control, error, { advice: planAdvice(task, statements), place });
  }
}

/** Every DDL statement runs the event triggers of the database, with their errors; undefined when there are none. */
async function explainByEventTriggers(
  control: Sql,
  error: unknown,
  { advice, place }: { readonly advice: string; readonly place: ErrorPlace },
): Promise<SetupError | undefined> {
  const state = sqlStateOf(error);
  if (state === undefined || COLLISIONS.includes(state)) return undefined;
  const triggers = await readEventTriggers(control);
  if (triggers.length === 0) return undefined;
  return new SetupError(
    `Cannot prepare slot: a statement failed (SQLSTATE ${state}), and event triggers run for it: ${triggers.join(', ')}`,
    {
      code: 'event_trigger',
      place,
      advice: `Correct the event trigger, whose function may need names with their schemas; or let it pass, and ${advice.replace(/^Run/, 'run')}`,
      cause: error,
    },
  );
}

/** The mistake of a publication that the service does not change itself. */
export function refusal(task: PublicationTask): Mistake {
  return {
    code: 'publication_for_all_tables',
    detail: `publication ${quoteIdentifier(task.tables.namespace)} is not as configured: ${task.plan.findings.join('; ')}`,
    advice: planAdvice(task, planStatements(task)),
  };
}

/** The mistake of a role that may not run the plan. */
function privilegeMistake(task: PublicationTask, statements: readonly Statement[], role: string): Mistake {
  const { plan, tables } = task;
  const namespace = quoteIdentifier(tables.namespace);
  const needed =
    plan.action === 'create'
      ? `create publication ${namespace}`
      : plan.action === 'identity'
        ? `set the replica identity of the processes table of namespace ${namespace}`
        : `change publication ${namespace}`;
  const reason = plan.findings.length === 0 ? '' : ` (${plan.findings.join('; ')})`;
  return {
    code: 'publication_privilege',
    detail: `role ${role} may not ${needed}${reason}`,
    advice: planAdvice(task, statements),
  };
}

function report(task: PublicationTask, log: Logger): void {
  const { plan, tables } = task;
  const { namespace } = tables;
  if (plan.marks) {
    log.info({ event: 'publication_created', namespace }, 'created publication');
  } else if (plan.action === 'change') {
    log.warn(
      { event: 'publication_changed', namespace, findings: plan.findings },
      'changed publication that was not as configured; changes that it left out before are not delivered',
    );
  }
  if (plan.setsTables && Object.values(plan.columnLists).some((list) => list !== undefined)) {
    log.info(
      { event: 'column_lists_set', namespace, advice: removeListsSql(task) },
      'publication has column lists: PostgreSQL refuses to drop listed columns or to change their type until an operator removes the lists; the next start restores them',
    );
  }
  if (plan.setsIdentity && !plan.marks) {
    log.warn(
      { event: 'replica_identity_set', namespace, table: tables.processes.name },
      'set replica identity of processes to FULL; earlier updates do not show whether the status changed, on_missing_old_tuple of the namespace decides about them',
    );
  }
}
