/** How a file names a secret: text, `{env: NAME}` or `{file: PATH}`. */

import { dirname, resolve } from 'node:path';
import { type Environment, environmentSecret, type FileReader, fileSecret, type Secret, textSecret } from './secret.ts';

/** A secret as it stands in the file. */
export type SecretSource = string | { readonly env: string } | { readonly file: string };

/** What secrets of a file depend on. */
export interface SecretContext {
  /** The configuration file: relative paths start from its directory */
  readonly fileName: string;
  readonly environment: Environment;
  readonly readFile: FileReader;
}

/** What is wrong with a secret's form, without showing it; undefined when nothing is. */
export function secretMistake(input: unknown): string | undefined {
  if (typeof input === 'string') return input === '' ? 'must not be empty' : undefined;
  if (typeof input === 'number' || typeof input === 'boolean') return 'must be text; put it in quotes';
  if (input === null) return 'must be text, {env: NAME} or {file: PATH}, and has no value';
  if (typeof input !== 'object' || Array.isArray(input)) return 'must be text, {env: NAME} or {file: PATH}';
  const entries = Object.entries(input);
  const [key, value] = entries[0] ?? [];
  if (entries.length !== 1 || (key !== 'env' && key !== 'file')) {
    return 'must be text, {env: NAME} or {file: PATH}, with exactly one of env and file';
  }
  // A name that no shell could set is more likely the secret itself: it must not come back as "variable ... is not set".
  if (key === 'env' && !(typeof value === 'string' && /^[A-Za-z_][A-Za-z0-9_]*$/.test(value))) {
    return 'must have the name of an environment variable in env: letters, digits and _';
  }
  if (key === 'file' && !(typeof value === 'string' && value !== '' && !value.includes('\0'))) {
    return 'must have the path of a file in file';
  }
  return undefined;
}

/** The secret that a well-formed source names; nothing is read yet. */
export function secretFrom(source: SecretSource, context: SecretContext): Secret {
  if (typeof source === 'string') return textSecret(source);
  if ('env' in source) return environmentSecret(source.env, context.environment);
  return fileSecret(resolve(dirname(context.fileName), source.file), context.readFile);
}

/** The PEM that a well-formed source names: as `secretFrom`, but a text that is not PEM itself is the path of a PEM file. */
export function pemFrom(source: SecretSource, context: SecretContext): Secret {
  const isPath = typeof source === 'string' && !looksLikePem(source);
  return secretFrom(isPath ? { file: source } : source, context);
}

/** True for text that holds a PEM block. */
export function looksLikePem(text: string): boolean {
  return text.includes('-----BEGIN ');
}
