/** Copies of the project in other directories, to check that builds are reproducible. */
import { cp, mkdir, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CACHE_DIRECTORY, PROJECT_DIRECTORY } from '../support/process/directories.ts';
import { runProgram } from '../support/process/run-program.ts';

/** The files that a release is built from, besides the packages. */
const MATERIAL = [
  'LICENSE',
  'bun.lock',
  'bunfig.toml',
  'package.json',
  'src',
  'test/support/package.json',
  'tsconfig.json',
];

/** Two places of different depths and time zones. */
const PLACES = [
  { path: 'here', zone: 'UTC' },
  { path: 'far/away/from/here', zone: 'Asia/Tokyo' },
];

/** A copy of the project. */
export interface ProjectCopy {
  readonly directory: string;
  /** Runs a program of its `src/build/` */
  run(program: string, ...args: string[]): Promise<void>;
}

/** Copies the sources to two places below `directory` and installs the packages; both share the downloads of a release. */
export function copyProject(directory: string): Promise<ProjectCopy[]> {
  return Promise.all(PLACES.map(({ path, zone }) => copyTo(join(directory, path), zone)));
}

async function copyTo(directory: string, zone: string): Promise<ProjectCopy> {
  const cache = join(directory, '.cache/release');
  await mkdir(dirname(cache), { recursive: true });
  await mkdir(join(CACHE_DIRECTORY, 'release'), { recursive: true });
  await symlink(join(CACHE_DIRECTORY, 'release'), cache);
  for (const name of MATERIAL) await cp(join(PROJECT_DIRECTORY, name), join(directory, name), { recursive: true });
  const packages = ['--production', '--omit=peer', '--filter=cdc-notifier'];
  await runProgram(process.execPath, ['install', '--frozen-lockfile', ...packages], { cwd: directory });
  // The copy is no git repository, so it has no commit to take the time from.
  const env = { ...process.env, TZ: zone, SOURCE_DATE_EPOCH: '1000000000' };
  return {
    directory,
    async run(program, ...args) {
      await runProgram(process.execPath, [`src/build/${program}.ts`, ...args], { cwd: directory, env });
    },
  };
}
