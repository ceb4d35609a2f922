/**
 * The keys of a configuration file, each with its meaning, type, unit and default. A test compares the reference table in
 * config/README.md with `describeConfiguration`. Rules that involve several keys are in `cross-checks.ts`.
 *
 * Mappings with names of the user's choice are Maps, so a namespace may be called `constructor` or `__proto__`.
 */

import { isIP } from 'node:net';
import * as v from 'valibot';
import { type Lsn, parseLsn } from '../lsn.ts';
import { isHost, POSTGRES_PORT, parseAddress } from './address.ts';
import type { ServerAddress } from './config.ts';
import { type SchemaNode, shapeOf } from './schema-shape.ts';
import type { SecretSource } from './secret-source.ts';
import { secretMistake } from './secret-source.ts';
import { didYouMean } from './suggest.ts';

/** Longest wait that setTimeout accepts; a longer one would fire at once. */
const MAX_MS = 2 ** 31 - 1;
/** Kafka writes the size of a request as an int32. */
const MAX_REQUEST_BYTES = 2_000_000_000;
/** PostgreSQL truncates identifiers at 63 bytes: `NS_processes` must fit. */
const MAX_NAMESPACE_BYTES = 53;

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
    host: v.optional(
      v.pipe(
        host(),
        v.description('Host name or IP address of the PostgreSQL server; required unless `hosts` is set'),
        v.metadata({ defaultText: 'required' }),
      ),
    ),
    port: v.optional(
      v.pipe(wholeNumber(1, 65_535), v.description('TCP port of the server; only with `host`')),
      POSTGRES_PORT,
    ),
    hosts: v.optional(
      v.pipe(
        v.array(
          address(
            'must be host or host:port, with a port from 1 to 65535 and an IPv6 address in brackets',
            POSTGRES_PORT,
          ),
          (issue) => `must be a list such as [pg1:5432, pg2:5432]${foundInstead(issue.input)}`,
        ),
        v.minLength(1, 'must name at least one server'),
        v.description(
          'Instead of `host`: a primary and its standbys, each `host` or `host:port` (an IPv6 address in brackets); the service follows the one that accepts writes',
        ),
      ),
    ),
    database: v.pipe(text(), v.description("Name of the database that holds progressor's tables")),
    username: v.pipe(text(), v.description('Role to log in as; needs REPLICATION')),
    password: v.optional(
      v.pipe(
        secret(),
        v.description('Password of the role; required unless `tls.cert` is set'),
        v.metadata({ defaultText: 'required' }),
      ),
    ),
    tls: v.optional(
      v.pipe(
        databaseTls,
        v.description('Encryption; without it the connection is plaintext. `{}` means `verify-full`'),
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
        v.check((name) => isIP(name) === 0, 'must be a name, not an IP address: TLS sends no address as server name'),
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
        address('must be host:port, with a port from 1 to 65535 and an IPv6 address in brackets'),
        (issue) => `must be a list such as [kafka1:9092, kafka2:9092]${foundInstead(issue.input)}`,
      ),
      v.minLength(1, 'must name at least one broker'),
      v.description('Bootstrap brokers, each `host:port` (an IPv6 address in brackets)'),
    ),
    client_id: v.optional(
      v.pipe(
        text(),
        v.maxLength(255, 'must have at most 255 characters'),
        v.description('Name of this client in the logs and quotas of the brokers'),
      ),
      'cdc-notifier',
    ),
    tls: v.optional(
      v.pipe(
        kafkaTls,
        v.description(
          'Encryption, always verified; without it connections are plaintext. `{}` trusts the CA certificates of the system',
        ),
      ),
    ),
    sasl: v.optional(v.pipe(sasl, v.description('Authentication; without it the client does not authenticate'))),
    compression: v.optional(
      v.pipe(
        oneOf(['none', 'gzip', 'snappy', 'lz4', 'zstd']),
        v.description('Compression of record batches; a batch that compression would enlarge is sent uncompressed'),
      ),
      'none',
    ),
    accept_cluster_id: v.optional(
      v.pipe(
        text(),
        v.description(
          'Id of the cluster that may take the place of the one that the slots delivered to before, as the error asks for it',
        ),
      ),
    ),
    connect_timeout: v.optional(
      v.pipe(milliseconds(), v.description('Longest wait for a connection to a broker')),
      5000,
    ),
    request_timeout: v.optional(
      v.pipe(milliseconds(), v.description('Longest wait for the response to a request')),
      30_000,
    ),
    max_request_bytes: v.optional(
      v.pipe(
        wholeNumber(65_536, MAX_REQUEST_BYTES),
        v.description(
          'Largest request that is sent to a broker; a broker closes the connection on one above its `socket.request.max.bytes`, and the service then finds out what it takes',
        ),
        v.metadata({ unit: 'bytes' }),
      ),
      104_857_600,
    ),
    metadata_max_age: v.optional(
      v.pipe(
        milliseconds(),
        v.description('Interval between updates of the brokers, topics and leaders known to the client'),
      ),
      10_000,
    ),
  },
  mappingMessage,
);

const namespace = v.strictObject(
  {
    kafka_client: v.pipe(text(), v.description('Entry of `kafka_clients` that receives the records')),
    eventsink_topic: v.pipe(topic(), v.description('Existing topic for process events')),
    lifecycle_topic: v.pipe(
      topic(),
      v.description('Existing topic for creation, failure, repair and removal of processes'),
    ),
    replica_identity: v.optional(
      v.pipe(
        oneOf(['full', 'status_index']),
        v.description(
          'Source of the old status in an update of a process. `full`: REPLICA IDENTITY FULL, set by the service. `status_index`: a unique index on process_id and status, created by you; see [Reducing WAL and network volume](guide/prepare.md#reducing-wal-and-network-volume)',
        ),
      ),
      'full',
    ),
    publish_columns: v.optional(
      v.pipe(
        oneOf(['all', 'needed']),
        v.description(
          'Columns to publish: `all`, or only those `needed` for records, which requires `replica_identity: status_index` and PostgreSQL 15; see `replica_identity`',
        ),
      ),
      'all',
    ),
    on_missing_old_tuple: v.optional(
      v.pipe(
        oneOf(['stop', 'skip']),
        v.description(
          'What to do with an update of a process that was written before the replica identity of its table provided the old status: `stop` the slot, or `skip` the update, count it and log it',
        ),
      ),
      'stop',
    ),
    on_invalid: v.optional(
      v.pipe(
        oneOf(['stop', 'park']),
        v.description(
          'What to do with a row that cannot be converted to a record: `stop` the slot, or `park` the row in `parking_topic`, count it, log it and continue',
        ),
      ),
      'stop',
    ),
    parking_topic: v.optional(
      v.pipe(
        topic(),
        v.description(
          'Existing topic for parked rows, used for nothing else; required with `on_invalid: park`, and only allowed then',
        ),
      ),
    ),
  },
  mappingMessage,
);

const slotSettings = v.strictObject(
  {
    failover: v.optional(
      v.pipe(
        trueOrFalse(),
        v.description(
          'Standbys keep a copy of the slot, which survives the loss of the primary; requires PostgreSQL 17',
        ),
      ),
      false,
    ),
    accept_loss_after: v.optional(
      v.pipe(
        lsn(),
        v.description(
          'Continues although changes after exactly this LSN are lost; the error that stopped the stream names the LSN',
        ),
        v.metadata({ formerName: 'accept_loss_behind' }),
      ),
    ),
  },
  mappingMessage,
);

const http = v.strictObject(
  {
    host: v.optional(
      v.pipe(host(), v.description('Address to listen on; `::` for all addresses of the machine, IPv4 and IPv6')),
      '127.0.0.1',
    ),
    port: v.optional(v.pipe(wholeNumber(1, 65_535), v.description('TCP port to listen on')), 8022),
    in_flight_limit: v.optional(
      v.pipe(
        milliseconds(),
        v.description('A stream becomes unready when a row received is not acknowledged by Kafka for longer'),
      ),
      30_000,
    ),
  },
  mappingMessage,
);

const log = v.strictObject(
  {
    level: v.optional(
      v.pipe(oneOf(['trace', 'debug', 'info', 'warn', 'error', 'fatal']), v.description('Lowest level to log')),
      'info',
    ),
    format: v.optional(
      v.pipe(
        oneOf(['auto', 'json', 'text']),
        v.description(
          '`json`: one object per line. `text`: for a terminal. `auto`: `text` when stderr is a terminal, else `json`',
        ),
      ),
      'auto',
    ),
  },
  mappingMessage,
);

/** The whole file. Its input is the tree that `yaml-document.ts` returns. */
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
        'What to stream: the replication slots of each db_ref (1 to 63 of a-z, 0-9 and _; unique on their server), and the namespaces of each slot (1 to 53 bytes; each in one slot of a database)',
      ),
    ),
    slots: v.optional(
      v.pipe(
        named('db_ref', name(), named('slot', name(), slotSettings, 'must have at least one slot')),
        v.description(
          'Settings of slots named in `streams`, by db_ref and slot; separate from `streams`, where they would be read as namespaces',
        ),
      ),
    ),
    resend_timeout: v.optional(
      v.pipe(milliseconds(), v.description('Pause between two attempts to send the same records')),
      3000,
    ),
    max_retries: v.optional(
      v.pipe(
        wholeNumber(0, MAX_MS),
        v.description('How often a failed send is repeated before replication of its slot restarts'),
      ),
      3,
    ),
    reconnect_timeout: v.optional(
      v.pipe(milliseconds(), v.description('Pause before replication of a slot restarts after a failure')),
      5000,
    ),
    shutdown_timeout: v.optional(
      v.pipe(
        milliseconds(),
        v.description('Longest time that a stop takes as a whole; records in flight are waited for during most of it'),
      ),
      20_000,
    ),
    max_row_bytes: v.optional(
      v.pipe(
        wholeNumber(1024 * 1024, 1024 * 1024 * 1024),
        v.description(
          'Most bytes of those values of a row that its record is made of; a larger row is handled as `on_invalid` says. Other columns do not count',
        ),
        v.metadata({
          unit: 'bytes',
          defaultText: 'a sixteenth of the memory limit of the process, divided by its slots',
        }),
      ),
    ),
    http: v.optional(
      v.pipe(
        http,
        v.description(
          'HTTP listener for `/live`, `/ready`, `/health`, `/status` and `/metrics`; without it there is none. `{}` means the defaults',
        ),
      ),
    ),
    log: v.optional(v.pipe(log, v.description('Log, written to stderr'), v.metadata({ defaultText: '`{}`' })), {}),
  },
  mappingMessage,
);

/** A checked file with its own keys; `load.ts` turns it into a Config. */
export type ConfigFile = v.InferOutput<typeof configSchema>;

/** One key of the configuration, for the reference. */
export interface ConfigurationKey {
  /** Keys from the top; names of the user's choice are in angle brackets: `databases.<db_ref>.port` */
  readonly path: string;
  /** `text`, `whole number`, `secret`, `PEM`, `LSN`, `list of text`, `mapping`, or the possible values */
  readonly type: string;
  /** As written in the file, `required`, `none`, or a description */
  readonly default: string;
  readonly unit?: string;
  readonly meaning: string;
}

/** Every key that a file may contain, in the order of the schema. */
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

// ---- building blocks, each with the messages for its mistakes --------------------------------------------------------

function text() {
  return v.pipe(
    v.string((issue) => `must be text${foundInsteadOfText(issue.input)}`),
    v.nonEmpty('must not be empty'),
    v.check((value) => value.isWellFormed() && !value.includes('\0'), 'must not contain NUL or half a surrogate pair'),
    v.metadata({ type: 'text' }),
  );
}

function name() {
  return v.pipe(v.string(), v.nonEmpty('must have a name'));
}

function slotName() {
  return v.pipe(v.string(), v.regex(/^[a-z0-9_]{1,63}$/, 'is not a slot name: use 1 to 63 of a-z, 0-9 and _'));
}

function namespaceName() {
  return v.pipe(
    v.string(),
    v.nonEmpty('is not a namespace: it must not be empty'),
    v.check(
      (value) => value.isWellFormed() && !value.includes('\0'),
      'is not a namespace: it must not contain NUL or half a surrogate pair',
    ),
    v.maxBytes(
      MAX_NAMESPACE_BYTES,
      (issue) =>
        `is not a namespace: it has ${issue.received} bytes of UTF-8, but the names of its tables leave room for ${MAX_NAMESPACE_BYTES}`,
    ),
  );
}

function topic() {
  return v.pipe(
    text(),
    v.regex(/^[a-zA-Z0-9._-]{1,249}$/, 'is not a topic name: use 1 to 249 of a-z, A-Z, 0-9, ., _ and -'),
    v.notValues(['.', '..'], 'is not a topic name: . and .. are not allowed'),
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

function trueOrFalse() {
  return v.pipe(
    v.boolean((issue) => `must be true or false${typeof issue.input === 'string' ? ', without quotes' : ''}`),
    v.metadata({ type: '`true`, `false`' }),
  );
}

function host() {
  return v.pipe(text(), v.check(isHost, 'must be one host name or IP address, without port and brackets'));
}

function address(mistake: string, defaultPort?: number) {
  return v.pipe(
    text(),
    v.rawTransform<string, ServerAddress>(({ dataset, addIssue, NEVER }) => {
      const parsed = parseAddress(dataset.value, defaultPort);
      if (parsed !== undefined) return parsed;
      addIssue({ message: mistake });
      return NEVER;
    }),
  );
}

function lsn() {
  return v.pipe(
    text(),
    v.rawTransform<string, Lsn>(({ dataset, addIssue, NEVER }) => {
      try {
        return parseLsn(dataset.value);
      } catch {
        addIssue({ message: 'must be an LSN: two hexadecimal numbers separated by a slash, such as 0/16B3748' });
        return NEVER;
      }
    }),
    v.metadata({ type: 'LSN' }),
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
      v.pipe(pem(), v.description('CA certificates to trust'), v.metadata({ defaultText: 'those of the system' })),
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
  // A strict object uses this message for a missing key too.
  const step = issue.path?.at(-1);
  if (step !== undefined && 'origin' in step && step.origin === 'key') return 'is missing';
  return `must be a mapping${foundInstead(issue.input)}`;
}

/** Says what was found instead, without showing it: it may be a secret in the wrong place. */
function foundInstead(input: unknown): string {
  if (input === null || input === undefined) return ', but has no value';
  if (Array.isArray(input)) return ', not a list';
  return typeof input === 'object' ? ', not a mapping' : typeof input === 'string' ? ', not text' : '';
}

/** As `foundInstead`; YAML reads some unquoted text as numbers, true, false or null. */
function foundInsteadOfText(input: unknown): string {
  if (input === null) return ', but has no value; to mean the word null, put it in quotes';
  return typeof input === 'number' || typeof input === 'boolean' ? '; put it in quotes' : foundInstead(input);
}
