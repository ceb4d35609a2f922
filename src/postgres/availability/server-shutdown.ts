/**
 * A server that is shut down ends its ordinary connections at once, but waits for a replication connection until all it
 * has sent is confirmed: for as long as Kafka is stuck. So an ordinary connection is kept open; when it ends, the server
 * is asked why, and when it is about to stop, replication is given up.
 */

import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Sql } from 'postgres';
import { SourceError } from '../../errors.ts';
import { SQL_STATE, sqlStateOf } from '../client/errors.ts';

const PROBE_INTERVAL_MS = 500;

/** What a server says that stops, or that has not started yet */
const SHUTDOWN: readonly (string | undefined)[] = [SQL_STATE.adminShutdown, SQL_STATE.cannotConnectNow];

/** What to watch, and until when. */
export interface ShutdownWatchOptions {
  /** A client of one ordinary connection, to which the watched socket belongs; it opens a new one when it is asked again */
  readonly control: Sql;
  /** The present socket of `control` */
  readonly socket: () => Socket | undefined;
  readonly signal: AbortSignal;
}

/**
 * Resolves when the signal is given.
 * @throws SourceError when the server is shutting down
 */
export async function watchShutdown(options: ShutdownWatchOptions): Promise<void> {
  const { control, socket, signal } = options;
  while (!signal.aborted) {
    await closed(socket(), signal);
    while (!signal.aborted) {
      try {
        await control`SELECT 1`;
        break; // only that one connection was ended
      } catch (error) {
        if (signal.aborted) return;
        if (SHUTDOWN.includes(sqlStateOf(error))) {
          throw new SourceError('Cannot go on: the server is shutting down', { cause: error });
        }
        // Anything else (no connection left, a refused one) says nothing about the replication connection.
        await sleep(PROBE_INTERVAL_MS, undefined, { signal }).catch(() => {});
      }
    }
  }
}

function closed(socket: Socket | undefined, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (socket === undefined || socket.destroyed || signal.aborted) return resolve();
    socket.once('close', () => resolve());
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
