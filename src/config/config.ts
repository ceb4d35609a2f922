/**
 * The configuration as the service uses it: checked, with resolved references, and with units in the names.
 * `load.ts` creates it from a file; `schema.ts` defines the keys of a file.
 */

import type { Lsn } from '../lsn.ts';
import type { Secret } from './secret.ts';

/** One configuration file. */
export interface Config {
  /** By name, in the order of the file; includes clients that no namespace uses */
  readonly kafkaClients: ReadonlyMap<string, KafkaClientConfig>;
  /** One per slot, in the order of the file; never empty */
  readonly streams: readonly StreamConfig[];
  /** Pause between two attempts to send the same records */
  readonly resendTimeoutMs: number;
  /** How often a failed send is repeated before replication of its slot restarts; 0 = never */
  readonly maxRetries: number;
  /** Pause before replication of a slot restarts after any failure */
  readonly reconnectTimeoutMs: number;
  /** Longest time that a stop takes as a whole */
  readonly shutdownTimeoutMs: number;
  /** Most bytes of the values of a row that its record is made of; absent = by the memory of the process */
  readonly maxRowBytes: number | undefined;
  /** Absent = no HTTP listener */
  readonly http: HttpConfig | undefined;
  readonly log: LogConfig;
  /** What is allowed and most probably wrong, as `FILE:LINE:COLUMN: path: message` */
  readonly warnings: readonly string[];
}

/** Address of a server. */
export interface ServerAddress {
  /** Host name, IPv4 address, or IPv6 address without brackets */
  readonly host: string;
  readonly port: number;
}

/** One PostgreSQL database, on a server or on a primary and its standbys. */
export interface DatabaseConfig {
  /** db_ref: the name of this entry in the file */
  readonly ref: string;
  /** Never empty; of several, the service follows the one that accepts writes, see `findPrimary` */
  readonly hosts: readonly ServerAddress[];
  readonly database: string;
  readonly username: string;
  /** Absent only when there is a client certificate */
  readonly password: Secret | undefined;
  /** Absent = plaintext (no `tls` in the file, or `mode: disable`) */
  readonly tls: DatabaseTlsConfig | undefined;
}

/** A database with one of its addresses. */
export interface DatabaseEndpoint extends Omit<DatabaseConfig, 'hosts'>, ServerAddress {}

/** Encryption to PostgreSQL. `require` verifies nothing, `verify-ca` the chain, `verify-full` the chain and the host name. */
export interface DatabaseTlsConfig extends TlsMaterial {
  readonly mode: 'require' | 'verify-ca' | 'verify-full';
}

/** PEM texts, read again for each connection so that renewed files take effect. */
export interface TlsMaterial {
  /** CA certificates to trust; absent = those of the system */
  readonly ca: Secret | undefined;
  /** Client certificate (chain); present exactly when `key` is */
  readonly cert: Secret | undefined;
  readonly key: Secret | undefined;
}

/** Access to one Kafka cluster. */
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
  /** The cluster that may take the place of the one that a slot delivered to before */
  readonly acceptClusterId: string | undefined;
  readonly connectTimeoutMs: number;
  readonly requestTimeoutMs: number;
  /** The largest Produce request that is sent */
  readonly maxRequestBytes: number;
  /** Interval between updates of the known brokers, topics and leaders */
  readonly metadataMaxAgeMs: number;
}

/** Compression of record batches, by Kafka's names. */
export type CompressionType = 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd';

/** Encryption to Kafka. */
export interface KafkaTlsConfig extends TlsMaterial {
  /** Name to send (SNI) and to verify instead of each broker's host */
  readonly serverName: string | undefined;
}

/** Authentication to Kafka. */
export interface KafkaSaslConfig {
  readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512';
  readonly username: string;
  readonly password: Secret;
}

/** One replication slot and its namespaces. */
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

/** Settings of a slot, beside its namespaces. */
export interface SlotSettings {
  /** True when standbys keep a copy of the slot (PostgreSQL 17 and newer), which survives the loss of the primary */
  readonly failover: boolean;
  /** The stream continues although changes after exactly this LSN are lost; absent = it stops at any loss */
  readonly acceptLossAfterLsn: Lsn | undefined;
}

/** How much of a namespace's rows the server writes to the WAL and sends: everything by default. */
export interface PublishSettings {
  /** Source of the old status in updates of processes: the whole old row, or an index created by the operator */
  readonly replicaIdentity: 'full' | 'status_index';
  /** Which columns are published; `needed` requires `status_index` */
  readonly publishColumns: 'all' | 'needed';
}

/** Destination of one namespace's records, and the handling of its invalid rows. */
export interface NamespaceConfig extends PublishSettings {
  /** A key of `Config.kafkaClients` */
  readonly kafkaClient: string;
  readonly eventsinkTopic: string;
  readonly lifecycleTopic: string;
  /** What to do with an update of a process that carries no old tuple */
  readonly onMissingOldTuple: 'stop' | 'skip';
  /** What to do with a row that cannot be converted to a record: stop its slot, or park it in `parkingTopic` and continue */
  readonly onInvalid: 'stop' | 'park';
  /** Present exactly when `onInvalid` is `park`; neither of the other two topics */
  readonly parkingTopic: string | undefined;
}

/** The HTTP listener. */
export interface HttpConfig extends ServerAddress {
  /** A stream becomes unready when a row received is not acknowledged by Kafka for longer */
  readonly inFlightLimitMs: number;
}

/** Level and format of the log. */
export interface LogConfig {
  readonly level: LogLevel;
  /** `auto` = text when stderr is a terminal, JSON lines otherwise */
  readonly format: LogFormat;
}

/** Lowest level that is logged. */
export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal';

/** Format of the log. */
export type LogFormat = 'auto' | 'json' | 'text';
