/** The files of `make release`. */
import { afterAll, beforeAll, expect, test } from 'bun:test';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import packageJson from '../../package.json' with { type: 'json' };
import { compile } from '../../src/build/compile.ts';
import { sha256 } from '../../src/build/project.ts';
import { PROJECT_DIRECTORY } from '../support/process/directories.ts';
import { runProgram } from '../support/process/run-program.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/process/temporary-directory.ts';
import { copyProject } from './copy.ts';

const PREFIX = `cdc-notifier-${packageJson.version}`;

let directory: TemporaryDirectory;
/** Directories of the releases that two copies of the project built */
let releases: string[];

beforeAll(async () => {
  directory = await temporaryDirectory('release');
  const copies = await copyProject(directory.path);
  await Promise.all(copies.map((copy) => copy.run('release')));
  releases = copies.map((copy) => join(copy.directory, 'dist/release'));
}, 240_000);

afterAll(() => directory?.[Symbol.asyncDispose]());

test('a release contains a binary and an SBOM per platform, licenses, and checksums of all files', async () => {
  const programs = ['linux-x64', 'linux-x64-musl', 'linux-arm64'].map((target) => `${PREFIX}-${target}`);
  const files = ['LICENSES.txt', ...programs.flatMap((program) => [program, `${program}.cdx.json`])];
  expect((await readdir(releases[0]!)).sort()).toEqual([...files, 'SHA256SUMS'].sort());
  const checked = await runProgram('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: releases[0]! });
  expect(checked).toBe(files.map((file) => `${file}: OK\n`).join(''));
});

test('a release has the same bytes wherever it is built', async () => {
  const [one, other] = await Promise.all(releases.map((release) => readFile(join(release, 'SHA256SUMS'), 'utf8')));
  expect(one).toBe(other!);
});

test('make build writes the same bytes as the release for this platform', async () => {
  const file = join(directory.path, 'built');
  await compile({ file });
  expect(await readFile(join(releases[0]!, 'SHA256SUMS'), 'utf8')).toContain(sha256(await Bun.file(file).bytes()));
});

test('each COPY of the Dockerfile matches exactly one file of the release', async () => {
  const dockerfile = await readFile(join(PROJECT_DIRECTORY, 'src/build/image/Dockerfile'), 'utf8');
  const names = await readdir(releases[0]!);
  const patterns = [...dockerfile.matchAll(/^COPY (\S+)/gm)].map(([, pattern]) => pattern!);
  const found = patterns.map((pattern) => names.filter((name) => new Bun.Glob(pattern).match(name)));
  expect(found).toEqual([[`${PREFIX}-linux-x64`], [`${PREFIX}-linux-arm64`], ['LICENSES.txt']]);
});
