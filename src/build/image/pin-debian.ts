/** `bun src/build/image/pin-debian.ts`: pins and downloads the newest Debian packages of the image, and prints what changed. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { $ } from 'bun';
import { BuildError, runMain } from '../project.ts';
import { type Architecture, aptOptions, fetchPackages, type Pin, requireDebian } from './debian.ts';
import pins from './debian-packages.json' with { type: 'json' };

async function main(): Promise<void> {
  requireDebian();
  const options = await aptOptions();
  for (const [architecture, packages] of Object.entries<Record<string, Pin>>(pins.packages)) {
    for (const [name, { version: before }] of Object.entries(packages)) {
      // Without --all-versions apt-cache shows the newest version only.
      const record =
        await $`apt-cache ${options} -oAPT::Architecture=${architecture} show --no-all-versions ${name}`.text();
      const field = (key: string): string => {
        const found = new RegExp(`^${key}: (.+)$`, 'm').exec(record)?.[1];
        if (found === undefined)
          throw new BuildError(`Cannot pin ${name} for ${architecture}: the archive has no ${key} for it`);
        return found;
      };
      packages[name] = { version: field('Version'), sha256: field('SHA256') };
      if (packages[name].version !== before) {
        process.stdout.write(`${name} for ${architecture}: ${before} -> ${packages[name].version}\n`);
      }
    }
    await fetchPackages(architecture as Architecture);
  }
  await writeFile(join(import.meta.dirname, 'debian-packages.json'), `${JSON.stringify(pins, undefined, 2)}\n`);
}

runMain(main);
