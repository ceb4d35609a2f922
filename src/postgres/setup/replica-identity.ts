/**
 * The replica identity that says no more of an update than is asked for: a unique index over process_id and status. With it
 * PostgreSQL writes an old key when, and only when, one of the two has changed, so that an update without one is proof that
 * the status has not. FULL says the same by the whole old row, in every update.
 *
 * It is the operator's to make: building an index and changing the identity of a busy table want a person who looks on.
 * Source: PostgreSQL manual, "ALTER TABLE", REPLICA IDENTITY.
 */

import { identifiesStatus, STATUS_IDENTITY_COLUMNS } from '../../progressor/tables.ts';
import { quoteIdentifier, quoteTable } from '../client/quote.ts';
import { type Mistake, majorOf, type ServerFacts, type TableFacts } from './preconditions.ts';

/** First version whose publications may name columns. */
const COLUMN_LISTS_MAJOR = 15;

/** True when a processes table is identified by such an index. */
export function hasStatusIndex({ replicaIdentity, identityColumns }: TableFacts): boolean {
  return replicaIdentity === 'i' && identifiesStatus(identityColumns);
}

/** True when every update of a processes table tells whether the status has changed, in one way or the other. */
export function tellsStatusChanges(processes: TableFacts): boolean {
  return processes.replicaIdentity === 'f' || hasStatusIndex(processes);
}

/** What the owner of a processes table runs, statement by statement: an index that is built beside writers knows no transaction. */
export function statusIndexSql(namespace: string, processes: TableFacts): string {
  const index = quoteIdentifier(`${namespace}_identity`);
  const table = quoteTable(processes.name);
  return (
    `CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ${index} ON ${table} (${STATUS_IDENTITY_COLUMNS.join(', ')}); ` +
    `ALTER TABLE ${table} REPLICA IDENTITY USING INDEX ${index};`
  );
}

/** Judges a processes table that is to have the index. With FULL nothing is lost, so that it can come before the index. */
export function statusIndexMistake(namespace: string, processes: TableFacts): Mistake | undefined {
  if (tellsStatusChanges(processes)) return undefined;
  const table = quoteTable(processes.name);
  if (processes.replicaIdentity === 'i' && processes.identityColumns.length === 0) {
    return {
      table: processes.name,
      detail: `the index that identifies rows of ${table} was dropped: PostgreSQL refuses their updates and deletes, to everybody`,
      // At once: an index takes as long as the table is large.
      advice: `Run as its owner ${processes.owner}: ALTER TABLE ${table} REPLICA IDENTITY FULL;`,
    };
  }
  return {
    table: processes.name,
    detail: `the replica identity of ${table} is neither an index over process_id and status nor FULL, so that updates do not tell whether the status changed`,
    advice: `Run as its owner ${processes.owner}, one statement after the other: ${statusIndexSql(namespace, processes)}`,
  };
}

/** Judges a server that is to publish the needed columns alone. */
export function columnListMistake(server: ServerFacts): Mistake | undefined {
  if (majorOf(server.versionNumber) >= COLUMN_LISTS_MAJOR) return undefined;
  return {
    detail: `PostgreSQL ${server.version} has no column lists`,
    advice: `Remove publish_columns from the configuration of the namespace, or upgrade the server to PostgreSQL ${COLUMN_LISTS_MAJOR} or newer`,
  };
}
