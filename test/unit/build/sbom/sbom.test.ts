/** The bill of materials: whether it is one, and whether it tells of everything that is inside. */
import { beforeAll, expect, test } from 'bun:test';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import Ajv from 'ajv';
import packageJson from '../../../../package.json' with { type: 'json' };
import { type Metafile, runtimePackage } from '../../../../src/build/compile.ts';
import { type Component, licenseReport, packageRoots, takeInventory } from '../../../../src/build/sbom/inventory.ts';
import { billOfMaterials } from '../../../../src/build/sbom/sbom.ts';
import { PROJECT_DIRECTORY } from '../../../support/process/make-once.ts';

const SUBJECT = {
  type: 'application',
  purl: 'pkg:generic/cdc-notifier@0.0.0',
  sha256: 'ab'.repeat(32),
  epoch: 1e9,
} as const;

let components: Component[];

beforeAll(async () => {
  const entrypoints = [join(PROJECT_DIRECTORY, 'src/main.ts')];
  const { metafile } = await Bun.build({ entrypoints, target: 'bun', metafile: true, root: PROJECT_DIRECTORY });
  components = await takeInventory(metafile as Metafile, 'linux-x64');
}, 60_000);

async function cycloneDxValidator() {
  const directory = join(
    dirname(Bun.resolveSync('@cyclonedx/cyclonedx-library/package.json', import.meta.dirname)),
    'res/schema',
  );
  const schema = async (name: string) =>
    JSON.parse(await readFile(join(directory, `${name}.SNAPSHOT.schema.json`), 'utf8'));
  const ajv = new Ajv({ strict: false, validateFormats: false });
  ajv.addSchema(await schema('spdx'), 'http://cyclonedx.org/schema/spdx.SNAPSHOT.schema.json');
  ajv.addSchema(await schema('jsf-0.82'), 'http://cyclonedx.org/schema/jsf-0.82.SNAPSHOT.schema.json');
  ajv.addSchema(
    await schema('cryptography-defs'),
    'http://cyclonedx.org/schema/cryptography-defs.SNAPSHOT.schema.json',
  );
  return ajv.compile(await schema('bom-1.6'));
}

test('the bill is CycloneDX 1.6, and the same for the same content', async () => {
  const bill = billOfMaterials(SUBJECT, components);
  const validate = await cycloneDxValidator();
  validate(JSON.parse(bill));
  expect(validate.errors).toBeNull();
  expect(billOfMaterials(SUBJECT, components)).toBe(bill);
});

test('every dependency whose code is bundled is listed, and what is only for development is not', () => {
  const names = components.map(({ name }) => name);
  expect(names).toEqual(
    expect.arrayContaining(['@platformatic/kafka', 'pino', 'postgres', 'prom-client', 'valibot', 'yaml']),
  );
  expect(names.filter((name) => ['fast-check', 'kubernetes-models', 'typescript'].includes(name))).toEqual([]);
});

test('every package has an integrity and a licence', () => {
  for (const { integrity, license, licenseText, name } of components) {
    expect([name, integrity]).toEqual([name, expect.stringMatching(/^sha512-/)]);
    expect(license).not.toBe('');
    // Whose package holds no text of it.
    if (!['bun', 'postgres'].includes(name)) expect([name, licenseText?.length]).toEqual([name, expect.any(Number)]);
  }
  expect(licenseReport(components)).toContain('WebKit (JavaScriptCore)');
});

test('what is inside of a package is found: crates in WebAssembly, libraries in Bun', () => {
  const partsOf = (name: string) => components.find((one) => one.name === name)?.parts.map((part) => part.name);
  expect(partsOf('@platformatic/wasm-utils')).toContain('lz4_flex');
  expect(partsOf('bun')).toEqual(expect.arrayContaining(['BoringSSL', 'WebKit (JavaScriptCore)']));
});

test('needs point to the version that is nearest', () => {
  const purls = new Set(components.map(({ purl }) => purl));
  const needs = components.flatMap((component) => component.needs);
  expect(needs.length).toBeGreaterThan(10);
  expect(needs.filter((purl) => !purls.has(purl))).toEqual([]);
});

test('packageRoots takes packages with bytes in the output, nested and scoped ones under their own names', () => {
  const input = (bytesInOutput: number) => ({ bytesInOutput });
  const inputs = {
    'src/main.ts': input(10),
    'node_modules/a/index.js': input(1),
    'node_modules/a/node_modules/@s/b/lib/x.js': input(2),
    'node_modules/shaken/index.js': input(0),
  };
  expect(packageRoots({ outputs: { main: { inputs } } })).toEqual([
    'node_modules/a',
    'node_modules/a/node_modules/@s/b',
  ]);
});

test('the pinned Bun is the one that the project is built and tested with', () => {
  expect(runtimePackage('linux-x64').version).toBe(packageJson.engines.bun);
});
