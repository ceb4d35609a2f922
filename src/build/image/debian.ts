/**
 * Downloads Debian packages of pinned versions with apt-get and an apt configuration of its own. Of the machine it uses
 * only the tools and Debian's keys, whichever release it runs, and it changes nothing there. It needs no root rights.
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { $ } from 'bun';
import { makeOnce } from '../make-once.ts';
import { BuildError, CACHE, sha256 } from '../project.ts';
import type { Component } from '../sbom/inventory.ts';
import pins from './debian-packages.json' with { type: 'json' };

/** Processors, by the names that Debian and OCI share. */
export type Architecture = keyof typeof pins.packages;

/** A version of a package, and the digest of its file. */
export interface Pin {
  readonly version: string;
  readonly sha256: string;
}

/** A downloaded package. */
export interface DebianPackage extends Pin {
  readonly name: string;
  readonly file: string;
}

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** @throws BuildError when this machine lacks Debian's tools or keys */
export function requireDebian(): void {
  const missing = ['apt-get', 'apt-cache', 'dpkg-deb'].filter((tool) => Bun.which(tool) === null);
  if (!existsSync(KEYRING)) missing.push(KEYRING);
  if (missing.length === 0) return;
  throw new BuildError(
    `Cannot build the image: its files come from Debian packages, and this machine lacks ${missing.join(', ')}. ` +
      'Run it on Debian (on Ubuntu: apt-get install debian-archive-keyring), or use a container engine with src/build/image/Dockerfile',
  );
}

/** Debian's archive no longer has a pinned version. */
export class SupersededError extends BuildError {}

/** Returns the pinned packages of an architecture; the first call downloads them. */
export async function fetchPackages(architecture: Architecture): Promise<DebianPackage[]> {
  requireDebian();
  const packages: DebianPackage[] = [];
  for (const [name, pin] of Object.entries<Pin>(pins.packages[architecture])) {
    const file = join(CACHE, 'debian', `${name}_${architecture}_${pin.sha256}.deb`);
    await makeOnce(file, (partial) => download({ name, architecture, ...pin }, partial, file));
    const digest = sha256(await Bun.file(file).bytes());
    if (digest !== pin.sha256)
      throw new BuildError(`Cannot use ${file}: its SHA-256 is ${digest}, but ${pin.sha256} is pinned`);
    packages.push({ name, file, ...pin });
  }
  return packages;
}

async function download(
  { name, architecture, version }: Pin & { name: string; architecture: Architecture },
  path: string,
  kept: string,
): Promise<void> {
  const options = [...(await aptOptions()), `-oAPT::Architecture=${architecture}`];
  // apt-cache prints nothing and succeeds when there is no such version.
  if ((await $`apt-cache ${options} show ${name}=${version}`.quiet().nothrow().text()) === '') {
    throw new SupersededError(
      `Cannot fetch ${name} ${version} for ${architecture}: Debian's archive has superseded it. ` +
        '`bun src/build/image/pin-debian.ts` pins the newest versions: run it, test, and commit src/build/image/debian-packages.json. ' +
        `To build the same image again, get the old file from elsewhere and save it as ${kept}`,
    );
  }
  const directory = await mkdtemp(join(CACHE, 'download-'));
  try {
    const { exitCode, stderr } = await $`apt-get ${options} -qq download ${name}=${version}`
      .cwd(directory)
      .quiet()
      .nothrow();
    if (exitCode !== 0) throw new BuildError(`Cannot fetch ${name} ${version}: ${stderr.toString().trim()}`);
    const [file] = [...new Bun.Glob('*.deb').scanSync({ cwd: directory, absolute: true })];
    await $`mv ${file} ${path}`;
  } finally {
    await rm(directory, { recursive: true });
  }
}

let fetchedLists: Promise<string[]> | undefined;

/** Downloads the package lists of the pinned release, once per process; returns the options that make apt's tools use them. */
export function aptOptions(): Promise<string[]> {
  fetchedLists ??= (async () => {
    const directory = join(CACHE, 'apt');
    await mkdir(join(directory, 'lists/partial'), { recursive: true });
    await mkdir(join(directory, 'cache/archives/partial'), { recursive: true });
    const sources = pins.sources.map((source) => `deb [signed-by=${KEYRING}] ${source}\n`);
    await writeFile(join(directory, 'sources.list'), sources.join(''));
    const settings = {
      'Dir::State': directory,
      'Dir::State::lists': join(directory, 'lists'),
      'Dir::State::status': '/dev/null',
      'Dir::Cache': join(directory, 'cache'),
      'Dir::Etc::sourcelist': join(directory, 'sources.list'),
      'Dir::Etc::sourceparts': '/dev/null',
      'Dir::Etc::preferences': '/dev/null',
      'Dir::Etc::preferencesparts': '/dev/null',
      'Acquire::Languages': 'none',
      'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled': 'false',
      // By default a failed download of a list is only a warning, and apt uses an old list or none.
      'APT::Update::Error-Mode': 'any',
      // When run by root, apt would download as a user who may have no access to this directory.
      'APT::Sandbox::User': 'root',
    };
    const architectures = Object.keys(pins.packages).map((name) => `"${name}"; `);
    const lines = [
      ...Object.entries(settings).map(([key, value]) => `${key} "${value}";\n`),
      '#clear APT::Architectures;\n',
      `APT::Architectures { ${architectures.join('')}};\n`,
      // Hooks of the machine: in some container images they delete the cache after an update.
      '#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n',
    ];
    const configuration = join(directory, 'apt.conf');
    await writeFile(configuration, lines.join(''));
    // apt reads this after the machine's own configuration, so that a configured proxy stays in use.
    const option = `--config-file=${configuration}`;
    const { exitCode, stderr } = await $`apt-get ${option} -qq update`.quiet().nothrow();
    if (exitCode !== 0)
      throw new BuildError(`Cannot read the package lists of ${pins.distribution}: ${stderr.toString().trim()}`);
    return [option];
  })();
  return fetchedLists;
}

/** Describes a package for the SBOM. */
export function debianComponent(
  { name, version, sha256: digest }: DebianPackage,
  architecture: Architecture,
): Component {
  const { license } = pins.about[name as keyof typeof pins.about];
  const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${architecture}&distro=${pins.distribution}`;
  return { name, version, license, purl, integrity: `sha256-${digest}`, needs: [], parts: [] };
}
