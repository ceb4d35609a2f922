/**
 * The configuration as the service uses it: checked, references resolved, units in the names.
 * `load.ts` makes it from a file; `schema.ts` says what a file may hold.
 */

import type { Lsn } from '../lsn.ts';
import type { Secret } from './secret.ts';

/** Everything that one configuration file says. */
export interface Config {
  /** By name, in the order of the file; includes clients that no namespace uses */
  readonly kafkaClients: ReadonlyMap<string, KafkaClientConfig>;
  /** One per slot, in the order of the file; never empty */
  readonly streams: readonly StreamConfig[];
  /** Pause between two attempts to send the same records */
  readonly resendTimeoutMs: number;
  /** How often a failed send is repeated before replication of its slot is restarted; 0 = never */
  readonly maxRetries: number;
  /** Pause before replication of a slot is restarted after any failure */
  readonly reconnectTimeoutMs: number;
  /** Longest wait for what is in flight when the service is asked to stop */
  readonly shutdownTimeoutMs: number;
  /** Absent = nobody listens */
  readonly http: HttpConfig | undefined;
  readonly log: LogConfig;
}

/** Where a server listens. */
export interface ServerAddress {
  /** Host name, IPv4 address, or IPv6 address without brackets */
  readonly host: string;
  readonly port: number;
}

/** One PostgreSQL database, on a server or on a primary and its standbys. */
export interface DatabaseConfig {
  /** db_ref: the name of this entry in the file */
  readonly ref: string;
  /** Never empty; of several the writable one is followed, see `findPrimary` */
  readonly hosts: readonly ServerAddress[];
  readonly database: string;
  readonly username: string;
  /** Absent only where a client certificate stands in for it */
  readonly password: Secret | undefined;
  /** Absent = plaintext (no `tls` in the file, or `mode: disable`) */
  readonly tls: DatabaseTlsConfig | undefined;
}

/** A database at one of its addresses. */
export interface DatabaseEndpoint extends Omit<DatabaseConfig, 'hosts'>, ServerAddress {}

/**
 * Encryption towards PostgreSQL. `require` verifies nothing, `verify-ca` the chain, `verify-full` the chain and the host
 * name.
 */
export interface DatabaseTlsConfig extends TlsMaterial {
  readonly mode: 'require' | 'verify-ca' | 'verify-full';
}

/** PEM texts, read again at each connection so that renewed files are taken up. */
export interface TlsMaterial {
  /** Certificates of the authorities to trust; absent = those of the system */
  readonly ca: Secret | undefined;
  /** Client certificate (chain); present exactly when `key` is */
  readonly cert: Secret | undefined;
  readonly key: Secret | undefined;
}

/** One Kafka cluster and how to reach it. */
export interface KafkaClientConfig {
  /** The name of this entry in the file */
  readonly name: string;
  /** Bootstrap addresses, never empty */
  readonly brokers: readonly ServerAddress[];
  readonly clientId: string;
  /** Absent = plaintext; the chain and the host name are always verified */
  readonly tls: KafkaTlsConfig | undefined;
  readonly sasl: KafkaSaslConfig | undefined;
  readonly compression: CompressionType;
  readonly connectTimeoutMs: number;
  readonly requestTimeoutMs: number;
  /** How often brokers, topics and their leaders are looked at again */
  readonly metadataMaxAgeMs: number;
}

/** How record batches are compressed, by Kafka's own names. */
export type CompressionType = 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd';

/** Encryption towards Kafka. */
export interface KafkaTlsConfig extends TlsMaterial {
  /** Name to send (SNI) and to verify in place of each broker's host */
  readonly serverName: string | undefined;
}

/** Authentication towards Kafka. */
export interface KafkaSaslConfig {
  readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512';
  readonly username: string;
  readonly password: Secret;
}

/** One replication slot and the namespaces that it serves. */
export interface StreamConfig {
  /** db_ref */
  readonly databaseRef: string;
  readonly database: DatabaseConfig;
  /** Slot name, unique on its server */
  readonly slot: string;
  readonly settings: SlotSettings;
  /** By namespace, in the order of the file; never empty */
  readonly namespaces: ReadonlyMap<string, NamespaceConfig>;
}

/** What a slot is given beside its namespaces. */
export interface SlotSettings {
  /** True when standbys keep a copy of the slot (PostgreSQL 17 and newer), so that it outlives its primary */
  readonly failover: boolean;
  /** The stream continues although changes after exactly this LSN are lost; absent = it stops at any loss */
  readonly acceptLossAfterLsn: Lsn | undefined;
}

/** How much of a namespace's rows the server is to write and to send: by default everything. */
export interface PublishSettings {
  /** By what updates of processes tell the status that they replace: the whole old row, or an index that the operator made */
  readonly replicaIdentity: 'full' | 'status_index';
  /** Which columns are published; `needed` goes with `status_index` only */
  readonly publishColumns: 'all' | 'needed';
}

/** Where the records of one namespace go. */
export interface NamespaceConfig extends PublishSettings {
  /** A key of `Config.kafkaClients` */
  readonly kafkaClient: string;
  readonly eventsinkTopic: string;
  readonly lifecycleTopic: string;
  /** What to do with an update of a process that carries no old tuple */
  readonly onMissingOldTuple: 'stop' | 'skip';
  /** What to do with a row that cannot become a record: stop its slot, or send it to `parkingTopic` and go on */
  readonly onInvalid: 'stop' | 'park';
  /** Present exactly when `onInvalid` is `park`; neither of the other two topics */
  readonly parkingTopic: string | undefined;
}

/** Where the service tells of itself. */
export interface HttpConfig extends ServerAddress {
  /** Ready no more when something received is not acknowledged for longer */
  readonly inFlightLimitMs: number;
}

/** What is logged and how. */
export interface LogConfig {
  readonly level: LogLevel;
  /** `auto` = text when stderr is a terminal, JSON lines otherwise */
  readonly format: LogFormat;
}

/** Lowest level that is logged. */
export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal';

/** Shape of the log. */
export type LogFormat = 'auto' | 'json' | 'text';
