import { afterEach, describe, expect, test } from 'bun:test';
import type { ClusterMetadata, TopicMetadata } from '../../../../src/kafka/client/cluster.ts';
import { BatchBuffers } from '../../../../src/kafka/produce/batch-buffers.ts';
import { PartitionQueues } from '../../../../src/kafka/produce/partition-queues.ts';
import { createSizeLimits } from '../../../../src/kafka/produce/size-limits.ts';
import { type TopicChange, TopicWatch, type WatchedCluster } from '../../../../src/kafka/produce/topic-watch.ts';
import { waitFor } from '../../../support/process/wait.ts';
import { recordingLogger } from '../../../support/service/recording-logger.ts';

const UNKNOWN_TOPIC_OR_PARTITION = 3;
const TOPIC_AUTHORIZATION_FAILED = 29;

const topicOf = (partitionCount: number, errorCode = 0): TopicMetadata => ({
  name: 'topic',
  errorCode,
  leaders: Array.from({ length: partitionCount }, () => 1),
  mayWrite: undefined,
});

/** A cluster that answers with what its fields hold. */
class FakeCluster implements WatchedCluster {
  topic: TopicMetadata | undefined = topicOf(2);
  maxBytes = 1_000;
  failure: Error | undefined;
  isClosed = false;
  isReachable = true;
  readCount = 0;

  async readMetadata(): Promise<ClusterMetadata> {
    this.readCount++;
    this.isReachable = this.failure === undefined;
    if (this.failure !== undefined) throw this.failure;
    return { brokers: new Map(), topics: new Map(this.topic === undefined ? [] : [['topic', this.topic]]) };
  }

  async maxMessageBytes(): Promise<Map<string, number>> {
    if (this.failure !== undefined) throw this.failure;
    return new Map([['topic', this.maxBytes]]);
  }
}

let stopping = new AbortController();

afterEach(() => {
  stopping.abort();
  stopping = new AbortController();
});

function openWatch(metadataMaxAgeMs = 600_000) {
  const cluster = new FakeCluster();
  const limits = createSizeLimits(104_857_600);
  const queues = new PartitionQueues([topicOf(2)], { codec: undefined, buffers: new BatchBuffers(0), limits });
  const log = recordingLogger();
  const changes: TopicChange[] = [];
  const watch = new TopicWatch(cluster, queues, {
    kafkaClient: 'main',
    metadataMaxAgeMs,
    limits,
    log: log.logger,
    signal: stopping.signal,
    onTopicChanged: (change) => changes.push(change),
  });
  return { cluster, queues, log, changes, watch };
}

describe('TopicWatch', () => {
  test.each([
    ['more partitions', topicOf(3), [{ topic: 'topic', fromPartitions: 2, toPartitions: 3 }]],
    [
      'a topic that is gone',
      topicOf(0, UNKNOWN_TOPIC_OR_PARTITION),
      [{ topic: 'topic', fromPartitions: 2, toPartitions: 0 }],
    ],
    ['the same partitions', topicOf(2), []],
    ['a topic that may not be seen', topicOf(0, TOPIC_AUTHORIZATION_FAILED), []],
    ['an answer without the topic', undefined, []],
  ])('reports %s once, or not at all', async (_, topic, expected) => {
    const { cluster, changes, watch } = openWatch();
    cluster.topic = topic;
    await watch.refresh();
    await watch.refresh();
    expect(changes).toEqual(expected);
  });

  test('calls of refresh at the same time share one request', async () => {
    const { cluster, watch } = openWatch();
    await Promise.all([watch.refresh(), watch.refresh()]);
    expect(cluster.readCount).toBe(1);
    await watch.refresh();
    expect(cluster.readCount).toBe(2);
  });

  test('a cluster that cannot be asked is logged once, and changes nothing', async () => {
    const { cluster, log, changes, watch } = openWatch();
    cluster.failure = new Error('unreachable');
    await watch.refresh();
    await watch.refresh();
    expect(log.lines.map(({ event, level, kafkaClient }) => [event, level, kafkaClient])).toEqual([
      ['kafka_metadata_unreadable', 'warn', 'main'],
    ]);
    expect(changes).toEqual([]);
  });

  test('run reads topics and limits at intervals, over failures, until the signal is given', async () => {
    const { cluster, queues, watch } = openWatch(1);
    cluster.failure = new Error('unreachable');
    const running = watch.run();
    await waitFor('some attempts', () => cluster.readCount > 2);
    cluster.failure = undefined;
    await waitFor('the limit', () => queues.topic('topic').maxRecordBatchBytes === 1_000);
    cluster.maxBytes = 500;
    await waitFor('the lower limit', () => queues.topic('topic').maxRecordBatchBytes === 500);
    stopping.abort();
    await expect(running).rejects.toMatchObject({ name: 'AbortError' });
  });

  test('run ends when the cluster is closed', async () => {
    const { cluster, watch } = openWatch(1);
    const running = watch.run();
    cluster.isClosed = true;
    await running;
  });
});
