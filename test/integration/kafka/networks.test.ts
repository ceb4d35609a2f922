/** What networks between the service and a broker do to connections and addresses. Real Kafka, with a proxy before it. */
import { afterAll, beforeAll, expect, test } from 'bun:test';
import { clientConfig, openProducer } from '../../support/kafka/open-producer.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { startTcpProxy } from '../../support/network/tcp-proxy.ts';

/** After this time a connection is proved before a batch is given to it */
const IDLE_MS = 10_500;

let kafka: KafkaServer;
beforeAll(async () => {
  kafka = await startKafka({ proxied: true });
}, 120_000);
afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
}, 30_000);

test('a batch after a quiet time is not given to a connection that a NAT has forgotten', async () => {
  const proxy = kafka.proxy!;
  await kafka.createTopic('quiet', { partitions: 1 });
  await using open = await openProducer(clientConfig([proxy.port]), ['quiet']);
  open.send('quiet', [['key', 'one']]);
  await open.waitUntilAcknowledged();
  proxy.forget();
  await Bun.sleep(IDLE_MS);
  open.send('quiet', [['key', 'two']]);
  await open.waitUntilAcknowledged();
  // On the forgotten connection it would have waited for request_timeout, and then been sent again.
  expect(open.resends).toEqual([]);
  expect((await kafka.readTopic('quiet')).map(({ value }) => value.toString())).toEqual(['one', 'two']);
}, 60_000);

test('a connection that was only quiet is used again', async () => {
  const proxy = kafka.proxy!;
  await kafka.createTopic('used', { partitions: 1 });
  await using open = await openProducer(clientConfig([proxy.port]), ['used']);
  open.send('used', [['key', 'one']]);
  await open.waitUntilAcknowledged();
  const before = proxy.connectionCount;
  await Bun.sleep(IDLE_MS);
  open.send('used', [['key', 'two']]);
  await open.waitUntilAcknowledged();
  expect([open.resends, proxy.connectionCount]).toEqual([[], before]);
}, 60_000);

test('an address that the cluster itself gives and that cannot be reached is named, with what to correct', async () => {
  const proxy = kafka.proxy!;
  await kafka.createTopic('advertised', { partitions: 1 });
  await using entrance = await startTcpProxy(proxy);
  await using open = await openProducer(clientConfig([entrance.port]), ['advertised']);
  await proxy.refuse(true);
  try {
    open.send('advertised', [['key', 'one']]);
    const { message, advice } = await open.waitForFailure();
    expect(message).toContain('ECONNREFUSED');
    expect(advice).toContain(`127.0.0.1:${proxy.port}`);
    expect(advice).toContain('advertised.listeners');
  } finally {
    await proxy.heal();
  }
}, 60_000);
