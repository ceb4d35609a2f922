/** Loads the configuration: text to tree (`yaml-document.ts`), schema, cross checks, secrets. Reports all mistakes at once. */

import * as v from 'valibot';
import { SecretError } from '../errors.ts';
import type { Config, DatabaseConfig, KafkaClientConfig, StreamConfig } from './config.ts';
import { ConfigError, type ConfigIssue, formatIssue, type PathStep } from './config-error.ts';
import { crossCheck, findTemplates } from './cross-checks.ts';
import { type ConfigFile, configSchema } from './schema.ts';
import { type Environment, errorCode, type FileReader, readBytes, readSecret } from './secret.ts';
import { looksLikePem, pemFrom, type SecretContext, type SecretSource, secretFrom } from './secret-source.ts';
import { keyMistake, pairMistake } from './tls-material.ts';
import { type ConfigDocument, type LocatedSecret, readDocument } from './yaml-document.ts';

/** Options of `parseConfig`. */
export interface ParseOptions {
  /** Name for messages; paths in the file are relative to its directory */
  readonly fileName: string;
  readonly environment: Environment;
  /** Reads secrets and certificates; from the disk by default */
  readonly readFile?: FileReader | undefined;
}

/**
 * Loads a configuration file.
 * @throws ConfigError with every mistake
 */
export function loadConfig(path: string, environment: Environment = process.env): Config {
  return parseConfig(readText(path), { fileName: path, environment });
}

/**
 * As `loadConfig`, from the text of the file.
 * @throws ConfigError with every mistake
 */
export function parseConfig(text: string, options: ParseOptions): Config {
  const { fileName, environment, readFile = readBytes } = options;
  const context: SecretContext = { fileName, environment, readFile };
  const document = readDocument(text, configSchema);
  const issues = [...document.issues];
  if (document.tree === undefined) throw new ConfigError(fileName, issues);

  const checked = v.safeParse(configSchema, document.tree);
  issues.push(...schemaIssues(checked.issues ?? [], document));
  crossCheck(document.tree, (steps, message, at) => {
    if (!document.isLeftOut(steps)) issues.push(document.issueAt(steps, message, at));
  });
  for (const secret of document.secrets) {
    const mistake = unreadableSecret(secret, context);
    if (mistake !== undefined) issues.push(document.issueAt(secret.steps, mistake));
  }
  issues.push(...tlsIssues(document, context));
  if (issues.length > 0 || !checked.success) throw new ConfigError(fileName, issues);
  const warnings = findTemplates(document.tree).map((steps) =>
    formatIssue(fileName, document.issueAt(steps, 'looks like a template that nothing has filled in')),
  );
  return { ...resolveConfig(checked.output, context), warnings };
}

function readText(path: string): string {
  let bytes: Uint8Array;
  try {
    bytes = readBytes(path);
  } catch (error) {
    throw wholeFileError(path, `cannot be read (${errorCode(error)})`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw wholeFileError(path, 'is not UTF-8 text');
  }
}

function wholeFileError(path: string, message: string): ConfigError {
  return new ConfigError(path, [{ path: '', line: 1, column: 1, message }]);
}

/** One issue per place: when a value has the wrong type, its length is of no interest. */
function schemaIssues(found: readonly v.BaseIssue<unknown>[], document: ConfigDocument): ConfigIssue[] {
  const issues = new Map<string, ConfigIssue>();
  for (const { path = [], message } of found) {
    const steps = path.map(({ key }): PathStep => (typeof key === 'number' ? key : String(key)));
    const last = path.at(-1);
    const isKey = last?.type === 'map' && last.origin === 'key';
    const place = JSON.stringify([steps, isKey]);
    if (issues.has(place) || document.isLeftOut(steps)) continue;
    issues.set(place, document.issueAt(steps, message, isKey ? 'key' : 'value'));
  }
  return [...issues.values()];
}

function unreadableSecret({ source, pem }: LocatedSecret, context: SecretContext): string | undefined {
  const isBarePath = pem && typeof source === 'string' && !looksLikePem(source);
  try {
    const text = readSecret(pem ? pemFrom(source, context) : secretFrom(source, context));
    return pem && !looksLikePem(text) ? 'contains no PEM text (-----BEGIN ...)' : undefined;
  } catch (error) {
    if (!(error instanceof SecretError)) throw error;
    // The text may be a key that lost its first line: it is not shown.
    return isBarePath ? 'is neither PEM text (-----BEGIN ...) nor the path of a readable file' : error.detail;
  }
}

/** Mistakes of keys, and of keys and certificates together. Those that cannot be read are reported already. */
function tlsIssues(document: ConfigDocument, context: SecretContext): ConfigIssue[] {
  const texts = document.secrets
    .filter(({ steps, pem }) => pem && (steps.at(-1) === 'key' || steps.at(-1) === 'cert'))
    .map((secret) => ({
      ...secret,
      section: JSON.stringify(secret.steps.slice(0, -1)),
      text: pemText(secret, context),
    }));
  return texts.flatMap(({ steps, section, text: key }) => {
    if (steps.at(-1) !== 'key' || key === undefined) return [];
    const cert = texts.find((other) => other.section === section && other.steps.at(-1) === 'cert')?.text;
    const mistake = keyMistake(key) ?? (cert === undefined ? undefined : pairMistake(cert, key));
    return mistake === undefined ? [] : [document.issueAt(steps, mistake)];
  });
}

function pemText({ source }: LocatedSecret, context: SecretContext): string | undefined {
  try {
    return readSecret(pemFrom(source, context));
  } catch {
    return undefined;
  }
}

function resolveConfig(file: ConfigFile, context: SecretContext): Omit<Config, 'warnings'> {
  const databases = new Map([...file.databases].map(([ref, entry]) => [ref, resolveDatabase(ref, entry, context)]));
  return {
    kafkaClients: new Map([...file.kafka_clients].map(([name, entry]) => [name, resolveClient(name, entry, context)])),
    streams: resolveStreams(file, databases),
    resendTimeoutMs: file.resend_timeout,
    maxRetries: file.max_retries,
    reconnectTimeoutMs: file.reconnect_timeout,
    shutdownTimeoutMs: file.shutdown_timeout,
    maxRowBytes: file.max_row_bytes,
    http: file.http && {
      host: file.http.host,
      port: file.http.port,
      inFlightLimitMs: file.http.in_flight_limit,
    },
    log: file.log,
  };
}

type FileEntry<Section extends 'databases' | 'kafka_clients'> =
  ConfigFile[Section] extends Map<string, infer Entry> ? Entry : never;

function resolveDatabase(ref: string, entry: FileEntry<'databases'>, context: SecretContext): DatabaseConfig {
  const { host, port, hosts, database, username, password, tls } = entry;
  return {
    ref,
    // The cross checks guarantee that one of the two is present.
    hosts: hosts ?? [{ host: host!, port }],
    database,
    username,
    password: password === undefined ? undefined : secretFrom(password, context),
    tls:
      tls === undefined || tls.mode === 'disable' ? undefined : { mode: tls.mode, ...resolveTlsMaterial(tls, context) },
  };
}

function resolveClient(name: string, entry: FileEntry<'kafka_clients'>, context: SecretContext): KafkaClientConfig {
  const { tls, sasl } = entry;
  return {
    name,
    brokers: entry.brokers,
    clientId: entry.client_id,
    tls: tls && { serverName: tls.server_name, ...resolveTlsMaterial(tls, context) },
    sasl: sasl && { ...sasl, password: secretFrom(sasl.password, context) },
    compression: entry.compression,
    acceptClusterId: entry.accept_cluster_id,
    connectTimeoutMs: entry.connect_timeout,
    requestTimeoutMs: entry.request_timeout,
    maxRequestBytes: entry.max_request_bytes,
    metadataMaxAgeMs: entry.metadata_max_age,
  };
}

function resolveTlsMaterial(
  tls: { ca?: SecretSource | undefined; cert?: SecretSource | undefined; key?: SecretSource | undefined },
  context: SecretContext,
) {
  const resolve = (source: SecretSource | undefined) => (source === undefined ? undefined : pemFrom(source, context));
  return { ca: resolve(tls.ca), cert: resolve(tls.cert), key: resolve(tls.key) };
}

function resolveStreams(file: ConfigFile, databases: ReadonlyMap<string, DatabaseConfig>): StreamConfig[] {
  const resolved: StreamConfig[] = [];
  for (const [databaseRef, slots] of file.streams) {
    const database = databases.get(databaseRef);
    if (database === undefined) continue; // reported by the cross checks
    for (const [slot, namespaces] of slots) {
      const namespaceEntries = [...namespaces].map(
        ([name, entry]) =>
          [
            name,
            {
              kafkaClient: entry.kafka_client,
              eventsinkTopic: entry.eventsink_topic,
              lifecycleTopic: entry.lifecycle_topic,
              replicaIdentity: entry.replica_identity,
              publishColumns: entry.publish_columns,
              onMissingOldTuple: entry.on_missing_old_tuple,
              onInvalid: entry.on_invalid,
              parkingTopic: entry.parking_topic,
            },
          ] as const,
      );
      const given = file.slots?.get(databaseRef)?.get(slot);
      const settings = { failover: given?.failover ?? false, acceptLossAfterLsn: given?.accept_loss_after };
      resolved.push({ databaseRef, database, slot, settings, namespaces: new Map(namespaceEntries) });
    }
  }
  return resolved;
}
