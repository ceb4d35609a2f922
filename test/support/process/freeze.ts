/** Stops processes that have many threads. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';

const PATIENCE_MS = 10_000;

/**
 * Sends SIGSTOP and returns when every thread has stopped, until SIGCONT. One thread takes the signal up and stops the
 * others: on busy cores they go on for milliseconds behind `kill`, long enough to answer a request. It blocks, so that
 * callers that may not wait can freeze a server at exactly one moment.
 */
export function freezeProcess(pid: number): void {
  process.kill(pid, 'SIGSTOP');
  const tasks = `/proc/${pid}/task`;
  // Where there is no /proc, as on macOS, the kernel suspends the whole process at once.
  if (!existsSync(tasks)) return;
  const deadline = performance.now() + PATIENCE_MS;
  while (!readdirSync(tasks).every((task) => hasStopped(`${tasks}/${task}/stat`))) {
    if (performance.now() > deadline) throw new Error(`Cannot see process ${pid} stopped within ${PATIENCE_MS} ms`);
    Bun.sleepSync(1);
  }
}

/** By the state that follows the name in proc_pid_stat(5); a thread that is gone does nothing either. */
function hasStopped(file: string): boolean {
  try {
    const stat = readFileSync(file, 'utf8');
    return 'TtZX'.includes(stat.charAt(stat.lastIndexOf(')') + 2));
  } catch {
    return true;
  }
}
