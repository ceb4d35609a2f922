/**
 * A real Apache Kafka broker for tests: one KRaft node, broker and controller in one Java process, on 127.0.0.1 and free
 * ports. Its jars are fetched once from Maven Central and kept in `.cache/`. `cluster.ts` starts several nodes.
 */

import { freePort } from '../network/ports.ts';
import { waitFor } from '../process/wait.ts';
import { AUTHORIZER_SETTINGS, type KafkaAccess, kafkaAccess } from './access.ts';
import { createNode, type KafkaNode, type NodeOptions } from './node/node.ts';
import { type KafkaTopics, kafkaTopics, withAdmin } from './topics.ts';

/** The versions that tests use, from old to new; the Makefile fetches them. */
export const KAFKA_VERSIONS = ['3.9.2', '4.3.0', '4.4.0'] as const;

export const [OLDEST_KAFKA_VERSION, , NEWEST_KAFKA_VERSION] = KAFKA_VERSIONS;

/** The version that tests and the demo use by default. */
export const KAFKA_VERSION = '4.3.0';

/** Options of `startKafka`. */
export interface KafkaOptions extends Omit<NodeOptions, 'version'> {
  /** Default `KAFKA_VERSION` */
  readonly version?: string | undefined;
  /** True: users of the TLS listener need the ACLs that `access.allow` creates; the plaintext listeners need none */
  readonly authorizer?: boolean | undefined;
}

/** A running broker; disposal kills it and removes its data. */
export interface KafkaServer extends KafkaNode, KafkaTopics {
  /** ACLs and passwords of the users of the TLS listener */
  readonly access: KafkaAccess;
}

/** Starts a broker and waits until it serves requests. */
export async function startKafka(options: KafkaOptions = {}): Promise<KafkaServer> {
  const { version = KAFKA_VERSION, authorizer = false, settings = {} } = options;
  const identity = { id: 1, controllerPort: await freePort() };
  const node = await createNode(identity, {
    ...options,
    version,
    settings: { ...(authorizer ? AUTHORIZER_SETTINGS : {}), ...settings },
    voters: [identity],
  });
  const startNode = node.start;
  const start = async (): Promise<void> => {
    await startNode();
    await waitForMember(node);
  };
  const server = Object.assign(node, kafkaTopics([node.bootstrap], 1), {
    access: kafkaAccess(node.port),
    start,
  });
  try {
    await server.start();
    return server;
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
}

/** Resolves when a node that was started lists itself in its cluster's metadata. */
export async function waitForMember({ id, bootstrap }: KafkaNode): Promise<void> {
  await withAdmin([bootstrap], (admin) =>
    waitFor('the broker in its own metadata', async () => {
      const metadata = await admin.metadata({ topics: [], forceUpdate: true }).catch(() => undefined);
      return metadata?.brokers.has(id);
    }),
  );
}
