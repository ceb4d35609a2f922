/** The producer on three brokers that move leaders, crash and restart: each record is stored once, in order by key. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import type { KafkaClientConfig } from '../../../src/config/config.ts';
import type { ProducerOptions } from '../../../src/kafka/produce/producer.ts';
import { type KafkaCluster, startKafkaCluster } from '../../support/kafka/cluster.ts';
import * as support from '../../support/kafka/open-producer.ts';
import { kafkaTopics, type PartitionState, type TopicOptions } from '../../support/kafka/topics.ts';
import { waitFor } from '../../support/process/wait.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';

const TIMEOUT_MS = 240_000;

let cluster: KafkaCluster;

beforeAll(async () => {
  cluster = await startKafkaCluster();
}, TIMEOUT_MS);

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
}, 30_000);

function openProducer(
  topics: readonly string[],
  change: Partial<ProducerOptions> = {},
  client: Partial<KafkaClientConfig> = {},
): Promise<support.OpenProducer> {
  const ports = cluster.nodes.map((node) => node.port);
  return support.openProducer(support.clientConfig(ports, client), topics, { maxRetries: 10_000, ...change });
}

/** Waits until the metadata of every broker shows it: the producer asks any of them. */
async function waitForAll(topic: string, isSo: (partitions: readonly PartitionState[]) => boolean): Promise<void> {
  for (const { bootstrap } of cluster.nodes) {
    const { describeTopic } = kafkaTopics([bootstrap], 3);
    await waitFor(`topic ${topic} as it is at ${bootstrap}`, async () => isSo(await describeTopic(topic)));
  }
}

async function createTopic(name: string, options: TopicOptions): Promise<void> {
  await cluster.createTopic(name, options);
  await waitForAll(name, (partitions) => partitions.length === (options.partitions ?? 1));
}

const numbered = (count: number, from = 0): [string, string][] =>
  Array.from({ length: count }, (_, index) => [`key ${(from + index) % 20}`, String(from + index)]);

/** Expects the topic to hold exactly the numbers below `count`, each once, rising within their key. */
async function expectNumbers(topic: string, count: number): Promise<void> {
  // For a moment after a freeze, a broker still acts as the leader that it was, and shows the records of that time.
  const records = await waitFor(`${count} records in topic ${topic}`, async () => {
    const found = await cluster.readTopic(topic);
    return found.length >= count ? found : undefined;
  });
  const byKey = Map.groupBy(records, ({ key }) => key.toString());
  const expected = Map.groupBy(numbered(count), ([key]) => key);
  expect(new Map([...byKey].map(([key, group]) => [key, group.map(({ value }) => value.toString())]))).toEqual(
    new Map([...expected].map(([key, group]) => [key, group.map(([, value]) => value)])),
  );
}

describe('Producer on three brokers', () => {
  test(
    'follows leaders that have moved at once, without a retry',
    async () => {
      await createTopic('moved', { partitions: 2 });
      const log = recordingLogger();
      await using open = await openProducer(['moved'], { log: log.logger, maxRetries: 0, resendTimeoutMs: 600_000 });
      open.send('moved', numbered(100));
      await open.waitUntilAcknowledged();
      for (const partition of [0, 1]) {
        const { id } = await cluster.leaderOf('moved', partition);
        const next = (id % 3) + 1;
        await cluster.moveLeader('moved', partition, next);
        await waitForAll('moved', (partitions) => partitions[partition]?.leader === next);
      }
      open.send('moved', numbered(100, 100));
      await open.waitUntilAcknowledged();
      expect(log.lines).toContainEqual(
        expect.objectContaining({ event: 'produce_follow_leaders', reason: 'NOT_LEADER_OR_FOLLOWER' }),
      );
      await expectNumbers('moved', 200);
    },
    TIMEOUT_MS,
  );

  test(
    'delivers on after the leader is killed, and after it is frozen',
    async () => {
      await createTopic('bereft', { partitions: 2 });
      // Long enough for a batch to be with the old leader when the new one gets it.
      await using open = await openProducer(['bereft'], {}, { requestTimeoutMs: 2_000, connectTimeoutMs: 2_000 });
      open.send('bereft', numbered(100));
      await open.waitUntilAcknowledged();
      const killed = await cluster.leaderOf('bereft', 0);
      await killed.kill();
      open.send('bereft', numbered(100, 100));
      await open.waitUntilAcknowledged();
      await killed.start();
      await cluster.waitUntilInSync(['bereft']);
      const frozen = await cluster.leaderOf('bereft', 1);
      frozen.pause();
      try {
        open.send('bereft', numbered(100, 200));
        await open.waitUntilAcknowledged();
      } finally {
        frozen.resume();
      }
      await cluster.waitUntilInSync(['bereft']);
      expect(open.changes).toEqual([]);
      await expectNumbers('bereft', 300);
    },
    TIMEOUT_MS,
  );

  test(
    'a frozen broker holds its batches no longer than until another one leads their partitions, and they are stored once',
    async () => {
      await createTopic('held', { partitions: 2 });
      const log = recordingLogger();
      // Far longer than the test may take: only the change of the leader frees the batches.
      const client = { requestTimeoutMs: 600_000 };
      await using open = await openProducer(['held'], { log: log.logger, maxRetries: 0 }, client);
      open.send('held', numbered(100));
      await open.waitUntilAcknowledged();
      const frozen = await cluster.leaderOf('held', 0);
      frozen.pause();
      try {
        open.send('held', numbered(100, 100));
        await open.waitUntilAcknowledged();
        expect(await cluster.leaderOf('held', 0)).not.toBe(frozen);
      } finally {
        frozen.resume();
      }
      await cluster.waitUntilInSync(['held']);
      expect(log.lines).toContainEqual(
        expect.objectContaining({ event: 'produce_follow_leaders', reason: 'FORMER_LEADER_SILENT' }),
      );
      open.send('held', numbered(100, 200));
      await open.waitUntilAcknowledged();
      await expectNumbers('held', 300);
    },
    TIMEOUT_MS,
  );

  test(
    'waits while too few replicas are in sync; with its retries used up it reports what is missing',
    async () => {
      await createTopic('lonely', { replicas: 2, config: { 'min.insync.replicas': '2' } });
      const [state] = await cluster.describeTopic('lonely');
      const follower = cluster.nodes.find(({ id }) => id !== state!.leader && state!.replicas.includes(id))!;
      const log = recordingLogger();
      await using open = await openProducer(['lonely'], { log: log.logger });
      await using hasty = await openProducer(['lonely'], { maxRetries: 1 });
      await follower.stop();
      await waitFor('one replica in sync', async () => (await cluster.describeTopic('lonely'))[0]?.inSync.length === 1);
      open.send('lonely', numbered(20));
      hasty.send('lonely', numbered(3, 20));
      expect(await hasty.waitForFailure()).toMatchObject({
        retriable: true,
        message: 'Cannot deliver a batch of 3: NOT_ENOUGH_REPLICAS after 2 attempts',
        advice: expect.stringContaining('min.insync.replicas'),
        place: { topic: 'lonely', partition: 0 },
      });
      await waitFor('the refusal', () => log.lines.some(({ reason }) => reason === 'NOT_ENOUGH_REPLICAS'));
      expect(open.producer.isReachable).toBe(true);
      await follower.start();
      await open.waitUntilAcknowledged();
      await expectNumbers('lonely', 20);
      expect(open.resends).toContain('NOT_ENOUGH_REPLICAS');
    },
    TIMEOUT_MS,
  );

  test(
    'stores everything once and in order over a rolling restart',
    async () => {
      await createTopic('rolled', { partitions: 6 });
      await using open = await openProducer(['rolled'], {}, { metadataMaxAgeMs: 1_000 });
      let sentCount = 0;
      let isOver = false;
      const restart = cluster.rollingRestart(['rolled']).finally(() => {
        isOver = true;
      });
      while (!isOver) {
        open.send('rolled', numbered(10, sentCount));
        sentCount += 10;
        await Bun.sleep(5); // the pace of the writer, nothing is waited for
      }
      await restart;
      await open.waitUntilAcknowledged();
      expect(open.changes).toEqual([]);
      expect(open.tally.producedCount).toBe(sentCount);
      await expectNumbers('rolled', sentCount);
    },
    TIMEOUT_MS,
  );
});
