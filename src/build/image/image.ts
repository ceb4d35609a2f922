/**
 * `make image`: builds an OCI image, a layout in a tar, without a container engine.
 * `bun src/build/image/image.ts FILE.tar ARCHITECTURE...` chooses the file and the architectures.
 */
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { compile, type Target } from '../compile.ts';
import {
  BuildError,
  DESCRIPTION,
  DIST,
  LICENSE,
  megabytes,
  NAME,
  PROJECT,
  type Revision,
  readRevision,
  runMain,
  timestamp,
  VERSION,
} from '../project.ts';
import { licenseReport, takeInventory } from '../sbom/inventory.ts';
import { formatSbom } from '../sbom/sbom.ts';
import { type Architecture, debianComponent, fetchPackages, requireDebian } from './debian.ts';
import { type ImageConfiguration, type Layer, OciLayout } from './oci-layout.ts';
import { archive, layOutProgram, layOutSystem, NONROOT } from './root-file-system.ts';

const TARGETS: Readonly<Record<Architecture, Target>> = { amd64: 'linux-x64', arm64: 'linux-arm64' };

async function main(): Promise<void> {
  requireDebian();
  const [file = join(DIST, `${NAME}-${VERSION}-image.tar`), ...names] = process.argv.slice(2);
  const architectures = names.length > 0 ? names.map(parseArchitecture) : (Object.keys(TARGETS) as Architecture[]);
  const revision = await readRevision();
  await mkdir(dirname(file), { recursive: true });
  // In the directory of the result, so that a rename puts it in place.
  const work = await mkdtemp(`${file}.partial-`);
  try {
    const layout = await OciLayout.create(join(work, 'layout'));
    for (const architecture of architectures) {
      const layers = await makeLayers(architecture, work, revision);
      const bytes = await layout.add(configuration(architecture, revision), layers);
      const unpacked = layers.reduce((sum, { tar }) => sum + tar.length, 0);
      process.stdout.write(`${architecture}: ${megabytes(bytes)} compressed, ${megabytes(unpacked)} unpacked\n`);
    }
    await layout.finish(NAME, VERSION, labels(revision));
    await writeFile(join(work, 'image.tar'), await archive(join(work, 'layout'), revision.epoch));
    await rename(join(work, 'image.tar'), file);
    process.stdout.write(`${file}: ${megabytes(Bun.file(file).size)}\n`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

function parseArchitecture(name: string): Architecture {
  if (name in TARGETS) return name as Architecture;
  throw new BuildError(`Cannot build an image for ${name}: the architectures are ${Object.keys(TARGETS).join(', ')}`);
}

/** The layer of Debian's files below, because it seldom changes; the layer of the program above. */
async function makeLayers(architecture: Architecture, work: string, { epoch }: Revision): Promise<Layer[]> {
  const packages = await fetchPackages(architecture);
  const system = join(work, `${architecture}-system`);
  await layOutSystem(system, packages);

  const binary = join(work, `${architecture}-program`);
  const metafile = await compile({ target: TARGETS[architecture], file: binary });
  const components = await takeInventory(metafile, TARGETS[architecture]);
  const debian = packages.map((one) => debianComponent(one, architecture));
  const subject = { type: 'container', purl: `pkg:oci/${NAME}@${VERSION}?arch=${architecture}`, epoch } as const;
  const program = join(work, `${architecture}-root`);
  await layOutProgram(program, binary, {
    LICENSE: await readFile(join(PROJECT, 'LICENSE'), 'utf8'),
    'LICENSES.txt': licenseReport(components),
    'sbom.cdx.json': formatSbom(subject, [...components, ...debian]),
  });
  return [
    {
      tar: await archive(system, epoch),
      comment: packages.map(({ name, version }) => `${name} ${version}`).join(', '),
    },
    { tar: await archive(program, epoch), comment: `${NAME} ${VERSION}` },
  ];
}

function configuration(architecture: Architecture, revision: Revision): ImageConfiguration {
  return {
    architecture,
    os: 'linux',
    created: timestamp(revision.epoch),
    config: {
      User: `${NONROOT}:${NONROOT}`,
      WorkingDir: '/',
      Env: ['PATH=/usr/bin'],
      Entrypoint: ['/usr/bin/cdc-notifier'],
      Cmd: ['/etc/cdc-notifier/config.yaml'],
      ExposedPorts: { '8022/tcp': {} },
      StopSignal: 'SIGTERM',
      Labels: labels(revision),
    },
  };
}

/** Labels with the names that OCI defines (annotations.md). */
function labels({ commit, epoch }: Revision): Record<string, string> {
  const values = {
    title: NAME,
    description: DESCRIPTION,
    version: VERSION,
    licenses: LICENSE,
    created: timestamp(epoch),
    ...(commit === undefined ? {} : { revision: commit }),
  };
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [`org.opencontainers.image.${key}`, value]));
}

runMain(main);
