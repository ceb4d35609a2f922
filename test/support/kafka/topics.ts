/** Creates, changes, describes and reads the topics of a test broker or cluster. */
import {
  Admin,
  type AdminOptions,
  ConfigResourceTypes,
  IncrementalAlterConfigOperationTypes,
  ListOffsetTimestamps,
} from '@platformatic/kafka';
import { waitFor } from '../process/wait.ts';
import { countRecords, type FollowOptions, type KafkaRecord, readTopics, TopicReader } from './topic-reader.ts';

/** Options of `createTopic`. */
export interface TopicOptions {
  /** Default 1 */
  readonly partitions?: number | undefined;
  /** Default: 1 on a single broker, 3 in a cluster */
  readonly replicas?: number | undefined;
  /** Topic settings, such as `max.message.bytes` */
  readonly config?: Readonly<Record<string, string>> | undefined;
}

/** A partition in the cluster's metadata. */
export interface PartitionState {
  /** Node id, -1 without a leader */
  readonly leader: number;
  readonly replicas: readonly number[];
  readonly inSync: readonly number[];
}

/** The topics of a broker or a cluster. */
export interface KafkaTopics {
  /** Creates a topic; resolves when every partition has a leader and all replicas are in sync */
  createTopic(name: string, options?: TopicOptions): Promise<void>;
  deleteTopic(name: string): Promise<void>;
  /** Raises the number of partitions; resolves when each has a leader */
  setPartitions(name: string, partitions: number): Promise<void>;
  /**
   * Changes topic settings; resolves when every broker has applied them, so all must run. `min.insync.replicas` above the
   * number of replicas counts as that number: NOT_ENOUGH_REPLICAS needs a cluster.
   */
  configureTopic(name: string, config: Readonly<Record<string, string>>): Promise<void>;
  /** The partitions of a topic by number; empty while it does not exist */
  describeTopic(name: string): Promise<readonly PartitionState[]>;
  /** Everything that a topic holds now, by partition and offset */
  readTopic(topic: string): Promise<KafkaRecord[]>;
  /** Everything that these topics hold now, by topic, partition and offset */
  readAll(topics: readonly string[]): Promise<KafkaRecord[]>;
  /** The number of records of each topic now; exact without deleted records and transactions */
  countRecords(topics: readonly string[]): Promise<number[]>;
  /** Follows topics live from their beginning; the caller closes the reader */
  follow(topics: readonly string[], options?: FollowOptions): TopicReader;
}

const ASK_ONCE = { retries: 0, connectTimeout: 2_000, requestTimeout: 2_000 } as const;

/** Runs `use` with an admin client of the cluster at these plaintext addresses. */
export async function withAdmin<T>(
  bootstraps: readonly string[],
  use: (admin: Admin) => Promise<T>,
  options: Partial<AdminOptions> = {},
): Promise<T> {
  const bootstrapBrokers = [...bootstraps];
  const clientId = 'cdc-notifier-test-admin';
  const admin = new Admin({ bootstrapBrokers, clientId, retries: 5, retryDelay: 200, ...options });
  try {
    return await use(admin);
  } finally {
    await admin.close();
  }
}

/** The topics of the cluster at these addresses; `defaultReplicas` is their replication factor. */
export function kafkaTopics(bootstraps: readonly string[], defaultReplicas: number): KafkaTopics {
  const clientOptions = { bootstrapBrokers: [...bootstraps] };
  const waitUntilComplete = async (admin: Admin, name: string, partitions: number): Promise<void> => {
    await waitFor(`all replicas of topic ${name}`, async () => {
      const states = await describe(admin, name);
      return (
        states.length === partitions &&
        states.every(({ leader, replicas, inSync }) => leader >= 0 && inSync.length === replicas.length)
      );
    });
    // Metadata names a leader before that broker has taken over: it refuses requests in between.
    await waitFor(`the leaders of topic ${name}`, () => leadersServe(admin, name, partitions));
  };
  return {
    async createTopic(name, { partitions = 1, replicas = defaultReplicas, config = {} } = {}) {
      const configs = Object.entries(config).map(([key, value]) => ({ name: key, value }));
      await withAdmin(bootstraps, async (admin) => {
        await admin.createTopics({ topics: [name], partitions, replicas, configs });
        await waitUntilComplete(admin, name, partitions);
      });
    },
    async deleteTopic(name) {
      await withAdmin(bootstraps, (admin) => admin.deleteTopics({ topics: [name] }));
    },
    async setPartitions(name, partitions) {
      await withAdmin(bootstraps, async (admin) => {
        await admin.createPartitions({ topics: [{ name, count: partitions, assignments: null }] });
        await waitUntilComplete(admin, name, partitions);
      });
    },
    async configureTopic(name, config) {
      const configs = Object.entries(config).map(([key, value]) => {
        return { name: key, configOperation: IncrementalAlterConfigOperationTypes.SET, value };
      });
      const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: name, configs };
      await withAdmin(bootstraps, (admin) => admin.incrementalAlterConfigs({ resources: [resource] }));
      // Each broker applies the change by itself.
      const question = {
        resourceType: ConfigResourceTypes.TOPIC,
        resourceName: name,
        configurationKeys: Object.keys(config),
      };
      for (const bootstrap of bootstraps) {
        await withAdmin([bootstrap], (admin) =>
          waitFor(`the new settings of topic ${name} at ${bootstrap}`, async () => {
            const [description] = await admin.describeConfigs({ resources: [question] });
            return description?.configs.every((found) => found.value === config[found.name]);
          }),
        );
      }
    },
    async describeTopic(name) {
      // One address after another: a paused node accepts connections and never answers.
      for (const bootstrap of bootstraps) {
        const states = await withAdmin([bootstrap], (admin) => describe(admin, name), ASK_ONCE);
        if (states.length > 0) return states;
      }
      return [];
    },
    readTopic: (topic) => readTopics(clientOptions, [topic]),
    readAll: (topics) => readTopics(clientOptions, topics),
    countRecords: (topics) => countRecords(clientOptions, topics),
    follow: (topics, options) => new TopicReader(clientOptions, topics, options),
  };
}

/** True when the leader of every partition answers requests for it. */
async function leadersServe(admin: Admin, name: string, partitions: number): Promise<boolean> {
  const questions = Array.from({ length: partitions }, (_, partitionIndex) => {
    return { partitionIndex, timestamp: ListOffsetTimestamps.LATEST };
  });
  return await admin.listOffsets({ topics: [{ name, partitions: questions }] }).then(
    () => true,
    () => false,
  );
}

async function describe(admin: Admin, name: string): Promise<PartitionState[]> {
  const metadata = await admin.metadata({ topics: [name], forceUpdate: true }).catch(() => undefined);
  const partitions = metadata?.topics.get(name)?.partitions ?? [];
  return partitions.map(({ leader, replicas, isr }) => ({ leader, replicas, inSync: isr }));
}
