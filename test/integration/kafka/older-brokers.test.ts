/** Brokers with fewer or older requests than this service prefers: a proxy in front of a real one lowers what it offers. */
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test';
import { clientConfig, openProducer } from '../../support/kafka/open-producer.ts';
import type { KafkaProxy } from '../../support/kafka/proxy.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';

const [PRODUCE, METADATA, API_VERSIONS, INIT_PRODUCER_ID, DESCRIBE_CONFIGS] = [0, 3, 18, 22, 32];

let kafka: KafkaServer;
let proxy: KafkaProxy;
beforeAll(async () => {
  kafka = await startKafka({ proxied: true });
  proxy = kafka.proxy!;
}, 120_000);
afterEach(() => proxy.corrupt(undefined));
afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
}, 30_000);

/** Lowers the highest version of each of these requests in the answers to ApiVersions, by Kafka's number of the request. */
function offerAtMost(maxVersions: Readonly<Record<number, number>>): Disposable {
  const answers = new Set<number>();
  const gate = proxy.onResponse(API_VERSIONS, ({ correlationId }) => {
    answers.add(correlationId);
    return 'forward';
  });
  proxy.corrupt((frame) => {
    // Length, correlation id, error code; then a compact array of key, lowest and highest version and tags.
    if (!answers.delete(frame.readInt32BE(4))) return frame;
    const bytes = Buffer.from(frame);
    const count = bytes.readUInt8(10) - 1;
    for (let index = 0, at = 11; index < count; index++, at += 7) {
      const maxVersion = maxVersions[bytes.readInt16BE(at)];
      if (maxVersion !== undefined) bytes.writeInt16BE(maxVersion, at + 4);
    }
    return bytes;
  });
  return gate;
}

/** The versions of the requests that pass the proxy. */
function watchVersions(apiKeys: readonly number[]) {
  const seen = new Map<number, Set<number>>(apiKeys.map((key) => [key, new Set()]));
  const gates = apiKeys.map((key) =>
    proxy.onRequest(key, ({ apiVersion }) => {
      seen.get(key)!.add(apiVersion);
      return 'forward';
    }),
  );
  return {
    seen,
    [Symbol.dispose]() {
      for (const gate of gates) gate.release();
    },
  };
}

async function deliversTo(topic: string): Promise<void> {
  await kafka.createTopic(topic, { partitions: 2 });
  await using open = await openProducer(clientConfig([proxy.port]), [topic]);
  open.send(topic, [
    ['a', 'one'],
    ['b', 'two'],
  ]);
  await open.waitUntilAcknowledged();
  expect((await kafka.readTopic(topic)).map(({ value }) => value.toString()).sort()).toEqual(['one', 'two']);
}

test('each request has the newest version that the broker offers', async () => {
  using _offer = offerAtMost({ [PRODUCE]: 8, [METADATA]: 9, [INIT_PRODUCER_ID]: 3 });
  using versions = watchVersions([PRODUCE, METADATA, INIT_PRODUCER_ID]);
  await deliversTo('older');
  expect([...versions.seen.values()].map((seen) => [...seen])).toEqual([[8], [9], [3]]);
}, 60_000);

test('a broker that closes on DescribeConfigs has unknown limits, and takes records', async () => {
  using _gate = proxy.onRequest(DESCRIBE_CONFIGS, () => 'reset');
  await deliversTo('undescribed');
}, 60_000);

test('a broker without a version in common is named with request and versions, and not asked again and again', async () => {
  using _offer = offerAtMost({ [INIT_PRODUCER_ID]: 1 });
  await kafka.createTopic('unsupported', { partitions: 1 });
  await expect(openProducer(clientConfig([proxy.port]), ['unsupported'])).rejects.toMatchObject({
    code: 'api_version_unsupported',
    retriable: false,
    message: 'Cannot use the broker: it offers InitProducerId 0 to 1, and this service knows InitProducerId 3 to 4',
  });
}, 60_000);

test('the port of a KRaft controller is named as what it may be', async () => {
  await expect(openProducer(clientConfig([kafka.controllerPort]), ['any'])).rejects.toMatchObject({
    code: 'api_version_unsupported',
    retriable: false,
    advice: expect.stringContaining('KRaft controller'),
  });
}, 60_000);
