/** Names and places of the project, and the helpers that compiling, release and image share. */
import { resolve } from 'node:path';
import { $ } from 'bun';
import packageJson from '../../package.json' with { type: 'json' };

/** The project's directory. */
export const PROJECT = resolve(import.meta.dirname, '../..');

/** Where the results go. */
export const DIST = resolve(PROJECT, 'dist');

/** Where downloads are kept. */
export const CACHE = resolve(PROJECT, '.cache/release');

export const { name: NAME, version: VERSION, description: DESCRIPTION, license: LICENSE } = packageJson;

/** A failure whose message tells the developer what to do; it is printed without a stack. */
export class BuildError extends Error {}

/** The commit that is built. */
export interface Revision {
  /** Ends with `-dirty` when files differ from the commit; undefined outside a git repository */
  readonly commit: string | undefined;
  /** Time of the commit, in seconds since 1970 */
  readonly epoch: number;
}

/** Reads the commit. The time is not the clock's, so that the same commit gives the same bytes; SOURCE_DATE_EPOCH overrides it. */
export async function readRevision(): Promise<Revision> {
  const git = async (command: readonly string[]): Promise<string | undefined> => {
    const { exitCode, stdout } = await $`git -C ${PROJECT} ${command}`.quiet().nothrow();
    return exitCode === 0 ? stdout.toString().trim() : undefined;
  };
  const commit = await git(['describe', '--always', '--abbrev=40', '--exclude=*', '--dirty']);
  const epoch = Number(process.env.SOURCE_DATE_EPOCH ?? (await git(['log', '-1', '--format=%ct'])) ?? 0);
  return { commit, epoch };
}

/** Formats seconds since 1970 as RFC 3339. */
export function timestamp(epoch: number): string {
  return new Date(epoch * 1000).toISOString().replace('.000Z', 'Z');
}

/** SHA-256 in hexadecimal digits. */
export function sha256(data: Uint8Array | string): string {
  return new Bun.CryptoHasher('sha256').update(data).digest('hex');
}

/** Formats a number of bytes for output. */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Runs the main function of a program. A `BuildError` prints its message; any other error is a bug and prints its stack. */
export function runMain(main: () => Promise<void>): void {
  main().catch((error: unknown) => {
    process.stderr.write(error instanceof BuildError ? `${error.message}\n` : `${Bun.inspect(error)}\n`);
    process.exit(1);
  });
}
