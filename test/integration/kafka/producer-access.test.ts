/** The producer's access to a cluster: rights of its user, and secrets that change while it runs. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { once } from 'node:events';
import { copyFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import type { KafkaClientConfig } from '../../../src/config/config.ts';
import { fileSecret, type Secret, textSecret } from '../../../src/config/secret.ts';
import { clientConfig, openProducer } from '../../support/kafka/open-producer.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { temporaryDirectory } from '../../support/process/temporary-directory.ts';
import { waitFor } from '../../support/process/wait.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';

const CERTIFICATES = join(import.meta.dirname, '../../fixtures/tls');
const CA = join(CERTIFICATES, 'ca.crt');
const STRANGER = join(CERTIFICATES, 'stranger.crt');
const USER = 'notifier';
const PASSWORD = 'first';
const NEW_PASSWORD = 'second';
const TIMEOUT_MS = 120_000;

let kafka: KafkaServer;

beforeAll(async () => {
  const secure = {
    certificateFile: join(CERTIFICATES, 'server.crt'),
    keyFile: join(CERTIFICATES, 'server.key'),
    users: { [USER]: PASSWORD, stranger: PASSWORD },
  };
  kafka = await startKafka({ secure, authorizer: true });
}, TIMEOUT_MS);

afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
}, 30_000);

/** A client of the listener that requires a login. */
function secureClient(
  secrets: { readonly password?: Secret; readonly ca?: Secret } = {},
  change: Partial<KafkaClientConfig> = {},
): KafkaClientConfig {
  const { password = textSecret(PASSWORD), ca = fileSecret(CA) } = secrets;
  return clientConfig([], {
    brokers: [{ host: 'localhost', port: Number(kafka.secureBootstrap?.split(':').at(-1)) }],
    tls: { ca, cert: undefined, key: undefined, serverName: undefined },
    sasl: { mechanism: 'SCRAM-SHA-512', username: USER, password },
    ...change,
  });
}

describe('rights', () => {
  test('a topic that the user may not see is refused, and the error names the rights', async () => {
    await kafka.createTopic('hidden');
    await expect(openProducer(secureClient(), ['hidden'])).rejects.toMatchObject({
      message: 'Cannot use topic "hidden": TOPIC_AUTHORIZATION_FAILED',
      retriable: false,
      advice: expect.stringContaining('WRITE and DESCRIBE'),
    });
  });

  test('a topic that the user may see and not write to is refused before anything is sent, and the error names the rights', async () => {
    await kafka.createTopic('visible');
    await kafka.access.allow({ user: USER, operation: 'DESCRIBE', topic: 'visible' });
    await expect(openProducer(secureClient(), ['visible'])).rejects.toMatchObject({
      message: 'Cannot use topic "visible": TOPIC_AUTHORIZATION_FAILED',
      retriable: false,
      advice: expect.stringContaining('WRITE and DESCRIBE'),
    });
  });

  test(
    'DESCRIBE and WRITE are enough; the limit of the topic is known as soon as DESCRIBE_CONFIGS is granted',
    async () => {
      await kafka.createTopic('written', { config: { 'max.message.bytes': '2000' } });
      const right = (operation: 'DESCRIBE' | 'WRITE' | 'DESCRIBE_CONFIGS') => ({
        user: USER,
        operation,
        topic: 'written',
      });
      await kafka.access.allow(right('DESCRIBE'), right('WRITE'));
      await using open = await openProducer(secureClient({}, { metadataMaxAgeMs: 50 }), ['written']);
      const topic = open.producer.queues.topic('written');
      expect(topic.maxRecordBatchBytes).toBeGreaterThan(100_000_000); // that of a request
      open.send('written', [['key', 'value']]);
      await open.waitUntilAcknowledged();
      await kafka.access.allow(right('DESCRIBE_CONFIGS'));
      await waitFor('the limit', () => topic.maxRecordBatchBytes === 2_000);
      await kafka.access.withdraw(right('DESCRIBE_CONFIGS'));
      open.send('written', [['key', 'value']]);
      await open.waitUntilAcknowledged();
      expect(topic.maxRecordBatchBytes).toBe(2_000);
    },
    TIMEOUT_MS,
  );

  test(
    'without the right to write the producer fails at once; with it granted again the next one delivers',
    async () => {
      await kafka.createTopic('closed');
      const [describe, write] = (['DESCRIBE', 'WRITE'] as const).map((operation) => {
        return { user: USER, operation, topic: 'closed' };
      });
      await kafka.access.allow(describe!, write!);
      {
        await using open = await openProducer(secureClient(), ['closed']);
        open.send('closed', [['key', 'one']]);
        await open.waitUntilAcknowledged();
        await kafka.access.withdraw(write!);
        open.send('closed', [['key', 'two']]);
        expect(await open.waitForFailure()).toMatchObject({
          message: 'Cannot deliver a batch of 1: TOPIC_AUTHORIZATION_FAILED after 1 attempts',
          retriable: false,
          advice: expect.stringContaining('WRITE and DESCRIBE'),
        });
        expect(open.changes).toEqual([]);
      }
      await kafka.access.allow(write!);
      await using open = await openProducer(secureClient(), ['closed']);
      open.send('closed', [['key', 'two']]);
      await open.waitUntilAcknowledged();
      expect((await kafka.readTopic('closed')).map(({ value }) => value.toString())).toEqual(['one', 'two']);
    },
    TIMEOUT_MS,
  );
});

describe('a load balancer without a broker', () => {
  test.each([
    ['at once', (socket: Socket) => socket.destroy()],
    ['in the TLS handshake', (socket: Socket) => socket.once('data', () => socket.end())],
  ])('that closes %s is a broker that is away, and no wrong setting', async (_, close) => {
    const listener = createServer((socket) => {
      socket.on('error', () => {});
      close(socket);
    });
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    try {
      const { port } = listener.address() as AddressInfo;
      const client = secureClient({}, { brokers: [{ host: 'localhost', port }] });
      await expect(openProducer(client, ['any'])).rejects.toMatchObject({
        code: 'tls_handshake_closed',
        retriable: true,
        advice: expect.stringContaining('load balancer'),
      });
    } finally {
      listener.close();
    }
  });
});

describe('secrets', () => {
  test(
    'are read again at each connection: a rotated password and another authority work without a new session',
    async () => {
      await kafka.createTopic('rotated');
      for (const operation of ['DESCRIBE', 'WRITE'] as const) {
        await kafka.access.allow({ user: USER, operation, topic: 'rotated' });
      }
      await using directory = await temporaryDirectory('secrets');
      const [passwordFile, caFile, lostFile] = ['password', 'ca.crt', 'lost'].map((name) => join(directory.path, name));
      await writeFile(passwordFile!, PASSWORD);
      await writeFile(lostFile!, PASSWORD);
      await copyFile(CA, caFile!);
      const log = recordingLogger();
      const client = secureClient({ password: fileSecret(passwordFile!), ca: fileSecret(caFile!) });
      await using open = await openProducer(client, ['rotated'], { log: log.logger, maxRetries: 10_000 });
      const losingClient = secureClient({ password: fileSecret(lostFile!) });
      await using losing = await openProducer(losingClient, ['rotated'], { maxRetries: 10_000 });
      open.send('rotated', [['key', 'one']]);
      await open.waitUntilAcknowledged();

      await kafka.access.setScramPassword(USER, NEW_PASSWORD);
      await kafka.stop();
      await writeFile(passwordFile!, NEW_PASSWORD);
      await copyFile(STRANGER, caFile!);
      await rm(lostFile!);
      open.send('rotated', [['key', 'two']]);
      losing.send('rotated', [['key', 'never']]);
      const failure = await losing.waitForFailure();
      expect(failure.message).toBe(
        `Cannot deliver a batch of 1: Cannot read secret: file ${lostFile} cannot be read (ENOENT) after 1 attempts`,
      );
      expect(losing.producer.isReachable).toBe(false);

      await kafka.start();
      await waitFor('the certificate that is not trusted', () =>
        log.lines.some(({ reason }) => /SELF_SIGNED|VERIFY|ISSUER/.test(String(reason))),
      );
      await copyFile(CA, caFile!);
      await open.waitUntilAcknowledged();
      expect((await kafka.readTopic('rotated')).map(({ value }) => value.toString())).toEqual(['one', 'two']);

      await expect(openProducer(secureClient(), ['rotated'])).rejects.toMatchObject({
        message: expect.stringContaining('SASL_AUTHENTICATION_FAILED'),
        retriable: false,
        advice: expect.stringContaining('sasl'),
      });
    },
    TIMEOUT_MS,
  );
});
