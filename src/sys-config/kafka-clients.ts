/**
 * The clients of brod. Source: brod, `brod_client.erl`, `brod_producer.erl`; kafka_protocol, `kpro_connection.erl`.
 */

import { formatAddress } from '../config/address.ts';
import type { CompressionType } from '../config/config.ts';
import { carryOver, type ImportOutput, type ImportPlace } from './carry-over.ts';
import { Settings } from './settings.ts';
import { importTlsOptions, NO_OPTIONS } from './ssl-options.ts';
import { isAtom, itemsOf, type Setting, textOf } from './term.ts';
import { hostText, plainText, type ValueReader, wholeNumber } from './values.ts';

const SASL_MECHANISMS: Readonly<Record<string, string>> = {
  plain: 'PLAIN',
  scram_sha_256: 'SCRAM-SHA-256',
  scram_sha_512: 'SCRAM-SHA-512',
};

/** By brod's names (kafka_protocol, `kpro_compress.erl`) */
const COMPRESSIONS: Readonly<Record<string, CompressionType>> = {
  no_compression: 'none',
  gzip: 'gzip',
  snappy: 'snappy',
  lz4: 'lz4',
  zstd: 'zstd',
};

/** Internals of brod that cdc-notifier handles by itself. */
const NOT_NEEDED = [
  'auto_start_producers',
  'debug',
  'extra_sock_opts',
  'get_metadata_timeout_seconds',
  'max_metadata_sock_retry',
  'nolink',
  'query_api_versions',
  'reconnect_cool_down_seconds',
  'restart_delay_seconds',
  'unknown_topic_cache_ttl',
];

/** Batching and retries of brod, which cdc-notifier does in its own way. */
const PRODUCER_NOT_NEEDED = [
  'ack_timeout',
  'max_batch_size',
  'max_linger_count',
  'max_linger_ms',
  'max_retries',
  'partition_buffer_limit',
  'partition_onwire_limit',
  'produce_req_vsn',
  'retry_backoff_ms',
];

/** Converts the section `brod`. */
export function importKafkaClients(brod: Setting, output: ImportOutput): void {
  const settings = Settings.read(brod, output.report);
  const clients = settings?.take('clients');
  settings?.reportRest();
  const entries = clients === undefined ? undefined : Settings.read(clients, output.report);
  for (const [name, client] of entries?.rest() ?? []) importClient(name, client, output);
}

function importClient(name: string, client: Setting, output: ImportOutput): void {
  const { draft, report } = output;
  const place: ImportPlace = { ...output, target: ['kafka_clients', name] };
  const below = (key: string): ImportPlace => ({ ...output, target: [...place.target, key] });
  const settings = Settings.read(client, report);
  if (settings === undefined) return;
  draft.setMapping(place.target, client);
  importEndpoints(settings.take('endpoints'), below('brokers'));
  draft.set(below('client_id').target, name, { origin: client, comment: 'Client id of the old service' });
  importTls(settings.take('ssl'), below('tls'));
  importSasl(settings.take('sasl'), name, below('sasl'));
  importProducer(settings.take('default_producer_config'), place);
  carryOver(settings, 'connect_timeout', { ...place, read: wholeNumber });
  carryOver(settings, 'request_timeout', { ...place, read: wholeNumber });
  const topicCreation = settings.take('allow_topic_auto_creation');
  if (topicCreation !== undefined && !isAtom(topicCreation.term, 'false')) {
    report.addQuestion(topicCreation, 'is not supported: both topics of each namespace must exist');
  }
  settings.drop(NOT_NEEDED, 'configures internals of brod');
  settings.reportRest();
}

function importEndpoints(endpoints: Setting | undefined, { target, draft, report }: ImportPlace): void {
  if (endpoints === undefined) return;
  const items = itemsOf(endpoints.term);
  if (items === undefined) {
    report.addQuestion(endpoints, 'is not a list of {Host, Port}', target);
    return;
  }
  const brokers: string[] = [];
  for (const [index, term] of items.entries()) {
    const steps = [...endpoints.steps, index];
    const [hostTerm, portTerm, ...others] = term.kind === 'tuple' ? term.items : [];
    if (hostTerm === undefined || portTerm === undefined || others.length > 0) {
      report.addQuestion({ term, steps }, 'is not {Host, Port}', target);
      continue;
    }
    const host = hostText({ term: hostTerm, steps }, report, target);
    const port = wholeNumber({ term: portTerm, steps }, report, target);
    if (host !== undefined && port !== undefined) brokers.push(formatAddress({ host, port }));
  }
  draft.set(target, brokers, { origin: endpoints });
}

/** In brod `true` means TLS without verification, and an empty list of options means plaintext. */
function importTls(ssl: Setting | undefined, { target, draft, report }: ImportPlace): void {
  if (ssl === undefined || isAtom(ssl.term, 'false') || isAtom(ssl.term, 'undefined')) return;
  if (itemsOf(ssl.term)?.length === 0) {
    report.addQuestion(ssl, 'is an empty list, which means plaintext in brod; tls: {} encrypts');
    return;
  }
  draft.setMapping(target, ssl);
  const isBare = isAtom(ssl.term, 'true');
  const { verify, serverName } = isBare ? NO_OPTIONS : importTlsOptions(ssl, { target, draft, report });
  if (verify !== 'peer') {
    const by = draft.has([...target, 'ca']) ? 'by ca' : 'by the CA certificates of the system unless ca is set';
    const before =
      verify === 'none'
        ? 'has verify_none: the brokers were not verified'
        : 'has no verify_peer: before OTP 26 the brokers were not verified';
    report.addQuestion(ssl, `${before}, now they always are, ${by}`);
  }
  if (serverName === undefined) return;
  if (isAtom(serverName.term, 'disable')) {
    report.addQuestion(serverName, 'is not supported: the name in the certificate of each broker is always verified');
    return;
  }
  const name = plainText(serverName, report, [...target, 'server_name']);
  if (name !== undefined) draft.set([...target, 'server_name'], name, { origin: serverName });
}

/** `{Mechanism, User, Password}`, or `{Mechanism, File}` with the user in the file's first line, the password below. */
function importSasl(sasl: Setting | undefined, client: string, { target, draft, report }: ImportPlace): void {
  if (sasl === undefined || isAtom(sasl.term, 'undefined')) return;
  const [tag, user, password, ...others] = sasl.term.kind === 'tuple' ? sasl.term.items : [];
  const mechanism = tag?.kind === 'atom' ? SASL_MECHANISMS[tag.name] : undefined;
  if (mechanism === undefined || user === undefined || others.length > 0) {
    report.addQuestion(sasl, 'is not {Mechanism, User, Password} with plain, scram_sha_256 or scram_sha_512', target);
    // --check rejects the empty mapping: without the key the service would not authenticate at all.
    draft.setMapping(target, sasl);
    return;
  }
  const [usernameTarget, passwordTarget] = [
    [...target, 'username'],
    [...target, 'password'],
  ];
  draft.set([...target, 'mechanism'], mechanism, { origin: sasl });
  if (password === undefined) {
    // Only a path is shown: any other text may be a secret.
    const path = textOf(user) ?? '';
    const file = path.includes('/') ? `the file ${path}` : 'the file named here';
    report.addQuestion(sasl, `has the user in the first line of ${file}: add it as username`, usernameTarget);
    const comment = `The second line of ${file}`;
    draft.setSecret(passwordTarget, { secret: undefined, owner: client, origin: sasl, comment });
    return;
  }
  const username = plainText({ term: user, steps: [...sasl.steps, 'user'] }, report, usernameTarget);
  if (username !== undefined) draft.set(usernameTarget, username, { origin: sasl });
  const secret = { term: password, steps: [...sasl.steps, 'password'] };
  draft.setSecret(passwordTarget, { secret, owner: client, origin: sasl });
}

function importProducer(producer: Setting | undefined, place: ImportPlace): void {
  const { report } = place;
  const settings = producer === undefined ? undefined : Settings.read(producer, report);
  if (settings === undefined) return;
  const acks = settings.take('required_acks');
  const isAll = acks === undefined || isAtom(acks.term, 'all') || isAtom(acks.term, 'all_isr');
  if (acks !== undefined && !isAll && !(acks.term.kind === 'integer' && acks.term.value === -1n)) {
    report.addQuestion(acks, 'cannot be less than all: each record waits for every in-sync replica');
  }
  carryOver(settings, 'compression', { ...place, read: compressionType });
  settings.drop(PRODUCER_NOT_NEEDED, 'configures internals of brod');
  settings.reportRest();
}

const compressionType: ValueReader<CompressionType> = ({ term, steps }, report, target) => {
  const type = term.kind === 'atom' && Object.hasOwn(COMPRESSIONS, term.name) ? COMPRESSIONS[term.name] : undefined;
  if (type === undefined) report.addQuestion({ term, steps }, 'is not a compression of brod and was dropped', target);
  return type;
};
