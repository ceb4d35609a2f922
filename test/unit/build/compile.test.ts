import { expect, test } from 'bun:test';
import { appendFile, copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import packageJson from '../../../package.json' with { type: 'json' };
import { RELEASE_TARGETS, runtimePackage } from '../../../src/build/compile.ts';
import { PROJECT_DIRECTORY } from '../../support/process/directories.ts';
import { runProgram } from '../../support/process/run-program.ts';
import { temporaryDirectory } from '../../support/process/temporary-directory.ts';

test('the pinned Bun is the version that package.json requires', () => {
  const versions = new Set(RELEASE_TARGETS.map((target) => runtimePackage(target).version));
  expect([...versions]).toEqual([packageJson.engines.bun]);
});

test('a Bun of other bytes does not compile', async () => {
  await using directory = await temporaryDirectory('bun');
  const other = join(directory.path, 'bun');
  await copyFile(process.execPath, other);
  await appendFile(other, '\n');
  const compilation = runProgram(other, [join(PROJECT_DIRECTORY, 'src/build/compile.ts')]);
  await expect(compilation).rejects.toThrow(/Cannot compile with .*which is not in src\/build\/bun-runtimes\.json/s);
});
