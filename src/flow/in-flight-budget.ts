/**
 * How much a slot may have with Kafka without an acknowledgement: enough for full rounds when it is alone, and a share of
 * what the process may hold when there are many. What is held is in memory about four times: in batches with room to
 * grow, in the request that the client library makes of them, in what was read.
 */

const PROCESS_BYTES = 6 * 1024 * 1024;
const MOST_BYTES = 1024 * 1024;
/** Below this, requests would be small and many */
const LEAST_BYTES = 256 * 1024;

/** Unacknowledged bytes at which one of so many slots takes no more. */
export function inFlightBudgetBytes(slotCount: number): number {
  return Math.min(MOST_BYTES, Math.max(LEAST_BYTES, Math.floor(PROCESS_BYTES / slotCount)));
}
