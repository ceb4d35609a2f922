/** What is inside of a compiled program: found in what the bundler put in, not in what package.json asks for. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Glob } from 'bun';
import { type Metafile, runtimePackage, type Target } from '../compile.ts';
import { PROJECT, ReleaseError } from '../project.ts';
import libraries from './bun-libraries.json' with { type: 'json' };

/** One thing that somebody else made. */
export interface Component {
  readonly name: string;
  /** Undefined where nobody tells it */
  readonly version: string | undefined;
  /** SPDX expression */
  readonly license: string;
  /** Package URL, or undefined where there is no package */
  readonly purl: string | undefined;
  /** Where it comes from */
  readonly url?: string | undefined;
  /** Of the package, as `sha512-BASE64` or `sha256-HEX` */
  readonly integrity?: string | undefined;
  /** Text of its licence files */
  readonly licenseText?: string | undefined;
  /** Package URLs of others in the inventory that it needs */
  readonly needs: readonly string[];
  /** What is inside of it in turn */
  readonly parts: readonly Component[];
}

/** Licences of Rust crates, whose packages are not at hand: only what was compiled of them. */
const CRATE_LICENSES: Readonly<Record<string, string>> = {
  lz4_flex: 'MIT',
  snap: 'BSD-3-Clause',
  'twox-hash': 'MIT',
};

/** What Bun tells versions of and is no library inside of it: interfaces that it imitates, data, its compilers. */
const NO_LIBRARIES = ['bun', 'node', 'openssl', 'v8', 'uv', 'napi', 'modules', 'unicode', 'zig', 'typescript'];

/** Everything inside of the program of a target, by name: the packages of the bundle, and Bun with its libraries. */
export async function takeInventory(metafile: Metafile, target: Target): Promise<Component[]> {
  const integrities = await readLockFile();
  const roots = packageRoots(metafile);
  const packages = new Map(
    await Promise.all(roots.map(async (root) => [root, await readPackage(root, integrities)] as const)),
  );
  const components = [...packages].map(([root, component]) => ({
    ...component,
    needs: component.needs.flatMap((name) => packages.get(resolvePackage(name, root, packages) ?? '')?.purl ?? []),
  }));
  return [...components, bunRuntime(target)].sort((a, b) => (a.purl! < b.purl! ? -1 : 1));
}

/** Directory of the package that `name` means in the package of `root`: the nearest one, from within to without. */
function resolvePackage(name: string, root: string, packages: ReadonlyMap<string, unknown>): string | undefined {
  const levels = root.split('/node_modules/');
  const directories = levels.map(
    (_, depth) => `${levels.slice(0, levels.length - depth).join('/node_modules/')}/node_modules/${name}`,
  );
  return [...directories, `node_modules/${name}`].find((directory) => packages.has(directory));
}

/** Directories of the packages of which at least one byte is in the output. */
export function packageRoots({ outputs }: Metafile): string[] {
  const inside = Object.values(outputs).flatMap(({ inputs }) =>
    Object.entries(inputs).flatMap(([path, { bytesInOutput }]) => (bytesInOutput > 0 ? [path] : [])),
  );
  const roots = inside.flatMap((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? []);
  return [...new Set(roots)].sort();
}

interface PackageJson {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
  readonly homepage?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
}

async function readPackage(root: string, integrities: ReadonlyMap<string, string>): Promise<Component> {
  const directory = join(PROJECT, root);
  const {
    name,
    version,
    license,
    homepage,
    dependencies = {},
  } = (await Bun.file(join(directory, 'package.json')).json()) as PackageJson;
  if (license === undefined) throw new ReleaseError(`Cannot tell the licence of ${name}: its package.json names none`);
  const texts = [
    ...new Glob('{*[lL][iI][cC][eE][nN][sScC][eE]*,NOTICE*,COPYING*}').scanSync({ cwd: directory }),
  ].sort();
  return {
    name,
    version,
    license,
    purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
    url: homepage,
    integrity: integrities.get(`${name}@${version}`),
    licenseText:
      (await Promise.all(texts.map((file) => readFile(join(directory, file), 'utf8')))).join('\n') || undefined,
    needs: Object.keys(dependencies),
    parts: await readCrates(directory),
  };
}

/** Rust crates inside of a package's WebAssembly: the compiler leaves the paths of their sources in its messages. */
async function readCrates(directory: string): Promise<Component[]> {
  const crates = new Map<string, string>();
  for (const file of new Glob('**/*.wasm').scanSync({ cwd: directory, absolute: true })) {
    const text = await readFile(file, 'latin1');
    for (const [, name, version] of text.matchAll(/index\.crates\.io-\w+\/([\w-]+?)-(\d+\.\d+\.\d+[\w.+-]*)\//g)) {
      crates.set(name!, version!);
    }
  }
  return [...crates].sort().map(([name, version]) => {
    const license = CRATE_LICENSES[name];
    if (license === undefined)
      throw new ReleaseError(`Cannot tell the licence of crate ${name}: add it to src/build/sbom/inventory.ts`);
    return { name, version, license, purl: `pkg:cargo/${name}@${version}`, needs: [], parts: [] };
  });
}

function bunRuntime(target: Target): Component {
  const { name, version, integrity } = runtimePackage(target);
  const versions = process.versions as Readonly<Record<string, string>>;
  const unknown = Object.keys(versions).filter((key) => !(key in libraries) && !NO_LIBRARIES.includes(key));
  if (unknown.length > 0) {
    throw new ReleaseError(
      `Cannot tell what ${unknown.join(', ')} inside of Bun is: add it to src/build/sbom/bun-libraries.json`,
    );
  }
  return {
    name: 'bun',
    version,
    license: 'MIT',
    purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
    url: 'https://bun.com',
    integrity,
    needs: [],
    parts: Object.entries(libraries).map(([key, library]) => ({
      ...library,
      version: versions[key],
      purl: undefined,
      needs: [],
      parts: [],
    })),
  };
}

/** `name@version` to the integrity of the package, of every package that the lock file names. */
async function readLockFile(): Promise<ReadonlyMap<string, string>> {
  const lock = Bun.JSONC.parse(await readFile(join(PROJECT, 'bun.lock'), 'utf8')) as {
    packages: Record<string, readonly [string, string, object, string]>;
  };
  return new Map(Object.values(lock.packages).map(([id, , , integrity]) => [id, integrity]));
}

/** Licences of everything, as one text; equal for all targets. */
export function licenseReport(components: readonly Component[]): string {
  const line = '='.repeat(100);
  const sections = components.map(({ name, version, license, url, licenseText, parts }) => {
    const title = [`${name} ${version ?? ''}`.trim(), license, url].filter((part) => part !== undefined).join(', ');
    const inside = parts.map(
      (part) => `  ${[`${part.name} ${part.version ?? ''}`.trim(), part.license, part.url ?? part.purl].join(', ')}`,
    );
    return [line, title, ...(inside.length > 0 ? ['with', ...inside] : []), '', licenseText?.trim() ?? '', ''].join(
      '\n',
    );
  });
  return sections.join('\n');
}
