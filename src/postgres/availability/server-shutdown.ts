/**
 * Notices that the server shuts down. It then ends ordinary connections at once, but waits for a walsender until all that
 * it sent is confirmed: for as long as Kafka does not answer. So the service keeps an ordinary connection open; when that
 * ends, it asks the server why, and gives replication up when the server stops.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { SourceError } from '../../errors.ts';
import { SQL_STATE, sqlStateOf } from '../client/errors.ts';
import type { OwnedConnection } from '../client/owned-connection.ts';

/** What a server answers that stops, or that has not started yet. */
const SHUTDOWN: readonly (string | undefined)[] = [SQL_STATE.adminShutdown, SQL_STATE.cannotConnectNow];

/** Options of `watchShutdown`. */
export interface ShutdownWatchOptions {
  /** Between two attempts to log in: a refused login is repeated no faster */
  readonly reconnectTimeoutMs: number;
  /** Called with the error of each attempt that fails */
  readonly onRefused: (error: unknown) => void;
  readonly signal: AbortSignal;
}

/**
 * Keeps the control connection open, and resolves when the signal aborts.
 * @param control an ordinary connection; its client opens another one when it is asked again
 * @throws SourceError when the server shuts down
 */
export async function watchShutdown(
  control: OwnedConnection,
  { reconnectTimeoutMs, onRefused, signal }: ShutdownWatchOptions,
): Promise<void> {
  while (!signal.aborted) {
    await closed(control.socket, signal);
    while (!signal.aborted) {
      try {
        await control.sql`SELECT 1`;
        break; // only that one connection was ended
      } catch (error) {
        if (signal.aborted) return;
        if (SHUTDOWN.includes(sqlStateOf(error))) {
          throw new SourceError('Cannot continue: the server is shutting down', {
            code: 'server_shutting_down',
            cause: error,
          });
        }
        // Any other error (no connection left, a refused one) says nothing about the replication connection.
        onRefused(error);
        await sleep(reconnectTimeoutMs, undefined, { signal }).catch(() => {});
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
