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

/** A role's setting for all of its transactions (PostgreSQL 17); the statements have limits of their own. */
const NO_TRANSACTION_TIMEOUT = "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'";

/**
 * Runs statements as one transaction, sent as one message: either all of it reaches the server or nothing, so that the
 * rest cannot run outside the transaction on a new connection. No parameters, no results.
 */
export async function runTransaction(control: Sql, statements: readonly string[]): Promise<void> {
  try {
    const all = ['BEGIN', NO_TRANSACTION_TIMEOUT, SEARCH_PATH, ...statements, 'COMMIT'];
    await control.unsafe(all.join(';\n'));
  } catch (error) {
    // After any other failure the session has ended, and its transaction with it.
    if (error instanceof postgres.PostgresError && error.severity === 'ERROR') await control.unsafe('ROLLBACK');
    throw error;
  }
}
