/**
 * TLS to PostgreSQL: what the configuration asks for, and the request that comes before the handshake.
 * Source: PostgreSQL manual, "Message Flow", SSL Session Encryption.
 */
import { isIP } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import { isLoopback } from '../../config/address.ts';
import type { DatabaseEndpoint, DatabaseTlsConfig } from '../../config/config.ts';
import { SourceError } from '../../errors.ts';

/** SSLRequest: Int32 length 8, Int32 80877103. */
export const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
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

/** @throws SourceError unless the server accepts TLS */
export function requireTls(answer: Uint8Array): void {
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
