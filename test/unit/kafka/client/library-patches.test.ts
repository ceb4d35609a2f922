import { afterEach, expect, test } from 'bun:test';
import { createServer, type Server } from 'node:net';
import { initProducerIdV4, Reader } from '@platformatic/kafka';
import pino from 'pino';
import { Cluster } from '../../../../src/kafka/client/cluster.ts';
import { answerFrame, type KafkaAnswer, readKafkaAnswers } from '../../../fuzz/kafka-answers.ts';

const METADATA = 3;

let server: Server | undefined;

afterEach(() => {
  server?.close();
});

/** A cluster whose only broker answers each request as it is told. */
async function clusterOf(answer: (apiKey: number, correlationId: number) => Buffer): Promise<Cluster> {
  const started = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (request: Buffer) => socket.write(answer(request.readInt16BE(4), request.readInt32BE(8))));
  });
  server = started;
  await new Promise<void>((resolve) => started.listen(0, '127.0.0.1', resolve));
  const { port } = started.address() as { port: number };
  const config = {
    name: 'main',
    brokers: [{ host: '127.0.0.1', port }],
    clientId: 'test',
    tls: undefined,
    sasl: undefined,
    compression: 'none' as const,
    connectTimeoutMs: 5_000,
    requestTimeoutMs: 300,
    metadataMaxAgeMs: 10_000,
  };
  return new Cluster(config, pino({ level: 'silent' }));
}

test('a length of 2^31 and more is refused, where its bytes would be read again 268,435,455 times', () => {
  const [count, tag, lengthThatGoesBack] = ['ffffff7f', '00', 'faffffff0f'];
  const body = Buffer.from(`00000000000000000000000000010000${count}${tag}${lengthThatGoesBack}`, 'hex');
  expect(() => initProducerIdV4.parseResponse(1, 22, 4, Reader.from(body))).toThrow(
    'A length is larger than any answer',
  );
});

/** Answers as recorded; `change` works on the metadata. */
function recorded(change: (body: Buffer) => void): (apiKey: number, correlationId: number) => Buffer {
  const answers = readKafkaAnswers();
  return (apiKey, correlationId) => {
    const answer = answers.find((one) => one.apiKey === apiKey) as KafkaAnswer;
    const body = Buffer.from(answer.body);
    if (apiKey === METADATA) change(body);
    return answerFrame({ ...answer, body }, correlationId);
  };
}

test('metadata that say nothing of a topic are no metadata', async () => {
  const cluster = await clusterOf(recorded(() => {}));
  await expect(cluster.refreshMetadata(['events', 'other'])).rejects.toThrow(
    'Cannot read the metadata: the answer does not describe topic "other" and its partitions',
  );
  cluster.close();
});

test('metadata in which a partition is missing are no metadata: each key would go to another one', async () => {
  const cluster = await clusterOf(
    recorded((body) => {
      // error code 0, then the first partition's index: the topic's name, its id, a flag and a count stand before
      const at = body.indexOf('events') + 'events'.length + 16 + 1 + 1 + 2;
      body.writeInt32BE(0x7fff_fffe, at);
    }),
  );
  await expect(cluster.refreshMetadata(['events', 'lifecycle'])).rejects.toThrow('topic "events" and its partitions');
  cluster.close();
});
