/** A cluster of Kafka nodes for tests, each broker and controller; three of them survive the loss of one. */
import { alterPartitionReassignmentsV0, Connection, Writer } from '@platformatic/kafka';
import { freePort } from '../network/ports.ts';
import { waitFor } from '../process/wait.ts';
import { createNode, type KafkaNode, type NodeOptions } from './node/node.ts';
import { KAFKA_VERSION, waitForMember } from './server.ts';
import { type KafkaTopics, kafkaTopics } from './topics.ts';

/** Options of `startKafkaCluster`. */
export interface KafkaClusterOptions extends Omit<NodeOptions, 'version' | 'secure'> {
  /** Default 3 */
  readonly brokers?: number | undefined;
  /** Default `KAFKA_VERSION` */
  readonly version?: string | undefined;
}

/** A running cluster; disposal kills its nodes and removes their data. */
export interface KafkaCluster extends AsyncDisposable, KafkaTopics {
  /** Index = id - 1: ids are 1, 2, 3 */
  readonly nodes: readonly KafkaNode[];
  /** Plaintext addresses of all nodes, each `127.0.0.1:port` */
  readonly bootstraps: readonly string[];
  /** Addresses of the nodes' proxies; empty without `proxied` */
  readonly proxiedBootstraps: readonly string[];
  /** Resolves with the leader of a partition, as soon as it has one */
  leaderOf(topic: string, partition?: number): Promise<KafkaNode>;
  /** Makes an in-sync node the leader of a partition, while clients use it */
  moveLeader(topic: string, partition: number, toNodeId: number): Promise<void>;
  /** Resolves when every replica of these topics is in sync */
  waitUntilInSync(topics: readonly string[]): Promise<void>;
  /** Stops and starts the nodes gracefully, one after another, each when all replicas of `topics` are in sync */
  rollingRestart(topics: readonly string[]): Promise<void>;
}

const REQUEST_TIMEOUT_MS = 30_000;
/** https://kafka.apache.org/protocol.html#The_Messages_ElectLeaders */
const ELECT_LEADERS = { key: 43, version: 2 } as const;
const PREFERRED = 0;
const IN_SYNC_TIMEOUT_MS = 120_000;

/** Starts a cluster and waits until all its nodes serve requests. */
export async function startKafkaCluster(options: KafkaClusterOptions = {}): Promise<KafkaCluster> {
  const { brokers = 3, version = KAFKA_VERSION, heapMb = 256, settings = {} } = options;
  const voters: { id: number; controllerPort: number }[] = [];
  for (let id = 1; id <= brokers; id++) voters.push({ id, controllerPort: await freePort() });
  await using undo = new AsyncDisposableStack();
  const nodes: KafkaNode[] = [];
  for (const voter of voters) {
    const nodeSettings = { ...clusterSettings(brokers), ...settings };
    nodes.push(undo.use(await createNode(voter, { ...options, version, heapMb, settings: nodeSettings, voters })));
  }
  // A node opens its port only when a quorum of controllers exists: start all before waiting for one.
  await Promise.all(nodes.map((node) => node.start()));
  await Promise.all(nodes.map(waitForMember));

  const bootstraps = nodes.map((node) => node.bootstrap);
  const topics = kafkaTopics(bootstraps, brokers);
  const leaderOf = (topic: string, partition = 0): Promise<KafkaNode> =>
    waitFor(`a leader of ${topic} ${partition}`, async () => {
      const leader = (await topics.describeTopic(topic))[partition]?.leader;
      return nodes.find((node) => node.id === leader);
    });
  const waitUntilInSync = async (names: readonly string[]): Promise<void> => {
    for (const name of names) {
      await waitFor(
        `all replicas of ${name} in sync`,
        async () => {
          const partitions = await topics.describeTopic(name);
          return (
            partitions.length > 0 &&
            partitions.every(({ leader, replicas, inSync }) => leader > 0 && inSync.length === replicas.length)
          );
        },
        { timeoutMs: IN_SYNC_TIMEOUT_MS, intervalMs: 100 },
      );
    }
  };
  const resources = undo.move();
  return {
    ...topics,
    nodes,
    bootstraps,
    proxiedBootstraps: nodes.flatMap(({ proxy }) => (proxy === undefined ? [] : [`${proxy.host}:${proxy.port}`])),
    leaderOf,
    waitUntilInSync,
    async moveLeader(topic, partition, toNodeId) {
      const replicas = (await topics.describeTopic(topic))[partition]?.replicas ?? [];
      if (!replicas.includes(toNodeId)) throw new Error(`Node ${toNodeId} has no replica of ${topic} ${partition}`);
      // The first replica is the preferred leader: no data moves.
      const preferred = [toNodeId, ...replicas.filter((id) => id !== toNodeId)];
      const { port } = await leaderOf(topic, partition);
      await reassign(port, { topic, partition, replicas: preferred });
      await waitFor(`node ${toNodeId} leading ${topic} ${partition}`, async () => {
        await electPreferredLeader(port, { topic, partition });
        return (await topics.describeTopic(topic))[partition]?.leader === toNodeId;
      });
    },
    async rollingRestart(names) {
      for (const node of nodes) {
        await waitUntilInSync(names);
        await node.stop();
        await node.start();
        await waitForMember(node);
      }
      await waitUntilInSync(names);
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

function clusterSettings(brokers: number): Record<string, string> {
  const replicas = String(brokers);
  return {
    'default.replication.factor': replicas,
    'min.insync.replicas': String(Math.max(1, brokers - 1)),
    'offsets.topic.replication.factor': replicas,
    'transaction.state.log.replication.factor': replicas,
    // Several nodes share a small machine: one that waits for the CPU is not dead.
    'broker.session.timeout.ms': '4000',
    // The default, 128 MB, is half of the heap.
    'log.cleaner.dedupe.buffer.size': '16777216',
    // Only tests move leaders.
    'auto.leader.rebalance.enable': 'false',
  };
}

interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

async function reassign(
  port: number,
  { topic, partition, replicas }: TopicPartition & { readonly replicas: number[] },
): Promise<void> {
  const topics = [{ name: topic, partitions: [{ partitionIndex: partition, replicas }] }];
  await withConnection(port, (connection) =>
    alterPartitionReassignmentsV0.api.async(connection, REQUEST_TIMEOUT_MS, true, topics),
  );
}

/** Sends ElectLeaders, which the library lacks. The answer is not read: the caller looks at the metadata. */
async function electPreferredLeader(port: number, { topic, partition }: TopicPartition): Promise<void> {
  const request = (): Writer =>
    Writer.create()
      .appendInt8(PREFERRED)
      .appendArray([topic], (writer, name) => {
        writer.appendString(name).appendArray([partition], (list, index) => list.appendInt32(index), true, false);
      })
      .appendInt32(REQUEST_TIMEOUT_MS)
      .appendTaggedFields();
  await withConnection(
    port,
    (connection) =>
      new Promise<void>((resolve, reject) => {
        const done = (error: Error | null): void => (error === null ? resolve() : reject(error));
        connection.send(ELECT_LEADERS.key, ELECT_LEADERS.version, request, () => undefined, true, true, done);
      }),
  );
}

async function withConnection<T>(port: number, use: (connection: Connection) => Promise<T>): Promise<T> {
  const connection = new Connection('cdc-notifier-test-admin');
  await connection.connect('127.0.0.1', port);
  try {
    return await use(connection);
  } finally {
    await connection.close();
  }
}
