import type { Socket } from 'node:net';
import { SourceError } from '../../errors.ts';

/** Messages of a login are short; a server's error message with its hints is the longest */
const MAX_MESSAGE_BYTES = 64 * 1024;
/** OWASP recommends 600,000 for SCRAM-SHA-256, and PostgreSQL defaults to 4096; the driver computes them in one go */
const MAX_SCRAM_ITERATIONS = 2_000_000;

const AUTHENTICATION = 0x52; // 'R'
const READY_FOR_QUERY = 0x5a; // 'Z'
const SASL_CONTINUE = 11;
/** AuthenticationOk, cleartext password, MD5, and the three of SASL */
const KNOWN_KINDS = [0, 3, 5, 10, SASL_CONTINUE, 12];
const UNSUPPORTED_KINDS: Readonly<Record<number, string>> = { 2: 'Kerberos V5', 7: 'GSSAPI', 9: 'SSPI' };
/** Authentication, ParameterStatus, BackendKeyData, ErrorResponse, NoticeResponse, NegotiateProtocolVersion */
const LOGIN_MESSAGES = 'RSKENv';
/** Type byte, length, and the kind of an authentication message */
const AUTHENTICATION_HEAD_BYTES = 9;

/**
 * Reads along until the login is over, and ends the connection before the driver sees what would harm it: postgres 3.4.9
 * answers a malformed SCRAM challenge with a rejection that nobody handles, which ends the process, computes any number of
 * iterations while nothing else runs, and prints what it does not know to the standard error.
 */
export function guardLogin(socket: Socket): void {
  let pending = Buffer.alloc(0);
  let isLoggedIn = false;
  const emit = socket.emit.bind(socket) as (event: string | symbol, ...values: unknown[]) => boolean;
  socket.emit = (event: string | symbol, ...values: unknown[]): boolean => {
    if (event !== 'data' || isLoggedIn) return emit(event, ...values);
    pending = Buffer.concat([pending, values[0] as Buffer]);
    try {
      pending = pending.subarray(checkMessages(pending, () => (isLoggedIn = true)));
    } catch (error) {
      socket.destroy(error as Error);
      return true;
    }
    return emit(event, ...values);
  };
}

/**
 * Checks the whole messages at the beginning of these bytes. @returns their length
 * @throws SourceError for one that no server sends
 */
function checkMessages(bytes: Buffer, onReady: () => void): number {
  let offset = 0;
  while (bytes.length >= offset + 5) {
    const length = bytes.readInt32BE(offset + 1);
    if (length < 4 || length > MAX_MESSAGE_BYTES) throw malformed(`a message of ${length} bytes`);
    const end = offset + 1 + length;
    if (bytes.length < end) break;
    const type = bytes[offset];
    if (type === READY_FOR_QUERY) {
      onReady();
      return end;
    }
    if (!LOGIN_MESSAGES.includes(String.fromCharCode(type!))) throw malformed(`a message of type ${type}`);
    if (type === AUTHENTICATION) checkAuthentication(bytes.subarray(offset, end));
    offset = end;
  }
  return offset;
}

function checkAuthentication(message: Buffer): void {
  if (message.length < AUTHENTICATION_HEAD_BYTES) throw malformed('an authentication message without its kind');
  const kind = message.readInt32BE(5);
  if (UNSUPPORTED_KINDS[kind] !== undefined) throw unsupported(UNSUPPORTED_KINDS[kind]);
  if (!KNOWN_KINDS.includes(kind)) throw malformed(`an authentication message of kind ${kind}`);
  if (kind !== SASL_CONTINUE) return;
  const challenge = message.toString('utf8', AUTHENTICATION_HEAD_BYTES);
  // RFC 5802, server-first-message: nonce, salt, iteration count
  const iterations = /^r=[\x21-\x2b\x2d-\x7e]+,s=[A-Za-z0-9+/]+={0,2},i=([1-9][0-9]{0,9})(?:,|$)/.exec(challenge)?.[1];
  if (iterations === undefined) throw malformed('a SCRAM challenge without nonce, salt and iteration count');
  if (Number(iterations) > MAX_SCRAM_ITERATIONS) throw malformed(`a SCRAM challenge of ${iterations} iterations`);
}

function unsupported(method: string): SourceError {
  return new SourceError(
    `Cannot log in to PostgreSQL: the server asks for ${method}, which this service does not have`,
    {
      code: 'authentication_unsupported',
      advice: 'Give the user of the database a line in pg_hba.conf with scram-sha-256 or cert',
    },
  );
}

function malformed(what: string): SourceError {
  return new SourceError(`Cannot log in to PostgreSQL: the server sent ${what}`, {
    code: 'login_malformed',
    advice: 'Check host and port of the database: a program other than PostgreSQL may answer there',
  });
}
