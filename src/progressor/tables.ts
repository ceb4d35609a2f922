/**
 * Progressor's tables: their names, which are a namespace, an underscore and the kind of the table (`default/default_events`),
 * and the columns that matter.
 */

/** A table name, taken apart. */
export interface TableName {
  readonly namespace: string;
  /** `processes`, `events`, or another table of progressor: `tasks`, `schedule`, `running` */
  readonly kind: string;
}

/** Splits a table name at its last underscore; undefined when it has no namespace or no kind: it is none of progressor's. */
export function parseTableName(name: string): TableName | undefined {
  const at = name.lastIndexOf('_');
  if (at <= 0 || at === name.length - 1) return undefined;
  return { namespace: name.slice(0, at), kind: name.slice(at + 1) };
}

/** The columns that records are made of, in the two tables of a namespace that matter. */
export const RECORD_COLUMNS = {
  processes: ['process_id', 'status', 'detail'],
  events: ['process_id', 'event_id', 'timestamp', 'metadata', 'payload'],
} as const;
