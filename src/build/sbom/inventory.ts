/** Lists the contents of a compiled program: what the bundler put into it, not what package.json asks for. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Glob } from 'bun';
import { type Metafile, runtimePackage, type Target } from '../compile.ts';
import { BuildError, PROJECT } from '../project.ts';
import libraries from './bun-libraries.json' with { type: 'json' };

/** A third-party component of the program. */
export interface Component {
  readonly name: string;
  /** Undefined where it is unknown */
  readonly version: string | undefined;
  /** SPDX expression */
  readonly license: string;
  /** Package URL; undefined for a library inside Bun, which is no package */
  readonly purl: string | undefined;
  /** Home page */
  readonly url?: string | undefined;
  /** Digest of the package: `sha512-BASE64` or `sha256-HEX` */
  readonly integrity?: string | undefined;
  /** Text of its license files */
  readonly licenseText?: string | undefined;
  /** Package URLs of the components that it depends on */
  readonly needs: readonly string[];
  /** Components compiled into it */
  readonly parts: readonly Component[];
}

/** Licenses of Rust crates. Their compiled code does not carry them. */
const CRATE_LICENSES: Readonly<Record<string, string>> = {
  lz4_flex: 'MIT',
  snap: 'BSD-3-Clause',
  'twox-hash': 'MIT',
};

/** Keys of Bun's `process.versions` that are not libraries inside Bun: emulated interfaces, data, compilers. */
const NO_LIBRARIES = ['bun', 'node', 'openssl', 'v8', 'uv', 'napi', 'modules', 'unicode', 'zig', 'typescript'];

/** Lists the components of a target's program: the packages of the bundle, and Bun with its libraries. Sorted by package URL. */
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

/** Directory of the package that `name` resolves to inside the package `root`: the innermost one that exists. */
function resolvePackage(name: string, root: string, packages: ReadonlyMap<string, unknown>): string | undefined {
  const levels = root.split('/node_modules/');
  const directories = levels.map(
    (_, depth) => `${levels.slice(0, levels.length - depth).join('/node_modules/')}/node_modules/${name}`,
  );
  return [...directories, `node_modules/${name}`].find((directory) => packages.has(directory));
}

/** Directories of the packages that have at least one byte in the output. */
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
  if (license === undefined)
    throw new BuildError(`Cannot determine the license of ${name}: its package.json names none`);
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

/** Finds the Rust crates inside a package's WebAssembly, by the source paths that the compiler leaves in panic messages. */
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
      throw new BuildError(`Cannot determine the license of crate ${name}: add it to src/build/sbom/inventory.ts`);
    return { name, version, license, purl: `pkg:cargo/${name}@${version}`, needs: [], parts: [] };
  });
}

function bunRuntime(target: Target): Component {
  const { name, version, integrity } = runtimePackage(target);
  const versions = process.versions as Readonly<Record<string, string>>;
  const unknown = Object.keys(versions).filter((key) => !(key in libraries) && !NO_LIBRARIES.includes(key));
  if (unknown.length > 0) {
    throw new BuildError(
      `Cannot describe ${unknown.join(', ')} inside Bun: add it to src/build/sbom/bun-libraries.json`,
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

/** Maps `name@version` of every package in the lock file to its integrity. */
async function readLockFile(): Promise<ReadonlyMap<string, string>> {
  const lock = Bun.JSONC.parse(await readFile(join(PROJECT, 'bun.lock'), 'utf8')) as {
    packages: Record<string, readonly [string, string, object, string]>;
  };
  return new Map(Object.values(lock.packages).map(([id, , , integrity]) => [id, integrity]));
}

/** Joins the licenses of all components into one text, which is the same for all targets. */
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
