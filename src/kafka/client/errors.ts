/**
 * Which error Kafka, a connection to it, or the library reported. Recognition goes by class and by Kafka's error code
 * (protocol guide, "Error Codes"), never by text; what follows from an error is not decided here.
 */
import {
  AuthenticationError,
  GenericError,
  NetworkError,
  ProtocolError,
  protocolErrors,
  TimeoutError,
  UserError,
} from '@platformatic/kafka';
import { NotifierError } from '../../errors.ts';

/** An error by its name. */
export interface IdentifiedError {
  /**
   * Kafka's name of the error, an errno, a TLS code, or one of ours: `NETWORK`, `TIMEOUT`, `TLS_MISMATCH` (a
   * listener with TLS and a client without), `TLS_HANDSHAKE_CLOSED`, `UNREADABLE_ANSWER`. For an error of none of these kinds, its class.
   */
  readonly id: string;
  /** The protocol's own flag; true for every error of the connection, false for errors of unknown kind */
  readonly isRetriable: boolean;
}

/** Codes of this service's errors for those that have one cause, no matter which request they answer. */
const CODES: Readonly<Record<string, string>> = {
  UNKNOWN_TOPIC_OR_PARTITION: 'topic_missing',
  INVALID_TOPIC_EXCEPTION: 'topic_name_invalid',
  TOPIC_AUTHORIZATION_FAILED: 'topic_not_authorized',
  CLUSTER_AUTHORIZATION_FAILED: 'cluster_not_authorized',
  SASL_AUTHENTICATION_FAILED: 'sasl_refused',
  ILLEGAL_SASL_STATE: 'sasl_not_offered',
  UNSUPPORTED_SASL_MECHANISM: 'sasl_mechanism_unsupported',
  TLS_MISMATCH: 'tls_mismatch',
  TLS_HANDSHAKE_CLOSED: 'tls_handshake_closed',
};

/** The `code` of an error that this service raises for an id; `otherwise` where the id alone does not name the cause. */
export function codeOf(id: string, otherwise: string): string {
  return CODES[id] ?? otherwise;
}

/** Identifies the error code of a partition in a Produce response, or of a topic in a Metadata response. */
export function identifyCode(code: number): IdentifiedError {
  const known = Object.values(protocolErrors).find((error) => error.code === code);
  return known === undefined
    ? { id: `error code ${code}`, isRetriable: false }
    : { id: known.id, isRetriable: known.canRetry };
}

/**
 * Identifies the error that a request ended with. Lost connections and timeouts are retriable, also where the library
 * says otherwise: the broker recognizes a batch that it has stored by its sequence.
 */
export function identify(error: unknown): IdentifiedError {
  // While it connects, the library raises UserError for two things: TLS in answer to plain bytes, and a connection that ends
  // within the TLS handshake, as a listener without TLS ends it, and a load balancer without a broker as well.
  const user = firstOfClass(error, UserError);
  if (user !== undefined) {
    const isClosed = user.cause instanceof Error && 'code' in user.cause && user.cause.code === 'ECONNRESET';
    return isClosed ? { id: 'TLS_HANDSHAKE_CLOSED', isRetriable: true } : { id: 'TLS_MISMATCH', isRetriable: false };
  }
  const protocol = firstOfClass(error, ProtocolError);
  if (protocol !== undefined) {
    const code = (protocol as { apiCode?: unknown }).apiCode;
    if (typeof code === 'number') return identifyCode(code);
  }
  if (firstOfClass(error, TimeoutError) !== undefined) return { id: 'TIMEOUT', isRetriable: true };
  const login = firstOfClass(error, AuthenticationError);
  if (login !== undefined) {
    // A connection lost during the login says nothing about the password: to a plain client, TLS bytes look like that.
    const lost = firstOfClass(login.cause, NetworkError);
    if (lost === undefined) return { id: 'SASL_AUTHENTICATION_FAILED', isRetriable: false };
    return { id: networkCode(lost), isRetriable: true };
  }
  const network = firstOfClass(error, NetworkError);
  if (network !== undefined) return { id: networkCode(network), isRetriable: true };
  if (
    error instanceof Error &&
    'code' in error &&
    typeof error.code === 'string' &&
    !(error instanceof NotifierError) &&
    !GenericError.isGenericError(error)
  ) {
    return { id: error.code, isRetriable: true }; // a socket's errno
  }
  // The library's parser fails on some answers, for instance on an error code newer than itself (platformatic/kafka 2.12.1).
  if (error instanceof TypeError || error instanceof RangeError) return { id: 'UNREADABLE_ANSWER', isRetriable: true };
  return { id: error instanceof Error ? error.name : 'unknown error', isRetriable: false };
}

/** True when a request ended because its connection was closed, without an answer and before its time was over. */
export function isConnectionLost(error: unknown): boolean {
  return firstOfClass(error, NetworkError) !== undefined && firstOfClass(error, TimeoutError) === undefined;
}

/** Finds an error of a class in the tree of causes and aggregates that the library builds. */
function firstOfClass<T extends Error>(
  error: unknown,
  wanted: abstract new (...args: never[]) => T,
  depth = 0,
): T | undefined {
  if (error instanceof wanted) return error;
  if (!(error instanceof Error) || depth > 8) return undefined;
  const inner = [error.cause, ...(error instanceof AggregateError ? error.errors : [])];
  for (const one of inner) {
    const found = firstOfClass(one, wanted, depth + 1);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The errno or TLS code if the library kept it, else `NETWORK`. */
function networkCode(error: Error): string {
  for (let one: unknown = error; one instanceof Error; one = one.cause) {
    const code = 'code' in one ? one.code : undefined;
    if (typeof code === 'string' && !code.startsWith('PLT_KFK_')) return code;
  }
  return 'NETWORK';
}
