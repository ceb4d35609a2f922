/**
 * The largest request that the brokers of a Kafka client take. A broker closes the connection on a larger one without an answer
 * (`socket.request.max.bytes`; 100 MiB by default, 1 MB at some services), so what it takes is learned from what it answered
 * and from requests that prove a size and carry nothing. Pure; `cluster.ts` sends the proofs.
 */

/** A smaller request is never the reason of a closed connection. */
const SMALLEST_PROVED_BYTES = 1024;

/** What is known about a Kafka client, in bytes of whole requests. A slot keeps it from session to session. */
export interface RequestLimit {
  /** `max_request_bytes` */
  readonly maxBytes: number;
  /** The largest request that a broker has answered */
  takenBytes: number;
  /** The smallest request on which a broker is known to close the connection; Infinity before the first */
  refusedBytes: number;
}

/** The limit before anything is known but the setting. */
export function createRequestLimit(maxBytes: number): RequestLimit {
  return { maxBytes, takenBytes: 0, refusedBytes: Number.POSITIVE_INFINITY };
}

/** Size up to which batches are put together into one request. */
export function sharedRequestBytes({ maxBytes, takenBytes, refusedBytes }: RequestLimit): number {
  return refusedBytes === Number.POSITIVE_INFINITY ? maxBytes : Math.min(maxBytes, takenBytes);
}

/** Size up to which a request is sent that cannot be made smaller, because it is one record. */
export function recordRequestBytes({ maxBytes, refusedBytes }: RequestLimit): number {
  return Math.min(maxBytes, refusedBytes - 1);
}

/** Learns that a broker has answered a request of this size. */
export function noteTakenRequest(limit: RequestLimit, bytes: number): void {
  if (bytes > limit.takenBytes) limit.takenBytes = bytes;
}

/** True when the size of a request may be why a broker closed the connection without an answer. */
export function maySizeBeRefused({ takenBytes }: RequestLimit, bytes: number): boolean {
  return bytes > takenBytes && bytes >= SMALLEST_PROVED_BYTES;
}

/**
 * Finds out, after a connection was closed on a request of this size, whether the size was the reason, and learns the limit.
 * Requests of half the size each are tried until one is taken.
 * @param takes whether the broker takes a request of this size; undefined when that cannot be found out
 * @returns true when the size was the reason
 */
export async function learnRequestLimit(
  limit: RequestLimit,
  refusedBytes: number,
  takes: (bytes: number) => Promise<boolean | undefined>,
): Promise<boolean> {
  for (let bytes = refusedBytes; bytes >= SMALLEST_PROVED_BYTES; bytes = Math.floor(bytes / 2)) {
    const isTaken = await takes(bytes);
    if (isTaken === undefined) return false;
    if (!isTaken) continue;
    if (bytes === refusedBytes) return false;
    limit.takenBytes = bytes;
    limit.refusedBytes = Math.min(limit.refusedBytes, refusedBytes);
    return true;
  }
  return false;
}

/** Forgets what was refused: the limit of the brokers may have been raised. */
export function forgetRefusedRequests(limit: RequestLimit): void {
  limit.refusedBytes = Number.POSITIVE_INFINITY;
}
