/**
 * Secrets of the configuration. Each is text, an environment variable or a file, and is read again for each connection, so
 * a rotated secret takes effect without a restart. The text stays inside a closure: printing, inspecting or serializing a
 * configuration cannot show it.
 */

import { readFileSync } from 'node:fs';
import { SecretError } from '../errors.ts';

/** A secret and its source. */
export interface Secret {
  /** Its source, safe to show: `text`, `environment variable PGPASSWORD`, `file /run/secrets/pg` */
  readonly origin: string;
  /** Returns its current text; throws SecretError */
  readonly read: () => string;
}

/** Environment variables by name, like `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Reads a whole file as bytes; throws as node:fs does. */
export type FileReader = (path: string) => Uint8Array;

/** Reads from the disk. */
export const readBytes: FileReader = (path) => readFileSync(path);

/**
 * Returns the secret's current text.
 * @throws SecretError when it is empty, its file or variable is missing, or its file is not UTF-8
 */
export function readSecret(secret: Secret): string {
  return secret.read();
}

/** A secret written in the configuration itself. */
export function textSecret(text: string): Secret {
  return { origin: 'text', read: () => withoutMargins(text) };
}

/**
 * What editors and tools add to a secret: a newline at its end, and byte order marks. Blanks may be part of a password and stay.
 */
function withoutMargins(text: string): string {
  return text.replace(/^\uFEFF|\uFEFF?\r?\n$|\uFEFF$/g, '');
}

/** A secret in an environment variable. */
export function environmentSecret(name: string, environment: Environment = process.env): Secret {
  const origin = `environment variable ${name}`;
  const read = () => {
    const value = Object.hasOwn(environment, name) ? environment[name] : undefined;
    if (value === undefined) throw new SecretError(`${origin} is not set`);
    const text = withoutMargins(value);
    if (text === '') throw new SecretError(`${origin} is empty`);
    return text;
  };
  return { origin, read };
}

/** A secret in a UTF-8 file. */
export function fileSecret(path: string, readFile: FileReader = readBytes): Secret {
  const origin = `file ${path}`;
  const read = () => {
    const text = withoutMargins(decodeUtf8(readOrExplain(path, readFile), origin));
    if (text === '') throw new SecretError(`${origin} is empty`);
    return text;
  };
  return { origin, read };
}

function readOrExplain(path: string, readFile: FileReader): Uint8Array {
  try {
    return readFile(path);
  } catch (error) {
    throw new SecretError(`file ${path} cannot be read (${errorCode(error)})`);
  }
}

function decodeUtf8(bytes: Uint8Array, origin: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new SecretError(`${origin} is not UTF-8 text`);
  }
}

/** `ENOENT` and the like. Only the code, because messages of other libraries may quote their input. */
export function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown reason';
}
