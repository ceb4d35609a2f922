/** The broker that other tests rely on: versions, proxies with gates, rights. Of the cluster of three the faults make full use. */
import { describe, expect, test } from 'bun:test';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type GenericError, ProduceAcks, Producer, stringSerializers } from '@platformatic/kafka';
import { KAFKA_VERSIONS, startKafka } from '../../support/kafka/server.ts';
import { canListen } from '../../support/network/ports.ts';
import { waitFor } from '../../support/process/wait.ts';

const PRODUCE = 0;
const CERTIFICATES = join(import.meta.dirname, '../../fixtures/tls');

interface Sender extends AsyncDisposable {
  /** Sends one record to partition 0; rejects with what the broker said */
  send(topic: string, value: string): Promise<unknown>;
}

function sender(bootstraps: readonly string[], settings: Record<string, unknown> = {}): Sender {
  const producer = new Producer({
    bootstrapBrokers: [...bootstraps],
    clientId: 'sender',
    serializers: stringSerializers,

    retries: 0,
    ...settings,
  });
  return {
    send: (topic, value) =>
      producer.send({ messages: [{ topic, key: 'k', value, partition: 0 }], acks: ProduceAcks.ALL }),
    async [Symbol.asyncDispose]() {
      await producer.close().catch(() => {});
    },
  };
}

const values = async (kafka: { readTopic(topic: string): Promise<{ readonly value: Buffer }[]> }, topic: string) =>
  (await kafka.readTopic(topic)).map(({ value }) => value.toString());

/** Resolves with the text of an error and its causes, or `accepted`. */
async function refusal(sending: Promise<unknown>): Promise<string> {
  const error = await sending.then(
    () => undefined,
    (reason: GenericError) => reason,
  );
  return error === undefined ? 'accepted' : Bun.inspect(error);
}

describe.each(KAFKA_VERSIONS)('Kafka %s', (version) => {
  test('runs with a proxy that holds what its gates name, restarts, and leaves no process or file', async () => {
    const kafka = await startKafka({ version, proxied: true });
    try {
      const jars = await readFile(kafka.logFile, 'utf8');
      expect(jars).not.toContain('ERROR');
      const proxy = kafka.proxy!;
      await kafka.createTopic('t', { partitions: 2 });
      await using through = sender([`127.0.0.1:${proxy.port}`]);
      await through.send('t', 'first');
      let gates = 0;
      const request = proxy.onRequest(PRODUCE, () => {
        gates++;
        return 'hold';
      });
      const sending = through.send('t', 'second');
      await waitFor('the request', () => gates === 1);
      expect(await values(kafka, 't')).toEqual(['first']);
      const response = proxy.onResponse(PRODUCE, () => {
        gates++;
        return 'hold';
      });
      request.release();
      await waitFor('the response', () => gates === 2);
      expect(await values(kafka, 't')).toEqual(['first', 'second']);
      response.release();
      await sending;

      await kafka.setPartitions('t', 3);
      expect((await kafka.describeTopic('t')).length).toBe(3);
      await kafka.configureTopic('t', { 'max.message.bytes': '100' });
      expect(await refusal(through.send('t', 'third'.repeat(100)))).toContain('MESSAGE_TOO_LARGE');
      await kafka.stop();
      await kafka.start();
      expect(await values(kafka, 't')).toEqual(['first', 'second']);
    } finally {
      await kafka[Symbol.asyncDispose]();
    }
    expect(existsSync(kafka.dataDirectory)).toBe(false);
    expect(await canListen(kafka.port)).toBe(true);
    expect(await canListen(kafka.proxy!.port)).toBe(true);
  }, 180_000);

  test('advertises the proxy to clients of the proxy, and itself to others', async () => {
    await using kafka = await startKafka({ version, proxied: true });
    await kafka.createTopic('t');
    let answers = 0;
    using _gate = kafka.proxy!.onResponse(PRODUCE, () => {
      answers++;
      return 'forward';
    });
    await kafka.proxy!.refuse(true);
    await using direct = sender([kafka.bootstrap]);
    await direct.send('t', 'a');
    expect(answers).toBe(0);
    await kafka.proxy!.heal();
    await using through = sender([`127.0.0.1:${kafka.proxy!.port}`]);
    await through.send('t', 'b');
    expect(answers).toBe(1);
    expect(await values(kafka, 't')).toEqual(['a', 'b']);
  }, 120_000);

  test('lets users do what they have the right to, with the password they have now', async () => {
    await using kafka = await startKafka({
      version,
      authorizer: true,
      secure: {
        certificateFile: join(CERTIFICATES, 'server.crt'),
        keyFile: join(CERTIFICATES, 'server.key'),
        users: { notifier: 'old' },
      },
    });
    await kafka.createTopic('t');
    const ca = await readFile(join(CERTIFICATES, 'ca.crt'), 'utf8');
    const user = (password: string) =>
      sender([kafka.secureBootstrap!], {
        tls: { ca },
        sasl: { mechanism: 'SCRAM-SHA-256', username: 'notifier', password },
      });
    const rights = [
      { user: 'notifier', operation: 'WRITE', topic: 't' },
      { user: 'notifier', operation: 'DESCRIBE', topic: 't' },
    ] as const;
    await using first = user('old');
    expect(await refusal(first.send('t', 'a'))).toContain('TOPIC_AUTHORIZATION_FAILED');
    await kafka.access.allow(...rights);
    expect(await refusal(first.send('t', 'b'))).toBe('accepted');
    await kafka.access.withdraw(rights[0]);
    expect(await refusal(first.send('t', 'c'))).toContain('TOPIC_AUTHORIZATION_FAILED');
    await kafka.access.allow(rights[0]);

    await kafka.access.setScramPassword('notifier', 'new');
    await using second = user('new');
    await waitFor('the new password', async () => (await refusal(second.send('t', 'd'))) === 'accepted');
    await using third = user('old');
    expect(await refusal(third.send('t', 'e'))).toContain('AUTHENTICATION');
    expect(await values(kafka, 't')).toEqual(['b', 'd']);
  }, 120_000);
});
