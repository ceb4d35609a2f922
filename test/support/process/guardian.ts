/**
 * Cleans up after this process, however it ends: a shell reads from a pipe that only this process holds, and when the pipe
 * closes (exit, a signal, SIGKILL, a crash) it kills the registered processes and removes the registered directories. Exit
 * handlers do not run in half of these cases.
 */
import { spawn } from 'node:child_process';
import type { Writable } from 'node:stream';

type Signal = 'QUIT' | 'KILL' | 'TERM';

const processes = new Map<number, Signal>();
const directories = new Set<string>();
let input: Writable | undefined;

/** Sends `signal` to process `pid` if this process ends before `releaseProcess`. */
export function guardProcess(pid: number, signal: Signal): void {
  processes.set(pid, signal);
  publish();
}

/** To be called when a guarded process has ended. */
export function releaseProcess(pid: number): void {
  if (processes.delete(pid)) publish();
}

/** Removes directory `path`, after the guarded processes, if this process ends before `releaseDirectory`. */
export function guardDirectory(path: string): void {
  directories.add(path);
  publish();
}

/** To be called when a guarded directory has been removed. */
export function releaseDirectory(path: string): void {
  if (directories.delete(path)) publish();
}

/** Quotes `text` as one word of a POSIX shell. */
export function shellWord(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Each line sent to the shell redefines the whole clean-up; the shell runs the last definition at the end. */
function publish(): void {
  input ??= startShell();
  const steps = [...processes].map(([pid, signal]) => `kill -s ${signal} ${pid}`);
  for (const pid of processes.keys()) {
    steps.push(`n=0; while kill -0 ${pid} && [ $n -lt 30 ]; do sleep 0.1; n=$((n+1)); done; kill -s KILL ${pid}`);
  }
  for (const path of directories) steps.push(`rm -rf ${shellWord(path)}`);
  input.write(`clean_up() { :; ${steps.map((step) => `${step};`).join(' ')} }\n`);
}

function startShell(): Writable {
  // Detached: Ctrl-C reaches the whole foreground process group, and the shell must outlive it.
  const shell = spawn('sh', ['-s'], { detached: true, stdio: ['pipe', 'ignore', 'ignore'], cwd: '/' });
  shell.on('error', () => {});
  shell.unref();
  const stdin = shell.stdin as Writable & { unref?: () => void };
  stdin.on('error', () => {});
  stdin.unref?.();
  stdin.write('trap clean_up EXIT; trap "" INT TERM HUP\n');
  return stdin;
}
