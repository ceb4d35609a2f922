/** `make release`: binaries for every release target in dist/release/, with checksums, SBOMs and licenses. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { compile, RELEASE_TARGETS, type Target } from './compile.ts';
import { DIST, megabytes, NAME, readRevision, runMain, sha256, VERSION } from './project.ts';
import { licenseReport, takeInventory } from './sbom/inventory.ts';
import { formatSbom } from './sbom/sbom.ts';

const DIRECTORY = join(DIST, 'release');

async function main(): Promise<void> {
  await rm(DIRECTORY, { recursive: true, force: true });
  await mkdir(DIRECTORY, { recursive: true });
  const { commit, epoch } = await readRevision();
  process.stdout.write(`${NAME} ${VERSION}, commit ${commit ?? 'unknown'}\n`);
  const files = [join(DIRECTORY, 'LICENSES.txt')];
  for (const target of RELEASE_TARGETS) files.push(...(await releaseTarget(target, epoch)));
  const sums = await Promise.all(
    files.map(async (file) => `${sha256(await Bun.file(file).bytes())}  ${basename(file)}\n`),
  );
  await writeFile(join(DIRECTORY, 'SHA256SUMS'), sums.join(''));
}

/** Builds one target and returns the paths of the files that it wrote. */
async function releaseTarget(target: Target, epoch: number): Promise<string[]> {
  const program = join(DIRECTORY, `${NAME}-${VERSION}-${target}`);
  const metafile = await compile({ target, file: program });
  const components = await takeInventory(metafile, target);
  const bytes = await Bun.file(program).bytes();
  const purl = `pkg:generic/${NAME}@${VERSION}?target=${target}`;
  const subject = { type: 'application', purl, sha256: sha256(bytes), epoch } as const;
  await writeFile(`${program}.cdx.json`, formatSbom(subject, components));
  await writeFile(join(DIRECTORY, 'LICENSES.txt'), licenseReport(components));
  process.stdout.write(`${basename(program)}: ${megabytes(bytes.length)}, ${components.length} components\n`);
  return [program, `${program}.cdx.json`];
}

runMain(main);
