/**
 * pg_recvlogical shows how fast the server can send. The embedded server has none: it is taken from PATH, or from the
 * distribution's packages, unpacked in `.cache/` (no root needed).
 */
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeOnce } from '../../../src/build/make-once.ts';
import { CACHE_DIRECTORY } from '../../support/process/directories.ts';
import { runProgram } from '../../support/process/run-program.ts';

/** A pg_recvlogical that runs on this machine. */
export interface RecvLogical {
  readonly program: string;
  /** Output of `--version` */
  readonly version: string;
  readonly env: Record<string, string>;
}

/** The program, or why it is missing. */
export async function findRecvLogical(): Promise<RecvLogical | { readonly missing: string }> {
  const onPath = Bun.which('pg_recvlogical');
  if (onPath !== null) {
    const found = await tryProgram(onPath, {}).catch(() => undefined);
    if (found !== undefined) return found;
  }
  const directory = join(CACHE_DIRECTORY, 'postgresql-client');
  if (!existsSync(directory) && (Bun.which('apt-get') === null || Bun.which('dpkg') === null)) {
    return { missing: 'pg_recvlogical is not on the path, and there is no apt-get and dpkg to fetch it with' };
  }
  try {
    await makeOnce(directory, fetchPackages);
    return await tryUnpacked(directory);
  } catch (error) {
    return { missing: `pg_recvlogical is not on the path and cannot be fetched: ${firstLine(error)}` };
  }
}

async function fetchPackages(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const client = await clientPackage();
  try {
    await unpack(directory, [client, 'libpq5']);
  } catch {
    // Without root this fails; then the existing package lists are used.
    await runProgram('apt-get', ['update']).catch(() => {});
    await unpack(directory, [client, 'libpq5']);
  }
  const runs = await tryUnpacked(directory).then(
    () => true,
    () => false,
  );
  if (!runs) await unpack(directory, await dependenciesOf('libpq5'));
  await tryUnpacked(directory);
}

/** The package of the distribution's own version. */
async function clientPackage(): Promise<string> {
  const answer = await runProgram('apt-cache', ['depends', 'postgresql-client']).catch(() => '');
  return /Depends: (postgresql-client-\d+)/.exec(answer)?.[1] ?? 'postgresql-client-15';
}

/** Libraries that a bare machine may lack. The C library is not mixed with that of the machine. */
async function dependenciesOf(name: string): Promise<string[]> {
  const relations = ['recommends', 'suggests', 'conflicts', 'breaks', 'replaces', 'enhances'];
  const options = ['depends', '--recurse', '--important', ...relations.map((relation) => `--no-${relation}`), name];
  const lines = (await runProgram('apt-cache', options)).split('\n');
  return lines.filter((line) => /^lib[\w.+-]+$/.test(line) && !/^libc6|^libgcc/.test(line));
}

async function unpack(directory: string, packages: readonly string[]): Promise<void> {
  await runProgram('apt-get', ['-o', 'APT::Sandbox::User=root', 'download', ...packages], { cwd: directory });
  for (const file of readdirSync(directory).filter((name) => name.endsWith('.deb'))) {
    await runProgram('dpkg', ['-x', join(directory, file), directory]);
    await rm(join(directory, file));
  }
}

async function tryUnpacked(directory: string): Promise<RecvLogical> {
  const versions = join(directory, 'usr/lib/postgresql');
  const version = existsSync(versions) ? readdirSync(versions)[0] : undefined;
  if (version === undefined) throw new Error('Cannot find pg_recvlogical: the package has none');
  const triples = readdirSync(join(directory, 'usr/lib')).filter((name) => name.includes('-linux-'));
  const libraries = triples.flatMap((triple) => [join(directory, 'usr/lib', triple), join(directory, 'lib', triple)]);
  return tryProgram(join(versions, version, 'bin/pg_recvlogical'), { LD_LIBRARY_PATH: libraries.join(':') });
}

async function tryProgram(program: string, env: Record<string, string>): Promise<RecvLogical> {
  const version = await runProgram(program, ['--version'], { env: { ...process.env, ...env } });
  return { program, version: version.trim(), env };
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0] as string;
}
