/**
 * The log: JSON lines on stderr, or text at a terminal. Written synchronously, so the last lines before an exit are not
 * lost, and in-process, because pino's worker threads need files that a compiled binary does not contain.
 *
 * Every line has an `event`, a stable name in snake case; its text may change. Errors are under the key `error`. Of errors
 * of other libraries only name, code, severity and message are shown: those of the PostgreSQL driver also carry query,
 * parameters, detail and where, which may contain row values.
 */

import pino, { type DestinationStream, type Logger } from 'pino';
import { prettyFactory } from 'pino-pretty';
import type { LogConfig } from './config/config.ts';
import { NotifierError } from './errors.ts';

export type { Logger } from 'pino';

/** Options of `createLogger`. */
export interface LoggerOptions extends LogConfig {
  /** Receives the lines; stderr by default. For any other destination `auto` means JSON */
  readonly destination?: DestinationStream | undefined;
}

const STDERR = 2;
/** Longest chain of causes that is logged: deeper ones explain nothing more. */
const MAX_CAUSE_DEPTH = 5;
/** How many errors of an AggregateError (one for each broker or address tried) are logged. */
const MAX_GATHERED = 5;

/** Creates the root logger; each stream uses a child that binds `{database, slot}`. */
export function createLogger(options: LoggerOptions): Logger {
  const isText =
    options.format === 'text' ||
    (options.format === 'auto' && options.destination === undefined && process.stderr.isTTY === true);
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      errorKey: 'error',
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: serializeError, err: serializeError },
      // A second line of defense: nothing logs a configuration, and its secrets are closures.
      redact: { paths: SECRET_PATHS, censor: '[secret]' },
    },
    isText ? textStream(options.destination) : (options.destination ?? stderrStream()),
  );
}

const SECRET_PATHS = ['password', 'sasl', 'tls.key'].flatMap((path) => [path, `*.${path}`, `*.*.${path}`]);

function stderrStream(): DestinationStream {
  const stream = pino.destination({ fd: STDERR, sync: true });
  // A log that cannot be written (disk full, reader gone) must not stop the delivery.
  stream.on('error', () => {});
  return stream;
}

/** Formats each line before it is written: pino-pretty's own stream would still buffer lines when the process exits. */
function textStream(destination: DestinationStream | undefined): DestinationStream {
  const prettify = prettyFactory({
    colorize: destination === undefined && process.stderr.isTTY === true && process.env.NO_COLOR === undefined,
    translateTime: 'SYS:yyyy-mm-dd HH:MM:ss.l',
    // The serializer has turned ours into a plain object.
    errorLikeObjectKeys: [],
    // As JSON the quotes in SQL would be escaped, and the advice could not be pasted.
    customPrettifiers: { error: (error) => describeFacts(error, '      ') },
  });
  const output = destination ?? stderrStream();
  return { write: (line) => output.write(prettify(line)) };
}

/** Formats the facts of an error, one a line. Further lines of a value are indented, so none looks like an entry of its own. */
function describeFacts(facts: unknown, indent: string): string {
  if (typeof facts === 'object' && facts !== null) {
    return Object.entries(facts)
      .map(([key, value]) => {
        const separator = typeof value === 'object' ? '' : ' ';
        return `\n${indent}${key}:${separator}${describeFacts(value, `${indent}  `)}`;
      })
      .join('');
  }
  const text = String(facts).replace(/[^\P{Cc}\n]/gu, (control) => JSON.stringify(control).slice(1, -1));
  return text.replaceAll('\n', `\n${indent}`);
}

/** Takes from a thrown value what an operator needs, and nothing that could contain a row value, a payload or a secret. */
export function serializeError(thrown: unknown): unknown {
  return serialize(thrown, 0);
}

function serialize(thrown: unknown, depth: number): unknown {
  if (!(thrown instanceof Error)) return typeof thrown === 'string' ? thrown : `thrown ${typeof thrown}`;
  const facts: Record<string, unknown> = { name: thrown.name, message: thrown.message };
  if (thrown instanceof NotifierError) {
    if (thrown.advice !== undefined) facts.advice = thrown.advice;
    if (Object.keys(thrown.place).length > 0) facts.place = thrown.place;
  }
  for (const key of ['code', 'severity'] as const) {
    const value: unknown = key in thrown ? Reflect.get(thrown, key) : undefined;
    if (typeof value === 'string' || typeof value === 'number') facts[key] = value;
  }
  // The stack locates a bug of ours; the message of an error raised on purpose is complete without it.
  if (depth === 0 && !(thrown instanceof NotifierError) && !('code' in thrown)) facts.stack = thrown.stack;
  if (depth < MAX_CAUSE_DEPTH) {
    if (thrown.cause !== undefined) facts.cause = serialize(thrown.cause, depth + 1);
    if ('errors' in thrown && Array.isArray(thrown.errors)) {
      facts.errors = thrown.errors.slice(0, MAX_GATHERED).map((error) => serialize(error, depth + 1));
    }
  }
  return facts;
}
