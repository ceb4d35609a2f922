/** Free TCP ports for servers that are stopped and started again on the same port. */
import { createServer, type Server } from 'node:net';

/**
 * Below every usual ephemeral range: an outgoing connection can then not take the port while its server is down, and a
 * client that keeps trying to reach the port cannot end up connected to itself.
 */
const FIRST_PORT = 12_000;
const LAST_PORT = 30_000;

/**
 * Ports are given out of blocks. A process owns a block while it listens on the first port of it, so that no other test
 * process takes the port of a server that is down for a moment; the kernel lets go of it however the process ends.
 */
const BLOCK_PORTS = 100;

const unused: number[] = [];
let claiming: Promise<void> | undefined;

/** A port of 127.0.0.1 that nobody listens on, and that neither this nor another test process gives out while this one lives. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = unused.pop();
    if (port === undefined) {
      claiming ??= claimBlock().finally(() => {
        claiming = undefined;
      });
      await claiming;
    } else if (await canListen(port)) return port;
  }
}

/** True when a server could listen on this port of 127.0.0.1 now. */
export async function canListen(port: number): Promise<boolean> {
  const server = await listenOn(port);
  if (server === undefined) return false;
  await new Promise((resolve) => server.close(resolve));
  return true;
}

async function claimBlock(): Promise<void> {
  const blocks = (LAST_PORT - FIRST_PORT) / BLOCK_PORTS;
  const start = Math.floor(Math.random() * blocks);
  for (let step = 0; step < blocks; step++) {
    const first = FIRST_PORT + ((start + step) % blocks) * BLOCK_PORTS;
    const owner = await listenOn(first);
    if (owner === undefined) continue;
    owner.unref();
    for (let port = first + BLOCK_PORTS - 1; port > first; port--) unused.push(port);
    return;
  }
  throw new Error(`Cannot find free ports between ${FIRST_PORT} and ${LAST_PORT}`);
}

/** A server that listens on this port of 127.0.0.1, or undefined when it cannot. */
function listenOn(port: number): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(undefined));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => resolve(server));
  });
}
