/**
 * The compiled program as an operator runs it: in a directory of its own without sources and packages, with a configuration
 * file and an empty environment. Its log is collected line by line.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants, existsSync, readdirSync, statSync } from 'node:fs';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { compile } from '../../../src/build/compile.ts';
import { PROJECT_DIRECTORY } from '../process/directories.ts';
import { guardProcess, releaseProcess } from '../process/guardian.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../process/temporary-directory.ts';
import { waitFor } from '../process/wait.ts';

/** One line of the log, as JSON. */
export interface BinaryLogLine {
  readonly level: string;
  readonly time: string;
  readonly msg: string;
  readonly slot?: string;
  readonly error?: {
    readonly name: string;
    readonly message: string;
    readonly advice?: string;
    readonly place?: object;
  };
  readonly [key: string]: unknown;
}

/** How a process ended: exit code, or signal. */
export type Ending = number | NodeJS.Signals;

/** Result of a program that ran to its end. */
export interface BinaryResult {
  readonly ending: Ending;
  readonly stdout: string;
  readonly stderr: string;
}

/** The running service; disposal kills it (SIGKILL) and removes its directory. */
export interface RunningBinary extends AsyncDisposable {
  readonly pid: number;
  /** Raw stderr so far */
  readonly stderr: string;
  /** Its complete lines, parsed */
  readonly lines: readonly BinaryLogLine[];
  /** Resolves when the process has ended */
  readonly ended: Promise<Ending>;
  /** Resolves with the first line that matches, past or future; `from` skips so many lines */
  waitForLine(
    what: string,
    isIt: (line: BinaryLogLine) => boolean,
    options?: { readonly from?: number; readonly timeoutMs?: number },
  ): Promise<BinaryLogLine>;
  /** Resolves when every one of these slots streams */
  waitForStart(...slots: string[]): Promise<void>;
  signal(signal: NodeJS.Signals): void;
  /** Sends SIGTERM and resolves with the ending; rejects after `timeoutMs`, default 15 s */
  stop(timeoutMs?: number): Promise<Ending>;
  /** SIGKILL */
  kill(): Promise<void>;
}

/** Log message of a slot that begins to stream. */
export const STARTED = 'replication started';

/** Name of the configuration file in the program's directory. */
export const CONFIG_FILE = 'config.yaml';

/** The program that `make build` writes. */
const BINARY = join(PROJECT_DIRECTORY, 'dist', 'cdc-notifier');

/**
 * Starts the service with a configuration, text or an object (written as JSON, which is YAML). It runs until it is stopped;
 * its log must be JSON lines.
 */
export async function startBinary(config: object | string): Promise<RunningBinary> {
  const directory = await programDirectory(config);
  const child = await spawnBinary(directory, [CONFIG_FILE]);
  const log = new LineCollector();
  child.stderr?.setEncoding('utf8').on('data', (text: string) => log.add(text));
  const ended = endOf(child);
  let ending: Ending | undefined;
  void ended.then((how) => {
    ending = how;
  });

  const running: RunningBinary = {
    pid: child.pid as number,
    get stderr() {
      return log.text;
    },
    lines: log.lines,
    ended,
    async waitForLine(what, isIt, { from = 0, timeoutMs = 20_000 } = {}) {
      const find = () => {
        const found = log.lines.find((line, index) => index >= from && isIt(line));
        if (found === undefined && ending !== undefined) {
          throw new Error(`Cannot see ${what}: the program has ended (${ending}): ${log.tail()}`);
        }
        return found;
      };
      return await waitFor(what, find, { timeoutMs }).catch((error: unknown) => {
        throw new Error(`${error instanceof Error ? error.message : String(error)}; last lines: ${log.tail()}`);
      });
    },
    async waitForStart(...slots) {
      for (const slot of slots) {
        await running.waitForLine(`the start of ${slot}`, (line) => line.msg === STARTED && line.slot === slot);
      }
    },
    signal: (signal) => void child.kill(signal),
    async stop(timeoutMs = 15_000) {
      child.kill('SIGTERM');
      const timer = Promise.withResolvers<never>();
      const timeout = setTimeout(
        () => timer.reject(new Error(`Cannot stop the program within ${timeoutMs} ms; last lines: ${log.tail()}`)),
        timeoutMs,
      );
      try {
        return await Promise.race([ended, timer.promise]);
      } finally {
        clearTimeout(timeout);
      }
    },
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
    async [Symbol.asyncDispose]() {
      await running.kill();
      await directory[Symbol.asyncDispose]();
    },
  };
  return running;
}

/** Runs the program to its end in a directory that contains only `files`, by name. */
export async function runBinary(
  args: readonly string[],
  files: Readonly<Record<string, string>> = {},
): Promise<BinaryResult> {
  await using directory = await programDirectory();
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory.path, name), text);
  const child = await spawnBinary(directory, args);
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return { ending: await endOf(child), stdout, stderr };
}

let built: Promise<TemporaryDirectory> | undefined;

/** Builds the program unless it is newer than all its sources, and copies it to a temporary directory, once per process. */
function builtBinary(): Promise<TemporaryDirectory> {
  built ??= (async () => {
    if (!existsSync(BINARY) || statSync(BINARY).mtimeMs < newestSourceMs()) {
      await compile({ file: BINARY });
    }
    const copy = await temporaryDirectory('binary');
    await copyFile(BINARY, join(copy.path, 'cdc-notifier'), constants.COPYFILE_FICLONE);
    return copy;
  })();
  return built;
}

function newestSourceMs(): number {
  const sources = join(PROJECT_DIRECTORY, 'src');
  const files = readdirSync(sources, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  const others = ['package.json', 'bun.lock', 'tsconfig.json'].map((name) => join(PROJECT_DIRECTORY, name));
  return Math.max(...[...files, ...others.filter((file) => existsSync(file))].map((file) => statSync(file).mtimeMs));
}

/** A directory to run in, empty or with the configuration file only. */
async function programDirectory(config?: object | string): Promise<TemporaryDirectory> {
  const directory = await temporaryDirectory('run');
  if (config !== undefined) {
    const text = typeof config === 'string' ? config : JSON.stringify(config, undefined, 2);
    await writeFile(join(directory.path, CONFIG_FILE), text);
  }
  return directory;
}

async function spawnBinary(directory: TemporaryDirectory, args: readonly string[]): Promise<ChildProcess> {
  const program = join((await builtBinary()).path, 'cdc-notifier');
  const child = spawn(program, [...args], {
    cwd: directory.path,
    env: {},
    stdio: ['ignore', 'pipe', 'pipe'],
    // Ctrl-C reaches the whole foreground group; tests end their programs themselves.
    detached: true,
  });
  const pid = child.pid;
  if (pid !== undefined) {
    guardProcess(pid, 'KILL');
    child.once('exit', () => releaseProcess(pid));
  }
  return child;
}

async function endOf(child: ChildProcess): Promise<Ending> {
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return signal ?? (code as number);
}

/** Assembles and parses lines from chunks of text. */
class LineCollector {
  readonly lines: BinaryLogLine[] = [];
  text = '';
  #parsed = 0;

  add(text: string): void {
    this.text += text;
    for (let end = this.text.indexOf('\n', this.#parsed); end >= 0; end = this.text.indexOf('\n', this.#parsed)) {
      const line = this.text.slice(this.#parsed, end);
      this.#parsed = end + 1;
      this.lines.push(parseLine(line));
    }
  }

  tail(): string {
    return this.text.trimEnd().split('\n').slice(-8).join('\n');
  }
}

/** A line that is not JSON gets a level of its own, so that tests can check that there is none. */
function parseLine(line: string): BinaryLogLine {
  try {
    return JSON.parse(line) as BinaryLogLine;
  } catch {
    return { level: 'not JSON', time: '', msg: line };
  }
}
