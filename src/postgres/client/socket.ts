/**
 * Connected sockets for the `postgres` driver: TCP, and TLS as configured.
 *
 * The driver could do both, but it splits host names at commas and colons, treats `ssl: 'require'` as "verify nothing",
 * continues with a handshake that the server has just declined, and loses errors of a password function. So it gets
 * sockets that are connected, or that fail with the true reason.
 * Source: PostgreSQL manual, "Message Flow", SSL Session Encryption.
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { isLoopback } from '../../config/address.ts';
import type { DatabaseEndpoint, DatabaseTlsConfig } from '../../config/config.ts';
import { within } from '../../deadline.ts';
import { SourceError } from '../../errors.ts';

/** SSLRequest: Int32 length 8, Int32 80877103. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
const SSL_ACCEPTED = 0x53; // 'S'
const SSL_DECLINED = 0x4e; // 'N'

/** The answer to SSLRequest is one byte; bytes after it and before the handshake do not come from the server. */
export type TlsAnswer = 'accepted' | 'declined' | 'invalid';

/** Judges the answer to SSLRequest: anything but a single `S` or `N` is an attack or another protocol (CVE-2021-23222). */
export function judgeTlsAnswer(answer: Uint8Array): TlsAnswer {
  if (answer.length !== 1) return 'invalid';
  if (answer[0] === SSL_ACCEPTED) return 'accepted';
  return answer[0] === SSL_DECLINED ? 'declined' : 'invalid';
}

/** The TLS options of one connection, with secrets as they are now. @throws SecretError */
export function tlsOptions(tls: DatabaseTlsConfig, host: string): ConnectionOptions {
  return {
    host,
    // SNI carries names only (RFC 6066); an address is verified by `host`.
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(tls.ca === undefined ? {} : { ca: tls.ca.read() }),
    ...(tls.cert === undefined ? {} : { cert: tls.cert.read() }),
    ...(tls.key === undefined ? {} : { key: tls.key.read() }),
    rejectUnauthorized: tls.mode !== 'require',
    ...(tls.mode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
    minVersion: 'TLSv1.2',
  };
}

/** Why the connections of a database are not secure; undefined when they are, or stay on this machine. */
export function transportWarning(endpoint: DatabaseEndpoint): string | undefined {
  if (endpoint.tls === undefined) {
    return isLoopback(endpoint.host) ? undefined : 'connection to PostgreSQL is not encrypted, set tls to encrypt it';
  }
  return endpoint.tls.mode === 'require'
    ? 'connection to PostgreSQL is encrypted but the server is not verified, set tls.mode to verify-full'
    : undefined;
}

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
  const answer = await once<Buffer>(socket, 'data', failed);
  const verdict = judgeTlsAnswer(answer);
  if (verdict === 'declined') {
    throw new SourceError('Cannot connect to PostgreSQL: the server does not offer TLS', {
      code: 'tls_not_offered',
      advice: 'Set ssl = on with a certificate on the server, or remove tls from the database in the configuration',
    });
  }
  if (verdict === 'invalid') {
    throw new SourceError('Cannot connect to PostgreSQL: the answer to the TLS request is no PostgreSQL protocol', {
      code: 'tls_answer_invalid',
      advice: 'Check host and port: another program may listen there, or a middlebox changes the traffic',
    });
  }
}

/** Waits for one event; when the connection ends before it, that is a failure. */
function once<T = void>(socket: Socket, event: string, failed: (error: Error) => void): Promise<T> {
  return new Promise<T>((resolve) => {
    socket.once(event, resolve);
    socket.once('close', () => failed(closedError()));
  });
}

function closedError(): SourceError {
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
