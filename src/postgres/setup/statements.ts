/**
 * The statements by which a start changes the server. Pure planning makes lists of them (`publication-sql.ts`,
 * `create-slot.ts`); a start runs them, and advice prints them, so that an operator can run exactly what a start would.
 */
import type { Sql } from 'postgres';
import { runTransaction } from '../client/transaction.ts';

/** One statement that changes something. */
export interface Statement {
  /** On one line, without the semicolon: it can be pasted from a log */
  readonly sql: string;
  /** The role that may run it, beside superusers; undefined = superusers only */
  readonly role: string | undefined;
  /** The lock that it takes on each of `tables`, in the manual's words; undefined = none */
  readonly lock: 'SHARE UPDATE EXCLUSIVE' | 'SHARE ROW EXCLUSIVE' | 'ACCESS EXCLUSIVE' | undefined;
  /** The tables that it locks, without schema and quotes */
  readonly tables: readonly string[];
  /** It runs on a replication connection (`psql "replication=database"`) */
  readonly isReplicationCommand?: boolean;
}

/** How long the statements of a transaction may take. */
export interface StatementLimits {
  /** For all of a statement */
  readonly statementTimeoutMs: number;
  /** For the first lock; undefined = up to the statement's time */
  readonly lockTimeoutMs?: number | undefined;
  /** For each lock after the first */
  readonly furtherLockTimeoutMs?: number | undefined;
}

/** Runs statements as one transaction. @throws what driver and server raise; nothing has changed then */
export async function runStatements(
  control: Sql,
  statements: readonly Statement[],
  { statementTimeoutMs, lockTimeoutMs, furtherLockTimeoutMs }: StatementLimits,
): Promise<void> {
  const [first, ...further] = statements.map(({ sql }) => sql);
  if (first === undefined) return;
  const setLockTimeout = (timeoutMs: number | undefined) =>
    timeoutMs === undefined ? [] : [`SET LOCAL lock_timeout = ${timeoutMs}`];
  await runTransaction(control, [
    ...setLockTimeout(lockTimeoutMs),
    `SET LOCAL statement_timeout = ${statementTimeoutMs}`,
    first,
    ...setLockTimeout(furtherLockTimeoutMs),
    ...further,
  ]);
}

/** The statements as an operator pastes them: in a transaction when there are several. */
export function statementsText(statements: readonly Statement[]): string {
  const text = statements.map(({ sql }) => `${sql};`).join(' ');
  return statements.length === 1 ? text : `BEGIN; ${text} COMMIT;`;
}

/** The one role that may run all of the statements, beside superusers; undefined = superusers only. */
export function roleOf(statements: readonly Statement[]): string | undefined {
  const roles = new Set(statements.map(({ role }) => role));
  return roles.size === 1 ? statements[0]?.role : undefined;
}
