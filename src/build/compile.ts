/**
 * Compiles the program for a platform: the one list of compile options, and the Bun whose bytes are pinned.
 * `bun src/build/compile.ts` is `make build`: it writes dist/cdc-notifier for this machine.
 */
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { $ } from 'bun';
import pins from './bun-runtimes.json' with { type: 'json' };
import { makeOnce } from './make-once.ts';
import { BuildError, CACHE, DIST, NAME, PROJECT, runMain, sha256 } from './project.ts';

/** A platform: operating system, processor, and the C library where it is not glibc. */
export type Target = keyof typeof pins.runtimes;

/** The platforms of a release; the other pinned ones are those on which a developer may run `make build`. */
export const RELEASE_TARGETS: readonly Target[] = ['linux-x64', 'linux-x64-musl', 'linux-arm64'];

/** The part of Bun's metafile that the inventory reads. */
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

const OPTIONS = [
  '--compile',
  '--minify-syntax',
  '--minify-whitespace',
  '--sourcemap',
  '--no-compile-autoload-dotenv',
  '--no-compile-autoload-bunfig',
  // By default Bun writes the directory of each CommonJS module into the program: the bytes would depend on the place.
  '--define',
  '__dirname="/"',
  // By default Bun trusts the certificate authorities it contains, and of the system's only those linked by their hash.
  '--compile-exec-argv=--use-system-ca',
];

/** What to compile. */
export interface Compilation {
  /** Default: this machine */
  readonly target?: Target | undefined;
  /** Path of the result. A file that exists is replaced in one step, so a running program is not disturbed */
  readonly file: string;
  /** The module to start with, relative to the project; default src/main.ts */
  readonly entry?: string | undefined;
}

/** Compiles a program. The metafile says which modules are in it. */
export async function compile({ target, file, entry = 'src/main.ts' }: Compilation): Promise<Metafile> {
  const host = await hostTarget();
  const platform = target ?? host;
  const runtime = platform === host ? process.execPath : await fetchRuntime(platform);
  await mkdir(dirname(file), { recursive: true });
  const work = await mkdtemp(join(dirname(file), `.${basename(file)}-`));
  try {
    // Bun writes the name of the output file into the program: with one name the same sources give the same bytes.
    const program = join(work, NAME);
    const metafile = join(work, 'metafile.json');
    await $`${process.execPath} build ${OPTIONS} --target=bun-${platform} --compile-executable-path=${runtime} --metafile=${metafile} ${join(PROJECT, entry)} --outfile ${program}`
      .cwd(PROJECT)
      .quiet()
      .catch((error: unknown) => {
        const output = error instanceof $.ShellError ? error.stderr.toString() : String(error);
        throw new BuildError(`Cannot compile ${entry} for ${platform}:\n${output}`);
      });
    await rename(program, file);
    return (await Bun.file(metafile).json()) as Metafile;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/**
 * The platform of this machine, recognized by the bytes of the Bun that runs: so the compiler is a pinned one, and a
 * program for this machine contains the same file.
 * @throws BuildError when these bytes are not pinned
 */
async function hostTarget(): Promise<Target> {
  const digest = sha256(await Bun.file(process.execPath).bytes());
  const found = Object.entries(pins.runtimes).find(([, runtime]) => runtime.sha256 === digest);
  if (found !== undefined) return found[0] as Target;
  throw new BuildError(
    `Cannot compile with ${process.execPath} (Bun ${Bun.version}): its SHA-256 is ${digest}, which is not in ` +
      `src/build/bun-runtimes.json. Run make, which installs Bun ${pins.version}`,
  );
}

/** Path of a target's Bun; the first call downloads it from npm. */
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
        throw new BuildError(
          `Cannot use ${name}@${version}: its integrity is sha512-${digest}, but ${integrity} is pinned`,
        );
      }
      await $`tar -xzf ${archive} -O package/bin/bun > ${partial} && chmod 755 ${partial}`.quiet();
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
  return path;
}

if (import.meta.main) {
  runMain(async () => {
    await compile({ file: join(DIST, NAME) });
  });
}
