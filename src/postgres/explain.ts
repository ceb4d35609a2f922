/**
 * Gives an error of the server or of the network its meaning and its cure, by SQLSTATE or errno, for the operator.
 * Errors that this service raised on purpose say both already.
 */
import { NotifierError, SourceError } from '../errors.ts';
import { SQL_STATE, sqlStateOf } from './sql-state.ts';

interface Explanation {
  /** Completes `Cannot follow PostgreSQL: ...` */
  readonly what: string;
  readonly advice?: string;
}

const UNUSABLE_TLS = {
  what: 'a certificate or key of the configuration cannot be used',
  advice:
    'Check tls.ca, tls.cert and tls.key: one holds no valid certificate or key, or cert and key do not belong together',
};
const REACH = 'Check host and port of the database, that the server runs, and the network in between';

/** By SQLSTATE; two characters stand for a whole class (manual, "PostgreSQL Error Codes"). */
const BY_SQL_STATE: Readonly<Record<string, Explanation>> = {
  '08': { what: 'the connection failed', advice: REACH },
  '28': {
    what: 'the server does not let us in',
    advice:
      'Check username and password of the database, and that pg_hba.conf lets this user into this database: logical ' +
      'replication needs a line for the database itself, the keyword replication does not match it',
  },
  '3D000': { what: 'the database does not exist', advice: 'Correct `database` in the configuration' },
  [SQL_STATE.insufficientPrivilege]: {
    what: 'the role lacks a right',
    advice: 'Grant it REPLICATION, CREATE on the database and ownership of the tables, as README, "Privileges", shows',
  },
  '53300': {
    what: 'no connection or walsender is free',
    advice: 'Raise max_wal_senders or max_connections, or end connections that are not needed',
  },
  [SQL_STATE.objectInUse]: {
    what: 'another process streams from the slot',
    advice:
      'Stop the other one, or wait: after a lost connection the server frees the slot when wal_sender_timeout has passed ' +
      '(SELECT active_pid FROM pg_replication_slots shows who has it)',
  },
  [SQL_STATE.objectNotInPrerequisiteState]: {
    what: 'the slot cannot be used as it is',
    advice: 'See wal_status in pg_replication_slots: WAL that the slot needs may be gone',
  },
  [SQL_STATE.adminShutdown]: {
    what: 'the server ended the connection: it stops, or somebody called pg_terminate_backend',
  },
  '57P': { what: 'the server is stopping or starting' },
  '58P01': {
    what: 'the server misses a file, probably WAL that the slot needs',
    advice: 'See the log of the server and wal_status in pg_replication_slots',
  },
};

const BY_CODE: Readonly<Record<string, Explanation>> = {
  ECONNREFUSED: { what: 'nobody listens there', advice: REACH },
  ENOTFOUND: { what: 'the host name does not resolve', advice: REACH },
  EAI_AGAIN: { what: 'the host name does not resolve now', advice: REACH },
  EHOSTUNREACH: { what: 'there is no way to the host', advice: REACH },
  ENETUNREACH: { what: 'there is no way to the network', advice: REACH },
  ETIMEDOUT: { what: 'the connection timed out', advice: REACH },
  CONNECT_TIMEOUT: { what: 'the connection timed out', advice: REACH },
  ECONNRESET: { what: 'the connection was reset' },
  EPIPE: { what: 'the connection was closed' },
  CONNECTION_CLOSED: { what: 'the connection was closed' },
  CONNECTION_ENDED: { what: 'the connection was closed' },
  CONNECTION_DESTROYED: { what: 'the connection was closed' },
  SASL_SIGNATURE_MISMATCH: {
    what: 'the server does not know the password',
    advice: 'Something other than the server answers: check host, port and tls',
  },
  DEPTH_ZERO_SELF_SIGNED_CERT: { what: 'its certificate is self-signed', advice: 'Set tls.ca of the database' },
  SELF_SIGNED_CERT_IN_CHAIN: { what: 'its certificate chain is not trusted', advice: 'Set tls.ca of the database' },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: { what: 'its certificate is not trusted', advice: 'Set tls.ca of the database' },
  ERR_TLS_CERT_ALTNAME_INVALID: {
    what: 'its certificate is for another host name',
    advice: 'Connect by a name that the certificate holds, or set tls.mode to verify-ca',
  },
  ERR_BORINGSSL: UNUSABLE_TLS,
  ERR_OSSL_X509_KEY_VALUES_MISMATCH: UNUSABLE_TLS,
  CERT_HAS_EXPIRED: { what: 'its certificate has expired', advice: 'Renew the certificate of the server' },
};

/** The error as it is when it was raised on purpose, else a SourceError with `error` as its cause. */
export function explainSourceError(error: unknown): NotifierError {
  if (error instanceof NotifierError) return error;
  const state = sqlStateOf(error);
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const explanation =
    state === undefined
      ? BY_CODE[code ?? '']
      : (BY_SQL_STATE[state] ?? BY_SQL_STATE[state.slice(0, 3)] ?? BY_SQL_STATE[state.slice(0, 2)]);
  const name = state === undefined ? code : `SQLSTATE ${state}`;
  return new SourceError(
    `Cannot follow PostgreSQL: ${explanation?.what ?? 'unexpected error'}${name === undefined ? '' : ` (${name})`}`,
    { advice: explanation?.advice, cause: error },
  );
}
