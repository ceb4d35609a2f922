/** Freezes processes with many threads. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';

const PATIENCE_MS = 10_000;

/**
 * Sends SIGSTOP and returns when every thread has stopped; SIGCONT resumes them. One thread handles the signal and stops
 * the others: on busy cores they run for milliseconds after `kill`, long enough to answer a request. The call blocks, so
 * that synchronous callers can freeze a server at an exact moment.
 */
export function freezeProcess(pid: number): void {
  process.kill(pid, 'SIGSTOP');
  const tasks = `/proc/${pid}/task`;
  // Without /proc, as on macOS, the kernel suspends the whole process at once.
  if (!existsSync(tasks)) return;
  const deadline = performance.now() + PATIENCE_MS;
  while (!readdirSync(tasks).every((task) => hasStopped(`${tasks}/${task}/stat`))) {
    if (performance.now() > deadline) throw new Error(`Cannot see process ${pid} stopped within ${PATIENCE_MS} ms`);
    Bun.sleepSync(1);
  }
}

/** True when the state in proc_pid_stat(5) is stopped, or the thread has ended. */
function hasStopped(file: string): boolean {
  try {
    const stat = readFileSync(file, 'utf8');
    return 'TtZX'.includes(stat.charAt(stat.lastIndexOf(')') + 2));
  } catch {
    return true;
  }
}
