/** The certificates of `test/fixtures/tls/shapes`: what a server presents, and what is right or wrong with it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const DIRECTORY = join(import.meta.dirname, '../../fixtures/tls/shapes');

/** PEM file of a shape by its name, without `.pem`: the certificate of the server, followed by its chain. */
export function shapeFile(name: string): string {
  return join(DIRECTORY, `${name}.pem`);
}

/** Key of every certificate that a server presents. */
export const SHAPE_KEY_FILE = join(DIRECTORY, 'server.key');

/** PEM text of the authority that clients trust. */
export const AUTHORITY = readFileSync(shapeFile('authority'), 'utf8');

/** PEM text of two authorities, the second of which is `AUTHORITY`. */
export const AUTHORITIES = readFileSync(shapeFile('bundle'), 'utf8');

/** A certificate, the host that a client connects to, and whether it may. */
export interface CertificateShape {
  readonly name: string;
  readonly host: 'localhost' | '127.0.0.1';
  /** Code of the error; undefined = it is accepted */
  readonly code: string | undefined;
}

const shape = (name: string, host: CertificateShape['host'], code?: string): CertificateShape => ({ name, host, code });

/** Every certificate, with the hosts that make a difference. */
export const CERTIFICATE_SHAPES: readonly CertificateShape[] = [
  shape('good', 'localhost'),
  shape('good', '127.0.0.1'),
  shape('good-chain', 'localhost'),
  shape('good-wildcard', 'localhost'),
  shape('name-without-ip', 'localhost'),
  shape('name-without-ip', '127.0.0.1', 'ERR_TLS_CERT_ALTNAME_INVALID'),
  shape('other-ip', '127.0.0.1', 'ERR_TLS_CERT_ALTNAME_INVALID'),
  shape('other-name', 'localhost', 'ERR_TLS_CERT_ALTNAME_INVALID'),
  shape('other-name', '127.0.0.1', 'ERR_TLS_CERT_ALTNAME_INVALID'),
  shape('name-in-subject-only', '127.0.0.1', 'ERR_TLS_CERT_ALTNAME_INVALID'),
  shape('self-signed', 'localhost', 'DEPTH_ZERO_SELF_SIGNED_CERT'),
  shape('other-authority', 'localhost', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'),
  shape('other-authority-in-chain', 'localhost', 'SELF_SIGNED_CERT_IN_CHAIN'),
  shape('intermediate-missing', 'localhost', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'),
  shape('altered-signature', 'localhost', 'CERT_SIGNATURE_FAILURE'),
  shape('path-too-long', 'localhost', 'PATH_LENGTH_EXCEEDED'),
  shape('issuer-is-no-authority', 'localhost', 'INVALID_PURPOSE'),
  shape('client-purpose', 'localhost', 'INVALID_PURPOSE'),
  shape('name-not-permitted', 'localhost', 'UNSPECIFIED'),
  shape('unknown-critical-extension', 'localhost', 'UNSPECIFIED'),
  shape('expired', 'localhost', 'CERT_HAS_EXPIRED'),
  shape('not-yet-valid', 'localhost', 'CERT_NOT_YET_VALID'),
];

/** What the advice about a refused certificate names, by code and side. */
export const NAMED_BY_CODE: Readonly<Record<string, { readonly source: string; readonly sink: string }>> = {
  ERR_TLS_CERT_ALTNAME_INVALID: { source: 'verify-ca', sink: 'tls.server_name' },
  DEPTH_ZERO_SELF_SIGNED_CERT: { source: 'tls.ca', sink: 'tls.ca' },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: { source: 'ssl_cert_file', sink: 'keystore' },
  SELF_SIGNED_CERT_IN_CHAIN: { source: 'tls.ca', sink: 'tls.ca' },
  CERT_SIGNATURE_FAILURE: { source: 'tls.ca', sink: 'tls.ca' },
  PATH_LENGTH_EXCEEDED: { source: 'tls.ca', sink: 'tls.ca' },
  INVALID_PURPOSE: { source: 'serverAuth', sink: 'serverAuth' },
  UNSPECIFIED: { source: 'openssl verify', sink: 'openssl verify' },
  CERT_HAS_EXPIRED: { source: 'Renew', sink: 'Renew' },
  CERT_NOT_YET_VALID: { source: 'clock', sink: 'clock' },
};
