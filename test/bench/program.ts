/** What the programs of the benchmarks share: progress on stderr, files of figures, and an end that stops all servers. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

const startedMs = performance.now();

/** Seconds since the program started. */
export function elapsedSeconds(): number {
  return (performance.now() - startedMs) / 1000;
}

/** Prints what the program does now to stderr, with the time. */
export function progress(text: string): void {
  process.stderr.write(`${elapsedSeconds().toFixed(1).padStart(6)} s  ${text}\n`);
}

/** Writes a file, with its directory if it is missing. */
export async function writeFigures(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text);
  progress(`written: ${file}`);
}

/** A benchmark program. */
export interface BenchProgram<Options> {
  /** Subject of the error message, such as `The benchmark` */
  readonly name: string;
  readonly usage: string;
  /** @throws Error for the user when the command line is wrong */
  readonly readOptions: () => Options;
  /** Measures and prints; `cleanup` gets everything that must be stopped in the end */
  readonly run: (options: Options, cleanup: AsyncDisposableStack) => Promise<void>;
}

/** Runs a program and ends this process: exit code 0, 1 after an error, 128 + number of the signal after SIGINT or SIGTERM. */
export async function runBenchProgram<Options>(program: BenchProgram<Options>): Promise<never> {
  process.exit(await exitCodeOf(program));
}

async function exitCodeOf<Options>({ name, usage, readOptions, run }: BenchProgram<Options>): Promise<number> {
  let options: Options;
  try {
    options = readOptions();
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n\n${usage}`);
    return 1;
  }
  const cleanup = new AsyncDisposableStack();
  try {
    return await Promise.race([run(options, cleanup).then(() => 0), interrupted()]);
  } catch (error) {
    process.stderr.write(`${name} failed: ${error instanceof Error ? error.message : error}\n`);
    return 1;
  } finally {
    progress('stopping the servers');
    await cleanup.disposeAsync();
  }
}

/** Resolves with the exit code of the first signal. */
function interrupted(): Promise<number> {
  return new Promise((resolve) => {
    process.once('SIGINT', () => resolve(130));
    process.once('SIGTERM', () => resolve(143));
  });
}
