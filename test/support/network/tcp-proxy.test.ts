import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { createServer, connect as openTcp, type Server, type Socket } from 'node:net';
import { startKafkaProxy } from '../kafka/proxy.ts';
import { startPostgresProxy } from '../postgres/proxy.ts';
import { waitFor } from '../process/wait.ts';
import { freePort } from './ports.ts';
import { startTcpProxy, type TcpProxy } from './tcp-proxy.ts';

/** One side of a connection and what it has received. */
interface Side {
  readonly socket: Socket;
  text: string;
  ended: boolean;
  error: string | undefined;
  closed: boolean;
}

let port: number;
let server: Server;
let accepted: Side[];

beforeEach(async () => {
  port = await freePort();
  accepted = [];
  server = createServer({ allowHalfOpen: true }, (socket) => accepted.push(watch(socket)));
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', () => resolve()));
});
afterEach(() => {
  for (const { socket } of accepted) socket.destroy();
  server.close();
});

function watch(socket: Socket): Side {
  const side: Side = { socket, text: '', ended: false, error: undefined, closed: false };
  socket.on('data', (data: Buffer) => {
    side.text += data.toString('latin1');
  });
  socket.on('end', () => {
    side.ended = true;
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    side.error = error.code;
  });
  socket.on('close', () => {
    side.closed = true;
  });
  return side;
}

/** A client's connection through the proxy, and the server's side of it. */
async function open(proxy: TcpProxy): Promise<{ client: Side; peer: Side }> {
  const before = accepted.length;
  const client = watch(openTcp({ host: proxy.host, port: proxy.port, allowHalfOpen: true }));
  const peer = await waitFor('the connection at the server', () => accepted[before]);
  return { client, peer };
}

const sees = (side: Side, text: string) => waitFor(`"${text}"`, () => side.text === text);

/** Sends pings through other proxies: after them this process has run its events, and what is still held stays held. */
async function turn(): Promise<void> {
  for (let round = 0; round < 5; round++) {
    const proxy = await startTcpProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    client.socket.write('ping');
    await sees(peer, 'ping');
    await proxy[Symbol.asyncDispose]();
  }
}

describe('TcpProxy', () => {
  test('forwards bytes and the end of each side, in both directions', async () => {
    await using proxy = await startTcpProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    client.socket.end('question');
    await sees(peer, 'question');
    await waitFor('the end', () => peer.ended);
    peer.socket.end('answer');
    await sees(client, 'answer');
    await waitFor('no connection', () => proxy.connectionCount === 0);
    expect([client.error, peer.error]).toEqual([undefined, undefined]);
  });

  test('forwards more than fits into its queue', async () => {
    await using proxy = await startTcpProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    const text = 'x'.repeat(20_000_000);
    peer.socket.end(text);
    await waitFor('the end', () => client.ended);
    expect(client.text.length).toBe(text.length);
  });

  test('cut resets both sides of every connection', async () => {
    await using proxy = await startTcpProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    client.socket.write('a');
    await sees(peer, 'a');
    proxy.cut();
    await waitFor('two resets', () => client.error === 'ECONNRESET' && peer.error === 'ECONNRESET');
    await waitFor('no connection', () => proxy.connectionCount === 0);
  });

  test('refuse rejects new connections and keeps open ones', async () => {
    await using proxy = await startTcpProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    await proxy.refuse(true);
    const late = watch(openTcp(proxy.port, proxy.host));
    await waitFor('a refusal', () => late.error === 'ECONNREFUSED');
    client.socket.write('still here');
    await sees(peer, 'still here');
    await proxy.heal();
    const next = await open(proxy);
    next.client.socket.write('again');
    await sees(next.peer, 'again');
  });

  test('halfOpen forwards nothing until heal, not even the end of a connection', async () => {
    await using proxy = await startTcpProxy({ host: '127.0.0.1', port });
    const dying = await open(proxy);
    const living = await open(proxy);
    proxy.halfOpen();
    const late = watch(openTcp(proxy.port, proxy.host));
    await waitFor('a third connection', () => proxy.connectionCount === 3);
    living.client.socket.write('lost?');
    late.socket.write('late');
    dying.client.socket.resetAndDestroy();
    await turn();
    expect([living.peer.text, dying.peer.error, dying.peer.ended]).toEqual(['', undefined, false]);
    const before = accepted.length;
    await proxy.heal();
    await sees(living.peer, 'lost?');
    await waitFor('the reset', () => dying.peer.error === 'ECONNRESET');
    await sees(await waitFor('the late one', () => accepted[before]), 'late');
  });

  test('latency delays each byte without lowering the rate', async () => {
    await using proxy = await startTcpProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    proxy.latency(300);
    const start = performance.now();
    for (let i = 0; i < 50; i++) {
      client.socket.write('x');
      await Bun.sleep(5); // so that the writes do not arrive as one
    }
    await sees(peer, 'x'.repeat(50));
    const elapsedMs = performance.now() - start;
    expect(elapsedMs).toBeGreaterThan(300);
    // One after another they would take 15 s.
    expect(elapsedMs).toBeLessThan(10_000);
  });

  test('trickle forwards a few bytes at a time', async () => {
    await using proxy = await startTcpProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    proxy.trickle(10);
    const start = performance.now();
    client.socket.write('x'.repeat(300));
    await sees(peer, 'x'.repeat(300));
    expect(performance.now() - start).toBeGreaterThan(290);
    proxy.trickle(0);
    client.socket.write('y'.repeat(100_000));
    await waitFor('the rest at once', () => peer.text.length === 100_300);
  });

  test('resetAfter resets one connection after exactly so many bytes', async () => {
    await using proxy = await startTcpProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    let isDone = false;
    const done = proxy.resetAfter(5).then(() => {
      isDone = true;
    });
    peer.socket.write('abc');
    await sees(client, 'abc');
    expect(isDone).toBe(false);
    peer.socket.write('defgh');
    await waitFor('two resets', () => client.error === 'ECONNRESET' && peer.error === 'ECONNRESET');
    await done;
    expect(client.text).toBe('abcde');
    const next = await open(proxy);
    next.peer.socket.write('abcdefgh');
    await sees(next.client, 'abcdefgh');
  });

  test('corrupt changes what the server sends', async () => {
    await using proxy = await startTcpProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    proxy.corrupt((bytes) => Buffer.from(bytes.toString().toUpperCase()));
    peer.socket.write('abc');
    await sees(client, 'ABC');
    client.socket.write('def');
    await sees(peer, 'def');
  });

  test('a server that does not run is a reset for the client', async () => {
    await using proxy = await startTcpProxy({ host: '127.0.0.1', port: await freePort() });
    const client = watch(openTcp(proxy.port, proxy.host));
    await waitFor('the reset', () => client.closed);
    expect(client.error).toBe('ECONNRESET');
  });
});

/** A Kafka frame: the length before its payload. */
function sized(payload: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeInt32BE(payload.length);
  return Buffer.concat([length, payload]);
}

function request(apiKey: number, correlationId: number, text: string): Buffer {
  const header = Buffer.alloc(8);
  header.writeInt16BE(apiKey, 0);
  header.writeInt16BE(9, 2);
  header.writeInt32BE(correlationId, 4);
  return sized(Buffer.concat([header, Buffer.from(text)]));
}

function response(correlationId: number, text: string): Buffer {
  const header = Buffer.alloc(4);
  header.writeInt32BE(correlationId);
  return sized(Buffer.concat([header, Buffer.from(text)]));
}

describe('KafkaProxy', () => {
  test('holds a request and everything after it until the gate is released, however frames are split', async () => {
    await using proxy = await startKafkaProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    const seen: string[] = [];
    const gate = proxy.onRequest(0, ({ apiKey, apiVersion, correlationId, payload }) => {
      seen.push([apiKey, apiVersion, correlationId, payload.subarray(8)].join(' '));
      return 'hold';
    });
    const [first, held, last] = [request(3, 1, 'metadata'), request(0, 2, 'produce'), request(18, 3, 'versions')];
    const all = Buffer.concat([first, held, last]);
    for (const byte of all) client.socket.write(Buffer.of(byte));
    await sees(peer, first.toString('latin1'));
    await waitFor('the gate', () => seen.length === 1);
    await turn();
    expect(peer.text).toBe(first.toString('latin1'));
    gate.release();
    await sees(peer, all.toString('latin1'));
    expect(seen).toEqual(['0 9 2 produce']);
  });

  test('recognizes a response by its request and drops it', async () => {
    await using proxy = await startKafkaProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    using _gate = proxy.onResponse(0, () => 'drop');
    const requests = Buffer.concat([request(0, 7, 'produce'), request(3, 8, 'metadata')]);
    client.socket.write(requests);
    await sees(peer, requests.toString('latin1'));
    const answer = response(8, 'brokers');
    peer.socket.write(Buffer.concat([response(7, 'stored'), answer]));
    await sees(client, answer.toString('latin1'));
  });

  test('resets the connection at a gate', async () => {
    await using proxy = await startKafkaProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    proxy.onRequest(0, () => 'reset');
    client.socket.write(request(0, 1, 'produce'));
    await waitFor('two resets', () => client.error === 'ECONNRESET' && peer.error === 'ECONNRESET');
    expect(peer.text).toBe('');
  });

  test('never forwards what it holds for a client that has closed its side', async () => {
    await using proxy = await startKafkaProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    let held = false;
    const gate = proxy.onRequest(0, () => {
      held = true;
      return 'hold';
    });
    client.socket.write(request(0, 1, 'produce'));
    await waitFor('the gate', () => held);
    client.socket.end();
    await waitFor('the end', () => peer.ended);
    gate.release();
    await turn();
    expect(peer.text).toBe('');
  });
});

describe('PostgresProxy', () => {
  const startup = Buffer.from('0000000900030000' + '00', 'hex');
  const tlsRequest = Buffer.from('0000000804d2162f', 'hex');

  function message(kind: string, body: Buffer): Buffer {
    const header = Buffer.alloc(5);
    header.write(kind);
    header.writeInt32BE(4 + body.length, 1);
    return Buffer.concat([header, body]);
  }

  test('holds standby status updates and nothing else', async () => {
    await using proxy = await startPostgresProxy({ host: '127.0.0.1', port });
    const { client, peer } = await open(proxy);
    const flushed: bigint[] = [];
    const gate = proxy.onStandbyStatus(({ writtenLsn, flushedLsn, appliedLsn, replyRequested }) => {
      flushed.push(flushedLsn);
      expect([writtenLsn, appliedLsn, replyRequested]).toEqual([3n, 1n, true]);
      return flushedLsn < 0x1_0000_0002n ? 'forward' : 'hold';
    });
    const status = (flushedLsn: bigint) => {
      const body = Buffer.alloc(34, 0);
      body.write('r');
      body.writeBigUInt64BE(3n, 1);
      body.writeBigUInt64BE(flushedLsn, 9);
      body.writeBigUInt64BE(1n, 17);
      body[33] = 1;
      return message('d', body);
    };
    const passing = [
      tlsRequest,
      startup,
      message('Q', Buffer.from('START_REPLICATION\0')),
      message('S', Buffer.alloc(0)),
      status(1n),
    ];
    const before = Buffer.concat(passing);
    const all = Buffer.concat([before, status(0x1_0000_0002n)]);
    for (const byte of all) client.socket.write(Buffer.of(byte));
    await waitFor('both updates', () => flushed.length === 2);
    await sees(peer, before.toString('latin1'));
    expect(flushed).toEqual([1n, 0x1_0000_0002n]);
    gate.release();
    await sees(peer, all.toString('latin1'));
  });
});
