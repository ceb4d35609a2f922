import { afterEach, expect, test } from 'bun:test';
import { createServer, type Server } from 'node:net';
import pino from 'pino';
import { Cluster } from '../../../../src/kafka/client/cluster.ts';
import { clientConfig } from '../../../support/kafka/open-producer.ts';
import { answerFrame, type KafkaAnswer, readKafkaAnswers } from '../../../support/kafka/recorded-answers.ts';

const METADATA = 3;

let server: Server | undefined;

afterEach(() => {
  server?.close();
});

/** A cluster of one broker that answers each request with what `answer` returns. */
async function clusterOf(answer: (apiKey: number, correlationId: number) => Buffer): Promise<Cluster> {
  const started = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (request: Buffer) => socket.write(answer(request.readInt16BE(4), request.readInt32BE(8))));
  });
  server = started;
  await new Promise<void>((resolve) => started.listen(0, '127.0.0.1', resolve));
  const { port } = started.address() as { port: number };
  return new Cluster(clientConfig([port], { requestTimeoutMs: 300 }), pino({ level: 'silent' }));
}

/** Answers as recorded; `change` alters the metadata. */
function recorded(change: (body: Buffer) => void): (apiKey: number, correlationId: number) => Buffer {
  const answers = readKafkaAnswers();
  return (apiKey, correlationId) => {
    const answer = answers.find((one) => one.apiKey === apiKey) as KafkaAnswer;
    const body = Buffer.from(answer.body);
    if (apiKey === METADATA) change(body);
    return answerFrame({ ...answer, body }, correlationId);
  };
}

test('metadata without a requested topic is refused', async () => {
  const cluster = await clusterOf(recorded(() => {}));
  await expect(cluster.refreshMetadata(['events', 'other'])).rejects.toThrow(
    'Cannot read the metadata: the answer does not describe topic "other" and its partitions',
  );
  cluster.close();
});

test('metadata in which a partition is missing is refused: keys would go to other partitions', async () => {
  const cluster = await clusterOf(
    recorded((body) => {
      // the topic's name, its id, a flag and a count, then the partition's error code 0, then its index
      const at = body.indexOf('events') + 'events'.length + 16 + 1 + 1 + 2;
      body.writeInt32BE(0x7fff_fffe, at);
    }),
  );
  await expect(cluster.refreshMetadata(['events', 'lifecycle'])).rejects.toThrow('topic "events" and its partitions');
  cluster.close();
});
