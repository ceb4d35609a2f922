/** Free TCP ports, also for servers that stop and start again on the same port. */
import { createServer, type Server } from 'node:net';

/**
 * Below every usual ephemeral range: no outgoing connection can take the port while its server is down, and a client that
 * retries the port cannot connect to itself.
 */
const FIRST_PORT = 12_000;
const LAST_PORT = 30_000;

/**
 * Size of a block of ports. A process owns a block while it listens on the block's first port, so that no other test process
 * uses the port of a server that is down for a moment. The kernel frees the block however the process ends.
 */
const BLOCK_PORTS = 100;

const unused: number[] = [];
let claiming: Promise<void> | undefined;

/** A port of 127.0.0.1 without a listener, which no test process returns again while this one runs. */
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

/** True when a server can listen on this port of 127.0.0.1 now. */
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

/** A server that listens on this port of 127.0.0.1; undefined when the port is taken. */
function listenOn(port: number): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(undefined));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => resolve(server));
  });
}
