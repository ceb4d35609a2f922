/**
 * Transactions without the driver's `begin`: when the connection is lost inside one, that raises an error that nobody can
 * catch, which ends the process, and leaves the client waiting for ever (postgres 3.4.9).
 */
import postgres, { type Sql } from 'postgres';

/**
 * Runs statements as one transaction, sent as one message: either all of it reaches the server or nothing, so that a
 * connection that is lost and opened again cannot run the rest outside of the transaction. No parameters, no results.
 */
export async function runTransaction(control: Sql, statements: readonly string[]): Promise<void> {
  try {
    await control.unsafe(['BEGIN', ...statements, 'COMMIT'].join(';\n'));
  } catch (error) {
    // After any other failure the session is gone, and its transaction with it.
    if (error instanceof postgres.PostgresError && error.severity === 'ERROR') await control.unsafe('ROLLBACK');
    throw error;
  }
}
