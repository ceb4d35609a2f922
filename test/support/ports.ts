/** Free TCP ports for servers that are stopped and started again on the same port. */
import { createServer } from 'node:net';

/**
 * Below every usual ephemeral range: an outgoing connection can then not take the port while its server is down, and a
 * client that keeps trying to reach the port cannot end up connected to itself.
 */
const FIRST_PORT = 12_000;
const LAST_PORT = 30_000;

const given = new Set<number>();

/** A port of 127.0.0.1 that nobody listens on, and that this process has not given out before. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT));
    if (given.has(port) || !(await canListen(port))) continue;
    given.add(port);
    return port;
  }
  throw new Error(`Cannot find a free port between ${FIRST_PORT} and ${LAST_PORT}`);
}

/** True when a server could listen on this port of 127.0.0.1 now. */
export function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}
