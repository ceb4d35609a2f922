/** The SBOM: it is valid CycloneDX, and it lists everything that is in the program. */
import { beforeAll, expect, test } from 'bun:test';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import Ajv from 'ajv';
import type { Metafile } from '../../../../src/build/compile.ts';
import { type Component, licenseReport, packageRoots, takeInventory } from '../../../../src/build/sbom/inventory.ts';
import { formatSbom } from '../../../../src/build/sbom/sbom.ts';
import { PROJECT_DIRECTORY } from '../../../support/process/directories.ts';

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

test('the SBOM is valid CycloneDX 1.6, and the same content gives the same text', async () => {
  const bill = formatSbom(SUBJECT, components);
  const validate = await cycloneDxValidator();
  validate(JSON.parse(bill));
  expect(validate.errors).toBeNull();
  expect(formatSbom(SUBJECT, components)).toBe(bill);
});

test('every bundled dependency is listed, and no development dependency', () => {
  const names = components.map(({ name }) => name);
  expect(names).toEqual(
    expect.arrayContaining(['@platformatic/kafka', 'pino', 'postgres', '@prometheus-io/client', 'valibot', 'yaml']),
  );
  expect(names.filter((name) => ['fast-check', 'kubernetes-models', 'typescript'].includes(name))).toEqual([]);
});

test('every package has an integrity and a license', () => {
  for (const { integrity, license, licenseText, name } of components) {
    expect([name, integrity]).toEqual([name, expect.stringMatching(/^sha512-/)]);
    expect(license).not.toBe('');
    // These packages contain no text of their license.
    if (!['bun', 'postgres'].includes(name)) expect([name, licenseText?.length]).toEqual([name, expect.any(Number)]);
  }
  expect(licenseReport(components)).toContain('WebKit (JavaScriptCore)');
});

test('components inside a package are listed: crates in WebAssembly, libraries in Bun', () => {
  const partsOf = (name: string) => components.find((one) => one.name === name)?.parts.map((part) => part.name);
  expect(partsOf('@platformatic/wasm-utils')).toContain('lz4_flex');
  expect(partsOf('bun')).toEqual(expect.arrayContaining(['BoringSSL', 'WebKit (JavaScriptCore)']));
});

test('a dependency points to the nearest version', () => {
  const purls = new Set(components.map(({ purl }) => purl));
  const needs = components.flatMap((component) => component.needs);
  expect(needs.length).toBeGreaterThan(10);
  expect(needs.filter((purl) => !purls.has(purl))).toEqual([]);
});

test('packageRoots lists the packages with bytes in the output, nested and scoped ones by their own names', () => {
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
