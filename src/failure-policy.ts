/**
 * What follows from each failure: the one table of both sides, PostgreSQL and Kafka. A row is found by the class of an
 * error, by SQLSTATE, by errno or code of the driver and of TLS, or by Kafka's name of an error; never by text, which is
 * translated and changes between versions. Pure.
 */
import {
  InvalidRowError,
  LossError,
  MalformedError,
  NotifierError,
  SecretError,
  SetupError,
  SinkError,
  SlotInUseError,
  SourceError,
} from './errors.ts';
import { formatLsn } from './lsn.ts';
import { contextOf, lsnInContext, SQL_STATE, sqlStateOf } from './postgres/client/errors.ts';

/**
 * - `retry`: it may pass by itself; the next attempt follows after `reconnect_timeout`
 * - `wait_for_slot`: another process streams from the slot; wait until it is free
 * - `needs_operator`: only an operator can fix it. The stream still tries again every `reconnect_timeout`, which takes a fix
 *   up without a restart, and skips nothing
 */
export type FailureAction = 'retry' | 'wait_for_slot' | 'needs_operator';

/** What a failure is about: a label of the metrics, so the list is short and fixed. */
export type FailureReason =
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
  | 'source'
  | 'loss'
  | 'invalid-row'
  | 'row-too-large'
  | 'malformed'
  | 'setup'
  | 'hazard'
  | 'secret'
  | 'kafka-unavailable'
  | 'kafka-refused';

/**
 * What a failure belongs to: `instance` is the process, its configuration, credentials, connections, rights and topics, and
 * another process may do better; `stream` is rows, slot and publications, which are the same for every process.
 */
export type Concern = 'instance' | 'stream';

const STREAM_REASONS: ReadonlySet<FailureReason> = new Set([
  'loss',
  'hazard',
  'invalid-row',
  'row-too-large',
  'malformed',
  'wal-missing',
  'object-missing',
]);

/** Returns what a failure with this reason belongs to. */
export function concernOf(reason: FailureReason): Concern {
  return STREAM_REASONS.has(reason) ? 'stream' : 'instance';
}

/** What follows from a failure. */
export interface FailureVerdict {
  readonly action: FailureAction;
  readonly reason: FailureReason;
}

/**
 * What a producer does with the batches that an error is about:
 * - `acknowledged`: the broker has stored these bytes already
 * - `resend`: the same or another leader may accept the same bytes later
 * - `restart`: this producer cannot continue; a new one can, from the slot's confirmed LSN
 * - `refused`: only an operator can fix it
 */
export type ProduceVerdict = 'acknowledged' | 'resend' | 'restart' | 'refused';

/** A row of PostgreSQL's side. */
interface SourceRow extends FailureVerdict {
  /** Completes `Cannot follow PostgreSQL: ...` */
  readonly what: string;
  readonly advice?: string;
}

/** A row of the network and of TLS, for both sides. On Kafka's side all of these are resent: a broker may be one of many. */
interface ConnectionRow extends FailureVerdict {
  readonly what: string;
  /** By side, because each has settings of its own; absent where there is nothing to do but wait */
  readonly advice?: { readonly source: string; readonly sink: string };
}

/** A row of Kafka's side; `what` is Kafka's own name of the error. */
interface KafkaRow {
  readonly verdict: ProduceVerdict;
  readonly advice?: string;
}

/** Causes that need an operator, and the ones that may pass, as they are named in every table below. */
const needsOperator = (reason: FailureReason): FailureVerdict => ({ action: 'needs_operator', reason });
const retry = (reason: FailureReason): FailureVerdict => ({ action: 'retry', reason });

/** By class: errors that the service raises on purpose; undefined for all others. */
function byClass(error: unknown): FailureVerdict | undefined {
  if (error instanceof LossError) return needsOperator('loss');
  if (error instanceof InvalidRowError) return needsOperator('invalid-row');
  if (error instanceof MalformedError) return needsOperator('malformed');
  if (error instanceof SetupError && error.isHazard) return needsOperator('hazard');
  if (error instanceof SetupError) return error.mayPass ? retry('setup') : needsOperator('setup');
  if (error instanceof SecretError) return retry('secret');
  if (error instanceof SinkError) return error.retriable ? retry('kafka-unavailable') : needsOperator('kafka-refused');
  // The same cause as SQLSTATE 55006, found before the server refuses.
  if (error instanceof SlotInUseError) return { action: 'wait_for_slot', reason: 'slot-in-use' };
  return undefined;
}

const REACH_SOURCE = 'Check host and port of the database, that the server runs, and the network in between';
const REACH_SINK = 'Check kafka_clients.*.brokers, that the brokers run, and that tls and sasl match their listener';
const REACH = { source: REACH_SOURCE, sink: REACH_SINK } as const;

/** By SQLSTATE; two or three characters stand for a whole class (manual, "PostgreSQL Error Codes"). */
const BY_SQL_STATE: Readonly<Record<string, SourceRow>> = {
  '08': { ...retry('not-reachable'), what: 'the connection failed', advice: REACH_SOURCE },
  [SQL_STATE.protocolViolation]: {
    ...needsOperator('configuration'),
    what: 'a connection pooler answers, or another program',
    advice: 'Point host and port of the database at PostgreSQL itself: poolers pass no replication on',
  },
  [SQL_STATE.readOnlySqlTransaction]: {
    ...retry('not-primary'),
    what: 'the server accepts no writes',
    advice: 'Point host or hosts of the database at the primary, whose default_transaction_read_only must be off',
  },
  '28': {
    ...needsOperator('authentication'),
    what: 'the server does not let us in',
    advice:
      'Check username and password of the database, and that pg_hba.conf lets this user into this database: logical ' +
      'replication needs a line for the database itself, the keyword replication does not match it',
  },
  [SQL_STATE.invalidCatalogName]: {
    ...needsOperator('configuration'),
    what: 'the database does not exist',
    advice: 'Correct `database` in the configuration',
  },
  '40': { ...retry('server-busy'), what: 'the transaction conflicted with another one' },
  [SQL_STATE.insufficientPrivilege]: {
    ...needsOperator('privilege'),
    what: 'the role lacks a right',
    advice:
      'Grant it REPLICATION, CREATE on the database and ownership of the tables, as config/guide/prepare.md, "Roles and privileges", shows',
  },
  [SQL_STATE.undefinedObject]: {
    ...retry('object-missing'),
    what: 'the slot or a publication does not exist',
    advice: 'No action is needed yet: the next attempt finds out what is missing, and reports what it means',
  },
  [SQL_STATE.programLimitExceeded]: {
    ...needsOperator('row-too-large'),
    what: 'the server cannot send a row with its old version, together more than 1 GB',
    advice:
      'Set replica_identity: status_index for the namespace, so that old versions are no longer sent; for the row that is in the ' +
      'WAL already see InvalidRowError in config/guide/runbooks.md',
  },
  [SQL_STATE.transactionTimeout]: { ...retry('server-busy'), what: 'a time limit for transactions ended the session' },
  '53': { ...retry('server-busy'), what: 'the server is short of memory, disk or another resource' },
  [SQL_STATE.tooManyConnections]: {
    ...retry('server-busy'),
    what: 'no connection or walsender is free',
    advice: 'Raise max_wal_senders or max_connections, or end connections that are not needed',
  },
  [SQL_STATE.objectInUse]: {
    action: 'wait_for_slot',
    reason: 'slot-in-use',
    what: 'another process streams from the slot',
    advice:
      'Stop the other one, or wait: after a lost connection the server frees the slot when wal_sender_timeout has passed ' +
      '(SELECT active_pid FROM pg_replication_slots shows the holder)',
  },
  [SQL_STATE.objectNotInPrerequisiteState]: {
    // The next attempt judges what has happened to the slot, and says what to do.
    ...retry('wal-missing'),
    what: 'the slot cannot be used as it is',
    advice: 'See wal_status in pg_replication_slots: WAL that the slot needs may be gone',
  },
  [SQL_STATE.lockNotAvailable]: { ...retry('server-busy'), what: 'another session holds a lock' },
  [SQL_STATE.queryCanceled]: { ...retry('server-busy'), what: 'the server canceled a statement' },
  [SQL_STATE.adminShutdown]: {
    ...retry('server-stopping'),
    what: 'the server ended the connection: it stops, or a session called pg_terminate_backend',
  },
  '57P': { ...retry('server-stopping'), what: 'the server is stopping or starting' },
  [SQL_STATE.undefinedFile]: {
    ...needsOperator('wal-missing'),
    what: 'the server misses a file, probably WAL that the slot needs',
    advice: 'See the log of the server and wal_status in pg_replication_slots',
  },
};

const UNTRUSTED = {
  ...needsOperator('tls'),
  advice: {
    source:
      'Set tls.ca of the database to the authority that signed the certificate of the server; intermediate certificates belong ' +
      'into ssl_cert_file of the server',
    sink:
      'Set tls.ca of the Kafka client to the authority that signed the certificate of the brokers; intermediate certificates ' +
      'belong into the keystore of the brokers',
  },
} as const;
/** The library of TLS says no more than that the chain is wrong. */
const UNVERIFIABLE: ConnectionRow = {
  ...needsOperator('tls'),
  what: 'its certificate, or one of its chain, cannot be verified',
  advice: {
    source: 'Check the certificates with `openssl verify`, and renew the one of the server that is wrong',
    sink: 'Check the certificates with `openssl verify`, and renew the one of the brokers that is wrong',
  },
};
const CLIENT_CERTIFICATE = {
  ...needsOperator('tls'),
  advice: {
    source:
      'Set tls.cert and tls.key of the database to a certificate that is valid and signed by an authority in ssl_ca_file of the server',
    sink: 'Set tls.cert and tls.key of the Kafka client to a certificate that is valid and signed by an authority in the truststore of the brokers',
  },
} as const;
const TLS_VERSION: ConnectionRow = {
  ...needsOperator('tls'),
  what: 'it offers no version of TLS that is still safe',
  advice: {
    source: 'Set ssl_max_protocol_version of the server to TLSv1.2 or newer',
    sink: 'Add TLSv1.2 or TLSv1.3 to ssl.enabled.protocols of the brokers',
  },
};
const NO_COMMON_CIPHER = {
  ...needsOperator('tls'),
  what: 'it refuses the TLS handshake',
  advice: {
    source:
      'Allow the usual ciphers (ssl_ciphers of the server); if it asks for a client certificate, set tls.cert and tls.key',
    sink: 'Allow the usual ciphers (ssl.cipher.suites of the brokers); if they ask for a client certificate, set tls.cert and tls.key',
  },
} as const;
const OTHER_NAME: ConnectionRow = {
  ...needsOperator('tls'),
  what: 'its certificate is for another host name or address',
  advice: {
    source: 'Connect by a name that the certificate contains, or set tls.mode to verify-ca',
    sink: 'Name the brokers as their certificate does, or set tls.server_name of the Kafka client to a name that it contains',
  },
};
const UNUSABLE_TLS_ADVICE =
  'Check tls.ca, tls.cert and tls.key: one holds no valid certificate or key, or cert and key do not belong together';
const UNUSABLE_TLS: ConnectionRow = {
  ...needsOperator('tls'),
  what: 'a certificate or key of the configuration cannot be used',
  advice: { source: UNUSABLE_TLS_ADVICE, sink: UNUSABLE_TLS_ADVICE },
};
const RENEW = { source: 'Renew the certificate of the server', sink: 'Renew the certificate of the brokers' } as const;
/** Every other error of the handshake, by its prefix */
const TLS_FAILED: ConnectionRow = {
  ...retry('tls'),
  what: 'the TLS handshake failed',
  advice: {
    source: 'See the log of the server, and check tls of the database',
    sink: 'See the logs of the brokers, and check tls of the Kafka client',
  },
};
const UNREACHABLE = { ...retry('not-reachable'), advice: REACH } as const;
const LOST = retry('connection-lost');

/** By errno of the system, and by code of the driver, of the Kafka library (TIMEOUT, NETWORK) and of TLS: both sides. */
const BY_CODE: Readonly<Record<string, ConnectionRow>> = {
  ECONNREFUSED: { ...UNREACHABLE, what: 'no process listens there' },
  ENOTFOUND: { ...UNREACHABLE, what: 'the host name does not resolve' },
  EAI_AGAIN: { ...UNREACHABLE, what: 'the host name does not resolve now' },
  EHOSTUNREACH: { ...UNREACHABLE, what: 'there is no route to the host' },
  ENETUNREACH: { ...UNREACHABLE, what: 'there is no route to the network' },
  ETIMEDOUT: { ...UNREACHABLE, what: 'the connection timed out' },
  CONNECT_TIMEOUT: { ...UNREACHABLE, what: 'the connection timed out' },
  TIMEOUT: { ...UNREACHABLE, what: 'the request timed out' },
  NETWORK: { ...UNREACHABLE, what: 'the connection failed' },
  ECONNRESET: { ...LOST, what: 'the connection was reset', advice: { source: REACH_SOURCE, sink: REACH_SINK } },
  EPIPE: { ...LOST, what: 'the connection was closed' },
  CONNECTION_CLOSED: { ...LOST, what: 'the connection was closed' },
  CONNECTION_ENDED: { ...LOST, what: 'the connection was closed' },
  CONNECTION_DESTROYED: { ...LOST, what: 'the connection was closed' },
  SASL_SIGNATURE_MISMATCH: {
    ...needsOperator('authentication'),
    what: 'the server does not know the password',
    advice: {
      source: 'A program other than the server answers: check host, port and tls',
      sink: 'A program other than the broker answers: check brokers and tls',
    },
  },
  DEPTH_ZERO_SELF_SIGNED_CERT: { ...UNTRUSTED, what: 'its certificate is self-signed' },
  SELF_SIGNED_CERT_IN_CHAIN: { ...UNTRUSTED, what: 'its certificate chain is not trusted' },
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: { ...UNTRUSTED, what: 'its certificate chain is not trusted' },
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: { ...UNTRUSTED, what: 'its certificate is not trusted' },
  UNABLE_TO_GET_ISSUER_CERT: { ...UNTRUSTED, what: 'its certificate chain is not trusted' },
  INVALID_CA: { ...UNTRUSTED, what: 'its certificate chain has an authority that may not sign' },
  CERT_UNTRUSTED: { ...UNTRUSTED, what: 'its certificate is not trusted' },
  CERT_REJECTED: { ...UNTRUSTED, what: 'its certificate is rejected' },
  CERT_SIGNATURE_FAILURE: { ...UNTRUSTED, what: 'its certificate was not signed by the authority that is trusted' },
  CERT_CHAIN_TOO_LONG: { ...UNTRUSTED, what: 'its certificate chain is too long' },
  PATH_LENGTH_EXCEEDED: { ...UNTRUSTED, what: 'its certificate chain is longer than an authority in it allows' },
  UNSPECIFIED: UNVERIFIABLE,
  UNABLE_TO_DECRYPT_CERT_SIGNATURE: UNVERIFIABLE,
  UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY: UNVERIFIABLE,
  ERROR_IN_CERT_NOT_BEFORE_FIELD: UNVERIFIABLE,
  ERROR_IN_CERT_NOT_AFTER_FIELD: UNVERIFIABLE,
  CERT_REVOKED: {
    ...needsOperator('tls'),
    what: 'its certificate is revoked',
    advice: RENEW,
  },
  CERT_NOT_YET_VALID: {
    ...needsOperator('tls'),
    what: 'its certificate is not valid yet',
    advice: {
      source: 'Correct the clock of this machine, or renew the certificate of the server',
      sink: 'Correct the clock of this machine, or renew the certificate of the brokers',
    },
  },
  INVALID_PURPOSE: {
    ...needsOperator('tls'),
    what: 'its certificate is not made for servers, or one of its chain may not sign',
    advice: {
      source:
        'Issue a certificate for the server with the extended key usage serverAuth, by an authority whose own certificate has CA:TRUE',
      sink: 'Issue certificates for the brokers with the extended key usage serverAuth, by an authority whose own certificate has CA:TRUE',
    },
  },
  HOSTNAME_MISMATCH: OTHER_NAME,
  ERR_TLS_CERT_ALTNAME_INVALID: OTHER_NAME,
  ERR_SSL_TLSV1_ALERT_CERTIFICATE_REQUIRED: { ...CLIENT_CERTIFICATE, what: 'it asks for a client certificate' },
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: { ...CLIENT_CERTIFICATE, what: 'it does not trust the client certificate' },
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED: { ...CLIENT_CERTIFICATE, what: 'the client certificate has expired' },
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED: { ...CLIENT_CERTIFICATE, what: 'the client certificate is revoked' },
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: { ...CLIENT_CERTIFICATE, what: 'it does not accept the client certificate' },
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN: { ...CLIENT_CERTIFICATE, what: 'it does not accept the client certificate' },
  ERR_SSL_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE: {
    ...CLIENT_CERTIFICATE,
    what: 'it does not accept the client certificate',
  },
  ERR_SSL_TLSV1_ALERT_ACCESS_DENIED: { ...CLIENT_CERTIFICATE, what: 'it does not accept the client certificate' },
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: TLS_VERSION,
  ERR_SSL_UNSUPPORTED_PROTOCOL: TLS_VERSION,
  ERR_SSL_WRONG_VERSION_NUMBER: {
    ...needsOperator('tls'),
    what: 'it does not answer in TLS',
    advice: {
      source: 'Check host and port of the database: a program other than PostgreSQL answers there',
      sink: 'Set tls of the Kafka client only for a listener of the brokers that uses TLS',
    },
  },
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: NO_COMMON_CIPHER,
  ERR_BORINGSSL: UNUSABLE_TLS,
  ERR_OSSL_X509_KEY_VALUES_MISMATCH: UNUSABLE_TLS,
  CERT_HAS_EXPIRED: {
    ...needsOperator('tls'),
    what: 'its certificate has expired',
    advice: RENEW,
  },
};

const MORE_REPLICAS = "Bring brokers back: fewer replicas are in sync than the topic's min.insync.replicas requires";

/** By Kafka's name of the error: those for which the protocol's own "retriable" flag is not enough. */
const BY_KAFKA_ERROR: Readonly<Record<string, KafkaRow>> = {
  DUPLICATE_SEQUENCE_NUMBER: { verdict: 'acknowledged' },
  OUT_OF_ORDER_SEQUENCE_NUMBER: { verdict: 'restart' },
  UNKNOWN_PRODUCER_ID: { verdict: 'restart' },
  INVALID_PRODUCER_EPOCH: { verdict: 'restart' },
  INVALID_PRODUCER_ID_MAPPING: { verdict: 'restart' },
  PRODUCER_FENCED: { verdict: 'restart' },
  BROKER_NOT_AVAILABLE: { verdict: 'resend' },
  MESSAGE_TOO_LARGE: {
    verdict: 'refused',
    advice: "Raise the topic's max.message.bytes (and replica.fetch.max.bytes of the brokers)",
  },
  RECORD_LIST_TOO_LARGE: {
    verdict: 'refused',
    advice: "Raise the topic's max.message.bytes, or keep segment.bytes at least as large",
  },
  UNKNOWN_TOPIC_OR_PARTITION: {
    verdict: 'resend',
    advice: 'Create the topic (this service never creates one), with the partition count that its consumers expect',
  },
  TOPIC_AUTHORIZATION_FAILED: {
    verdict: 'refused',
    advice: 'Grant the user of this Kafka client WRITE and DESCRIBE on the topic',
  },
  CLUSTER_AUTHORIZATION_FAILED: {
    verdict: 'refused',
    advice: 'Grant the user of this Kafka client WRITE on its topics, or IDEMPOTENT_WRITE on the cluster',
  },
  NOT_ENOUGH_REPLICAS: { verdict: 'resend', advice: MORE_REPLICAS },
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: { verdict: 'resend', advice: MORE_REPLICAS },
  KAFKA_STORAGE_ERROR: { verdict: 'resend', advice: 'Look at the disks of the brokers: one is full or broken' },
  TLS_MISMATCH: {
    verdict: 'refused',
    advice: 'Set tls of the Kafka client when the listener of its brokers uses TLS, remove it when it does not',
  },
  TLS_HANDSHAKE_CLOSED: {
    verdict: 'resend',
    advice:
      'See whether a broker runs there: a load balancer without one closes the connection. When the listener of the brokers ' +
      'uses no TLS, remove tls of the Kafka client',
  },
  SASL_AUTHENTICATION_FAILED: {
    verdict: 'refused',
    advice: 'Check kafka_clients.*.sasl: the broker does not accept this user, password or mechanism',
  },
  ILLEGAL_SASL_STATE: {
    verdict: 'refused',
    advice: 'Remove sasl of the Kafka client, or use a listener of the brokers that requires it',
  },
  UNSUPPORTED_SASL_MECHANISM: {
    verdict: 'refused',
    advice: 'Set sasl.mechanism of the Kafka client to one that is enabled at the listener',
  },
  INVALID_TOPIC_EXCEPTION: { verdict: 'refused', advice: 'Correct the topic name in the configuration' },
  POLICY_VIOLATION: {
    verdict: 'refused',
    advice: 'Ask the operators of the brokers which policy refuses the record',
  },
  INVALID_RECORD: { verdict: 'refused', advice: 'See the log of the broker: it does not accept the record' },
  INVALID_TIMESTAMP: {
    verdict: 'refused',
    advice: "Correct the clocks, or raise the topic's message.timestamp.before.max.ms and .after.max.ms",
  },
};

/** For an error in none of the tables: one more attempt costs little, and skips nothing. */
const UNKNOWN: SourceRow = { ...retry('source'), what: 'unexpected error' };

/** What follows when an attempt to stream has failed. */
export function judgeFailure(error: unknown): FailureVerdict {
  const known = byClass(error);
  if (known !== undefined) return known;
  // A SourceError of the service is judged by its cause.
  const { action, reason } = lookUp(error instanceof SourceError ? error.cause : error).row;
  return { action, reason };
}

/** An error that was raised on purpose as it is; any other as a SourceError with what, why and advice, and `error` as its cause. */
export function explainFailure(error: unknown): NotifierError {
  if (error instanceof NotifierError) return error;
  const { row, foundBy } = lookUp(error);
  // The change that the server failed on, where it was decoding one.
  const lsn = lsnInContext(contextOf(error));
  return new SourceError(`Cannot follow PostgreSQL: ${row.what}${foundBy === undefined ? '' : ` (${foundBy})`}`, {
    code: row.reason.replaceAll('-', '_'),
    advice: row.advice,
    ...(lsn === undefined ? {} : { place: { lsn: formatLsn(lsn) } }),
    cause: error,
  });
}

function connectionRow(code: string): ConnectionRow | undefined {
  return BY_CODE[code] ?? (code.startsWith('ERR_SSL_') ? TLS_FAILED : undefined);
}

/** Finds an error of PostgreSQL's side in the tables; `foundBy` is what it was found by. */
function lookUp(error: unknown): { readonly row: SourceRow; readonly foundBy: string | undefined } {
  const state = sqlStateOf(error);
  if (state !== undefined) {
    const row = BY_SQL_STATE[state] ?? BY_SQL_STATE[state.slice(0, 3)] ?? BY_SQL_STATE[state.slice(0, 2)];
    return { row: row ?? UNKNOWN, foundBy: `SQLSTATE ${state}` };
  }
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
  const row = connectionRow(code ?? '');
  if (row === undefined) return { row: UNKNOWN, foundBy: code };
  const { action, reason, what, advice } = row;
  return {
    row: { action, reason, what, ...(advice === undefined ? {} : { advice: advice.source }) },
    foundBy: code,
  };
}

/** A judged error of Kafka's side. */
export interface KafkaFailure {
  readonly verdict: ProduceVerdict;
  /** Kafka's name of the error, an errno or a TLS code, as kafka/client/errors.ts identifies it */
  readonly id: string;
  readonly advice?: string | undefined;
}

/**
 * Judges an error of Kafka's side; one that is not in the table by whether it is retriable.
 * @param error as kafka/client/errors.ts identifies it
 */
export function judgeKafkaError({
  id,
  isRetriable,
}: {
  readonly id: string;
  readonly isRetriable: boolean;
}): KafkaFailure {
  const known = BY_KAFKA_ERROR[id];
  if (known !== undefined) return { ...known, id };
  return { verdict: isRetriable ? 'resend' : 'refused', id };
}

/** What to do when a connection to a broker failed with this id; undefined when the id does not show it. */
export function connectAdvice(id: string): string | undefined {
  return connectionRow(id)?.advice?.sink;
}

/** True when a batch was refused for its size: by the topic, or by the brokers whatever the topic. */
export function isTooLarge(failure: KafkaFailure): boolean {
  return isTooLargeForTopic(failure) || failure.id === 'REQUEST_TOO_LARGE';
}

/** True when a broker refused a batch for the limits of its topic: `max.message.bytes`, or `segment.bytes`. */
export function isTooLargeForTopic({ id }: KafkaFailure): boolean {
  return id === 'MESSAGE_TOO_LARGE' || id === 'RECORD_LIST_TOO_LARGE';
}
