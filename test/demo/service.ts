/** Runs the compiled service as a child process: its log goes to a file, its warnings and errors to the screen. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { PROJECT_DIRECTORY } from '../support/process/directories.ts';
import { guardProcess, releaseProcess } from '../support/process/guardian.ts';

/** The binary that `make build` writes. */
export const BINARY = join(PROJECT_DIRECTORY, 'dist', 'cdc-notifier');

/** One line of the service's log. */
export interface LogLine {
  readonly level: 'warn' | 'error' | 'other';
  readonly text: string;
}

/** Options of `Service.start`. */
export interface ServiceOptions {
  readonly configFile: string;
  /** Working directory, an empty one: the service needs only its binary and its configuration */
  readonly cwd: string;
  readonly logFile: string;
  readonly onLog: (line: LogLine) => void;
}

/** A running service. */
export class Service {
  readonly #child: ChildProcess;
  /** Resolves with the exit code, or with the signal that killed it */
  readonly exited: Promise<number | NodeJS.Signals>;
  hasExited = false;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.exited = once(child, 'exit').then(([code, signal]) => {
      this.hasExited = true;
      releaseProcess(child.pid as number);
      return (code ?? signal) as number | NodeJS.Signals;
    });
  }

  static async start({ configFile, cwd, logFile, onLog }: ServiceOptions): Promise<Service> {
    if (!existsSync(BINARY)) throw new Error(`Cannot find ${BINARY}: run make build first`);
    const child = spawn(BINARY, [configFile], {
      cwd,
      // Out of the terminal's process group: on Ctrl-C the demo stops the writer first, then the service.
      detached: true,
      env: { PATH: process.env.PATH, HOME: cwd },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    await once(child, 'spawn');
    guardProcess(child.pid as number, 'TERM');
    if (child.stderr !== null) {
      createInterface({ input: child.stderr }).on('line', (line) => {
        appendFileSync(logFile, `${line}\n`);
        onLog(readLogLine(line));
      });
    }
    return new Service(child);
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** Resident memory in bytes; undefined without /proc */
  get memoryBytes(): number | undefined {
    try {
      const match = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'));
      return match === null ? undefined : Number(match[1]) * 1024;
    } catch {
      return undefined;
    }
  }

  /** Sends SIGTERM and waits for the exit; after `timeoutMs` sends SIGKILL. */
  async stop(timeoutMs: number): Promise<number | NodeJS.Signals> {
    if (!this.hasExited) this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), timeoutMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Reads a line: JSON with a level by name or pino's number, or any text when the service crashed. */
export function readLogLine(line: string): LogLine {
  try {
    const entry = JSON.parse(line) as { level?: unknown; msg?: unknown; error?: { message?: unknown } };
    const cause = entry.error?.message;
    const text = [entry.msg, cause].filter((part) => typeof part === 'string' && part !== '').join(': ');
    return { level: severity(entry.level), text: text || line };
  } catch {
    return { level: line.trim() === '' ? 'other' : 'error', text: line };
  }
}

function severity(level: unknown): LogLine['level'] {
  if (level === 'error' || level === 'fatal' || (typeof level === 'number' && level >= 50)) return 'error';
  if (level === 'warn' || level === 40) return 'warn';
  return 'other';
}
