/**
 * The clients of brod. Source: brod, `brod_client.erl`, `brod_producer.erl`; kafka_protocol, `kpro_connection.erl`.
 */

import { formatAddress } from '../config/address.ts';
import type { CompressionType } from '../config/config.ts';
import { carryOver, type ImportOutput, type ImportPlace } from './carry-over.ts';
import type { Setting } from './import-report.ts';
import { hostText, plainText, Settings, type ValueReader, wholeNumber } from './settings.ts';
import { importTlsOptions, NO_OPTIONS } from './ssl-options.ts';
import { isAtom, itemsOf, textOf } from './term.ts';

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

/** What brod needs to work, and the service does by itself. */
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

/** How brod batches and repeats, which the service does in its own way. */
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

/** Carries over the section `brod`. */
export function importKafkaClients(brod: Setting, output: ImportOutput): void {
  const settings = Settings.read(brod, output.findings);
  const clients = settings?.take('clients');
  settings?.reportRest();
  const entries = clients === undefined ? undefined : Settings.read(clients, output.findings);
  for (const [name, client] of entries?.rest() ?? []) importClient(name, client, output);
}

function importClient(name: string, client: Setting, output: ImportOutput): void {
  const { draft, findings } = output;
  const place: ImportPlace = { ...output, target: ['kafka_clients', name] };
  const below = (key: string): ImportPlace => ({ ...output, target: [...place.target, key] });
  const settings = Settings.read(client, findings);
  if (settings === undefined) return;
  draft.setMapping(place.target, client);
  importEndpoints(settings.take('endpoints'), below('brokers'));
  draft.set(below('client_id').target, name, { origin: client, comment: 'As the brokers know the old service' });
  importTls(settings.take('ssl'), below('tls'));
  importSasl(settings.take('sasl'), name, below('sasl'));
  importProducer(settings.take('default_producer_config'), place);
  carryOver(settings, 'connect_timeout', { ...place, read: wholeNumber });
  carryOver(settings, 'request_timeout', { ...place, read: wholeNumber });
  const topicCreation = settings.take('allow_topic_auto_creation');
  if (topicCreation !== undefined && !isAtom(topicCreation.term, 'false')) {
    findings.open(topicCreation, 'is not possible here: both topics of each namespace must exist');
  }
  settings.drop(NOT_NEEDED, 'concerns the inner workings of brod');
  settings.reportRest();
}

function importEndpoints(endpoints: Setting | undefined, { target, draft, findings }: ImportPlace): void {
  if (endpoints === undefined) return;
  const items = itemsOf(endpoints.term);
  if (items === undefined) {
    findings.open(endpoints, 'is not a list of {Host, Port}', target);
    return;
  }
  const brokers: string[] = [];
  for (const [index, term] of items.entries()) {
    const steps = [...endpoints.steps, index];
    const [hostTerm, portTerm, ...others] = term.kind === 'tuple' ? term.items : [];
    if (hostTerm === undefined || portTerm === undefined || others.length > 0) {
      findings.open({ term, steps }, 'is not {Host, Port}', target);
      continue;
    }
    const host = hostText({ term: hostTerm, steps }, findings, target);
    const port = wholeNumber({ term: portTerm, steps }, findings, target);
    if (host !== undefined && port !== undefined) brokers.push(formatAddress({ host, port }));
  }
  draft.set(target, brokers, { origin: endpoints });
}

/** To brod `true` is TLS that verifies nothing, and an empty list of options is plaintext. */
function importTls(ssl: Setting | undefined, { target, draft, findings }: ImportPlace): void {
  if (ssl === undefined || isAtom(ssl.term, 'false') || isAtom(ssl.term, 'undefined')) return;
  if (itemsOf(ssl.term)?.length === 0) {
    findings.open(ssl, 'is an empty list, which brod takes for plaintext; tls: {} would encrypt');
    return;
  }
  draft.setMapping(target, ssl);
  const isBare = isAtom(ssl.term, 'true');
  const { verify, serverName } = isBare ? NO_OPTIONS : importTlsOptions(ssl, { target, draft, findings });
  if (verify !== 'peer') {
    const by = draft.has([...target, 'ca']) ? 'by ca' : 'by the authorities of the system where ca is not given';
    const before =
      verify === 'none'
        ? 'says verify_none: the brokers were not verified'
        : 'does not say verify_peer: before OTP 26 the brokers were not verified';
    findings.open(ssl, `${before}, here they always are, ${by}`);
  }
  if (serverName === undefined) return;
  if (isAtom(serverName.term, 'disable')) {
    findings.open(serverName, 'is not possible here: the name in the certificate of each broker is verified');
    return;
  }
  const name = plainText(serverName, findings, [...target, 'server_name']);
  if (name !== undefined) draft.set([...target, 'server_name'], name, { origin: serverName });
}

/** `{Mechanism, User, Password}`, or `{Mechanism, File}` with the user in the file's first line, the password below. */
function importSasl(sasl: Setting | undefined, client: string, { target, draft, findings }: ImportPlace): void {
  if (sasl === undefined || isAtom(sasl.term, 'undefined')) return;
  const [tag, user, password, ...others] = sasl.term.kind === 'tuple' ? sasl.term.items : [];
  const mechanism = tag?.kind === 'atom' ? SASL_MECHANISMS[tag.name] : undefined;
  if (mechanism === undefined || user === undefined || others.length > 0) {
    findings.open(sasl, 'is not {Mechanism, User, Password} with plain, scram_sha_256 or scram_sha_512', target);
    // Refused until it is completed: without it the service would not authenticate at all.
    draft.setMapping(target, sasl);
    return;
  }
  const [usernameTarget, passwordTarget] = [
    [...target, 'username'],
    [...target, 'password'],
  ];
  draft.set([...target, 'mechanism'], mechanism, { origin: sasl });
  if (password === undefined) {
    // A file is named by its path; what is no path may be anything, even a secret.
    const path = textOf(user) ?? '';
    const file = path.includes('/') ? `the file ${path}` : 'the file that is named here';
    findings.open(sasl, `has the user in the first line of ${file}: add it as username`, usernameTarget);
    const comment = `The second line of ${file}`;
    draft.setSecret(passwordTarget, { secret: undefined, owner: client, origin: sasl, comment });
    return;
  }
  const username = plainText({ term: user, steps: [...sasl.steps, 'user'] }, findings, usernameTarget);
  if (username !== undefined) draft.set(usernameTarget, username, { origin: sasl });
  const secret = { term: password, steps: [...sasl.steps, 'password'] };
  draft.setSecret(passwordTarget, { secret, owner: client, origin: sasl });
}

function importProducer(producer: Setting | undefined, place: ImportPlace): void {
  const { findings } = place;
  const settings = producer === undefined ? undefined : Settings.read(producer, findings);
  if (settings === undefined) return;
  const acks = settings.take('required_acks');
  const isAll = acks === undefined || isAtom(acks.term, 'all') || isAtom(acks.term, 'all_isr');
  if (acks !== undefined && !isAll && !(acks.term.kind === 'integer' && acks.term.value === -1n)) {
    findings.open(acks, 'cannot be less than all here: each record waits for every replica in sync');
  }
  carryOver(settings, 'compression', { ...place, read: compressionType });
  settings.drop(PRODUCER_NOT_NEEDED, 'concerns the inner workings of brod');
  settings.reportRest();
}

const compressionType: ValueReader<CompressionType> = ({ term, steps }, findings, target) => {
  const type = term.kind === 'atom' && Object.hasOwn(COMPRESSIONS, term.name) ? COMPRESSIONS[term.name] : undefined;
  if (type === undefined) findings.open({ term, steps }, 'is no compression of brod and was left out', target);
  return type;
};
