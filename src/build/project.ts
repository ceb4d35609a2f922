/** What every part of a release needs to know of the project, and the two tools that they share. */
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { $ } from 'bun';
import packageJson from '../../package.json' with { type: 'json' };

/** The project's directory. */
export const PROJECT = resolve(import.meta.dirname, '../..');

/** Where releases and images are put. */
export const DIST = resolve(PROJECT, 'dist');

/** What was fetched and is kept. */
export const CACHE = resolve(PROJECT, '.cache/release');

export const { name: NAME, version: VERSION, description: DESCRIPTION, license: LICENSE } = packageJson;

/** What stands for a failure that a person can do something about. */
export class ReleaseError extends Error {}

/** The commit that is built, and its time in seconds since 1970. */
export interface Revision {
  /** With `-dirty` when files differ from it; undefined outside of a git repository */
  readonly commit: string | undefined;
  readonly epoch: number;
}

/** Time is the commit's, not the clock's, so that the same commit gives the same bytes; SOURCE_DATE_EPOCH goes first. */
export async function readRevision(): Promise<Revision> {
  const git = async (command: readonly string[]): Promise<string | undefined> => {
    const { exitCode, stdout } = await $`git -C ${PROJECT} ${command}`.quiet().nothrow();
    return exitCode === 0 ? stdout.toString().trim() : undefined;
  };
  const commit = await git(['describe', '--always', '--abbrev=40', '--exclude=*', '--dirty']);
  const epoch = Number(process.env.SOURCE_DATE_EPOCH ?? (await git(['log', '-1', '--format=%ct'])) ?? 0);
  return { commit, epoch };
}

/** Seconds since 1970 in RFC 3339. */
export function timestamp(epoch: number): string {
  return new Date(epoch * 1000).toISOString().replace('.000Z', 'Z');
}

/** Makes the file `path` unless it is there; `make` is given another name, so that nobody sees a half-made one. */
export async function makeOnce(path: string, make: (partial: string) => Promise<void>): Promise<void> {
  if (existsSync(path)) return;
  await mkdir(dirname(path), { recursive: true });
  const partial = `${path}.partial-${process.pid}`;
  try {
    await make(partial);
    await rename(partial, path);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
}

/** Digest of bytes in hexadecimal digits. */
export function sha256(data: Uint8Array | string): string {
  return new Bun.CryptoHasher('sha256').update(data).digest('hex');
}

/** Bytes for a person. */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Runs the main function of a program; a `ReleaseError` is told in one line, anything else is a bug. */
export function runMain(main: () => Promise<void>): void {
  main().catch((error: unknown) => {
    process.stderr.write(error instanceof ReleaseError ? `${error.message}\n` : `${Bun.inspect(error)}\n`);
    process.exit(1);
  });
}
