import { describe, expect, test } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import type { Config, DatabaseConfig } from '../../../src/config/config.ts';
import { ConfigError } from '../../../src/config/config-error.ts';
import { loadConfig, parseConfig } from '../../../src/config/load.ts';
import { readSecret } from '../../../src/config/secret.ts';
import { SecretError } from '../../../src/errors.ts';

const PEM = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----';

interface Sources {
  readonly environment?: Record<string, string>;
  readonly files?: Record<string, string | Uint8Array>;
}

function parse(text: string, { environment = {}, files = {} }: Sources = {}): Config {
  const readFile = (path: string) => {
    const content = files[path];
    if (content === undefined) throw Object.assign(new Error('no such file'), { code: 'ENOENT' });
    return typeof content === 'string' ? Buffer.from(content) : content;
  };
  return parseConfig(text, { fileName: '/etc/notifier/c.yaml', environment, readFile });
}

/** Mistakes as `LINE:COLUMN path: message`. */
function mistakesOf(text: string, sources?: Sources): string[] {
  try {
    parse(text, sources);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.issues.map(({ line, column, path, message }) => `${line}:${column} ${path}: ${message}`);
  }
  return [];
}

interface Parts {
  readonly database?: string;
  readonly moreDatabases?: string;
  readonly client?: string;
  readonly streams?: string;
  readonly rest?: string;
}

/** A correct configuration, one part of which may be replaced. Flow style keeps each part on a line of its own. */
function config({
  database = '{host: pg, database: d, username: u, password: p}',
  moreDatabases = '',
  client = '{brokers: [k:9092]}',
  streams = '{db: {slot: {ns: {kafka_client: main, eventsink_topic: e, lifecycle_topic: l}}}}',
  rest = '',
}: Parts = {}): string {
  return `databases: {db: ${database}${moreDatabases}}\nkafka_clients: {main: ${client}}\nstreams: ${streams}\n${rest}`;
}

/** The database that the first slot of `ref` streams from. */
function databaseOf({ streams }: Config, ref = 'db'): DatabaseConfig | undefined {
  return streams.find(({ databaseRef }) => databaseRef === ref)?.database;
}

const NAMESPACE = '{kafka_client: main, eventsink_topic: e, lifecycle_topic: l}';

describe('parseConfig accepts', () => {
  test('the shortest configuration and fills in every default', () => {
    const loaded = parse(config());
    const { kafkaClients, streams, ...settings } = loaded;
    expect(settings).toEqual({
      resendTimeoutMs: 3000,
      maxRetries: 3,
      reconnectTimeoutMs: 5000,
      shutdownTimeoutMs: 20_000,
      maxRowBytes: undefined,
      http: undefined,
      log: { level: 'info', format: 'auto' },
      warnings: [],
    });
    const database = databaseOf(loaded);
    expect(database).toMatchObject({
      ref: 'db',
      hosts: [{ host: 'pg', port: 5432 }],
      database: 'd',
      username: 'u',
      tls: undefined,
    });
    expect(readSecret(database!.password!)).toBe('p');
    expect(kafkaClients.get('main')).toEqual({
      name: 'main',
      brokers: [{ host: 'k', port: 9092 }],
      clientId: 'cdc-notifier',
      tls: undefined,
      sasl: undefined,
      compression: 'none',
      acceptClusterId: undefined,
      connectTimeoutMs: 5000,
      requestTimeoutMs: 30_000,
      maxRequestBytes: 104_857_600,
      metadataMaxAgeMs: 10_000,
    });
    expect(streams).toEqual([
      {
        databaseRef: 'db',
        database: database!,
        slot: 'slot',
        settings: { failover: false, acceptLossAfterLsn: undefined },
        namespaces: new Map([
          [
            'ns',
            {
              kafkaClient: 'main',
              eventsinkTopic: 'e',
              lifecycleTopic: 'l',
              replicaIdentity: 'full',
              publishColumns: 'all',
              onMissingOldTuple: 'stop',
              onInvalid: 'stop',
              parkingTopic: undefined,
            },
          ],
        ]),
      },
    ]);
  });

  test('several databases, slots and namespaces, in the order of the file', () => {
    const { streams } = parse(
      config({
        moreDatabases: ', other: {host: pg2, database: d, username: u, password: p}',
        streams: `{other: {b: {z: ${NAMESPACE}, a: ${NAMESPACE}}}, db: {c: {z: ${NAMESPACE}}, a1: {y: ${NAMESPACE}}}}`,
      }),
    );
    expect(streams.map(({ databaseRef, slot, namespaces }) => [databaseRef, slot, ...namespaces.keys()])).toEqual([
      ['other', 'b', 'z', 'a'],
      ['db', 'c', 'z'],
      ['db', 'a1', 'y'],
    ]);
  });

  test('JSON, with tabs', () => {
    const json = {
      databases: { db: { host: 'pg', database: 'd', username: 'u', password: 'p' } },
      kafka_clients: { main: { brokers: ['k:9092', '[::1]:65535'] } },
      streams: { db: { slot: { ns: { kafka_client: 'main', eventsink_topic: 'e', lifecycle_topic: 'l' } } } },
    };
    const { kafkaClients } = parse(JSON.stringify(json, undefined, '\t'));
    expect(kafkaClients.get('main')?.brokers).toEqual([
      { host: 'k', port: 9092 },
      { host: '::1', port: 65_535 },
    ]);
  });

  test('aliases, a byte order mark, and numbers that are text once quoted', () => {
    const text = config({ database: '{host: &h pg, database: "1", username: *h, password: "0123"}' });
    expect(databaseOf(parse(`\uFEFF${text}`))).toMatchObject({
      hosts: [{ host: 'pg' }],
      username: 'pg',
      database: '1',
    });
  });

  test('names with a meaning in JavaScript, as ordinary names', () => {
    const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'prototype', '0123', 'true'];
    const namespaces = names.map((name) => `${name}: ${NAMESPACE}`).join(', ');
    const { streams } = parse(config({ streams: `{db: {slot: {${namespaces}}}}` }));
    expect([...(streams[0]?.namespaces.keys() ?? [])]).toEqual(names);
    const loaded = parse(
      config({
        moreDatabases: ', __proto__: {host: a, database: b, username: c, password: d}',
        streams: `{__proto__: {slot: {ns: ${NAMESPACE}}}}`,
      }),
    );
    expect(databaseOf(loaded, '__proto__')?.hosts[0]?.host).toBe('a');
  });

  test.each([
    ['tls: {}', 'verify-full'],
    ['tls: {mode: require}', 'require'],
    ['tls: {mode: verify-ca}', 'verify-ca'],
    ['tls: {mode: disable}', undefined],
  ] as const)('database with %s as mode %s', (tls, mode) => {
    const loaded = parse(config({ database: `{host: h, database: d, username: u, password: p, ${tls}}` }));
    expect(databaseOf(loaded)?.tls?.mode).toBe(mode as 'require');
  });

  test('certificates as PEM text, path, variable and file; relative paths start from the file', () => {
    const quoted = JSON.stringify(PEM);
    const sources = { environment: { KEY: PEM }, files: { '/etc/notifier/tls/ca.pem': `${PEM}\n` } };
    const loaded = parse(
      config({
        database: `{host: h, database: d, username: u, tls: {ca: tls/ca.pem, cert: ${quoted}, key: {env: KEY}}}`,
        client: '{brokers: [k:1], tls: {ca: {file: tls/ca.pem}, server_name: kafka}}',
      }),
      sources,
    );
    const { tls, password } = databaseOf(loaded)!;
    expect(password).toBeUndefined();
    expect([tls?.ca, tls?.cert, tls?.key].map((secret) => readSecret(secret!))).toEqual([PEM, PEM, PEM]);
    expect(tls?.ca?.origin).toBe('file /etc/notifier/tls/ca.pem');
    const kafkaTls = loaded.kafkaClients.get('main')?.tls;
    expect([kafkaTls?.serverName, readSecret(kafkaTls!.ca!)]).toEqual(['kafka', PEM]);
  });

  test('several servers of a database, with and without a port', () => {
    const hosts = "[a, 'b:5433', '[::1]', '[::1]:5433', 10.0.0.1:1]";
    const loaded = parse(config({ database: `{hosts: ${hosts}, database: d, username: u, password: p}` }));
    expect(databaseOf(loaded)?.hosts).toEqual([
      { host: 'a', port: 5432 },
      { host: 'b', port: 5433 },
      { host: '::1', port: 5432 },
      { host: '::1', port: 5433 },
      { host: '10.0.0.1', port: 1 },
    ]);
  });

  test('settings of a slot, a parking topic, and an age of metadata', () => {
    const parking = '{kafka_client: main, eventsink_topic: e, lifecycle_topic: l, on_invalid: park, parking_topic: p}';
    const { streams, kafkaClients } = parse(
      config({
        client: '{brokers: [k:9092], metadata_max_age: 500}',
        streams: `{db: {a: {one: ${parking}, two: ${NAMESPACE.replace('e,', 'f,')}}, b: {three: ${NAMESPACE}}}}`,
        rest: 'slots: {db: {a: {failover: true, accept_loss_after: 16/b374d848}}}',
      }),
    );
    expect(streams.map(({ settings }) => settings)).toEqual([
      { failover: true, acceptLossAfterLsn: 0x16_b374_d848n },
      { failover: false, acceptLossAfterLsn: undefined },
    ]);
    expect(streams[0]?.namespaces.get('one')).toMatchObject({ onInvalid: 'park', parkingTopic: 'p' });
    expect(kafkaClients.get('main')?.metadataMaxAgeMs).toBe(500);
  });

  test.each([
    ['http: {}', { host: '127.0.0.1', port: 8022, inFlightLimitMs: 30_000 }],
    ["http: {host: '::', port: 80, in_flight_limit: 5}", { host: '::', port: 80, inFlightLimitMs: 5 }],
  ])('a listener: %s', (rest, http) => {
    expect(parse(config({ rest })).http).toEqual(http);
  });

  test('one slot name on two servers and one namespace in two databases of a server', () => {
    const text = config({
      moreDatabases:
        ', port: {host: pg, port: 5433, database: d, username: u, password: p}, name: {host: PG, database: e, username: u, password: p}',
      streams: `{db: {a: {ns: ${NAMESPACE}}}, port: {a: {ns: ${NAMESPACE}}}, name: {b: {ns: ${NAMESPACE}}}}`,
    });
    expect(mistakesOf(text)).toEqual([]);
  });

  test('names at the limit of their length', () => {
    const slot = 'a'.repeat(63);
    const topic = 't'.repeat(249);
    const namespace = 'я'.repeat(26); // 52 bytes
    const streams = `{db: {${slot}: {${namespace}x: {kafka_client: main, eventsink_topic: ${topic}, lifecycle_topic: ${topic}}}}}`;
    expect(mistakesOf(config({ streams }))).toEqual([]);
  });
});

describe('parseConfig refuses', () => {
  const database = (fields: string) => config({ database: `{${fields}}` });
  const withDatabase = (fields: string) => database(`host: h, database: d, username: u, password: p, ${fields}`);
  const withPassword = (password: string) => database(`host: h, database: d, username: u, password: ${password}`);
  const withClient = (fields: string) => config({ client: `{brokers: ['k:1'], ${fields}}` });
  const withBroker = (broker: string) => config({ client: `{brokers: [${broker}]}` });
  const withSlot = (slot: string) => config({ streams: `{db: {${slot}: {ns: ${NAMESPACE}}}}` });
  const withNamespace = (name: string) => config({ streams: `{db: {slot: {${name}: ${NAMESPACE}}}}` });
  const withTopic = (topic: string) =>
    config({ streams: `{db: {slot: {ns: {kafka_client: main, eventsink_topic: ${topic}, lifecycle_topic: l}}}}` });
  const withRest = (rest: string) => config({ rest });
  const withParking = (fields: string, others = '') =>
    config({
      streams: `{db: {slot: {ns: {kafka_client: main, eventsink_topic: e, lifecycle_topic: l, ${fields}}${others}}}}`,
    });

  test.each<[what: string, text: string, mistake: string | RegExp]>([
    ['nothing at all', '', '1:1 : is empty'],
    ['a comment only', '# nothing\n', '1:1 : is empty'],
    ['a list', '[a]', '1:1 : must be a mapping, not a list'],
    ['a missing section', `databases: {}`, /^1:1 streams: is missing$/],
    ['an empty section', config({ streams: '{}' }), '3:10 streams: must have at least one entry'],
    ['a section without value', config({ streams: '' }), '3:10 streams: must be a mapping, but has no value'],
    ['a database without slots', config({ streams: '{db: {}}' }), '3:15 streams.db: must have at least one slot'],
    [
      'a slot without namespaces',
      config({ streams: '{db: {s: {}}}' }),
      '3:19 streams.db.s: must have at least one namespace',
    ],
    ['a list for a mapping', withDatabase('tls: []'), /^1:\d+ databases.db.tls: must be a mapping, not a list$/],
    ['a set', withDatabase('tls: !!set {ca}'), /^1:\d+ : is not valid YAML: tags are not supported/],
    ['a second document', `${config()}---\na: 1\n`, /^4:\d+ : a second document begins here/],
    ['YAML 1.1', `%YAML 1.1\n---\n${config()}`, '1:1 : must be YAML 1.2'],
    ['a merge key', withRest('<<: {a: 1}'), '4:1 : merge keys are not supported; repeat the settings'],
    ['a custom tag', withPassword('!vault x'), /^1:\d+ : is not valid YAML: tags are not supported/],
    ['a binary tag', withPassword('!!binary aGk='), /^1:\d+ : is not valid YAML: tags are not supported/],
    ['a key that is a mapping', withRest('{a: 1}: b'), /^4:1 : is not valid YAML: a key must be text$/],
    ['an alias without anchor', withPassword('*x'), /^1:\d+ databases.db.password: alias without an anchor/],
    [
      'an unknown top-level key',
      withRest('reconect_timeout: 1'),
      '4:1 reconect_timeout: unknown key; did you mean "reconnect_timeout"?',
    ],
    [
      'an unknown key with a meaning in JavaScript',
      withRest('constructor: 1'),
      /^4:1 constructor: unknown key; available here: slots, resend_timeout, /,
    ],
    ['an unknown key __proto__', withDatabase('__proto__: {a: 1}'), /^1:\d+ databases.db.__proto__: unknown key/],
    [
      'an unknown key of a database',
      withDatabase('prot: 1'),
      /^1:\d+ databases.db.prot: unknown key; did you mean "port"\?$/,
    ],
    ['an unknown key of tls', withDatabase('tls: {moode: x}'), /^1:\d+ databases.db.tls.moode: .* "mode"\?$/],
    ['an unknown key of sasl', withClient('sasl: {user: x}'), /^2:\d+ kafka_clients.main.sasl.user: unknown key/],
    ['an unknown key of http', withRest('http: {prot: 1}'), '4:8 http.prot: unknown key; did you mean "port"?'],
    ['http without value', withRest('http:'), '4:6 http: must be a mapping, but has no value'],
    [
      'a URL to listen on',
      withRest("http: {host: 'http://h'}"),
      /^4:14 http.host: must be one host name or IP address/,
    ],
    [
      'the former name of a key',
      withRest('slots: {db: {slot: {accept_loss_behind: 0/16B3748}}}'),
      '4:21 slots.db.slot.accept_loss_behind: was renamed to accept_loss_after',
    ],
    ['an unknown key of log', withRest('log: {Level: x}'), '4:7 log.Level: unknown key; did you mean "level"?'],
    [
      'a key twice',
      withRest('max_retries: 1\nmax_retries: 2'),
      '5:1 max_retries: is given twice; the first is on line 4',
    ],
    ['a key twice, once quoted', withDatabase('"host": g'), /^1:\d+ databases.db.host: is given twice/],
    ['a name twice', withNamespace(`ns: ${NAMESPACE}, ns`), /^3:\d+ streams.db.slot.ns: is given twice/],
    [
      'a key twice below an unknown one',
      withRest('x:\n  - y: {a: 1, a: 2}'),
      '5:15 x: is given twice; the first is on line 5',
    ],
    ['a number for text', withPassword('0123'), '1:63 databases.db.password: must be text; put it in quotes'],
    [
      'a boolean for text',
      database('host: true, database: d, username: u, password: p'),
      /^1:24 databases.db.host: must be text; put it in quotes$/,
    ],
    ['a null for text', withPassword('null'), /^1:63 databases.db.password: .* has no value$/],
    [
      'a list for text',
      database('host: [h], database: d, username: u, password: p'),
      '1:24 databases.db.host: must be text, not a list',
    ],
    [
      'text for a number',
      withDatabase('port: "5432"'),
      /databases.db.port: must be a whole number from 1 to 65535, without quotes$/,
    ],
    [
      'a port above all ports',
      withDatabase('port: 65536'),
      /databases.db.port: must be a whole number from 1 to 65535$/,
    ],
    ['port 0', withDatabase('port: 0'), /databases.db.port: must be a whole number from 1 to 65535$/],
    ['a time of 0', withRest('resend_timeout: 0'), '4:17 resend_timeout: must be a whole number from 1 to 2147483647'],
    ['a time that setTimeout cuts', withRest('reconnect_timeout: 2147483648'), /^4:20 reconnect_timeout: must be/],
    ['a fraction', withRest('shutdown_timeout: 1.5'), /^4:19 shutdown_timeout: must be a whole number/],
    ['infinity', withRest('resend_timeout: .inf'), /^4:17 resend_timeout: must be a whole number/],
    ['negative retries', withRest('max_retries: -1'), '4:14 max_retries: must be a whole number from 0 to 2147483647'],
    [
      'an empty host',
      database("host: '', database: d, username: u, password: p"),
      '1:24 databases.db.host: must not be empty',
    ],
    [
      'a host with port',
      database('host: "h:5432", database: d, username: u, password: p'),
      /databases.db.host: must be one host name or IP address/,
    ],
    [
      'several hosts in one',
      database('host: "a,b", database: d, username: u, password: p'),
      /databases.db.host: must be one host name or IP address/,
    ],
    [
      'neither host nor hosts',
      database('database: d, username: u, password: p'),
      '1:13 databases.db.host: is missing; set host or hosts',
    ],
    ['host and hosts', withDatabase('hosts: [g]'), /^1:\d+ databases.db.hosts: replaces host; set only one of them$/],
    [
      'hosts and port',
      database('hosts: [h], port: 1, database: d, username: u, password: p'),
      '1:30 databases.db.port: is for host; with hosts, write the ports in the list',
    ],
    [
      'no hosts',
      database('hosts: [], database: d, username: u, password: p'),
      '1:25 databases.db.hosts: must name at least one server',
    ],
    [
      'hosts as text',
      database('hosts: "a,b", database: d, username: u, password: p'),
      '1:25 databases.db.hosts: must be a list such as [pg1:5432, pg2:5432], not text',
    ],
    [
      'a bare IPv6 address in hosts',
      database('hosts: [h, "::1"], database: d, username: u, password: p'),
      '1:29 databases.db.hosts[1]: must be host or host:port, with a port from 1 to 65535 and an IPv6 address in brackets',
    ],
    [
      'one server twice in hosts',
      database('hosts: [h, g, "H.:5432"], database: d, username: u, password: p'),
      '1:32 databases.db.hosts[2]: is given twice',
    ],
    [
      'an empty database',
      database("host: h, database: '', username: u, password: p"),
      /databases.db.database: must not be empty$/,
    ],
    [
      'NUL in text',
      database('host: h, database: "a\\0b", username: u, password: p'),
      /databases.db.database: must not contain NUL/,
    ],
    ['an empty password', withPassword("''"), /databases.db.password: must not be empty$/],
    [
      'no password',
      database('host: h, database: d, username: u'),
      '1:13 databases.db.password: is missing; set password or tls.cert',
    ],
    [
      'a secret of two sources',
      withPassword('{env: A, file: b}'),
      /databases.db.password: .* exactly one of env and file$/,
    ],
    ['a secret of no source', withPassword('{}'), /databases.db.password: .* exactly one of env and file$/],
    [
      'a secret with a key that has a meaning in JavaScript',
      withPassword('{env: PATH, __proto__: {a: 1}}'),
      /exactly one of env and file$/,
    ],
    [
      'a variable that is not set',
      withPassword('{env: NO_PASS}'),
      '1:63 databases.db.password: environment variable NO_PASS is not set',
    ],
    ['a variable named by JavaScript', withPassword('{env: toString}'), /environment variable toString is not set$/],
    [
      'a file that is missing',
      withPassword('{file: /nope}'),
      '1:63 databases.db.password: file /nope cannot be read (ENOENT)',
    ],
    [
      'an unknown tls mode',
      withDatabase('tls: {mode: verify_full}'),
      /databases.db.tls.mode: .* did you mean "verify-full"\?$/,
    ],
    ['tls without value', withDatabase('tls: '), /databases.db.tls: must be a mapping, but has no value$/],
    [
      'a client certificate without key',
      withClient(`tls: {cert: ${JSON.stringify(PEM)}}`),
      /kafka_clients.main.tls.key: is missing; required by cert$/,
    ],
    [
      'a key without client certificate',
      withDatabase(`tls: {key: ${JSON.stringify(PEM)}}`),
      /databases.db.tls.cert: is missing; required by key$/,
    ],
    [
      'a certificate file that is missing',
      withDatabase('tls: {ca: /nope.pem}'),
      /databases.db.tls.ca: is neither PEM text .* nor the path of a readable file/,
    ],
    [
      'an IP address as server name',
      withClient('tls: {server_name: 10.0.0.1}'),
      /kafka_clients.main.tls.server_name: must be a name, not an IP address/,
    ],
    [
      'no brokers',
      config({ client: '{brokers: []}' }),
      '2:33 kafka_clients.main.brokers: must name at least one broker',
    ],
    [
      'brokers as text',
      config({ client: '{brokers: "k:1"}' }),
      /kafka_clients.main.brokers: must be a list such as .*, not text$/,
    ],
    [
      'a broker without port',
      withBroker('kafka'),
      '2:34 kafka_clients.main.brokers[0]: must be host:port, with a port from 1 to 65535 and an IPv6 address in brackets',
    ],
    ['a broker with port 0', withBroker('"k:0"'), /brokers\[0\]: must be host:port/],
    ['a broker with a port too high', withBroker('"k:1", "k:65536"'), /brokers\[1\]: must be host:port/],
    ['a bare IPv6 broker', withBroker('"::1:9092"'), /brokers\[0\]: must be host:port/],
    ['a broker as URL', withBroker('"kafka://k:9092"'), /brokers\[0\]: must be host:port/],
    ['a broker with a space', withBroker('k: 9092'), /brokers\[0\]: must be text, not a mapping$/],
    [
      'an unknown mechanism',
      withClient('sasl: {mechanism: SCRAM-SHA-521, username: u, password: p}'),
      /sasl.mechanism: must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; did you mean "SCRAM-SHA-512"\?$/,
    ],
    [
      'a reference to a missing database',
      config({ streams: `{dbs: {s: {ns: ${NAMESPACE}}}}` }),
      '3:11 streams.dbs: no such entry in databases; did you mean "db"?',
    ],
    [
      'a reference to a missing client',
      withNamespace('x: {kafka_client: mian, eventsink_topic: e, lifecycle_topic: l}, ns'),
      /streams.db.slot.x.kafka_client: no such entry in kafka_clients; did you mean "main"\?$/,
    ],
    [
      'a missing topic',
      withNamespace('x: {kafka_client: main, eventsink_topic: e}, ns'),
      '3:23 streams.db.slot.x.lifecycle_topic: is missing',
    ],
    ['an empty topic', withTopic("''"), /eventsink_topic: must not be empty$/],
    ['a topic of illegal letters', withTopic('a/b'), /eventsink_topic: is not a topic name/],
    ['a topic named ..', withTopic('..'), /eventsink_topic: is not a topic name: . and .. are not allowed$/],
    ['a topic too long', withTopic('t'.repeat(250)), /eventsink_topic: is not a topic name/],
    [
      'a slot with capitals',
      withSlot('Slot'),
      '3:16 streams.db.Slot: is not a slot name: use 1 to 63 of a-z, 0-9 and _',
    ],
    ['a slot with a dash', withSlot('a-b'), /^3:16 streams.db.a-b: is not a slot name/],
    ['an empty slot', withSlot("''"), /^3:16 streams.db."": is not a slot name/],
    ['a slot too long', withSlot('a'.repeat(64)), /is not a slot name/],
    ['an empty namespace', withNamespace("''"), '3:23 streams.db.slot."": is not a namespace: it must not be empty'],
    [
      'a namespace of 54 bytes',
      withNamespace('я'.repeat(27)),
      /^3:23 .*: is not a namespace: it has 54 bytes of UTF-8/,
    ],
    [
      'a namespace with NUL',
      withNamespace('"a\\0b"'),
      '3:23 streams.db.slot."a\\u0000b": is not a namespace: it must not contain NUL or half a surrogate pair',
    ],
    [
      'an unknown choice',
      withNamespace('x: {kafka_client: main, eventsink_topic: e, lifecycle_topic: l, on_missing_old_tuple: no}, ns'),
      /on_missing_old_tuple: must be stop or skip$/,
    ],
    [
      'a choice with quotes that it must not have',
      withRest('slots: {db: {slot: {failover: "true"}}}'),
      '4:31 slots.db.slot.failover: must be true or false, without quotes',
    ],
    ...['16B3748', '"0/"', '0/16B3748FF', '-1/0', '0x1/2'].map((lsn): [string, string, RegExp] => [
      `an LSN such as ${lsn}`,
      withRest(`slots: {db: {slot: {accept_loss_after: ${lsn}}}}`),
      /^4:40 slots.db.slot.accept_loss_after: must be an LSN: two hexadecimal numbers separated by a slash/,
    ]),
    [
      'an LSN that is a number',
      withRest('slots: {db: {slot: {accept_loss_after: 16}}}'),
      '4:40 slots.db.slot.accept_loss_after: must be text; put it in quotes',
    ],
    [
      'settings of slots of a database that is not streamed',
      withRest('slots: {dbb: {slot: {}}}'),
      '4:9 slots.dbb: no such entry in streams; did you mean "db"?',
    ],
    [
      'settings of a slot that is not streamed',
      withRest('slots: {db: {slott: {}}}'),
      '4:14 slots.db.slott: no such slot in streams.db; did you mean "slot"?',
    ],
    ['settings of no slot', withRest('slots: {db: {}}'), '4:13 slots.db: must have at least one slot'],
    [
      'an unknown setting of a slot',
      withRest('slots: {db: {slot: {fail_over: true}}}'),
      /unknown key; .* "failover"\?$/,
    ],
    [
      'parking without a topic',
      withParking('on_invalid: park'),
      /ns.parking_topic: is missing; required by on_invalid: park$/,
    ],
    [
      'a parking topic without parking',
      withParking('parking_topic: p'),
      /ns.parking_topic: is only allowed with on_invalid: park/,
    ],
    [
      'a parking topic that is the topic of events',
      withParking('on_invalid: park, parking_topic: e'),
      /ns.parking_topic: must be a topic of its own; this one is also streams.db.slot.ns.eventsink_topic$/,
    ],
    [
      'a parking topic that is the lifecycle topic of another namespace',
      withParking('on_invalid: park, parking_topic: m', `, other: ${NAMESPACE.replace('l}', 'm}')}`),
      /ns.parking_topic: must be a topic of its own; this one is also streams.db.slot.other.lifecycle_topic$/,
    ],
    [
      'needed columns of a table with identity FULL',
      withParking('publish_columns: needed'),
      /ns.publish_columns: needed requires replica_identity: status_index$/,
    ],
    [
      'needed columns of a table with identity FULL that is named',
      withParking('publish_columns: needed, replica_identity: full'),
      /ns.publish_columns: needed requires replica_identity: status_index$/,
    ],
    [
      'a namespace in two slots that deliver to one topic',
      config({ streams: `{db: {a: {ns: ${NAMESPACE}}, b: {ns: ${NAMESPACE}}}}` }),
      /^3:\d+ streams.db.b.ns.eventsink_topic: is the topic of streams.db.a.ns already, which would deliver/,
    ],
    [
      'a namespace in two slots with another replica identity',
      config({
        streams: `{db: {a: {ns: ${NAMESPACE}}, b: {ns: {kafka_client: main, eventsink_topic: e2, lifecycle_topic: l2, replica_identity: status_index}}}}`,
      }),
      /^3:\d+ streams.db.b.ns: needs the replica_identity of streams.db.a.ns: both slots use one publication$/,
    ],
  ])('%s', (_, text, mistake) => {
    expect(mistakesOf(text)).toContainEqual(typeof mistake === 'string' ? mistake : expect.stringMatching(mistake));
  });

  test('one slot on a server with two db_refs, whose host differs in case only', () => {
    const text = config({
      moreDatabases: ', other: {host: PG., port: 5432, database: x, username: u, password: p}',
      streams: `{db: {slot: {ns: ${NAMESPACE}}}, other: {slot: {ns: ${NAMESPACE}}}}`,
    });
    expect(mistakesOf(text)).toEqual([
      expect.stringMatching(/^3:\d+ streams.other.slot: slot is already used by streams.db on the same server$/),
    ]);
  });

  test('one slot on a server in two lists of hosts, next to one on another server', () => {
    const access = 'database: x, username: u, password: p';
    const slots = (namespace: string) => `{slot: {${namespace}: ${NAMESPACE}}}`;
    const text = config({
      database: `{host: a, ${access}}`,
      moreDatabases: `, b: {host: b, port: 5433, ${access}}, ab: {hosts: [c, A, 'b:5433'], ${access}}, d: {hosts: [d, c], ${access}}`,
      streams: `{db: ${slots('n')}, b: ${slots('n')}, ab: ${slots('m')}, d: ${slots('n')}}`,
    });
    expect(mistakesOf(text)).toEqual([
      expect.stringMatching(/^3:\d+ streams.ab.slot: slot is already used by streams.db on the same server$/),
      expect.stringMatching(/^3:\d+ streams.d.slot: slot is already used by streams.ab on the same server$/),
    ]);
  });

  test('a namespace in two slots of a database with two db_refs', () => {
    const text = config({
      moreDatabases: ', other: {host: PG, database: d, username: u, password: p}',
      streams: `{db: {a: {ns: ${NAMESPACE}}}, other: {b: {ns: ${NAMESPACE}}}}`,
    });
    expect(mistakesOf(text)).toEqual([
      expect.stringMatching(/^3:\d+ streams.other.b.ns.eventsink_topic: is the topic of streams.db.a.ns already/),
      expect.stringMatching(/^3:\d+ streams.other.b.ns.lifecycle_topic: is the topic of streams.db.a.ns already/),
    ]);
  });

  test('a namespace may be in two slots of a database that deliver to other topics', () => {
    const other = '{kafka_client: main, eventsink_topic: e2, lifecycle_topic: l2}';
    const text = config({ streams: `{db: {a: {ns: ${NAMESPACE}}, b: {ns: ${other}}}}` });
    expect(mistakesOf(text)).toEqual([]);
  });

  test('secrets that are empty, not UTF-8, or not PEM', () => {
    const sources = {
      environment: { EMPTY: '' },
      files: { '/empty': '\n', '/binary': new Uint8Array([0xff, 0xfe]), '/text': 'hello' },
    };
    const passwordMistake = (source: string) => mistakesOf(withPassword(source), sources)[0];
    expect(passwordMistake('{env: EMPTY}')).toEndWith('environment variable EMPTY is empty');
    expect(passwordMistake('{file: /empty}')).toEndWith('file /empty is empty');
    expect(passwordMistake('{file: /binary}')).toEndWith('file /binary is not UTF-8 text');
    expect(mistakesOf(withDatabase('tls: {ca: {file: /text}}'), sources)[0]).toEndWith(
      'databases.db.tls.ca: contains no PEM text (-----BEGIN ...)',
    );
  });

  test('keys that are encrypted or of another certificate', () => {
    const file = (name: string) => readFileSync(join(import.meta.dirname, '../../fixtures/tls', name), 'utf8');
    const files = {
      '/client.crt': file('client.crt'),
      '/client.key': file('client.key'),
      '/server.key': file('server.key'),
      '/encrypted.key': file('client.key').replaceAll('PRIVATE KEY', 'ENCRYPTED PRIVATE KEY'),
    };
    const mistakes = (key: string) => mistakesOf(withDatabase(`tls: {cert: /client.crt, key: ${key}}`), { files });
    expect(mistakes('/client.key')).toEqual([]);
    expect(mistakes('/server.key')[0]).toEndWith('databases.db.tls.key: does not belong to the certificate in cert');
    expect(mistakes('/encrypted.key')[0]).toContain('databases.db.tls.key: is an encrypted key');
  });

  test('all mistakes at once, in the order of the file, none hidden by another', () => {
    const text = `databases:
  progressor_db:
    hots: postgres
    password: 0123
  twin: {host: a, database: x, username: u, password: {env: NOPE}}
  again: {host: A, database: x, username: u, password: {file: /nope}}
kafka_clients:
  main: {brokers: kafka}
streams:
  progresor_db:
    Slot:
      ns: {kafka_client: mian, lifecycle_topic: 5}
  twin: {s: {ns: ${NAMESPACE}}}
  again: {s: {ns: ${NAMESPACE}}}
max_retries: many
max_retries: 3
log: {level: inf}
`;
    expect(mistakesOf(text).map((mistake) => mistake.split(': ').slice(0, 2).join(': '))).toEqual([
      '2:3 databases.progressor_db.database: is missing',
      '2:3 databases.progressor_db.username: is missing',
      '2:3 databases.progressor_db.host: is missing; set host or hosts',
      '3:5 databases.progressor_db.hots: unknown key; did you mean "hosts"?',
      '4:15 databases.progressor_db.password: must be text; put it in quotes',
      '5:55 databases.twin.password: environment variable NOPE is not set',
      '6:56 databases.again.password: file /nope cannot be read (ENOENT)',
      '8:19 kafka_clients.main.brokers: must be a list such as [kafka1:9092, kafka2:9092], not text',
      '10:3 streams.progresor_db: no such entry in databases; did you mean "progressor_db"?',
      '11:5 streams.progresor_db.Slot: is not a slot name',
      '12:7 streams.progresor_db.Slot.ns.eventsink_topic: is missing',
      '12:26 streams.progresor_db.Slot.ns.kafka_client: no such entry in kafka_clients; did you mean "main"?',
      '12:49 streams.progresor_db.Slot.ns.lifecycle_topic: must be text; put it in quotes',
      '14:11 streams.again.s: slot is already used by streams.twin on the same server',
      '14:57 streams.again.s.ns.eventsink_topic: is the topic of streams.twin.s.ns already, which would deliver every record a second time',
      '14:77 streams.again.s.ns.lifecycle_topic: is the topic of streams.twin.s.ns already, which would deliver every record a second time',
      '15:14 max_retries: must be a whole number from 0 to 2147483647, without quotes',
      '16:1 max_retries: is given twice; the first is on line 15',
      '17:14 log.level: must be trace, debug, info, warn, error or fatal; did you mean "info"?',
    ]);
  });

  test('too many aliases', () => {
    const names = Array.from({ length: 101 }, (_, n) => `, b${n}: *a`).join('');
    const text = config({ database: `&a {host: pg, database: d, username: u, password: p}${names}` });
    expect(mistakesOf(text)).toEqual([
      expect.stringMatching(/^1:\d+ databases.b100: too many aliases: at most 100 are followed$/),
    ]);
  });

  test('every syntax error, with its position', () => {
    expect(mistakesOf('a: "x\\q"\nb: "y\\w"\nc: [1\n')).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^1:\d+ : is not valid YAML: unknown escape sequence/),
        expect.stringMatching(/^2:\d+ : is not valid YAML: unknown escape sequence/),
        expect.stringMatching(/^4:1 : is not valid YAML/),
      ]),
    );
  });

  test.each([
    [
      'nested aliases',
      `${[1, 2, 3, 4, 5].reduce((text, n) => `${text}a${n}: &a${n} {${'abcdefghijklmnop'.split('').map((k) => `${k}: *a${n - 1}`)}}\n`, 'a0: &a0 x\n')}streams: *a5\n`,
    ],
    ['an alias of itself', 'streams: &a {a: *a, b: *a, c: *a}\ndatabases: *a\nkafka_clients: *a\n'],
    ['many aliases', `databases: {a: &a {host: h}, ${Array.from({ length: 200 }, (_, n) => `b${n}: *a`)}}`],
    ['deep nesting', `a: ${'['.repeat(100_000)}`],
    ['deep mappings', '{a: '.repeat(20_000)],
    ['a huge text', '#'.repeat(2 ** 21)],
  ])('%s in bounded time', (_, text) => {
    const start = performance.now();
    expect(mistakesOf(text).length).toBeGreaterThan(0);
    expect(performance.now() - start).toBeLessThan(5000);
  });
});

describe('ConfigError', () => {
  test('message has one line for each mistake, in the format of compilers', () => {
    expect(() => parse(config({ rest: 'a: 1\nmax_retries: x' }))).toThrow(
      /^\/etc\/notifier\/c.yaml:4:1: a: unknown key.*\n\/etc\/notifier\/c.yaml:5:14: max_retries: must be a whole number.*$/,
    );
  });

  test.each([
    'HUNTER2X5',
    '!HUNTER2X5',
    '*HUNTER2X5',
    '&HUNTER2X5',
    '"\\HUNTER2X5"',
    '@HUNTER2X5',
    '`HUNTER2X5',
    '%HUNTER2X5',
    '|HUNTER2X5',
    '{HUNTER2X5}',
    '{HUNTER2X5: a, HUNTER2X5: b}',
    '[HUNTER2X5]',
    '{env: HUNTER2X5!}',
    '"x" HUNTER2X5',
    'HUNTER2X5: HUNTER2X5',
    '{file: {HUNTER2X5: 1}}',
  ])('never shows a password, written as %s', (password) => {
    const text = `databases:\n  db:\n    host: h\n    password: ${password}\n    tls: {key: HUNTER2X5}\n`;
    const mistakes = mistakesOf(text);
    expect(mistakes.length).toBeGreaterThan(0);
    expect(mistakes.join('\n')).not.toContain('HUNTER2X5');
  });
});

describe('parseConfig warns', () => {
  test('of values that look like templates, with their places, and shows none of them', () => {
    const host = `$${'{'}HUNTER2X5}`;
    const text = config({ database: `{host: '${host}', database: d, username: u, password: '{{ HUNTER2X5 }}'}` });
    const { warnings } = parse(text);
    expect(warnings).toEqual([
      expect.stringMatching(/:1:\d+: databases.db.host: looks like a template that nothing has filled in$/),
      expect.stringMatching(/:1:\d+: databases.db.password: looks like a template that nothing has filled in$/),
    ]);
    expect(warnings.join()).not.toContain('HUNTER2X5');
    expect(parse(config({ database: '{host: h, database: d, username: u, password: "a$b{c}"}' })).warnings).toEqual([]);
  });
});

describe('a secret', () => {
  const withPassword = (password: string) =>
    config({ database: `{host: h, database: d, username: u, password: ${password}}` });
  const passwordOf = (loaded: Config) => databaseOf(loaded)!.password!;

  test('is read again each time, so a rotated one takes effect', () => {
    const environment: Record<string, string> = { PASS: 'first' };
    const files: Record<string, string> = { '/etc/notifier/pass': 'one\n' };
    const fromVariable = passwordOf(parse(withPassword('{env: PASS}'), { environment }));
    const fromFile = passwordOf(parse(withPassword('{file: pass}'), { files }));
    expect([readSecret(fromVariable), readSecret(fromFile)]).toEqual(['first', 'one']);
    environment.PASS = 'second';
    files['/etc/notifier/pass'] = 'two\r\n';
    expect([readSecret(fromVariable), readSecret(fromFile)]).toEqual(['second', 'two']);
    delete environment.PASS;
    delete files['/etc/notifier/pass'];
    expect(() => readSecret(fromVariable)).toThrow(new SecretError('environment variable PASS is not set'));
    expect(() => readSecret(fromFile)).toThrow(new SecretError('file /etc/notifier/pass cannot be read (ENOENT)'));
  });

  test.each([
    [' a b \n\n', ' a b \n'],
    ['a\r\n', 'a'],
    ['\uFEFFa\uFEFF', 'a'],
    ['a\uFEFF\n', 'a'],
  ])('of %j is %j from a file, a variable and the configuration alike', (written, text) => {
    const sources = { files: { '/p': written }, environment: { P: written } };
    const read = (password: string) => readSecret(passwordOf(parse(withPassword(password), sources)));
    expect([read('{file: /p}'), read('{env: P}'), read(JSON.stringify(written))]).toEqual([text, text, text]);
  });

  test('does not appear when a configuration is printed, inspected or serialized', () => {
    const loaded = parse(withPassword('HUNTER2X5'));
    expect(readSecret(passwordOf(loaded))).toBe('HUNTER2X5');
    const shown = [
      JSON.stringify(loaded.streams),
      inspect(loaded, { depth: 20, showHidden: true }),
      Bun.inspect(loaded, { depth: 20 }),
      String(passwordOf(loaded)),
    ];
    expect(shown.join('\n')).not.toContain('HUNTER2X5');
  });
});

describe('loadConfig', () => {
  test('reads the example, with its secrets from the environment', () => {
    const { streams, kafkaClients } = loadConfig(join(import.meta.dir, '../../../config/cdc-notifier.example.yaml'), {
      PROGRESSOR_DB_PASSWORD: 'a',
      KAFKA_PASSWORD: 'b',
    });
    expect(streams.map(({ slot }) => slot)).toEqual(['cdc_slot_default', 'cdc_slot_invoice']);
    expect(streams[0]?.database.tls?.mode).toBe('verify-full');
    const sasl = kafkaClients.get('default_kafka_client')?.sasl;
    expect([sasl?.mechanism, readSecret(sasl!.password)]).toEqual(['SCRAM-SHA-512', 'b']);
  });

  test('reads the minimal configuration', () => {
    const path = join(import.meta.dirname, '../../../config/minimal.yaml');
    const readFile = () => Buffer.from('password\n');
    const { streams, http } = parseConfig(readFileSync(path, 'utf8'), { fileName: path, environment: {}, readFile });
    expect(streams.map(({ slot, namespaces }) => [slot, ...namespaces.keys()])).toEqual([
      ['cdc_slot_default', 'default/default'],
    ]);
    expect(http?.port).toBe(8022);
  });

  test('refuses a missing file, a directory and bytes that are not UTF-8', () => {
    const directory = mkdtempSync(join(tmpdir(), 'config-'));
    try {
      const binary = join(directory, 'binary.yaml');
      writeFileSync(binary, new Uint8Array([0x61, 0x3a, 0x20, 0xff]));
      expect(() => loadConfig(join(directory, 'none.yaml'))).toThrow(/none.yaml:1:1: cannot be read \(ENOENT\)$/);
      expect(() => loadConfig(directory)).toThrow(/:1:1: cannot be read \(EISDIR\)$/);
      expect(() => loadConfig(binary)).toThrow(/binary.yaml:1:1: is not UTF-8 text$/);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

test('parseConfig of mutated configurations throws nothing but ConfigError', () => {
  // xorshift32: the same mutations in every run
  let state = 0x2545f491;
  const random = (bound: number) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % bound;
  };
  const alphabet = '{}[]:,&*!|>\'"%@`#-? \n\t\\~<0a\u0000\ud800é';
  const original = config({ rest: 'log:\n  level: info\nmax_retries: 3\n' });
  for (let round = 0; round < 2000; round++) {
    let text = original;
    for (let count = random(4) + 1; count > 0; count--) {
      const at = random(text.length);
      text = text.slice(0, at) + alphabet[random(alphabet.length)] + text.slice(at + random(6));
    }
    mistakesOf(text); // rethrows anything else
  }
});
