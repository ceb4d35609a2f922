/**
 * Transactions without the driver's `begin`: when a connection is lost inside one, `begin` raises an error that cannot be
 * caught, which ends the process, and the client never answers again (postgres 3.4.9).
 */
import postgres, { type Sql } from 'postgres';

/**
 * Names in these statements have their schemas. Event triggers of the database resolve theirs as in any other session: in
 * pg_catalog first, which no other schema can hide, then in the schemas that a session searches by default.
 */
const SEARCH_PATH = 'SET LOCAL search_path = "$user", public';

/**
 * The statement that lifts `transaction_timeout` for the transaction that is open, or for the session: a role's limit for all
 * of its transactions (PostgreSQL 17), which no start parameter can lift, as older servers refuse unknown ones.
 */
export function liftTransactionTimeout(scope: 'transaction' | 'session'): string {
  return `SELECT set_config(name, '0', ${scope === 'transaction'}) FROM pg_settings WHERE name = 'transaction_timeout'`;
}

/**
 * Runs statements as one transaction, sent as one message: either all of it reaches the server or nothing, so that the
 * rest cannot run outside the transaction on a new connection. No parameters, no results.
 */
export async function runTransaction(control: Sql, statements: readonly string[]): Promise<void> {
  try {
    const all = ['BEGIN', liftTransactionTimeout('transaction'), SEARCH_PATH, ...statements, 'COMMIT'];
    await control.unsafe(all.join(';\n'));
  } catch (error) {
    // After any other failure the session has ended, and its transaction with it.
    if (error instanceof postgres.PostgresError && error.severity === 'ERROR') await control.unsafe('ROLLBACK');
    throw error;
  }
}
