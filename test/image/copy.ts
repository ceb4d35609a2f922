/** The project in another directory, to see that what is made there is the same. */
import { cp, mkdir, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CACHE_DIRECTORY, PROJECT_DIRECTORY } from '../support/process/make-once.ts';
import { runProgram } from '../support/process/run-program.ts';

/** What a release is made of, beside the packages. */
const MATERIAL = ['LICENSE', 'bun.lock', 'bunfig.toml', 'package.json', 'src', 'tsconfig.json'];

/** Two places of different depths, where the clock shows different hours. */
const PLACES = [
  { path: 'here', zone: 'UTC' },
  { path: 'far/away/from/here', zone: 'Asia/Tokyo' },
];

/** A copy of the project. */
export interface ProjectCopy {
  readonly directory: string;
  /** Runs a program of its `src/release/` */
  run(program: string, ...args: string[]): Promise<void>;
}

/** Copies the sources to two places below `directory` and installs the packages anew; what a release fetches is shared. */
export function copyProject(directory: string): Promise<ProjectCopy[]> {
  return Promise.all(PLACES.map(({ path, zone }) => copyTo(join(directory, path), zone)));
}

async function copyTo(directory: string, zone: string): Promise<ProjectCopy> {
  const cache = join(directory, '.cache/release');
  await mkdir(dirname(cache), { recursive: true });
  await mkdir(join(CACHE_DIRECTORY, 'release'), { recursive: true });
  await symlink(join(CACHE_DIRECTORY, 'release'), cache);
  for (const name of MATERIAL) await cp(join(PROJECT_DIRECTORY, name), join(directory, name), { recursive: true });
  await runProgram(process.execPath, ['install', '--production', '--frozen-lockfile'], { cwd: directory });
  // There is no commit here that would tell the time.
  const env = { ...process.env, TZ: zone, SOURCE_DATE_EPOCH: '1000000000' };
  return {
    directory,
    async run(program, ...args) {
      await runProgram(process.execPath, [`src/release/${program}.ts`, ...args], { cwd: directory, env });
    },
  };
}
