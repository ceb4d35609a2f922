/**
 * Gives an error of the server or of the network its meaning, its cure and its consequence, by SQLSTATE or errno. Errors
 * that this service raised on purpose say the first two already.
 */
import { NotifierError, SlotInUseError, SourceError } from './errors.ts';
import { SQL_STATE, sqlStateOf } from './postgres/client/errors.ts';

/** What a failure was about: a label of the metrics, so that there are few of them. */
export type SourceFailureReason =
  | 'not-reachable'
  | 'connection-lost'
  | 'tls'
  | 'authentication'
  | 'privilege'
  | 'server-stopping'
  | 'server-busy'
  | 'not-primary'
  | 'slot-in-use'
  | 'object-missing'
  | 'wal-missing'
  | 'configuration'
  | 'source';

/** What follows from a failure on PostgreSQL's side. */
export interface SourceVerdict {
  /**
   * - `retry`: it may pass by itself
   * - `standby`: another process has the slot; wait until it is released (`waitUntilFree`)
   * - `stop`: a person has to mend something; trying again does no harm, and takes the cure up without a restart
   */
  readonly action: 'retry' | 'standby' | 'stop';
  readonly reason: SourceFailureReason;
}

interface Explanation extends SourceVerdict {
  /** Completes `Cannot follow PostgreSQL: ...` */
  readonly what: string;
  readonly advice?: string;
}

/** For whatever is in neither table: an attempt more costs little, and passes nothing over. */
const UNKNOWN: Explanation = { what: 'unexpected error', action: 'retry', reason: 'source' };

const UNUSABLE_TLS: Explanation = {
  what: 'a certificate or key of the configuration cannot be used',
  action: 'stop',
  reason: 'tls',
  advice:
    'Check tls.ca, tls.cert and tls.key: one holds no valid certificate or key, or cert and key do not belong together',
};
const UNTRUSTED = { action: 'stop', reason: 'tls', advice: 'Set tls.ca of the database' } as const;
const UNREACHABLE = {
  action: 'retry',
  reason: 'not-reachable',
  advice: 'Check host and port of the database, that the server runs, and the network in between',
} as const;
const LOST = { action: 'retry', reason: 'connection-lost' } as const;

/** By SQLSTATE; two or three characters stand for a whole class (manual, "PostgreSQL Error Codes"). */
const BY_SQL_STATE: Readonly<Record<string, Explanation>> = {
  '08': { ...UNREACHABLE, what: 'the connection failed' },
  [SQL_STATE.readOnlySqlTransaction]: {
    what: 'the server takes no writes',
    action: 'retry',
    reason: 'not-primary',
    advice: 'Point host or hosts of the database at the primary, whose default_transaction_read_only must be off',
  },
  '28': {
    what: 'the server does not let us in',
    action: 'stop',
    reason: 'authentication',
    advice:
      'Check username and password of the database, and that pg_hba.conf lets this user into this database: logical ' +
      'replication needs a line for the database itself, the keyword replication does not match it',
  },
  [SQL_STATE.invalidCatalogName]: {
    what: 'the database does not exist',
    action: 'stop',
    reason: 'configuration',
    advice: 'Correct `database` in the configuration',
  },
  '40': { what: 'the transaction met with others', action: 'retry', reason: 'server-busy' },
  [SQL_STATE.insufficientPrivilege]: {
    what: 'the role lacks a right',
    action: 'stop',
    reason: 'privilege',
    advice:
      'Grant it REPLICATION, CREATE on the database and ownership of the tables, as config/guide/prepare.md, "Roles and privileges", shows',
  },
  [SQL_STATE.undefinedObject]: {
    what: 'the slot or a publication is not there',
    action: 'retry',
    reason: 'object-missing',
    advice: 'Nothing is to be done yet: the next attempt looks at what is missing, and says what it means',
  },
  '53': { what: 'the server is short of memory, disk or another resource', action: 'retry', reason: 'server-busy' },
  [SQL_STATE.tooManyConnections]: {
    what: 'no connection or walsender is free',
    action: 'retry',
    reason: 'server-busy',
    advice: 'Raise max_wal_senders or max_connections, or end connections that are not needed',
  },
  [SQL_STATE.objectInUse]: {
    what: 'another process streams from the slot',
    action: 'standby',
    reason: 'slot-in-use',
    advice:
      'Stop the other one, or wait: after a lost connection the server frees the slot when wal_sender_timeout has passed ' +
      '(SELECT active_pid FROM pg_replication_slots shows who has it)',
  },
  [SQL_STATE.objectNotInPrerequisiteState]: {
    what: 'the slot cannot be used as it is',
    // What has become of it is judged by the next attempt, which also says what to do.
    action: 'retry',
    reason: 'wal-missing',
    advice: 'See wal_status in pg_replication_slots: WAL that the slot needs may be gone',
  },
  [SQL_STATE.lockNotAvailable]: { what: 'somebody holds a lock', action: 'retry', reason: 'server-busy' },
  [SQL_STATE.queryCanceled]: { what: 'the server canceled a statement', action: 'retry', reason: 'server-busy' },
  [SQL_STATE.adminShutdown]: {
    what: 'the server ended the connection: it stops, or somebody called pg_terminate_backend',
    action: 'retry',
    reason: 'server-stopping',
  },
  '57P': { what: 'the server is stopping or starting', action: 'retry', reason: 'server-stopping' },
  [SQL_STATE.undefinedFile]: {
    what: 'the server misses a file, probably WAL that the slot needs',
    action: 'stop',
    reason: 'wal-missing',
    advice: 'See the log of the server and wal_status in pg_replication_slots',
  },
};

/** By errno of the system, and by code of the driver and of TLS. */
const BY_CODE: Readonly<Record<string, Explanation>> = {
  ECONNREFUSED: { ...UNREACHABLE, what: 'nobody listens there' },
  ENOTFOUND: { ...UNREACHABLE, what: 'the host name does not resolve' },
  EAI_AGAIN: { ...UNREACHABLE, what: 'the host name does not resolve now' },
  EHOSTUNREACH: { ...UNREACHABLE, what: 'there is no way to the host' },
  ENETUNREACH: { ...UNREACHABLE, what: 'there is no way to the network' },
  ETIMEDOUT: { ...UNREACHABLE, what: 'the connection timed out' },
  CONNECT_TIMEOUT: { ...UNREACHABLE, what: 'the connection timed out' },
  ECONNRESET: { ...LOST, what: 'the connection was reset' },
  EPIPE: { ...LOST, what: 'the connection was closed' },
  CONNECTION_CLOSED: { ...LOST, what: 'the connection was closed' },
  CONNECTION_ENDED: { ...LOST, what: 'the connection was closed' },
  CONNECTION_DESTROYED: { ...LOST, what: 'the connection was closed' },
  SASL_SIGNATURE_MISMATCH: {
    what: 'the server does not know the password',
    action: 'stop',
    reason: 'authentication',
    advice: 'Something other than the server answers: check host, port and tls',
  },
  DEPTH_ZERO_SELF_SIGNED_CERT: { ...UNTRUSTED, what: 'its certificate is self-signed' },
  SELF_SIGNED_CERT_IN_CHAIN: { ...UNTRUSTED, what: 'its certificate chain is not trusted' },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: { ...UNTRUSTED, what: 'its certificate is not trusted' },
  ERR_TLS_CERT_ALTNAME_INVALID: {
    what: 'its certificate is for another host name',
    action: 'stop',
    reason: 'tls',
    advice: 'Connect by a name that the certificate holds, or set tls.mode to verify-ca',
  },
  ERR_BORINGSSL: UNUSABLE_TLS,
  ERR_OSSL_X509_KEY_VALUES_MISMATCH: UNUSABLE_TLS,
  CERT_HAS_EXPIRED: {
    what: 'its certificate has expired',
    action: 'stop',
    reason: 'tls',
    advice: 'Renew the certificate of the server',
  },
};

/** What follows from an error of the server or the network, by its class, SQLSTATE or errno and never by its text. */
export function judgeSourceError(error: unknown): SourceVerdict {
  // Another name for what the server says with a SQLSTATE of its own.
  if (error instanceof SlotInUseError) return { action: 'standby', reason: 'slot-in-use' };
  const { action, reason } = lookUp(error instanceof SourceError ? error.cause : error).explanation;
  return { action, reason };
}

/** The error as it is when it was raised on purpose, else a SourceError with `error` as its cause. */
export function explainSourceError(error: unknown): NotifierError {
  if (error instanceof NotifierError) return error;
  const { explanation, name } = lookUp(error);
  return new SourceError(`Cannot follow PostgreSQL: ${explanation.what}${name === undefined ? '' : ` (${name})`}`, {
    advice: explanation.advice,
    cause: error,
  });
}

/** Finds an error in the tables; `name` is what it was found by. */
function lookUp(error: unknown): { readonly explanation: Explanation; readonly name: string | undefined } {
  const state = sqlStateOf(error);
  if (state !== undefined) {
    const explanation = BY_SQL_STATE[state] ?? BY_SQL_STATE[state.slice(0, 3)] ?? BY_SQL_STATE[state.slice(0, 2)];
    return { explanation: explanation ?? UNKNOWN, name: `SQLSTATE ${state}` };
  }
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  return { explanation: BY_CODE[code ?? ''] ?? UNKNOWN, name: code };
}
