import { describe, expect, test } from 'bun:test';
import type { Writer } from '@platformatic/kafka';
import pino from 'pino';
import { ByteWriter } from '../../../../src/bytes/writer.ts';
import type { SinkError } from '../../../../src/errors.ts';
import type { ProduceResponse } from '../../../../src/kafka/client/api-versions.ts';
import type { ClusterMetadata } from '../../../../src/kafka/client/cluster.ts';
import { BatchBuffers } from '../../../../src/kafka/produce/batch-buffers.ts';
import { DeliveryTrial } from '../../../../src/kafka/produce/delivery-trial.ts';
import { Producer, type ProducerCluster } from '../../../../src/kafka/produce/producer.ts';
import { createSizeLimits } from '../../../../src/kafka/produce/size-limits.ts';
import { waitFor } from '../../../support/process/wait.ts';

const NOT_LEADER_OR_FOLLOWER = 6;
const TOPIC_AUTHORIZATION_FAILED = 29;

/** A cluster of one topic with one partition; Produce requests are answered with the next of `codes`, else with 0. */
class FakeCluster implements ProducerCluster {
  readonly codes: number[] = [];
  readonly requests: { readonly brokerId: number; readonly body: Buffer }[] = [];
  isClosed = false;
  isReachable = true;
  leader = 1;
  metadataReadCount = 0;
  metadata: ClusterMetadata = this.#describe();

  async initProducerId() {
    return { producerId: 1n, producerEpoch: 0 };
  }

  async readMetadata() {
    this.metadataReadCount++;
    this.metadata = this.#describe();
    return this.metadata;
  }

  async maxMessageBytes() {
    return new Map<string, number>();
  }

  async produce(brokerId: number, encode: (isFlexible: boolean) => Writer): Promise<ProduceResponse> {
    this.requests.push({ brokerId, body: encode(true).buffer });
    const errorCode = this.codes.shift() ?? 0;
    const answer = { index: 0, errorCode, baseOffset: 0n, logAppendTimeMs: -1n, logStartOffset: 0n };
    const partitionResponses = [{ ...answer, recordErrors: [], errorMessage: null }];
    return { responses: [{ name: 'topic', partitionResponses }], throttleTimeMs: 0 };
  }

  async takesRequestOf() {
    return undefined;
  }

  #describe(): ClusterMetadata {
    return {
      brokers: new Map(),
      topics: new Map([['topic', { name: 'topic', errorCode: 0, leaders: [this.leader], mayWrite: undefined }]]),
    };
  }
}

async function openProducer(cluster: FakeCluster, metadataMaxAgeMs = 600_000) {
  const producer = await Producer.open(cluster, {
    kafkaClient: 'main',
    resendTimeoutMs: 1,
    maxRetries: 2,
    requestTimeoutMs: 1_000,
    metadataMaxAgeMs,
    codec: undefined,
    buffers: new BatchBuffers(0),
    trial: new DeliveryTrial(),
    limits: createSizeLimits(104_857_600),
    log: pino({ level: 'silent' }),
  });
  const failures: SinkError[] = [];
  const resends: string[] = [];
  let ordinal = 0;
  return {
    producer,
    failures,
    resends,
    start: () =>
      producer.start({
        onAcknowledged() {},
        onResend: (reason) => resends.push(reason),
        onProduced() {},
        onTopicChanged() {},
        onFailed: (error) => failures.push(error),
      }),
    send() {
      const { queues } = producer;
      const bytes = new ByteWriter().copy(Buffer.from('bytes'));
      queues.append(queues.topic('topic'), bytes, bytes, { ordinal: ++ordinal, tally: { producedCount: 0 } });
      producer.flush();
    },
    acknowledged: () =>
      waitFor('all acknowledged', () => producer.queues.lowestUnacknowledged === Number.POSITIVE_INFINITY),
    [Symbol.dispose]: () => producer.stop(),
  };
}

describe('Producer', () => {
  test('sends and watches nothing before it is started, and then what was appended before', async () => {
    const cluster = new FakeCluster();
    using open = await openProducer(cluster, 1);
    open.send();
    await Bun.sleep(20); // long enough for many intervals of the watch
    expect([cluster.requests.length, cluster.metadataReadCount]).toEqual([0, 0]);
    open.start();
    await open.acknowledged();
    expect(cluster.requests).toHaveLength(1);
    await waitFor('the watch', () => cluster.metadataReadCount > 1);
  });

  test('sends the same bytes again, to the leader that the partition has by then', async () => {
    const cluster = new FakeCluster();
    using open = await openProducer(cluster);
    open.start();
    cluster.codes.push(NOT_LEADER_OR_FOLLOWER);
    cluster.leader = 2;
    open.send();
    await open.acknowledged();
    expect(cluster.requests.map(({ brokerId }) => brokerId)).toEqual([1, 2]);
    expect(cluster.requests[1]!.body.equals(cluster.requests[0]!.body)).toBe(true);
    expect(open.resends).toEqual(['NOT_LEADER_OR_FOLLOWER']);
  });

  test.each([
    ['retries that are used up', NOT_LEADER_OR_FOLLOWER, 3, 'produce_not_acknowledged'],
    ['a refusal', TOPIC_AUTHORIZATION_FAILED, 1, 'topic_not_authorized'],
  ])('reports %s once, and sends nothing more', async (_, code, attemptCount, errorCode) => {
    const cluster = new FakeCluster();
    using open = await openProducer(cluster);
    open.start();
    cluster.codes.push(...Array.from({ length: 10 }, () => code));
    open.send();
    await waitFor('the failure', () => open.failures.length > 0);
    open.send();
    await Bun.sleep(5); // nothing is sent in it
    expect(cluster.requests).toHaveLength(attemptCount);
    expect(open.failures.map((error) => error.code)).toEqual([errorCode]);
  });

  test('reports nothing after it was stopped', async () => {
    const cluster = new FakeCluster();
    using open = await openProducer(cluster);
    open.start();
    cluster.codes.push(TOPIC_AUTHORIZATION_FAILED);
    open.send();
    open.producer.stop();
    await Bun.sleep(5); // nothing is reported in it
    expect(open.failures).toEqual([]);
  });
});
