/**
 * Transactions without the driver's `begin`: when a connection is lost inside one, `begin` raises an error that cannot be
 * caught, which ends the process, and the client never answers again (postgres 3.4.9).
 */
import postgres, { type Sql } from 'postgres';

/**
 * Runs statements as one transaction, sent as one message: either all of it reaches the server or nothing, so that the
 * rest cannot run outside the transaction on a new connection. No parameters, no results.
 */
export async function runTransaction(control: Sql, statements: readonly string[]): Promise<void> {
  try {
    await control.unsafe(['BEGIN', ...statements, 'COMMIT'].join(';\n'));
  } catch (error) {
    // After any other failure the session has ended, and its transaction with it.
    if (error instanceof postgres.PostgresError && error.severity === 'ERROR') await control.unsafe('ROLLBACK');
    throw error;
  }
}
