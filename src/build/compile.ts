/** Compiles the program for a platform, with a Bun whose bytes are pinned. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { $ } from 'bun';
import pins from './bun-runtimes.json' with { type: 'json' };
import { CACHE, makeOnce, PROJECT, ReleaseError } from './project.ts';

/** Where a program runs: system, processor, and the C library unless it is glibc. */
export type Target = keyof typeof pins.runtimes;

export const TARGETS = Object.keys(pins.runtimes) as Target[];

/** The part of Bun's metafile that is needed here. */
export interface Metafile {
  readonly outputs: Readonly<
    Record<string, { readonly inputs: Readonly<Record<string, { readonly bytesInOutput: number }>> }>
  >;
}

/** The npm package that a target's Bun comes from. */
export function runtimePackage(target: Target): {
  readonly name: string;
  readonly version: string;
  readonly integrity: string;
} {
  const { package: name, integrity } = pins.runtimes[target];
  return { name, version: pins.version, integrity };
}

/**
 * Bun gives the program the name of the file that it writes, and CommonJS modules the directory that they were built in,
 * unless it is told otherwise: both would make the bytes depend on where they were built.
 */
const OPTIONS = [
  '--compile',
  '--minify-syntax',
  '--minify-whitespace',
  '--sourcemap',
  '--no-compile-autoload-dotenv',
  '--no-compile-autoload-bunfig',
  '--define',
  '__dirname="/"',
  // Otherwise Bun trusts the authorities that it brings, and of the system's only those that are linked by their hash.
  '--compile-exec-argv=--use-system-ca',
];

/** Writes the program for `target` into `directory`, under its own name, and tells what it was made of. */
export async function compile(target: Target, directory: string): Promise<{ file: string; metafile: Metafile }> {
  if (Bun.version !== pins.version) {
    throw new ReleaseError(
      `Cannot compile: this is Bun ${Bun.version}, and src/build/bun-runtimes.json pins ${pins.version}`,
    );
  }
  const runtime = await fetchRuntime(target);
  await mkdir(directory, { recursive: true });
  const file = join(directory, 'cdc-notifier');
  const metafile = join(directory, 'metafile.json');
  const entry = join(PROJECT, 'src/main.ts');
  await $`${process.execPath} build ${OPTIONS} --target=bun-${target} --compile-executable-path=${runtime} --metafile=${metafile} ${entry} --outfile ${file}`
    .cwd(PROJECT)
    .quiet()
    .catch((error: unknown) => {
      const output = error instanceof $.ShellError ? error.stderr.toString() : String(error);
      throw new ReleaseError(`Cannot compile for ${target}:\n${output}`);
    });
  const result = { file, metafile: (await Bun.file(metafile).json()) as Metafile };
  // The map is inside as well.
  await Promise.all([rm(metafile), rm(`${file}.map`, { force: true })]);
  return result;
}

/** Returns the path of a target's Bun, from its npm package the first time. */
async function fetchRuntime(target: Target): Promise<string> {
  const { name, version, integrity } = runtimePackage(target);
  const path = join(CACHE, `bun-${version}-${target}`);
  await makeOnce(path, async (partial) => {
    const directory = await mkdtemp(join(tmpdir(), 'cdc-notifier-bun-'));
    try {
      await $`npm pack --silent --pack-destination ${directory} ${name}@${version}`.quiet();
      const [archive] = [...new Bun.Glob('*.tgz').scanSync({ cwd: directory, absolute: true })];
      const digest = new Bun.CryptoHasher('sha512').update(await Bun.file(archive!).arrayBuffer()).digest('base64');
      if (`sha512-${digest}` !== integrity) {
        throw new ReleaseError(
          `Cannot use ${name}@${version}: its integrity is sha512-${digest}, and ${integrity} is pinned`,
        );
      }
      await $`tar -xzf ${archive} -O package/bin/bun > ${partial} && chmod 755 ${partial}`.quiet();
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
  return path;
}
