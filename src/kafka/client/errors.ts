/**
 * What a failed answer of Kafka means for us: one table, one verdict.
 * Errors are told apart by class and by Kafka's error code (protocol guide, "Error Codes"), never by their text.
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

/**
 * - `acknowledged`: the broker has these very bytes already
 * - `resend`: the same bytes may be taken later, from the same or another leader
 * - `restart`: this producer cannot go on; a new one, from the slot's confirmed LSN, can
 * - `refused`: nothing that the service does by itself will help; it goes on trying as the failure cycle says
 */
export type ProduceVerdict = 'acknowledged' | 'resend' | 'restart' | 'refused';

/** Kafka's error codes that need more than the protocol's own "retriable" flag tells. */
const VERDICTS: Readonly<Record<string, { readonly verdict: ProduceVerdict; readonly advice?: string }>> = {
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
    advice: "Raise the topic's max.message.bytes, or lower segment.bytes no further than it",
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
  NOT_ENOUGH_REPLICAS: {
    verdict: 'resend',
    advice: "Bring brokers back: fewer replicas are in sync than the topic's min.insync.replicas asks for",
  },
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: {
    verdict: 'resend',
    advice: "Bring brokers back: fewer replicas are in sync than the topic's min.insync.replicas asks for",
  },
  KAFKA_STORAGE_ERROR: { verdict: 'resend', advice: 'Look at the disks of the brokers: one is full or broken' },
  SASL_AUTHENTICATION_FAILED: {
    verdict: 'refused',
    advice: 'Check kafka_clients.*.sasl: the broker does not accept this user, password or mechanism',
  },
  ILLEGAL_SASL_STATE: {
    verdict: 'refused',
    advice: 'Remove sasl of the Kafka client, or name a listener of the brokers that asks for it',
  },
  UNSUPPORTED_SASL_MECHANISM: {
    verdict: 'refused',
    advice: 'Set sasl.mechanism of the Kafka client to one that is enabled at the listener',
  },
  INVALID_TOPIC_EXCEPTION: { verdict: 'refused', advice: 'Correct the topic name in the configuration' },
  POLICY_VIOLATION: { verdict: 'refused', advice: 'Ask who runs the brokers which policy refuses the record' },
  INVALID_RECORD: { verdict: 'refused', advice: 'Look into the log of the broker: it does not accept the record' },
  INVALID_TIMESTAMP: {
    verdict: 'refused',
    advice: "Set the clocks right, or raise the topic's message.timestamp.before.max.ms and .after.max.ms",
  },
};

const REACH = 'Check kafka_clients.*.brokers, that the brokers run, and that tls and sasl match their listener';
const UNUSABLE_TLS =
  'Check tls.ca, tls.cert and tls.key: one holds no valid certificate or key, or cert and key do not belong together';
const NOT_TRUSTED = 'Set tls.ca of the Kafka client to the authority that signed the certificate of the brokers';

/** What to do about a connection that cannot be made, by errno or TLS error code. All of these may pass. */
const CONNECT_ADVICE: Readonly<Record<string, string>> = {
  ECONNREFUSED: REACH,
  ECONNRESET: REACH,
  EHOSTUNREACH: REACH,
  ENETUNREACH: REACH,
  ENOTFOUND: REACH,
  EAI_AGAIN: REACH,
  ETIMEDOUT: REACH,
  TIMEOUT: REACH,
  NETWORK: REACH,
  ERR_TLS_CERT_ALTNAME_INVALID:
    'Name the brokers as their certificate does, or set tls.server_name of the Kafka client to a name that it holds',
  DEPTH_ZERO_SELF_SIGNED_CERT: NOT_TRUSTED,
  SELF_SIGNED_CERT_IN_CHAIN: NOT_TRUSTED,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: NOT_TRUSTED,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: NOT_TRUSTED,
  CERT_HAS_EXPIRED: 'Renew the certificate of the brokers',
  ERR_BORINGSSL: UNUSABLE_TLS,
  ERR_OSSL_X509_KEY_VALUES_MISMATCH: UNUSABLE_TLS,
};

/** What to do when a connection failed with this id, where the id tells. */
export function connectAdvice(id: string): string | undefined {
  return CONNECT_ADVICE[id];
}

/** A judged answer. `id` is Kafka's name of the error, `NETWORK` or `TIMEOUT` where none was received. */
export interface KafkaFailure {
  readonly verdict: ProduceVerdict;
  readonly id: string;
  readonly advice?: string | undefined;
}

/** True when a batch was refused for its size, be it by the topic's `max.message.bytes` or by its `segment.bytes`. */
export function isTooLarge({ id }: KafkaFailure): boolean {
  return id === 'MESSAGE_TOO_LARGE' || id === 'RECORD_LIST_TOO_LARGE';
}

/** Judges an error code of a partition in a Produce response, or of a topic in a Metadata response. */
export function judgeErrorCode(code: number): KafkaFailure {
  const known = Object.values(protocolErrors).find((error) => error.code === code);
  if (known === undefined) return { verdict: 'refused', id: `error code ${code}` };
  const own = VERDICTS[known.id];
  if (own !== undefined) return { ...own, id: known.id };
  return { verdict: known.canRetry ? 'resend' : 'refused', id: known.id };
}

/**
 * Judges an error that a request ended with. Lost connections and timeouts are `resend`, whatever the library thinks of
 * them: the broker recognises a batch that it had stored by its sequence.
 */
export function judgeError(error: unknown): KafkaFailure {
  // While it connects the library raises it for two things: TLS came in answer to plain bytes, or the other way round.
  if (firstOfClass(error, UserError) !== undefined) {
    return {
      verdict: 'refused',
      id: 'TLS_MISMATCH',
      advice: 'Set tls of the Kafka client when the listener of its brokers speaks TLS, remove it when it does not',
    };
  }
  const protocol = firstOfClass(error, ProtocolError);
  if (protocol !== undefined) {
    const code = (protocol as { apiCode?: unknown }).apiCode;
    if (typeof code === 'number') return judgeErrorCode(code);
  }
  if (firstOfClass(error, TimeoutError) !== undefined) return { verdict: 'resend', id: 'TIMEOUT' };
  const login = firstOfClass(error, AuthenticationError);
  if (login !== undefined) {
    // A connection that was lost during the login says nothing about the password: TLS bytes look so to a plain client.
    const lost = firstOfClass(login.cause, NetworkError);
    if (lost !== undefined) return { verdict: 'resend', id: networkCode(lost) };
    return {
      verdict: 'refused',
      id: 'SASL_AUTHENTICATION_FAILED',
      advice: VERDICTS.SASL_AUTHENTICATION_FAILED?.advice,
    };
  }
  const network = firstOfClass(error, NetworkError);
  if (network !== undefined) return { verdict: 'resend', id: networkCode(network) };
  if (
    error instanceof Error &&
    'code' in error &&
    typeof error.code === 'string' &&
    !GenericError.isGenericError(error)
  ) {
    return { verdict: 'resend', id: error.code }; // a socket's errno
  }
  // The library fell over the answer, for instance over an error code that is newer than itself (platformatic/kafka 2.12.1).
  if (error instanceof TypeError || error instanceof RangeError) return { verdict: 'resend', id: 'UNREADABLE_ANSWER' };
  return { verdict: 'refused', id: error instanceof Error ? error.name : 'unknown error' };
}

/** Finds an error of a class in the tree that the library builds of causes and aggregates. */
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

/** ECONNREFUSED and the like where the library kept it, else `NETWORK`. */
function networkCode(error: Error): string {
  for (let one: unknown = error; one instanceof Error; one = one.cause) {
    const code = 'code' in one ? one.code : undefined;
    if (typeof code === 'string' && !code.startsWith('PLT_KFK_')) return code;
  }
  return 'NETWORK';
}
