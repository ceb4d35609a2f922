/**
 * How many unacknowledged bytes a slot may have in flight: enough for full rounds when it is alone, and a share of the
 * process's limit when there are many slots. Each byte is in memory about four times: in batches with room to grow, in the
 * request that the client library makes of them, in the bytes that were read.
 */

const PROCESS_BYTES = 6 * 1024 * 1024;
const MOST_BYTES = 1024 * 1024;
/** A lower budget would make many small requests */
const LEAST_BYTES = 256 * 1024;

/** Unacknowledged bytes at which a slot stops reading, with this number of slots in the process. */
export function inFlightBudgetBytes(slotCount: number): number {
  return Math.min(MOST_BYTES, Math.max(LEAST_BYTES, Math.floor(PROCESS_BYTES / slotCount)));
}
