import { expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import type { DatabaseEndpoint } from '../../../../src/config/config.ts';
import { SourceError } from '../../../../src/errors.ts';
import { runReplicationCommand } from '../../../../src/postgres/replication/command.ts';

const CERTIFICATES = join(import.meta.dirname, '../../../fixtures/tls');
const pem = (name: string) => readFileSync(join(CERTIFICATES, name));

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

test('a connection that opens when the time for the command is over does not stay', async () => {
  const secure = createTlsServer({ key: pem('server.key'), cert: pem('server.crt') }, (socket) => {
    socket.on('error', () => {});
    socket.resume();
  });
  const securePort = await listen(secure);
  // Accepts TLS only when the test lets it: the connection opens as late as the test wants.
  const isLate = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<void>();
  let opened = 0;
  const slow = createServer((socket) => {
    opened += 1;
    socket.on('error', () => {});
    socket.on('close', () => closed.resolve());
    socket.once('data', async () => {
      await isLate.promise;
      const onward = connect(securePort, '127.0.0.1');
      onward.on('error', () => {});
      socket.pipe(onward).pipe(socket);
      socket.write('S');
    });
  });
  const endpoint: DatabaseEndpoint = {
    ref: 'main',
    host: '127.0.0.1',
    port: await listen(slow),
    database: 'main',
    username: 'app',
    password: undefined,
    tls: { mode: 'require', ca: undefined, cert: undefined, key: undefined },
  };
  try {
    const running = runReplicationCommand(endpoint, {
      command: 'TIMELINE_HISTORY 2',
      applicationName: 'late',
      timeoutMs: 100,
    });
    const error = await running.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(SourceError);
    expect((error as SourceError).message).toContain('no answer within 100 ms');
    isLate.resolve();
    await closed.promise;
    expect(opened).toBe(1);
  } finally {
    secure.close();
    slow.close();
  }
}, 5_000);
