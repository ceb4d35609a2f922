/**
 * How large a row may be, by the memory that the process has. Its needed values are in memory about twice while they become
 * a record, and once while the record is sent; a value below 4 MiB up to four times, and a row that is parked up to ten times.
 * Every slot may have such a row at the same moment.
 */

const SHARE_OF_MEMORY = 16;
const LEAST_BYTES = 2 * 1024 * 1024;
/** PostgreSQL sends no larger message */
const MOST_BYTES = 1024 * 1024 * 1024;

/** Setting max_row_bytes where the configuration has none, in a process with so many slots that may use this much memory. */
export function defaultMaxRowBytes(memoryBytes: number, slotCount: number): number {
  return Math.min(MOST_BYTES, Math.max(LEAST_BYTES, Math.floor(memoryBytes / SHARE_OF_MEMORY / slotCount)));
}
