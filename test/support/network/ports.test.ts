import { expect, test } from 'bun:test';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { canListen, freePort } from './ports.ts';

/** More than a block, so that processes claim blocks while others hold theirs. */
const PORTS = 250;

test('no two processes get the same port, even if no server listens on it', async () => {
  const script = `
    import { freePort } from ${JSON.stringify(new URL('./ports.ts', import.meta.url).pathname)};
    const ports = [];
    for (let i = 0; i < ${PORTS}; i++) ports.push(await freePort());
    console.log(JSON.stringify(ports));
    process.stdin.resume();`;
  const children = Array.from({ length: 8 }, () =>
    spawn(process.execPath, ['-e', script], { stdio: ['pipe', 'pipe', 'inherit'] }),
  );
  try {
    const lists = await Promise.all(
      children.map(async (child) => {
        const [line] = await once(createInterface(child.stdout), 'line');
        return JSON.parse(line) as number[];
      }),
    );
    const own = await Promise.all(Array.from({ length: PORTS }, () => freePort()));
    const all = [...lists.flat(), ...own];
    expect(all).toHaveLength(9 * PORTS);
    expect(new Set(all).size).toBe(all.length);
  } finally {
    for (const child of children) {
      child.stdin.end();
      await once(child, 'exit');
    }
  }
});

test('a port with a listener is not free', async () => {
  const port = await freePort();
  expect(await canListen(port)).toBe(true);
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  expect(await canListen(port)).toBe(false);
  server.close();
  await once(server, 'close');
});
