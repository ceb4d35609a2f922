/**
 * How eagerly to read from the server. A walsender makes one system call a row while its client keeps up, and every read of
 * ours costs a turn through the event loop and a request to produce, however little it brings: whoever has a backlog
 * before him does better to let it gather. Nobody waits for it: the rest is a small part of what the stream is late by.
 */

/** A transaction that is sent so long after its commit comes out of a backlog */
const BEHIND_MS = 100;
/** A read of so much has taken its time: the next one will bring enough by itself */
const FULL_READ_BYTES = 64 * 1024;
/** At the rates of a walsender some 200 KB, which the buffers between us hold; longer, and it would stand still */
const REST_MS = 6;

/** What is known when a read has been worked off. */
export interface ReadSituation {
  readonly readBytes: number;
  /** From the commit of the transaction that is being received to the sending of its last frame, by the server's clock */
  readonly behindMs: number;
}

/** For how many milliseconds nothing is to be read, 0 = read on. */
export function restAfterRead({ readBytes, behindMs }: ReadSituation): number {
  return behindMs >= BEHIND_MS && readBytes < FULL_READ_BYTES ? REST_MS : 0;
}
