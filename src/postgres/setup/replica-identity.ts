/**
 * The index over process_id and status by which a processes table can identify its rows instead of FULL. With it PostgreSQL
 * writes an old key only when one of the two changes; FULL writes the whole old row with every update.
 *
 * The operator creates it: building an index and changing the identity of a busy table must be watched.
 * Source: PostgreSQL manual, "ALTER TABLE", REPLICA IDENTITY.
 */
import { STATUS_IDENTITY_COLUMNS } from '../../progressor/tables.ts';
import { COLUMN_LISTS_MAJOR } from '../catalog/publications.ts';
import { majorOf, type ServerFacts } from '../catalog/server.ts';
import { showsStatusChanges, type TableFacts } from '../catalog/tables.ts';
import { quoteIdentifier, quoteTable } from '../client/quote.ts';
import type { Mistake } from './preconditions.ts';

/** What the owner of a processes table runs, one statement at a time: CREATE INDEX CONCURRENTLY refuses transactions. */
export function statusIndexSql(namespace: string, processes: TableFacts): string {
  const index = quoteIdentifier(`${namespace}_identity`);
  const table = quoteTable(processes.name);
  return (
    `CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ${index} ON ${table} (${STATUS_IDENTITY_COLUMNS.join(', ')}); ` +
    `ALTER TABLE ${table} REPLICA IDENTITY USING INDEX ${index};`
  );
}

/** Judges a processes table that is to have the index. FULL passes: it loses nothing, and is in place until the index is. */
export function statusIndexMistake(namespace: string, processes: TableFacts): Mistake | undefined {
  if (showsStatusChanges(processes)) return undefined;
  const table = quoteTable(processes.name);
  if (processes.replicaIdentity === 'i' && processes.identityColumns.length === 0) {
    return {
      code: 'status_index_dropped',
      table: processes.name,
      detail: `the index that identifies rows of ${table} was dropped: PostgreSQL refuses all updates and deletes of the table`,
      // Takes effect at once; building an index takes as long as the table is large.
      advice: `Run as its owner ${processes.owner}: ALTER TABLE ${table} REPLICA IDENTITY FULL;`,
    };
  }
  return {
    code: 'status_index_missing',
    table: processes.name,
    detail: `the replica identity of ${table} is neither an index over process_id and status nor FULL, so that updates do not show whether the status changed`,
    advice: `Run as its owner ${processes.owner}, one statement after the other: ${statusIndexSql(namespace, processes)}`,
  };
}

/** Judges a server on which only the needed columns are to be published. */
export function columnListMistake(server: ServerFacts): Mistake | undefined {
  if (majorOf(server.versionNumber) >= COLUMN_LISTS_MAJOR) return undefined;
  return {
    code: 'column_lists',
    detail: `PostgreSQL ${server.version} has no column lists`,
    advice: `Remove publish_columns from the configuration of the namespace, or upgrade the server to PostgreSQL ${COLUMN_LISTS_MAJOR} or newer`,
  };
}
