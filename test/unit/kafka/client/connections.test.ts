import { describe, expect, test } from 'bun:test';
import { createServer, type Socket } from 'node:net';
import pino from 'pino';
import type { KafkaClientConfig } from '../../../../src/config/config.ts';
import { textSecret } from '../../../../src/config/secret.ts';
import { SinkError } from '../../../../src/errors.ts';
import { Connections } from '../../../../src/kafka/client/connections.ts';
import { clientConfig } from '../../../support/kafka/open-producer.ts';

const API_VERSIONS = 18;
const SASL_HANDSHAKE = 17;
const SASL_AUTHENTICATE = 36;

/** A server that reads requests like a broker and sends what `answer` returns; undefined = nothing. */
async function startBroken(answer: (request: Buffer) => Buffer | undefined) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    let rest = Buffer.alloc(0);
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
        const end = 4 + rest.readInt32BE(0);
        const bytes = answer(rest.subarray(4, end));
        rest = rest.subarray(end);
        if (bytes !== undefined) socket.write(bytes);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A response with its length in front. */
function frame(request: Buffer, body: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeInt32BE(4 + body.length, 0);
  request.copy(head, 4, 4, 8); // the correlation id
  return Buffer.concat([head, body]);
}

/** A login by SCRAM up to the first message of the server, which is this text. */
function scramAnswer(text: string) {
  return (request: Buffer): Buffer => {
    const apiKey = request.readInt16BE(0);
    if (apiKey === API_VERSIONS) {
      const entry = Buffer.alloc(6);
      entry.writeInt16BE(SASL_AUTHENTICATE, 0);
      return frame(request, Buffer.concat([Buffer.from('000000000001', 'hex'), entry, Buffer.alloc(4)]));
    }
    const string = (value: string) => Buffer.concat([Buffer.from([0, value.length]), Buffer.from(value)]);
    if (apiKey === SASL_HANDSHAKE) {
      return frame(request, Buffer.concat([Buffer.from('000000000001', 'hex'), string('SCRAM-SHA-512')]));
    }
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(text.length, 0);
    return frame(request, Buffer.concat([Buffer.from('0000ffff', 'hex'), bytes, Buffer.from(text)]));
  };
}

describe('Connections', () => {
  const sasl: KafkaClientConfig['sasl'] = {
    mechanism: 'SCRAM-SHA-512',
    username: 'user',
    password: textSecret('password'),
  };
  test.each([
    ['a negative length and nothing after it', () => Buffer.from('fffffff000', 'hex'), undefined],
    ['a length below that of the head', () => Buffer.from('000000010000', 'hex'), undefined],
    ['a frame with an unknown correlation id', () => Buffer.from('0000000400ffffff', 'hex'), undefined],
    ['a head without a body', (request: Buffer) => frame(request, Buffer.alloc(0)), undefined],
    ['an array that is longer than the frame', (request: Buffer) => frame(request, Buffer.alloc(9, 0x7f)), undefined],
    ['an answer to SCRAM without any structure', scramAnswer('nonsense'), sasl],
    ['an answer to SCRAM without its parts', scramAnswer('r=,s=,i='), sasl],
    ['no answer at all', () => undefined, undefined],
  ] as const)('%s is an error that names the broker, and nothing worse', async (_, answer, login) => {
    await using broken = await startBroken(answer);
    const client = clientConfig([broken.port], { sasl: login, connectTimeoutMs: 1_000, requestTimeoutMs: 1_000 });
    const connections = new Connections(client, pino({ level: 'silent' }));
    const name = { action: 'ask', code: 'unused' };
    try {
      const failure = await connections.askAny(name, [], async () => 'asked').catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(SinkError);
      const code = login === undefined ? 'broker_unreachable' : 'sasl_refused';
      expect(failure).toMatchObject({ code, place: { kafkaClient: 'main' } });
      expect((failure as SinkError).message).toStartWith(`Cannot connect to broker 127.0.0.1:${broken.port}: `);
      expect(connections.isReachable).toBe(false);
    } finally {
      connections.close();
    }
  });
});
