import { describe, expect, test } from 'bun:test';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CompressionType, Config } from '../../../src/config/config.ts';
import { ConfigError } from '../../../src/config/config-error.ts';
import { parseConfig } from '../../../src/config/load.ts';
import { type ImportedConfig, importSysConfig, loadSysConfig } from '../../../src/sys-config/import.ts';

const FIXTURES = join(import.meta.dirname, '../../fixtures/sys-config');
const NAMES = readdirSync(FIXTURES)
  .filter((name) => name.endsWith('.config'))
  .map((name) => name.replace(/\.config$/, ''));

function source(name: string): string {
  return readFileSync(join(FIXTURES, `${name}.config`), 'utf8');
}

function importText(text: string): ImportedConfig {
  return importSysConfig(Buffer.from(text), 'sys.config');
}

/** The new file as the service reads it, each secret being the name of its variable. */
function parse({ yaml }: ImportedConfig): Config {
  const environment = Object.fromEntries(variablesIn(yaml).map((name) => [name, `value of ${name}`]));
  const readFile = (path: string) => Buffer.from(`-----BEGIN CERTIFICATE----- ${path}`);
  return parseConfig(yaml, { fileName: '/etc/cdc/config.yaml', environment, readFile });
}

/** Environment variables that the new file takes its secrets from. */
function variablesIn(yaml: string): string[] {
  return [...yaml.matchAll(/\{ env: (\w+) \}/g)].map((match) => match[1]!);
}

/** Paths of the mistakes in the new file. */
function refusals(imported: ImportedConfig): string[] {
  try {
    parse(imported);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.issues.map(({ path }) => path);
  }
  return [];
}

/** Part of the report under its title, each line as `PATH: MESSAGE`. */
function reported({ report }: ImportedConfig, title: 'Open questions:' | 'Dropped, not needed:'): string[] {
  const start = report.indexOf(title);
  if (start < 0) return [];
  const end = report.indexOf('', start);
  return report.slice(start + 1, end < 0 ? undefined : end).map((line) => line.replace(/^ *sys\.config:\d+:\d+: /, ''));
}

describe.each(NAMES)('%s.config', (name) => {
  const text = source(name);
  const imported = importText(text);

  test('is converted to the file next to it', () => {
    // After a wanted change, put the new text into the file.
    expect(imported.yaml).toBe(readFileSync(join(FIXTURES, `${name}.yaml`), 'utf8'));
  });

  test('reveals no secret', () => {
    const secrets = [...text.matchAll(/Secret-[\w-]+/g)].map(([secret]) => secret);
    for (const secret of secrets) expect(`${imported.yaml}${imported.report.join('\n')}`).not.toContain(secret);
  });

  test('has its report in comments at the top, and exactly its variables in the file', () => {
    const comments = imported.yaml.split('\n').map((line) => line.replace(/^# ?/, ''));
    expect(comments.slice(2, imported.report.length + 2)).toEqual([...imported.report]);
    const title = imported.report.findIndex((line) => line.startsWith('Secrets are not copied.'));
    const named = title < 0 ? [] : imported.report.slice(title + 1).map((line) => line.trim().split(':')[0]!);
    expect(new Set(variablesIn(imported.yaml))).toEqual(new Set(named));
  });
});

describe('importSysConfig', () => {
  test.each([['complete'], ['production']])('converts %s without open questions', (name) => {
    const imported = importText(source(name));
    expect([imported.isComplete, reported(imported, 'Open questions:'), refusals(imported)]).toEqual([true, [], []]);
  });

  test.each<[name: string, refused: string[]]>([
    ['vault-default', []],
    ['specification', ['databases', 'kafka_clients']],
    [
      'template',
      [
        'databases.main.host',
        'databases.third.host',
        'kafka_clients.main.sasl.username',
        'streams.Main.cdc_slot.ns.eventsink_topic',
      ],
    ],
    ['vault', ['databases.second.username', 'kafka_clients.main.sasl.username']],
  ])('converts %s with open questions, and --check rejects what is missing', (name, refused) => {
    const imported = importText(source(name));
    expect([imported.isComplete, refusals(imported)]).toEqual([false, refused]);
  });

  test('keeps every name, address and setting', () => {
    const { kafkaClients, streams, ...settings } = parse(importText(source('production')));
    const databases = new Map(streams.map(({ databaseRef, database }) => [databaseRef, database]));
    expect([...databases.values()]).toMatchObject([
      {
        ref: 'payments',
        hosts: [{ host: 'pg.payments.svc', port: 5432 }],
        database: 'payments',
        username: 'cdc',
        tls: { mode: 'verify-full' },
      },
      {
        ref: 'wallets-db',
        hosts: [{ host: '127.0.0.1', port: 5432 }],
        database: 'wallets',
        username: 'cdc',
        tls: { mode: 'require' },
      },
    ]);
    expect(databases.get('payments')?.password?.read()).toBe('value of PAYMENTS_PASSWORD');
    expect(databases.get('payments')?.tls?.ca?.read()).toContain('/etc/pg/ca.pem');
    expect([...kafkaClients.values()]).toMatchObject([
      {
        name: 'payments_kafka',
        clientId: 'payments_kafka',
        brokers: [
          { host: 'kafka-1.payments.svc', port: 9093 },
          { host: 'kafka-2.payments.svc', port: 9093 },
          { host: '10.0.0.7', port: 9093 },
        ],
        tls: { serverName: 'kafka.payments.svc' },
        sasl: { mechanism: 'SCRAM-SHA-512', username: 'cdc' },
        connectTimeoutMs: 7000,
        requestTimeoutMs: 60_000,
      },
      { name: 'audit_kafka', clientId: 'audit_kafka', tls: undefined, sasl: { mechanism: 'PLAIN', username: 'audit' } },
    ]);
    const { tls, sasl } = kafkaClients.get('payments_kafka')!;
    expect([tls?.ca?.read(), tls?.cert?.read(), tls?.key?.read()]).toEqual([
      expect.stringContaining('/etc/kafka/ca.pem'),
      expect.stringContaining('/etc/kafka/client.pem'),
      expect.stringContaining('/etc/kafka/client.key'),
    ]);
    expect(sasl?.password.read()).toBe('value of PAYMENTS_KAFKA_PASSWORD');
    const places = streams.map(({ databaseRef, slot, namespaces }) => [databaseRef, slot, ...namespaces.keys()]);
    expect(places).toEqual([
      ['payments', 'cdc_slot_payments', 'invoice', 'customer/v2'],
      ['payments', 'cdc_slot_audit', 'payout'],
      ['wallets-db', 'cdc_slot_wallets', 'wallet'],
    ]);
    expect(streams[0]?.namespaces.get('customer/v2')).toMatchObject({
      kafkaClient: 'payments_kafka',
      eventsinkTopic: 'mg-events-customer',
      lifecycleTopic: 'mg-lifecycle-customer',
    });
    expect(settings).toMatchObject({
      resendTimeoutMs: 1500,
      maxRetries: 10,
      reconnectTimeoutMs: 10_000,
      http: { host: '::', port: 8022 },
    });
  });

  test.each([
    ['no_compression', 'none'],
    ['gzip', 'gzip'],
    ['snappy', 'snappy'],
    ['lz4', 'lz4'],
    ['zstd', 'zstd'],
  ])('takes compression %s of brod as %s', (atom, type) => {
    const imported = importText(whole({ client: `, {default_producer_config, [{compression, ${atom}}]}` }));
    expect(imported.isComplete).toBe(true);
    expect(imported.yaml).toContain(`    compression: ${type}\n`);
    expect(parse(imported).kafkaClients.get('k')?.compression).toBe(type as CompressionType);
  });

  test('keeps names with a meaning in YAML, JavaScript or comments', () => {
    const names = ['__proto__', 'true', '123', 'a: b', '# c', "it\\'s", 'ключ', 'two\\nlines\\rthree'];
    const namespaces = names.map(
      (name) =>
        `'${name}' => #{kafka_client => k, eventsink_topic => <<"e">>, lifecycle_topic => <<"l">>, 'odd\\r\\nkey' => 1}`,
    );
    const imported = importText(whole({ streams: `db => #{"slot" => #{${namespaces.join(', ')}}}` }));
    expect([...(parse(imported).streams[0]?.namespaces.keys() ?? [])]).toEqual(
      names.map((name) => name.replace("\\'", "'").replace('\\n', '\n').replace('\\r', '\r')),
    );
    expect(reported(imported, 'Open questions:')).toHaveLength(names.length);
  });

  test('keeps texts of the old file within comment lines', () => {
    const breaking = '\\r\\nhttp: {}\\n\\x{85}\\x{2028}http: {}';
    const connector = `, {vault_role, "${breaking}"}, {vault_secret_key_path, "${breaking}"}`;
    const client = `, {sasl, {plain, "/${breaking}"}}`;
    const imported = importSysConfig(
      Buffer.from(whole({ connector, client, brod: `, {'${breaking}', 1}` })),
      'a\r\nb.config',
    );
    expect(imported.yaml.split('\n').filter((line) => /^[^# ]*http/.test(line) || /[\r\x85\u2028]/.test(line))).toEqual(
      [],
    );
    expect(refusals(imported)).toEqual(['kafka_clients.k.sasl.username']);
  });

  test('gives each secret its own variable', () => {
    const database = (password: string) => `#{host => "pg", database => "d", username => "u", password => ${password}}`;
    const { yaml } = importText(
      `[{epg_connector, [{databases, #{'a-b' => ${database('"1"')}, a_b => ${database('"2"')}, 'база' => ${database('"3"')},
        '1st' => ${database('"4"')}, x => ${database('"\\x24{A_B_PASSWORD}"')}, y => ${database('{os_env, "Y_SECRET"}')}}}]},
       {brod, [{clients, [{a_b, [{sasl, {plain, "u", "5"}}]}]}]}].`,
    );
    expect(variablesIn(yaml)).toEqual([
      'A_B_PASSWORD_2',
      'A_B_PASSWORD_3',
      'PASSWORD',
      'PASSWORD_1ST',
      'A_B_PASSWORD',
      'Y_SECRET',
      'A_B_PASSWORD_4',
    ]);
  });

  test('reads Latin-1 when the file names it', () => {
    const text = '%% coding: latin-1\n[{épater, []}].';
    expect(reported(importSysConfig(Buffer.from(text, 'latin1'), 'sys.config'), 'Dropped, not needed:')).toEqual([
      'épater: configures an application that cdc-notifier does not have',
    ]);
  });

  test('rejects a file that cannot be read', () => {
    expect(() => loadSysConfig('/nowhere/sys.config')).toThrow('/nowhere/sys.config:1:1: cannot be read (ENOENT)');
    expect(loadSysConfig(join(FIXTURES, 'complete.config')).isComplete).toBe(true);
  });

  test.each<[what: string, bytes: Uint8Array | string, message: string]>([
    ['text that is no term', '[{brod, [}].', 'sys.config:1:10: a term is missing'],
    ['another term than a list', '\n{brod, []}.', 'sys.config:2:1: must be a list of {Application, Settings}'],
    ['bytes that are not UTF-8', Uint8Array.of(0x5b, 0xff), 'sys.config:1:1: is not UTF-8 text'],
    ['a file that is too long', ' '.repeat(2 ** 20 + 1), 'sys.config:1:1: is longer than 1048576 characters'],
  ])('refuses %s', (_what, bytes, message) => {
    expect(() => importSysConfig(Buffer.from(bytes), 'sys.config')).toThrow(message);
  });
});

interface Parts {
  readonly database?: string;
  readonly connector?: string;
  readonly client?: string;
  readonly brod?: string;
  readonly namespace?: string;
  readonly streams?: string;
  readonly progressor?: string;
  readonly applications?: string;
}

const NAMESPACE = 'kafka_client => k, eventsink_topic => <<"e">>, lifecycle_topic => <<"l">>';

/** A whole sys.config that is carried over without a word, with additions. */
function whole({
  database = '',
  connector = '',
  client = '',
  brod = '',
  namespace = '',
  streams,
  progressor = '',
  applications = '',
}: Parts = {}): string {
  return `[
    {epg_connector, [{databases, #{db => #{host => "pg", database => "d", username => "u", password => "p" ${database}}}} ${connector}]},
    {brod, [{clients, [{k, [{endpoints, [{"kafka", 9092}]} ${client}]}]} ${brod}]},
    {cdc_progressor, [{streams, #{${streams ?? `db => #{"slot" => #{ns => #{${NAMESPACE} ${namespace}}}}`}}} ${progressor}]}
    ${applications}].`;
}

describe('settings without a counterpart are listed', () => {
  test('and nothing else is', () => {
    const imported = importText(whole());
    expect(imported.report).toEqual([
      'Secrets are not copied. Set these environment variables, or use {file: PATH} instead:',
      '  DB_PASSWORD: databases.db.password',
    ]);
    expect([imported.isComplete, refusals(imported)]).toEqual([true, []]);
  });

  const UNKNOWN = 'is unknown and was dropped';
  const BEFORE_26 = 'has no verify_peer: before OTP 26';

  test.each<[parts: Parts, findings: string[]]>([
    [{ database: ', ssl => false, sslmode => x' }, [`epg_connector.databases.db.sslmode: ${UNKNOWN}`]],
    [
      { database: ', ssl => true' },
      [
        'epg_connector.databases.db.ssl: also allowed plaintext',
        'epg_connector.databases.db.ssl: has no CA certificates: the server was not verified',
      ],
    ],
    [
      { database: ', ssl => required, ssl_opts => []' },
      ['epg_connector.databases.db.ssl_opts: has no CA certificates'],
    ],
    [{ database: ', ssl => required, ssl_opts => [{verify, verify_none}]' }, []],
    [{ database: ', ssl => required, ssl_opts => [{verify, verify_peer}, {cacertfile, "/ca"}]' }, []],
    [{ database: ', ssl => required, ssl_opts => [{verify, verify_peer}, {server_name_indication, "pg"}]' }, []],
    [{ database: ', ssl => required, ssl_opts => [{verify, verify_peer}, {server_name_indication, disable}]' }, []],
    [
      { database: ', ssl => required, ssl_opts => [{verify, verify_peer}, {server_name_indication, "x"}]' },
      ['epg_connector.databases.db.ssl_opts.server_name_indication: differs from host'],
    ],
    [
      { database: ', ssl => required, ssl_opts => [{cacertfile, "/ca"}]' },
      [`epg_connector.databases.db.ssl_opts: ${BEFORE_26}`],
    ],
    [
      { database: ', ssl => prefer, ssl_opts => [{verify, verify_peer}]' },
      ['epg_connector.databases.db.ssl: is not true, false'],
    ],
    [
      { database: ', ssl => required, ssl_opts => [{verify, sometimes}, {cacertfile, "/ca"}]' },
      [
        'epg_connector.databases.db.ssl_opts: has no verify_peer',
        'epg_connector.databases.db.ssl_opts.verify: is neither verify_peer',
      ],
    ],
    [
      { database: ', ssl => required, ssl_opts => [{verify, verify_peer}, {certfile, "/c"}]' },
      ['databases.db.tls.key: is missing; required by cert (in the new file)'],
    ],
    [{ connector: ', {statistics, on}' }, [`epg_connector.statistics: ${UNKNOWN}`]],
    [{ connector: ', {databases, #{}}' }, ['epg_connector.databases: is given twice; the first one was used']],
    [
      { connector: ', {vault_role, "r"}, {vault_secret_key_path, "one/path"}' },
      [
        'epg_connector.databases.db.username: was overridden by Vault when available: compare it with pg_creds.pg_user of secret/one/path in Vault (role r)',
      ],
    ],
    [{ client: ', {ssl, false}, {sasl, undefined}' }, []],
    [{ client: ', {ssl, [{verify, verify_peer}]}' }, []],
    [{ client: ', {ssl, true}' }, [`brod.clients.k.ssl: ${BEFORE_26}`]],
    [
      { client: ', {ssl, [{verify, verify_none}]}' },
      ['brod.clients.k.ssl: has verify_none: the brokers were not verified'],
    ],
    [{ client: ', {ssl, []}' }, ['brod.clients.k.ssl: is an empty list']],
    [{ client: ', {ssl, yes}' }, ['brod.clients.k.ssl: is neither a map nor', `brod.clients.k.ssl: ${BEFORE_26}`]],
    [
      { client: ', {ssl, [{verify, verify_peer}, {server_name_indication, disable}]}' },
      ['brod.clients.k.ssl.server_name_indication: is not supported'],
    ],
    [{ client: ', {ssl, [{verify, verify_peer}, {cacerts, []}]}' }, [`brod.clients.k.ssl.cacerts: ${UNKNOWN}`]],
    [
      { client: ', {ssl, [{verify, verify_peer}, {ciphers, []}, {versions, []}]}' },
      ['brod.clients.k.ssl.ciphers: cannot be set', 'brod.clients.k.ssl.versions: cannot be set'],
    ],
    [
      { client: ', {ssl, [{verify, verify_peer}, {password, "x"}]}' },
      ['brod.clients.k.ssl.password: is not supported'],
    ],
    [
      { client: ', {ssl, [{verify, verify_peer}, {cacertfile, "ca"}]}' },
      ['brod.clients.k.ssl.cacertfile: is a relative path'],
    ],
    [{ client: ', {sasl, {callback, m, []}}' }, ['brod.clients.k.sasl: is not {Mechanism, User, Password}']],
    [{ client: ', {sasl, {scram_sha_1, "u", "p"}}' }, ['brod.clients.k.sasl: is not {Mechanism, User, Password}']],
    [{ client: ', {sasl, {plain, "u", ""}}' }, ['brod.clients.k.sasl.password: is empty and was dropped']],
    [{ client: ', {sasl, {plain, "u", 1}}' }, ['brod.clients.k.sasl.password: is not text and was dropped']],
    [
      { client: ', {sasl, {plain, "/run/sasl"}}' },
      ['brod.clients.k.sasl: has the user in the first line of the file /run/sasl'],
    ],
    [
      { client: ', {sasl, {plain, "Secret"}}' },
      ['brod.clients.k.sasl: has the user in the first line of the file named here'],
    ],
    [
      { client: ', {default_producer_config, [{required_acks, 1}]}' },
      ['brod.clients.k.default_producer_config.required_acks: cannot'],
    ],
    [{ client: ', {default_producer_config, [{required_acks, all}, {compression, no_compression}]}' }, []],
    [
      { client: ', {default_producer_config, [{compression, brotli}]}' },
      ['brod.clients.k.default_producer_config.compression: is not a compression of brod and was dropped'],
    ],
    [
      { client: ', {default_producer_config, [{partitioner, x}]}' },
      [`brod.clients.k.default_producer_config.partitioner: ${UNKNOWN}`],
    ],
    [{ client: ', allow_topic_auto_creation' }, ['brod.clients.k.allow_topic_auto_creation: is not supported']],
    [{ client: ', {allow_topic_auto_creation, false}' }, []],
    [
      { client: ', {rack, "a"}, {1, b}, {}' },
      [
        `brod.clients.k.rack: ${UNKNOWN}`,
        'brod.clients.k: has a key that is not text',
        'brod.clients.k[3]: is not {Key, Value}',
      ],
    ],
    [
      { client: ', {connect_timeout, infinity}' },
      ['brod.clients.k.connect_timeout: is not a whole number and was dropped'],
    ],
    [{ client: ', {request_timeout, 0}' }, ['kafka_clients.k.request_timeout: must be']],
    [{ brod: ', {consumers, []}' }, [`brod.consumers: ${UNKNOWN}`]],
    [{ namespace: ', partitioner => phash2' }, [`cdc_progressor.streams.db.slot.ns.partitioner: ${UNKNOWN}`]],
    [
      { namespace: ', kafka_client => other' },
      [
        'cdc_progressor.streams.db.slot.ns.kafka_client: is given twice; the last one was used',
        'streams.db.slot.ns.kafka_client: no such entry in kafka_clients',
      ],
    ],
    [
      { streams: 'db => #{"slot" => none}' },
      ['streams.db: must have at least one slot', 'cdc_progressor.streams.db.slot: is neither a map nor'],
    ],
    [{ streams: `other => #{"slot" => #{ns => #{${NAMESPACE}}}}` }, ['streams.other: no such entry in databases']],
    [
      { streams: `db => #{"a" => #{ns => #{${NAMESPACE}}}, "b" => #{ns => #{${NAMESPACE}}}}` },
      [
        'streams.db.b.ns.eventsink_topic: is the topic of streams.db.a.ns already',
        'streams.db.b.ns.lifecycle_topic: is the topic of streams.db.a.ns already',
      ],
    ],
    [
      {
        streams: `db => #{"a" => #{ns => #{${NAMESPACE}}}, "b" => #{ns => #{kafka_client => k, eventsink_topic => <<"e2">>, lifecycle_topic => <<"l2">>}}}`,
      },
      [],
    ],
    [{ progressor: ', {max_retries, -1}' }, ['max_retries: must be']],
    [
      { progressor: ', {resend_timeout, "3s"}' },
      ['cdc_progressor.resend_timeout: is not a whole number and was dropped'],
    ],
    [{ progressor: ', {batch, 1}' }, [`cdc_progressor.batch: ${UNKNOWN}`]],
    [{ applications: ', "other.config"' }, ['[3]: names another file, which was not read']],
    [{ applications: ', {brod, []}' }, ['brod: is given twice; the first one was used']],
    [{ applications: ', {cdc_notifier, [{port, 8022}, {ip, any}]}' }, [`cdc_notifier.ip: ${UNKNOWN}`]],
  ])('%j', (parts, findings) => {
    const imported = importText(whole(parts));
    const open = reported(imported, 'Open questions:');
    expect(open.map((line, index) => line.slice(0, findings[index]?.length))).toEqual(findings);
    expect(imported.isComplete).toBe(findings.length === 0);
    if (findings.length === 0) expect(refusals(imported)).toEqual([]);
  });

  test.each<[parts: Parts, dropped: string[]]>([
    [
      { database: ', timeout => 5000, ssl_opts => []' },
      ['epg_connector.databases.db.timeout', 'epg_connector.databases.db.ssl_opts'],
    ],
    [{ connector: ', {pools, #{}}, {async, enabled}' }, ['epg_connector.pools', 'epg_connector.async']],
    [
      { client: ', auto_start_producers, {restart_delay_seconds, 10}' },
      ['brod.clients.k.auto_start_producers', 'brod.clients.k.restart_delay_seconds'],
    ],
    [
      { client: ', {default_producer_config, [{max_linger_ms, 5}]}' },
      ['brod.clients.k.default_producer_config.max_linger_ms'],
    ],
    [{ client: ', {ssl, [{verify, verify_peer}, {depth, 3}]}' }, ['brod.clients.k.ssl.depth']],
    [{ applications: ', {kernel, []}, {prometheus, []}' }, ['kernel', 'prometheus']],
  ])('%j: dropped, without an open question', (parts, dropped) => {
    const imported = importText(whole(parts));
    expect(reported(imported, 'Dropped, not needed:').map((line) => line.split(': ')[0])).toEqual(dropped);
    expect([imported.isComplete, refusals(imported)]).toEqual([true, []]);
  });
});

test('a randomly edited file is converted or rejected with a ConfigError', () => {
  const pieces = ['{', '}', '[', ']', '"', "'", ',', '=>', 'true', '1', '<<"x">>', '\\', '#{}', '{a, b}', '%'];
  let seed = 7;
  const below = (limit: number) => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((seed / 2 ** 32) * limit);
  };
  const texts = NAMES.map(source);
  for (let round = 0; round < 400; round++) {
    const text = texts[below(texts.length)] ?? '';
    const [from, length] = [below(text.length), below(12)];
    try {
      const imported = importText(text.slice(0, from) + pieces[below(pieces.length)] + text.slice(from + length));
      if (imported.isComplete) expect(refusals(imported)).toEqual([]);
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigError);
    }
  }
});
