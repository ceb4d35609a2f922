/**
 * Connected sockets for the `postgres` driver: TCP, and TLS as configured.
 *
 * The driver could do both, but it splits host names at commas and colons, treats `ssl: 'require'` as "verify nothing",
 * continues with a handshake that the server has just declined, and loses errors of a password function. So it gets
 * sockets that are connected, or that fail with the true reason.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import type { DatabaseEndpoint } from '../../config/config.ts';
import { within } from '../../deadline.ts';
import { SourceError } from '../../errors.ts';
import { requireTls, SSL_REQUEST, tlsOptions } from './tls.ts';

/**
 * Opens a connection to the server, up to where its protocol begins.
 * @throws SourceError, SecretError, or the error of the socket; after `timeoutMs` at the latest
 */
export async function openSocket(endpoint: DatabaseEndpoint, timeoutMs: number): Promise<Socket> {
  // Before any connection, so that an unreadable secret is reported as such.
  const options = endpoint.tls === undefined ? undefined : tlsOptions(endpoint.tls, endpoint.host);
  const raw = connectTcp({ host: endpoint.host, port: endpoint.port });
  let secure: Socket | undefined;
  // Stays for the socket's life: the driver listens only a little later.
  raw.on('error', () => {});
  const failure = Promise.withResolvers<never>();
  // A failure after the connection is open belongs to the driver.
  failure.promise.catch(() => {});
  const open = async (): Promise<Socket> => {
    raw.once('error', failure.reject);
    await once(raw, 'connect', failure.reject);
    raw.setNoDelay(true);
    if (options === undefined) return raw;
    await negotiateTls(raw, failure.reject);
    secure = connectTls({ ...options, socket: raw });
    secure.on('error', failure.reject);
    await once(secure, 'secureConnect', failure.reject);
    return secure;
  };
  try {
    return await within(timeoutMs, 'connect to PostgreSQL', Promise.race([open(), failure.promise]));
  } catch (error) {
    secure?.destroy();
    raw.destroy();
    throw error;
  }
}

async function negotiateTls(socket: Socket, failed: (error: Error) => void): Promise<void> {
  socket.write(SSL_REQUEST);
  requireTls(await once<Buffer>(socket, 'data', failed));
}

/** Waits for one event; when the connection ends before it, that is a failure. */
function once<T = void>(socket: Socket, event: string, failed: (error: Error) => void): Promise<T> {
  return new Promise<T>((resolve) => {
    socket.once(event, resolve);
    socket.once('close', () => failed(closedError()));
  });
}

/** The error of a connection that ends before it can be used. */
export function closedError(): SourceError {
  return new SourceError('Cannot connect to PostgreSQL: the connection was closed', { code: 'connection_closed' });
}

/**
 * A stand-in for a socket that could not be opened: the driver's first write fails with `error`, which rejects its
 * queries and leaves it able to try again. (A rejected socket function would leave later queries without an answer.)
 */
export function failedSocket(error: unknown): Duplex {
  const reason = error instanceof Error ? error : new Error(String(error));
  return new Duplex({ read() {}, write: (_chunk, _encoding, callback) => callback(reason) });
}
