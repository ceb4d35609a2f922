/**
 * The log: JSON lines on stderr, or text for a person at a terminal. Written synchronously, so that the last words
 * before an exit are not lost, and in-process, because pino's worker threads look for files that a compiled binary
 * does not have.
 *
 * Errors go under the key `error`. Of errors that are not ours only name, code, severity and message are shown: those
 * of the PostgreSQL driver also carry query, parameters, detail and where, which may hold row values.
 */

import pino, { type DestinationStream, type Logger } from 'pino';
import { prettyFactory } from 'pino-pretty';
import type { LogConfig } from './config/config.ts';
import { NotifierError } from './errors.ts';

export type { Logger } from 'pino';

/** How to log. */
export interface LoggerOptions extends LogConfig {
  /** Where lines go; stderr by default. One that is given is not a terminal: `auto` then means JSON */
  readonly destination?: DestinationStream | undefined;
}

const STDERR = 2;
/** A cause of a cause of a cause ...: what lies deeper explains nothing more. */
const MAX_CAUSE_DEPTH = 5;
/** Errors that gather others (one for each broker or address tried) show this many. */
const MAX_GATHERED = 5;

/** The root logger; streams bind `{database, slot}` in children of it. */
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
      // A second line of defence: nothing logs a configuration, and its secrets are closures.
      redact: { paths: SECRET_PATHS, censor: '[secret]' },
    },
    isText ? textStream(options.destination) : (options.destination ?? stderrStream()),
  );
}

const SECRET_PATHS = ['password', 'sasl', 'tls.key'].flatMap((path) => [path, `*.${path}`, `*.*.${path}`]);

function stderrStream(): DestinationStream {
  const stream = pino.destination({ fd: STDERR, sync: true });
  // A log that cannot be written (its disk is full, its reader is gone) must not stop the delivery.
  stream.on('error', () => {});
  return stream;
}

/** Each line made readable before it is written: pino-pretty's own stream would still hold lines when the process exits. */
function textStream(destination: DestinationStream | undefined): DestinationStream {
  const prettify = prettyFactory({
    colorize: destination === undefined && process.stderr.isTTY === true && process.env.NO_COLOR === undefined,
    translateTime: 'SYS:yyyy-mm-dd HH:MM:ss.l',
    // Ours is a plain object by now.
    errorLikeObjectKeys: [],
    // As JSON the quotes of SQL would be escaped, and nobody could paste an advice.
    customPrettifiers: { error: (error) => describeFacts(error, '      ') },
  });
  const output = destination ?? stderrStream();
  return { write: (line) => output.write(prettify(line)) };
}

/** Facts of an error, one a line, as they are; further lines stay indented, so that none can pass for an entry of its own. */
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

/** Takes from a thrown value what an operator needs and nothing that could hold a row value, a payload or a secret. */
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
  // Where a mistake of ours was made; errors that are raised on purpose say in their message what is to be known.
  if (depth === 0 && !(thrown instanceof NotifierError) && !('code' in thrown)) facts.stack = thrown.stack;
  if (depth < MAX_CAUSE_DEPTH) {
    if (thrown.cause !== undefined) facts.cause = serialize(thrown.cause, depth + 1);
    if ('errors' in thrown && Array.isArray(thrown.errors)) {
      facts.errors = thrown.errors.slice(0, MAX_GATHERED).map((error) => serialize(error, depth + 1));
    }
  }
  return facts;
}
