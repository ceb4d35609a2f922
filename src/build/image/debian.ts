/**
 * Debian packages of pinned versions, by apt-get, with an apt configuration of our own: whatever release the machine
 * runs, nothing of it is used but its tools and Debian's keys, and nothing of it is changed. No root rights are needed.
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { $ } from 'bun';
import { CACHE, makeOnce, ReleaseError, sha256 } from '../project.ts';
import type { Component } from '../sbom/inventory.ts';
import pins from './debian-packages.json' with { type: 'json' };

/** As Debian and OCI name processors. */
export type Architecture = keyof typeof pins.packages;

/** A version of a package, and what its file must be. */
export interface Pin {
  readonly version: string;
  readonly sha256: string;
}

/** A package as a file. */
export interface DebianPackage extends Pin {
  readonly name: string;
  readonly file: string;
}

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** @throws ReleaseError on a machine that is not Debian */
export function requireDebian(): void {
  const missing = ['apt-get', 'apt-cache', 'dpkg-deb'].filter((tool) => Bun.which(tool) === null);
  if (!existsSync(KEYRING)) missing.push(KEYRING);
  if (missing.length === 0) return;
  throw new ReleaseError(
    `Cannot make the image: its files come from Debian packages, and this machine lacks ${missing.join(', ')}. ` +
      'Run it on Debian (on Ubuntu: apt-get install debian-archive-keyring), or use a container engine with src/build/image/Dockerfile',
  );
}

/** A pinned version that Debian's archive has no more. */
export class SupersededError extends ReleaseError {}

/** Brings the pinned packages of an architecture, from the archive the first time. */
export async function fetchPackages(architecture: Architecture): Promise<DebianPackage[]> {
  requireDebian();
  const packages: DebianPackage[] = [];
  for (const [name, pin] of Object.entries<Pin>(pins.packages[architecture])) {
    const file = join(CACHE, 'debian', `${name}_${architecture}_${pin.sha256}.deb`);
    await makeOnce(file, (partial) => download({ name, architecture, ...pin }, partial, file));
    const digest = sha256(await Bun.file(file).bytes());
    if (digest !== pin.sha256)
      throw new ReleaseError(`Cannot use ${file}: its sha256 is ${digest}, and ${pin.sha256} is pinned`);
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
  // It says nothing, and is content, when there is no such version.
  if ((await $`apt-cache ${options} show ${name}=${version}`.quiet().nothrow().text()) === '') {
    throw new SupersededError(
      `Cannot fetch ${name} ${version} for ${architecture}: Debian's archive has superseded it. ` +
        '`bun src/build/image/pin-debian.ts` pins the newest versions: run it, test, and commit src/build/image/debian-packages.json. ' +
        `For the image as it was, bring the file from elsewhere and name it ${kept}`,
    );
  }
  const directory = await mkdtemp(join(CACHE, 'download-'));
  try {
    const { exitCode, stderr } = await $`apt-get ${options} -qq download ${name}=${version}`
      .cwd(directory)
      .quiet()
      .nothrow();
    if (exitCode !== 0) throw new ReleaseError(`Cannot fetch ${name} ${version}: ${stderr.toString().trim()}`);
    const [file] = [...new Bun.Glob('*.deb').scanSync({ cwd: directory, absolute: true })];
    await $`mv ${file} ${path}`;
  } finally {
    await rm(directory, { recursive: true });
  }
}

let fetchedLists: Promise<string[]> | undefined;

/** Package lists of the pinned release, fetched once per process, and the options by which apt's tools use them. */
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
      // Else a list that could not be fetched is a warning, and an old one or none is taken.
      'APT::Update::Error-Mode': 'any',
      // As root apt would hand its files to a user who may not be able to reach this directory.
      'APT::Sandbox::User': 'root',
    };
    const architectures = Object.keys(pins.packages).map((name) => `"${name}"; `);
    const lines = [
      ...Object.entries(settings).map(([key, value]) => `${key} "${value}";\n`),
      '#clear APT::Architectures;\n',
      `APT::Architectures { ${architectures.join('')}};\n`,
      // What the machine does after an update of its own: some images empty the machine's cache there.
      '#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n',
    ];
    const configuration = join(directory, 'apt.conf');
    await writeFile(configuration, lines.join(''));
    // Read behind the machine's own, of which the proxy stays.
    const option = `--config-file=${configuration}`;
    const { exitCode, stderr } = await $`apt-get ${option} -qq update`.quiet().nothrow();
    if (exitCode !== 0)
      throw new ReleaseError(`Cannot read the package lists of ${pins.distribution}: ${stderr.toString().trim()}`);
    return [option];
  })();
  return fetchedLists;
}

/** For the bill of materials. */
export function debianComponent(
  { name, version, sha256: digest }: DebianPackage,
  architecture: Architecture,
): Component {
  const { license } = pins.about[name as keyof typeof pins.about];
  const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${architecture}&distro=${pins.distribution}`;
  return { name, version, license, purl, integrity: `sha256-${digest}`, needs: [], parts: [] };
}
