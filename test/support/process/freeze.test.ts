import { expect, test } from 'bun:test';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { freezeProcess } from './freeze.ts';

const BUSY_THREADS = 16;
const BUSY = `
  const { Worker } = require('node:worker_threads');
  for (let i = 0; i < ${BUSY_THREADS}; i++) {
    new Worker("require('node:worker_threads').parentPort.postMessage(''); for (;;);", { eval: true })
      .on('message', () => console.log('runs'));
  }`;

/** The state letter of each thread (line `State:`, proc_pid_status(5)). */
function threadStates(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`).map(
    (task) => /^State:\t(\w)/m.exec(readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8'))?.[1] as string,
  );
}

test('freezeProcess returns when every thread has stopped; SIGCONT resumes them', async () => {
  const child = spawn('node', ['-e', BUSY], { stdio: ['ignore', 'pipe', 'inherit'] });
  const pid = child.pid as number;
  try {
    let output = '';
    for await (const chunk of child.stdout) {
      output += chunk;
      if (output.split('\n').length > BUSY_THREADS) break;
    }
    for (let round = 0; round < 20; round++) {
      freezeProcess(pid);
      expect(new Set(threadStates(pid))).toEqual(new Set(['T']));
      process.kill(pid, 'SIGCONT');
    }
    expect(threadStates(pid)).toContain('R');
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
}, 60_000);
