/**
 * What a configuration file may hold: every key with its meaning, type, unit and default. The reference table of the
 * README is held against `describeConfiguration`. Rules that tie several keys together are in `cross-checks.ts`.
 *
 * Mappings whose keys users choose are Maps here, so that a namespace may be called `constructor` or `__proto__`.
 */

import { isIPv6 } from 'node:net';
import * as v from 'valibot';
import type { BrokerAddress } from './config.ts';
import { type SchemaNode, shapeOf } from './schema-shape.ts';
import type { SecretSource } from './secret-source.ts';
import { secretMistake } from './secret-source.ts';
import { didYouMean } from './suggest.ts';

/** Longest wait that setTimeout takes; anything above fires at once. */
const MAX_MS = 2 ** 31 - 1;
/** PostgreSQL cuts identifiers at 63 bytes: `NS_processes` must fit. */
const MAX_NAMESPACE_BYTES = 53;

const port = v.pipe(wholeNumber(1, 65_535), v.description('TCP port of the server'));

const databaseTls = v.strictObject(
  {
    mode: v.optional(
      v.pipe(
        oneOf(['disable', 'require', 'verify-ca', 'verify-full']),
        v.description(
          '`disable`: plaintext. `require`: encrypted, verifies nothing, logs a warning. `verify-ca`: verifies the chain. `verify-full`: verifies the chain and the host name',
        ),
      ),
      'verify-full',
    ),
    ...tlsMaterial(),
  },
  mappingMessage,
);

const database = v.strictObject(
  {
    host: v.pipe(
      text(),
      v.check(isHost, 'must be one host name or IP address, without port and brackets'),
      v.description('Host name or IP address of the PostgreSQL server'),
    ),
    port: v.optional(port, 5432),
    database: v.pipe(text(), v.description("Name of the database that holds progressor's tables")),
    username: v.pipe(text(), v.description('Role to log in as; needs REPLICATION')),
    password: v.optional(
      v.pipe(
        secret(),
        v.description('Password of the role; required unless `tls.cert` is given'),
        v.metadata({ defaultText: 'required' }),
      ),
    ),
    tls: v.optional(
      v.pipe(
        databaseTls,
        v.description('Encryption; without it the connection is plaintext, and `{}` means `verify-full`'),
      ),
    ),
  },
  mappingMessage,
);

const kafkaTls = v.strictObject(
  {
    ...tlsMaterial(),
    server_name: v.optional(
      v.pipe(
        text(),
        v.description("Name to send (SNI) and to verify in place of each broker's host"),
        v.metadata({ defaultText: "the broker's host" }),
      ),
    ),
  },
  mappingMessage,
);

const sasl = v.strictObject(
  {
    mechanism: v.pipe(
      oneOf(['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']),
      v.description('SASL mechanism that the brokers offer'),
    ),
    username: v.pipe(text(), v.description('User to authenticate as')),
    password: v.pipe(secret(), v.description('Password of the user')),
  },
  mappingMessage,
);

const kafkaClient = v.strictObject(
  {
    brokers: v.pipe(
      v.array(
        brokerAddress(),
        (issue) => `must be a list such as [kafka1:9092, kafka2:9092]${foundInstead(issue.input)}`,
      ),
      v.minLength(1, 'must name at least one broker'),
      v.description('Brokers to start from, each `host:port` (an IPv6 address in brackets)'),
    ),
    client_id: v.optional(
      v.pipe(
        text(),
        v.maxLength(255, 'must have at most 255 characters'),
        v.description('Name under which brokers see this client in logs and quotas'),
      ),
      'cdc-notifier',
    ),
    tls: v.optional(
      v.pipe(
        kafkaTls,
        v.description(
          'Encryption, always verified; without it connections are plaintext, and `{}` trusts the authorities of the system',
        ),
      ),
    ),
    sasl: v.optional(v.pipe(sasl, v.description('Authentication; without it none is tried'))),
    connect_timeout: v.optional(
      v.pipe(milliseconds(), v.description('Longest wait for a connection to a broker')),
      5000,
    ),
    request_timeout: v.optional(
      v.pipe(milliseconds(), v.description('Longest wait for the answer to a request')),
      30_000,
    ),
  },
  mappingMessage,
);

const namespace = v.strictObject(
  {
    kafka_client: v.pipe(text(), v.description('Entry of `kafka_clients` that the records go to')),
    eventsink_topic: v.pipe(topic(), v.description('Existing topic for the events of processes')),
    lifecycle_topic: v.pipe(
      topic(),
      v.description('Existing topic for creation, failure, repair and removal of processes'),
    ),
    on_missing_old_tuple: v.optional(
      v.pipe(
        oneOf(['stop', 'skip']),
        v.description(
          'What to do with an update of a process that was written before its table had REPLICA IDENTITY FULL: `stop` the slot, or `skip` the update, count and log it',
        ),
      ),
      'stop',
    ),
  },
  mappingMessage,
);

const log = v.strictObject(
  {
    level: v.optional(
      v.pipe(oneOf(['trace', 'debug', 'info', 'warn', 'error', 'fatal']), v.description('Lowest level that is logged')),
      'info',
    ),
    format: v.optional(
      v.pipe(
        oneOf(['auto', 'json', 'text']),
        v.description(
          '`json`: one object a line. `text`: for reading. `auto`: `text` when stderr is a terminal, else `json`',
        ),
      ),
      'auto',
    ),
  },
  mappingMessage,
);

/** The whole file. Its input is the tree that `document.ts` makes. */
export const configSchema = v.strictObject(
  {
    databases: v.pipe(
      named('db_ref', name(), database),
      v.description('PostgreSQL databases, each under a name of your choice (db_ref)'),
    ),
    kafka_clients: v.pipe(
      named('kafka_client', name(), kafkaClient),
      v.description('Kafka clusters, each under a name of your choice'),
    ),
    streams: v.pipe(
      named(
        'db_ref',
        name(),
        named(
          'slot',
          slotName(),
          named('namespace', namespaceName(), namespace, 'must have at least one namespace'),
          'must have at least one slot',
        ),
      ),
      v.description(
        'What is streamed: for each db_ref its replication slots (1 to 63 of a-z, 0-9 and _; unique on their server), for each slot its namespaces (1 to 53 bytes; each in one slot of a database)',
      ),
    ),
    resend_timeout: v.optional(
      v.pipe(milliseconds(), v.description('Pause between two attempts to send the same records')),
      3000,
    ),
    max_retries: v.optional(
      v.pipe(
        wholeNumber(0, MAX_MS),
        v.description('How often a failed send is repeated before replication of its slot is restarted'),
      ),
      3,
    ),
    reconnect_timeout: v.optional(
      v.pipe(milliseconds(), v.description('Pause before replication of a slot is restarted after a failure')),
      5000,
    ),
    shutdown_timeout: v.optional(
      v.pipe(milliseconds(), v.description('Longest wait for what is in flight when the service is asked to stop')),
      20_000,
    ),
    log: v.optional(v.pipe(log, v.description('Log, written to stderr'), v.metadata({ defaultText: '`{}`' })), {}),
  },
  mappingMessage,
);

/** A checked file, in its own words; `load.ts` turns it into a Config. */
export type ConfigFile = v.InferOutput<typeof configSchema>;

/** One key of the configuration, for the reference in the README. */
export interface ConfigurationKey {
  /** Keys from the top; a name that the user chooses stands in angle brackets: `databases.<db_ref>.port` */
  readonly path: string;
  /** `text`, `whole number`, `secret`, `PEM`, `list of text`, `mapping`, or the words to choose from */
  readonly type: string;
  /** As it is written in the file, `required`, `none`, or what stands in for it */
  readonly default: string;
  readonly unit?: string;
  readonly meaning: string;
}

/** Every key that a file may hold, in the order of the schema. */
export function describeConfiguration(): ConfigurationKey[] {
  return [...describeEntries(configSchema, '')];
}

function* describeEntries(schema: SchemaNode, path: string): Generator<ConfigurationKey> {
  const shape = shapeOf(schema);
  if (shape.kind === 'named') {
    yield* describeEntries(shape.value, `${path}<${shape.placeholder}>.`);
  } else if (shape.kind === 'fixed') {
    for (const [key, entry] of shape.entries) {
      const entryShape = shapeOf(entry);
      const unit = entryShape.metadata.unit;
      yield {
        path: `${path}${key}`,
        type: String(entryShape.metadata.type ?? 'mapping'),
        default: entryShape.defaultText,
        ...(unit === undefined ? {} : { unit: String(unit) }),
        meaning: entryShape.meaning,
      };
      yield* describeEntries(entry, `${path}${key}.`);
    }
  }
}

// ---- building blocks: each knows how to tell its mistake --------------------------------------------------------------

function text() {
  return v.pipe(
    v.string((issue) => `must be text${foundInsteadOfText(issue.input)}`),
    v.nonEmpty('must not be empty'),
    v.check((value) => value.isWellFormed() && !value.includes('\0'), 'must not hold NUL or half a surrogate pair'),
    v.metadata({ type: 'text' }),
  );
}

function name() {
  return v.pipe(v.string(), v.nonEmpty('must have a name'));
}

function slotName() {
  return v.pipe(v.string(), v.regex(/^[a-z0-9_]{1,63}$/, 'is no slot name: 1 to 63 of a-z, 0-9 and _ are allowed'));
}

function namespaceName() {
  return v.pipe(
    v.string(),
    v.nonEmpty('is no namespace: it must not be empty'),
    v.check(
      (value) => value.isWellFormed() && !value.includes('\0'),
      'is no namespace: it must not hold NUL or half a surrogate pair',
    ),
    v.maxBytes(
      MAX_NAMESPACE_BYTES,
      (issue) =>
        `is no namespace: it has ${issue.received} bytes of UTF-8, and at most ${MAX_NAMESPACE_BYTES} leave room for the names of its tables`,
    ),
  );
}

function topic() {
  return v.pipe(
    text(),
    v.regex(/^[a-zA-Z0-9._-]{1,249}$/, 'is no topic name: 1 to 249 of a-z, A-Z, 0-9, ., _ and - are allowed'),
    v.notValues(['.', '..'], 'is no topic name: . and .. are not allowed'),
  );
}

function wholeNumber(min: number, max: number) {
  const range = `must be a whole number from ${min} to ${max}`;
  return v.pipe(
    v.number((issue) => (typeof issue.input === 'string' ? `${range}, without quotes` : range)),
    v.integer(range),
    v.minValue(min, range),
    v.maxValue(max, range),
    v.metadata({ type: 'whole number' }),
  );
}

function milliseconds() {
  return v.pipe(wholeNumber(1, MAX_MS), v.metadata({ unit: 'ms' }));
}

function oneOf<const Words extends readonly string[]>(words: Words) {
  return v.pipe(
    v.picklist(words, (issue) => {
      const hint = typeof issue.input === 'string' ? didYouMean(issue.input, words) : foundInstead(issue.input);
      return `must be ${words.slice(0, -1).join(', ')} or ${words.at(-1)}${hint}`;
    }),
    v.metadata({ type: words.map((word) => `\`${word}\``).join(', ') }),
  );
}

function brokerAddress() {
  return v.pipe(
    text(),
    v.rawTransform<string, BrokerAddress>(({ dataset, addIssue, NEVER }) => {
      const address = splitBrokerAddress(dataset.value);
      if (address !== undefined) return address;
      addIssue({ message: 'must be host:port, with a port from 1 to 65535 and an IPv6 address in brackets' });
      return NEVER;
    }),
  );
}

function secret() {
  return v.pipe(
    v.custom<SecretSource>(
      (input) => secretMistake(input) === undefined,
      (issue) => secretMistake(issue.input) ?? '',
    ),
    v.metadata({ type: 'secret', secret: 'text' }),
  );
}

function pem() {
  return v.pipe(secret(), v.metadata({ type: 'PEM', secret: 'pem' }));
}

function tlsMaterial() {
  return {
    ca: v.optional(
      v.pipe(pem(), v.description('Authorities to trust'), v.metadata({ defaultText: 'those of the system' })),
    ),
    cert: v.optional(v.pipe(pem(), v.description('Client certificate with its chain; needs `key`'))),
    key: v.optional(v.pipe(pem(), v.description('Private key of `cert`'))),
  };
}

function named<Key extends v.GenericSchema<string>, Value extends v.GenericSchema>(
  placeholder: string,
  key: Key,
  value: Value,
  emptyMessage = 'must have at least one entry',
) {
  return v.pipe(v.map(key, value, mappingMessage), v.minSize(1, emptyMessage), v.metadata({ placeholder }));
}

function mappingMessage(issue: v.BaseIssue<unknown>): string {
  // A strict object raises this same message for a key that is not there.
  const step = issue.path?.at(-1);
  if (step !== undefined && 'origin' in step && step.origin === 'key') return 'is missing';
  return `must be a mapping${foundInstead(issue.input)}`;
}

/** What stands there instead, without showing it: it may be a secret in the wrong place. */
function foundInstead(input: unknown): string {
  if (input === null || input === undefined) return ', and has no value';
  if (Array.isArray(input)) return ', not a list';
  return typeof input === 'object' ? ', not a mapping' : typeof input === 'string' ? ', not text' : '';
}

/** As `foundInstead`; YAML makes numbers, true, false and null of bare words that were meant as text. */
function foundInsteadOfText(input: unknown): string {
  if (input === null) return ', and has no value; if the word null is meant, put it in quotes';
  return typeof input === 'number' || typeof input === 'boolean' ? '; put it in quotes' : foundInstead(input);
}

function isHost(host: string): boolean {
  return isIPv6(host) || /^[^\s/:,@[\]]+$/u.test(host);
}

/** Takes `host:port` or `[address]:port` apart; undefined when it is neither. */
function splitBrokerAddress(text: string): BrokerAddress | undefined {
  const match = /^(?:\[(?<address>[^\]]+)\]|(?<name>[^\s/:,@[\]]+)):(?<port>[0-9]{1,5})$/u.exec(text);
  if (match?.groups === undefined) return undefined;
  const { address, name } = match.groups;
  const port = Number(match.groups.port);
  if (port < 1 || port > 65_535 || (address !== undefined && !isIPv6(address))) return undefined;
  return { host: address ?? name ?? '', port };
}
