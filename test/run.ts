/**
 * `bun test/run.ts SUITE...`: runs test suites one after another, `ONE+OTHER` in parallel, and prints at the end what failed
 * and, in the last line, the totals: `N passed, N failed`. It fails when a test failed or was skipped, when a suite crashed,
 * and when a suite ran no test.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { Glob } from 'bun';
import { CACHE_DIRECTORY, PROJECT_DIRECTORY } from './support/process/directories.ts';
import { countTests, type TestCounts } from './support/process/junit.ts';

/** The files of a suite and the options of `bun test`. */
interface Suite {
  readonly includes: (path: string) => boolean;
  readonly arguments: readonly string[];
}

const IN_SUITE_OF_ITS_OWN = /^test\/(integration|e2e|image|fuzz|faults)\//;

/** Files to run in parallel in suites that mostly wait for servers. */
const LANES = Math.max(2, availableParallelism() - 1);

const SUITES: Readonly<Record<string, Suite>> = {
  // Bun's default of 5 s is too short for the longest tests on a busy machine
  unit: { includes: (path) => !IN_SUITE_OF_ITS_OWN.test(path), arguments: ['--timeout=60000'] },
  integration: {
    includes: (path) => path.startsWith('test/integration/'),
    arguments: ['--timeout=120000', `--parallel=${LANES}`],
  },
  e2e: { includes: (path) => path.startsWith('test/e2e/'), arguments: ['--timeout=300000', `--parallel=${LANES}`] },
  // Needs Debian for the files of the image, and root or user namespaces to run it.
  image: { includes: (path) => path.startsWith('test/image/'), arguments: ['--timeout=300000'] },
  fuzz: { includes: (path) => path.startsWith('test/fuzz/'), arguments: ['--timeout=300000'] },
  // Both pairs of versions in parallel
  faults: { includes: (path) => path.startsWith('test/faults/'), arguments: ['--timeout=300000', '--parallel=2'] },
};

const NO_TESTS: TestCounts = { passed: 0, failed: [], skipped: 0 };

async function runSuite(name: string, suite: Suite): Promise<TestCounts> {
  const files = [...new Glob('test/**/*.test.ts').scanSync({ cwd: PROJECT_DIRECTORY })].filter(suite.includes).sort();
  const report = join(CACHE_DIRECTORY, 'reports', `${name}.xml`);
  await mkdir(join(CACHE_DIRECTORY, 'reports'), { recursive: true });
  await rm(report, { force: true });
  console.log(`\n== ${name}: ${files.length} files`);
  if (files.length === 0) return NO_TESTS;
  const options = [...suite.arguments, '--reporter=junit', `--reporter-outfile=${report}`];
  const child = spawn(process.execPath, ['test', ...options, ...files.map((file) => `./${file}`)], {
    cwd: PROJECT_DIRECTORY,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const [code] = (await once(child, 'exit')) as [number | null];
  const counts = existsSync(report) ? countTests(await readFile(report, 'utf8')) : NO_TESTS;
  if (code !== 0 && counts.failed.length === 0) {
    // An error outside the tests: a file that does not load, an uncaught error, a crash.
    const ending = `${name}: bun test ended with ${code}, see above (report: ${relative(PROJECT_DIRECTORY, report)})`;
    return { ...counts, failed: [ending] };
  }
  return counts;
}

async function main(groups: readonly string[]): Promise<number> {
  const names = groups.flatMap((group) => group.split('+'));
  const unknown = names.filter((name) => SUITES[name] === undefined);
  if (names.length === 0 || unknown.length > 0) {
    console.error(`Usage: bun test/run.ts SUITE..., with suites ${Object.keys(SUITES).join(', ')}`);
    return 2;
  }
  let passed = 0;
  let skipped = 0;
  const failed: string[] = [];
  const run = async (name: string): Promise<void> => {
    const counts = await runSuite(name, SUITES[name] as Suite);
    passed += counts.passed;
    failed.push(...counts.failed);
    skipped += counts.skipped;
    if (counts.passed + counts.failed.length === 0) failed.push(`${name}: no test ran`);
  };
  for (const group of groups) await Promise.all(group.split('+').map(run));
  if (failed.length > 0) console.log(`\nFailed:\n${failed.map((test) => `  ${test}`).join('\n')}`);
  if (skipped > 0) console.log(`\n${skipped} skipped, counted as failed`);
  console.log(`\n${passed} passed, ${failed.length + skipped} failed`);
  return failed.length + skipped === 0 ? 0 : 1;
}

process.exit(await main(process.argv.slice(2)));
