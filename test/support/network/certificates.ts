/** The certificates of `test/fixtures/tls`, and server identities made of them. */
import { join } from 'node:path';

/** Where they are; `make.sh` there describes and creates them. The servers' certificate is for `localhost` only. */
export const CERTIFICATE_DIRECTORY = join(import.meta.dirname, '../../fixtures/tls');

/** The authority that has signed the certificates of servers and clients. */
export const CA_FILE = join(CERTIFICATE_DIRECTORY, 'ca.crt');

/** An authority that has signed none of them. */
export const STRANGER_FILE = join(CERTIFICATE_DIRECTORY, 'stranger.crt');

/** Certificate and key of a broker's TLS listener. */
export const SERVER_IDENTITY = {
  certificateFile: join(CERTIFICATE_DIRECTORY, 'server.crt'),
  keyFile: join(CERTIFICATE_DIRECTORY, 'server.key'),
} as const;
