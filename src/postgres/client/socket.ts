/**
 * The way from configuration to a connected socket for the `postgres` driver: TCP, and TLS as the configuration asks.
 *
 * The driver could do both, but it splits host names at commas and colons, treats `ssl: 'require'` as "verify nothing",
 * goes on with a handshake that the server has just declined, and loses errors of a password function. So it is given
 * sockets that are ready, or that fail with the true reason.
 * Source: PostgreSQL manual, "Message Flow", SSL Session Encryption.
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { isLoopback } from '../../config/address.ts';
import type { DatabaseEndpoint, DatabaseTlsConfig } from '../../config/config.ts';
import { SourceError } from '../../errors.ts';

/** SSLRequest: Int32 length 8, Int32 80877103. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
const SSL_ACCEPTED = 0x53; // 'S'
const SSL_DECLINED = 0x4e; // 'N'

/** The answer to SSLRequest is one byte; what may follow it before the handshake was not said by the server. */
export type TlsAnswer = 'accepted' | 'declined' | 'invalid';

/** Judges what came back on an SSLRequest: anything but a lone `S` or `N` is an attack or another protocol (CVE-2021-23222). */
export function judgeTlsAnswer(answer: Uint8Array): TlsAnswer {
  if (answer.length !== 1) return 'invalid';
  if (answer[0] === SSL_ACCEPTED) return 'accepted';
  return answer[0] === SSL_DECLINED ? 'declined' : 'invalid';
}

/** The TLS options of one connection. Secrets are read here, each time; throws SecretError. */
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

/** Why the connections of a database are not as safe as they could be; undefined when there is nothing to say. */
export function transportWarning(endpoint: DatabaseEndpoint): string | undefined {
  if (endpoint.tls === undefined) {
    return isLoopback(endpoint.host) ? undefined : 'connection to PostgreSQL is not encrypted, set tls to encrypt it';
  }
  return endpoint.tls.mode === 'require'
    ? 'connection to PostgreSQL is encrypted but the server is not verified, set tls.mode to verify-full'
    : undefined;
}

/** Opens a connection to the server up to where its protocol begins. Rejects with the reason within `timeoutMs`. */
export async function openSocket(endpoint: DatabaseEndpoint, timeoutMs: number): Promise<Socket> {
  // Before the network is touched: an unreadable secret is reported as itself.
  const options = endpoint.tls === undefined ? undefined : tlsOptions(endpoint.tls, endpoint.host);
  const raw = connectTcp({ host: endpoint.host, port: endpoint.port });
  let secure: Socket | undefined;
  // Stays for the socket's life: the driver listens only a little later.
  raw.on('error', () => {});
  try {
    return await withTimeout(timeoutMs, async (failed) => {
      raw.once('error', failed);
      await once(raw, 'connect', failed);
      raw.setNoDelay(true);
      if (options === undefined) return raw;
      await negotiateTls(raw, failed);
      secure = connectTls({ ...options, socket: raw });
      secure.on('error', failed);
      await once(secure, 'secureConnect', failed);
      return secure;
    });
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
      advice: 'Set ssl = on with a certificate on the server, or remove tls from the database in the configuration',
    });
  }
  if (verdict === 'invalid') {
    throw new SourceError('Cannot connect to PostgreSQL: the answer to the TLS request is not of its protocol', {
      advice: 'Check host and port: another program may listen there, or something changes the traffic on its way',
    });
  }
}

/** Waits for one event; an end of the connection before it is a failure. */
function once<T = void>(socket: Socket, event: string, failed: (error: Error) => void): Promise<T> {
  return new Promise<T>((resolve) => {
    socket.once(event, resolve);
    socket.once('close', () => failed(new SourceError('Cannot connect to PostgreSQL: the connection was closed')));
  });
}

/** Runs `body`, ending it when `failed` is called or the time is over. */
async function withTimeout<T>(timeoutMs: number, body: (failed: (error: Error) => void) => Promise<T>): Promise<T> {
  const failure = Promise.withResolvers<never>();
  // Calls after the end of the body have nobody to tell.
  failure.promise.catch(() => {});
  const timer = setTimeout(
    () => failure.reject(new SourceError(`Cannot connect to PostgreSQL: no connection within ${timeoutMs} ms`)),
    timeoutMs,
  );
  try {
    return await Promise.race([body(failure.reject), failure.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * A stand-in for a socket that could not be opened: the driver's first write fails with `error`, which rejects its
 * queries and leaves it able to try again. (A rejected socket function would leave later queries waiting for ever.)
 */
export function failedSocket(error: unknown): Duplex {
  const reason = error instanceof Error ? error : new Error(String(error));
  return new Duplex({ read() {}, write: (_chunk, _encoding, callback) => callback(reason) });
}
