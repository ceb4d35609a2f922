/** What follows from an error of Kafka or of a connection to it, by the id that `identify` (errors.ts) finds. */

/**
 * - `acknowledged`: the broker has stored these bytes already
 * - `resend`: the same or another leader may accept the same bytes later
 * - `restart`: this producer cannot continue; a new one can, from the slot's confirmed LSN
 * - `refused`: only an operator can fix it; the failure cycle tries again all the same
 */
export type ProduceVerdict = 'acknowledged' | 'resend' | 'restart' | 'refused';

/** Errors for which the protocol's own "retriable" flag is not enough, by id. */
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
  TLS_MISMATCH: {
    verdict: 'refused',
    advice: 'Set tls of the Kafka client when the listener of its brokers speaks TLS, remove it when it does not',
  },
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

/** What to do when a connection cannot be opened, by errno or TLS code. Each of these may pass. */
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

/** What to do when a connection failed with this id; undefined when the id does not show it. */
export function connectAdvice(id: string): string | undefined {
  return CONNECT_ADVICE[id];
}

/** A judged error. */
export interface KafkaFailure {
  readonly verdict: ProduceVerdict;
  /** As `identify` found it */
  readonly id: string;
  readonly advice?: string | undefined;
}

/** True when a broker refused a batch for its size: the topic's `max.message.bytes`, or its `segment.bytes`. */
export function isTooLarge({ id }: KafkaFailure): boolean {
  return id === 'MESSAGE_TOO_LARGE' || id === 'RECORD_LIST_TOO_LARGE';
}

/** Judges an error by its id; one that is not in the table by whether it is retriable. */
export function judgeKafkaError({
  id,
  isRetriable,
}: {
  readonly id: string;
  readonly isRetriable: boolean;
}): KafkaFailure {
  const known = VERDICTS[id];
  if (known !== undefined) return { ...known, id };
  return { verdict: isRetriable ? 'resend' : 'refused', id };
}
