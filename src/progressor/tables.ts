/**
 * Progressor's tables: their names, which are a namespace, an underscore and the kind of the table
 * (`default/default_events`), and the columns that the service reads.
 */

/** The parts of a table name. */
export interface TableName {
  readonly namespace: string;
  /** `processes`, `events`, or another table of progressor: `tasks`, `schedule`, `running` */
  readonly kind: string;
}

/** Splits a table name at its last underscore; undefined without a namespace or a kind: not a table of progressor. */
export function parseTableName(name: string): TableName | undefined {
  const at = name.lastIndexOf('_');
  if (at <= 0 || at === name.length - 1) return undefined;
  return { namespace: name.slice(0, at), kind: name.slice(at + 1) };
}

/** Statuses of a process: older databases lack `init`. Records are made of changes between them; see conversion/convert.ts */
export const STATUSES = ['init', 'running', 'error'] as const;

/** Those without which changes of a process show nowhere. */
export const NEEDED_STATUSES: readonly string[] = ['running', 'error'] satisfies (typeof STATUSES)[number][];

/** The columns that records are made of, by kind of table. */
export const RECORD_COLUMNS = {
  processes: ['process_id', 'status', 'detail'],
  events: ['process_id', 'event_id', 'timestamp', 'metadata', 'payload'],
} as const;

/**
 * Columns of a processes table that must be part of an identifying index, so that an update without an old key proves
 * that the status has not changed.
 */
export const STATUS_IDENTITY_COLUMNS = ['process_id', 'status'] as const;

/** True when the columns of a replica identity's index include all of `STATUS_IDENTITY_COLUMNS`. */
export function identifiesStatus(identityColumns: readonly string[]): boolean {
  return STATUS_IDENTITY_COLUMNS.every((column) => identityColumns.includes(column));
}
