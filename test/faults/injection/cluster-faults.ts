/** Faults of a cluster of three brokers, each topic on all of them. */
import type { KafkaNode } from '../../support/kafka/node/node.ts';
import { kafkaTopics, type PartitionState } from '../../support/kafka/topics.ts';
import { waitFor } from '../../support/process/wait.ts';
import type { Fault } from './fault.ts';
import { cameBack, noticed } from './steps.ts';

/** Rolling restart, moved, killed and frozen leaders, too few in-sync replicas. */
export const CLUSTER_FAULTS: readonly Fault[] = [
  {
    name: 'three brokers are restarted one after another',
    side: 'Kafka',
    moments: ['load'],
    onCluster: true,
    inject: async ({ servers, topics, workload }) => {
      workload.start();
      await (await servers.cluster()).rollingRestart(topics);
    },
  },
  {
    name: 'leaders move',
    side: 'Kafka',
    moments: ['load', 'huge'],
    onCluster: true,
    inject: async ({ servers, topics, workload }) => {
      workload.start();
      const cluster = await servers.cluster();
      for (const topic of topics) {
        const leader = await cluster.leaderOf(topic);
        await cluster.moveLeader(topic, 0, (leader.id % cluster.nodes.length) + 1);
      }
    },
  },
  {
    name: 'the leader of a partition is killed',
    side: 'Kafka',
    moments: ['load', 'huge'],
    onCluster: true,
    inject: async ({ servers, topics, workload }) => {
      workload.start();
      const cluster = await servers.cluster();
      const leader = await cluster.leaderOf(topics[0] as string);
      await leader.kill();
      await workload.advance(100);
      await leader.start();
      await cluster.waitUntilInSync(topics);
    },
  },
  {
    name: 'the leader of a partition is frozen until another one leads',
    side: 'Kafka',
    moments: ['load', 'huge'],
    onCluster: true,
    inject: async ({ servers, topics, workload }) => {
      workload.start();
      const cluster = await servers.cluster();
      const [topic] = topics as [string];
      const leader = await cluster.leaderOf(topic);
      leader.pause();
      try {
        await waitFor('another leader', async () => {
          const now = await cluster.leaderOf(topic);
          return now !== leader;
        });
        await workload.advance(100);
      } finally {
        leader.resume();
      }
      // Until it knows of its successor, it shows readers what it had before.
      const { describeTopic } = kafkaTopics([leader.bootstrap], cluster.nodes.length);
      const [other] = cluster.nodes.filter((node) => node !== leader);
      const known = kafkaTopics([other!.bootstrap], cluster.nodes.length);
      for (const name of topics) {
        await waitFor(`what the former leader knows of topic ${name}`, async () => {
          const [seen, meant] = await Promise.all([describeTopic(name), known.describeTopic(name)]);
          return seen.length > 0 && Bun.deepEquals(seen.map(leaderOf), meant.map(leaderOf));
        });
      }
      await cluster.waitUntilInSync(topics);
    },
  },
  {
    name: 'the topics have too few in-sync replicas for a while',
    side: 'Kafka',
    moments: ['load'],
    onCluster: true,
    settings: { max_retries: 1 },
    inject: (fixture) =>
      cameBack(fixture, async (since) => {
        const configure = (replicas: string) =>
          Promise.all(
            fixture.topics.map((topic) => fixture.kafka.configureTopic(topic, { 'min.insync.replicas': replicas })),
          );
        fixture.workload.start();
        const { nodes, waitUntilInSync } = await fixture.servers.cluster();
        await configure(String(nodes.length));
        const [node] = nodes as readonly [KafkaNode];
        await node.kill();
        await noticed(fixture, since);
        await node.start();
        await waitUntilInSync(fixture.topics);
        await configure(String(nodes.length - 1));
      }),
  },
];

const leaderOf = ({ leader }: PartitionState): number => leader;
