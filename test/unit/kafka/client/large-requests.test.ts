import { describe, expect, test } from 'bun:test';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import { Writer } from '@platformatic/kafka';
import { LARGE_PART_BYTES, sendInPieces } from '../../../../src/kafka/client/large-requests.ts';
import { BatchBuffers } from '../../../../src/kafka/produce/batch-buffers.ts';
import { SERVER_IDENTITY } from '../../../support/network/certificates.ts';
import { waitFor } from '../../../support/process/wait.ts';

const bytesOf = (length: number, seed: number) =>
  Buffer.from(Uint8Array.from({ length }, (_, at) => (at * 7 + seed) % 251));

const certificate = {
  cert: readFileSync(SERVER_IDENTITY.certificateFile),
  key: readFileSync(SERVER_IDENTITY.keyFile),
};

/** A connection to a server that reads only when it is asked to. */
async function openSlow(protocol: 'TCP' | 'TLS' = 'TCP') {
  const received: Buffer[] = [];
  const onPeer = (peer: Socket) => {
    peer.pause();
    peer.on('data', (bytes: Buffer) => received.push(bytes));
    peer.on('error', () => {});
    peers.push(peer);
  };
  const server = protocol === 'TCP' ? createServer(onPeer) : createTlsServer(certificate, onPeer);
  server.listen(0, '127.0.0.1');
  const peers: Socket[] = [];
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const socket =
    protocol === 'TCP'
      ? connect(port, '127.0.0.1')
      : connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false });
  await once(socket, protocol === 'TCP' ? 'connect' : 'secureConnect');
  sendInPieces(socket);
  await waitFor('the peer', () => peers.length === 1);
  const [peer] = peers;
  return {
    socket,
    peer: peer!,
    received: () => Buffer.concat(received),
    async [Symbol.asyncDispose]() {
      socket.destroy();
      peer!.destroy();
      await server[Symbol.asyncDispose]();
    },
  };
}

describe('a request with a large part', () => {
  test.each(['TCP', 'TLS'] as const)(
    'arrives whole over %s, in the order of requests, while the peer does not read for a while',
    async (protocol) => {
      await using connection = await openSlow(protocol);
      const large = bytesOf(3 * LARGE_PART_BYTES + 11, 1);
      const before = bytesOf(100, 2);
      const between = bytesOf(3000, 3);
      const after = bytesOf(50, 4);
      const request = () =>
        Writer.create().append(before).append(large).append(between).append(large).append(after).buffer;
      const small = Writer.create().append(bytesOf(10, 5)).append(bytesOf(10, 6)).buffer;
      for (const bytes of [small, request(), small, request()]) connection.socket.write(bytes);
      // What is still to be sent of a small part may be written over.
      before.fill(0);
      connection.peer.resume();
      const whole = [bytesOf(100, 2), large, bytesOf(3000, 3), large, bytesOf(50, 4)];
      const expected = Buffer.concat([small, ...whole, small, ...whole]);
      await waitFor('all of it', () => connection.received().length >= expected.length);
      expect(connection.received().equals(expected)).toBe(true);
      connection.socket.write(small);
      await waitFor('the next one', () => connection.received().length === expected.length + small.length);
    },
  );

  test('is in no buffer of the socket, but for a piece', async () => {
    await using connection = await openSlow();
    connection.socket.write(
      Writer.create()
        .append(Buffer.alloc(1))
        .append(bytesOf(8 * LARGE_PART_BYTES, 1)).buffer,
    );
    await waitFor('a piece that the kernel does not take', () => connection.socket.writableLength > 1);
    expect(connection.socket.writableLength).toBeLessThan(LARGE_PART_BYTES / 8);
  });

  test('ends with its connection, and holds nothing up', async () => {
    await using connection = await openSlow();
    const errors: unknown[] = [];
    connection.socket.on('error', (error) => errors.push(error));
    connection.socket.write(
      Writer.create()
        .append(Buffer.alloc(1))
        .append(bytesOf(8 * LARGE_PART_BYTES, 1)).buffer,
    );
    connection.peer.destroy();
    await waitFor('the end', () => connection.socket.closed);
    expect(errors).toHaveLength(1);
  });

  test('is sent from memory that no later batch uses', () => {
    const buffers = new BatchBuffers(10 * LARGE_PART_BYTES);
    buffers.give(Buffer.alloc(LARGE_PART_BYTES));
    expect(buffers.take().length).toBeLessThan(LARGE_PART_BYTES);
  });
});
