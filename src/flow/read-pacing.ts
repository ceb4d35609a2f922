/**
 * How eagerly to read from the server. A walsender makes one system call per row while its client keeps up, and every read
 * costs a turn of the event loop and a Produce request, however little it brings. With a backlog it is faster to let data
 * accumulate; the pause is a small part of the lag.
 */

/** A transaction that is sent this long after its commit comes from a backlog */
const BACKLOG_LAG_MS = 100;
/** After a read of this size the next one brings enough without a pause */
const FULL_READ_BYTES = 64 * 1024;
/** At a walsender's rate some 200 KB, which the buffers in between hold; a longer pause would stall it */
const REST_MS = 6;

/** The facts after a read was processed. */
export interface ReadSituation {
  readonly readBytes: number;
  /** From the commit of the transaction that is being received to the sending of its last frame, by the server's clock */
  readonly lagMs: number;
}

/** Milliseconds without a read, 0 = read on. */
export function restAfterRead({ readBytes, lagMs }: ReadSituation): number {
  return lagMs >= BACKLOG_LAG_MS && readBytes < FULL_READ_BYTES ? REST_MS : 0;
}
