/**
 * Secrets of the configuration. Each is a text, an environment variable or a file, and is read again at each connection,
 * so that a rotated one is taken up without a restart. The text itself stays inside a closure: printing, inspecting or
 * serialising a configuration cannot show it.
 */

import { readFileSync } from 'node:fs';
import { SecretError } from '../errors.ts';

/** A secret that can be read. */
export interface Secret {
  /** Where it comes from, safe to show: `text`, `environment variable PGPASSWORD`, `file /run/secrets/pg` */
  readonly origin: string;
  /** Its present text; throws SecretError */
  readonly read: () => string;
}

/** Variables by name, as `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Reads a whole file as bytes; throws as node:fs does. */
export type FileReader = (path: string) => Uint8Array;

/** Reads from the disk. */
export const readBytes: FileReader = (path) => readFileSync(path);

/** The secret's text as it is now: an empty one, a missing file or variable, or a file that is not UTF-8 throws SecretError. */
export function readSecret(secret: Secret): string {
  return secret.read();
}

/** A secret that stands in the configuration itself. */
export function textSecret(text: string): Secret {
  return { origin: 'text', read: () => text };
}

/** A secret in an environment variable. */
export function environmentSecret(name: string, environment: Environment = process.env): Secret {
  const origin = `environment variable ${name}`;
  const read = () => {
    const text = Object.hasOwn(environment, name) ? environment[name] : undefined;
    if (text === undefined) throw new SecretError(`${origin} is not set`);
    if (text === '') throw new SecretError(`${origin} is empty`);
    return text;
  };
  return { origin, read };
}

/** A secret in a file, UTF-8, without the newline at its end. */
export function fileSecret(path: string, readFile: FileReader = readBytes): Secret {
  const origin = `file ${path}`;
  const read = () => {
    const text = decodeUtf8(readOrExplain(path, readFile), origin).replace(/\r?\n$/, '');
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

/** `ENOENT` and the like; only a code, because messages of other libraries may quote what they were given. */
export function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown reason';
}
