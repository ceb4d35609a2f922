import type { Socket } from 'node:net';
import type { Sql } from 'postgres';
import type { DatabaseEndpoint } from '../../config/config.ts';
import { SourceError } from '../../errors.ts';
import type { ConnectOptions } from './connect.ts';

/**
 * A client whose connection ends with its owner, at once and whatever the server does: `using` drops the socket. A
 * socket that opens later is dropped as well, because nothing else would close it. The driver's own `end` is no way: it
 * waits until the server has read everything.
 */
export class OwnedConnection implements Disposable {
  readonly sql: Sql;
  #socket: Socket | undefined;
  #isDisposed = false;

  /** @param connect `connectControl` or `connectReplication`; the connection opens at the first query */
  constructor(
    connect: (endpoint: DatabaseEndpoint, options: ConnectOptions) => Sql,
    endpoint: DatabaseEndpoint,
    options: ConnectOptions,
  ) {
    this.sql = connect(endpoint, {
      ...options,
      onSocket: (socket) => {
        this.#socket = socket;
        if (this.#isDisposed) {
          socket.destroy();
          // The error keeps the driver from trying again.
          throw new SourceError('Cannot use the connection: its owner has ended', { code: 'connection_ended' });
        }
        options.onSocket?.(socket);
      },
    });
  }

  /** The socket that was opened last; undefined before the first query. */
  get socket(): Socket | undefined {
    return this.#socket;
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#socket?.destroy();
  }
}
