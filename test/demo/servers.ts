/** The surroundings of the service in the demo: servers, two namespaces with their topics, the configuration file. */
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sql } from 'postgres';
import { stringify } from 'yaml';
import { KAFKA_VERSION, type KafkaServer, startKafka } from '../support/kafka/server.ts';
import { type PostgresMajor, type PostgresServer, startPostgres } from '../support/postgres/server.ts';
import { temporaryDirectory } from '../support/process/temporary-directory.ts';
import { createNamespace } from '../support/progressor/tables.ts';
import { type Screen, step } from './screen.ts';

/** A topic of the demo. */
export interface DemoTopic {
  readonly name: string;
  readonly kind: 'eventsink' | 'lifecycle';
  readonly partitions: number;
}

/** A namespace of the demo and its two topics. */
export interface DemoNamespace {
  readonly namespace: string;
  readonly eventsinkTopic: string;
  readonly lifecycleTopic: string;
}

/** Everything that the service needs; disposal stops the servers and removes the directory. */
export interface DemoServers extends AsyncDisposable {
  readonly directory: string;
  readonly postgres: PostgresServer;
  readonly kafka: KafkaServer;
  readonly configFile: string;
  /** Connected as progressor's role, which owns the tables */
  readonly sql: Sql;
}

/** The name of the replication slot. */
export const SLOT = 'cdc_slot_demo';

/** The namespaces: one with the usual kind of name, and one whose name has to be quoted everywhere. */
export const NAMESPACES: readonly DemoNamespace[] = [
  { namespace: 'default/default', eventsinkTopic: 'default_eventsink', lifecycleTopic: 'default_lifecycle' },
  { namespace: 'invoice', eventsinkTopic: 'invoice_eventsink', lifecycleTopic: 'invoice_lifecycle' },
];

/** Their four topics. */
export const TOPICS: readonly DemoTopic[] = NAMESPACES.flatMap(({ eventsinkTopic, lifecycleTopic }) => [
  { name: eventsinkTopic, kind: 'eventsink', partitions: 6 },
  { name: lifecycleTopic, kind: 'lifecycle', partitions: 4 },
]);

const DATABASE = 'progressor_db';
const ROLE = 'progressor';
const ROLE_PASSWORD = 'demo';

/** Starts the servers and creates role, database, tables and topics; on failure it removes everything again. */
export async function startDemoServers(screen: Screen, major: PostgresMajor): Promise<DemoServers> {
  await using stack = new AsyncDisposableStack();
  const directory = stack.use(await temporaryDirectory('demo'));
  const [postgres, kafka] = await step(screen, `Start PostgreSQL ${major} and Kafka ${KAFKA_VERSION}`, async () => {
    const hba = ['host all all 127.0.0.1/32 scram-sha-256'];
    const started = await Promise.allSettled([startPostgres({ major, hba }), startKafka()]);
    for (const result of started) if (result.status === 'fulfilled') stack.use(result.value);
    const [first, second] = started;
    if (first.status === 'rejected') throw first.reason;
    if (second.status === 'rejected') throw second.reason;
    return [first.value, second.value] as const;
  });
  const sql = await step(
    screen,
    `Create the tables of ${NAMESPACES.map(({ namespace }) => namespace).join(' and ')}`,
    async () => {
      const admin = postgres.sql('postgres', { max: 1 });
      try {
        await admin.unsafe(`CREATE ROLE ${ROLE} LOGIN REPLICATION PASSWORD '${ROLE_PASSWORD}'`);
        await admin.unsafe(`CREATE DATABASE ${DATABASE} OWNER ${ROLE}`);
      } finally {
        await admin.end();
      }
      const client = postgres.sql(DATABASE, { username: ROLE, password: ROLE_PASSWORD, max: 20 });
      stack.defer(() => client.end({ timeout: 1 }));
      for (const { namespace } of NAMESPACES) await createNamespace(client, namespace);
      return client;
    },
  );
  await step(screen, `Create the topics ${TOPICS.map(({ name }) => name).join(', ')}`, async () => {
    await Promise.all(TOPICS.map(({ name, partitions }) => kafka.createTopic(name, { partitions })));
  });
  const configFile = await writeConfiguration(directory.path, postgres, kafka);
  const kept = stack.move();
  return {
    directory: directory.path,
    postgres,
    kafka,
    configFile,
    sql,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

async function writeConfiguration(directory: string, postgres: PostgresServer, kafka: KafkaServer): Promise<string> {
  const passwordFile = join(directory, 'password');
  await writeFile(passwordFile, `${ROLE_PASSWORD}\n`);
  await chmod(passwordFile, 0o600);
  const namespaces = NAMESPACES.map(({ namespace, eventsinkTopic, lifecycleTopic }) => [
    namespace,
    { kafka_client: 'demo_kafka', eventsink_topic: eventsinkTopic, lifecycle_topic: lifecycleTopic },
  ]);
  const configuration = {
    databases: {
      progressor_db: {
        host: postgres.host,
        port: postgres.port,
        database: DATABASE,
        username: ROLE,
        password: { file: passwordFile },
      },
    },
    kafka_clients: { demo_kafka: { brokers: [kafka.bootstrap] } },
    streams: { progressor_db: { [SLOT]: Object.fromEntries(namespaces) } },
    log: { level: 'info', format: 'json' },
  };
  const file = join(directory, 'cdc-notifier.yaml');
  await writeFile(file, stringify(configuration));
  await mkdir(join(directory, 'empty'));
  return file;
}
