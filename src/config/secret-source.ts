/** Secrets in a configuration file: text, `{env: NAME}` or `{file: PATH}`. */

import { dirname, resolve } from 'node:path';
import { type Environment, environmentSecret, type FileReader, fileSecret, type Secret, textSecret } from './secret.ts';

/** A secret as written in the file. */
export type SecretSource = string | { readonly env: string } | { readonly file: string };

/** Where the secrets of a file come from. */
export interface SecretContext {
  /** The configuration file; paths are relative to its directory */
  readonly fileName: string;
  readonly environment: Environment;
  readonly readFile: FileReader;
}

/** Describes what is wrong with the form of a secret, without showing it; undefined when it is well-formed. */
export function secretMistake(input: unknown): string | undefined {
  if (typeof input === 'string') return input === '' ? 'must not be empty' : undefined;
  if (typeof input === 'number' || typeof input === 'boolean') return 'must be text; put it in quotes';
  if (input === null) return 'must be text, {env: NAME} or {file: PATH}, but has no value';
  if (typeof input !== 'object' || Array.isArray(input)) return 'must be text, {env: NAME} or {file: PATH}';
  const entries = Object.entries(input);
  const [key, value] = entries[0] ?? [];
  if (entries.length !== 1 || (key !== 'env' && key !== 'file')) {
    return 'must be text, {env: NAME} or {file: PATH}, with exactly one of env and file';
  }
  // A name that no shell can set is probably the secret itself: it must not appear in "variable ... is not set".
  if (key === 'env' && !(typeof value === 'string' && /^[A-Za-z_][A-Za-z0-9_]*$/.test(value))) {
    return 'must name an environment variable in env: letters, digits and _';
  }
  if (key === 'file' && !(typeof value === 'string' && value !== '' && !value.includes('\0'))) {
    return 'must name a file in file';
  }
  return undefined;
}

/** Creates the secret that a well-formed source names, without reading it. */
export function secretFrom(source: SecretSource, context: SecretContext): Secret {
  if (typeof source === 'string') return textSecret(source);
  if ('env' in source) return environmentSecret(source.env, context.environment);
  return fileSecret(resolve(dirname(context.fileName), source.file), context.readFile);
}

/** As `secretFrom`, but text that is not PEM is the path of a PEM file. */
export function pemFrom(source: SecretSource, context: SecretContext): Secret {
  const isPath = typeof source === 'string' && !looksLikePem(source);
  return secretFrom(isPath ? { file: source } : source, context);
}

/** True for text that contains a PEM block. */
export function looksLikePem(text: string): boolean {
  return text.includes('-----BEGIN ');
}
