/** The servers that scenes are played on, each behind a proxy through which the service reaches it, and nobody else. */

import { type KafkaServer, startKafka } from '../support/kafka/cluster.ts';
import { type KafkaCluster, startKafkaCluster } from '../support/kafka/multi-broker-cluster.ts';
import { type PostgresProxy, startPostgresProxy } from '../support/postgres/proxy.ts';
import { type PostgresMajor, type PostgresServer, startPostgres } from '../support/postgres/server.ts';
import { PASSWORD, ROLE } from '../support/service/scenario.ts';

/** Which versions meet. */
export interface Pair {
  readonly postgres: PostgresMajor;
  readonly kafka: string;
}

/** The servers, for scenes that follow one another. */
export interface Stage extends AsyncDisposable {
  readonly pair: Pair;
  readonly postgres: PostgresServer;
  readonly postgresProxy: PostgresProxy;
  readonly broker: KafkaServer;
  /** Three brokers; started when they are first asked for */
  cluster(): Promise<KafkaCluster>;
}

/** Two slots of each scene and those that a fault adds. */
const MAX_SLOTS = '60';
const POSTGRES_SETTINGS: Readonly<Record<string, string>> = {
  max_replication_slots: MAX_SLOTS,
  max_wal_senders: MAX_SLOTS,
  max_prepared_transactions: '20',
  // Short, so that what waits for it can be waited for.
  wal_sender_timeout: '3s',
};

/** Starts the servers of a pair. */
export async function openStage(pair: Pair): Promise<Stage> {
  await using undo = new AsyncDisposableStack();
  const [postgres, broker] = await Promise.all([
    startPostgres({ major: pair.postgres, settings: POSTGRES_SETTINGS }).then((server) => undo.use(server)),
    startKafka({ version: pair.kafka, proxied: true }).then((server) => undo.use(server)),
  ]);
  const postgresProxy = undo.use(await startPostgresProxy(postgres));
  const admin = postgres.sql('postgres', { max: 1 });
  await admin.unsafe(`CREATE ROLE ${ROLE} LOGIN REPLICATION PASSWORD '${PASSWORD}'`);
  await admin.end();
  const servers = undo.move();
  let cluster: Promise<KafkaCluster> | undefined;
  return {
    pair,
    postgres,
    postgresProxy,
    broker,
    cluster() {
      cluster ??= startKafkaCluster({ version: pair.kafka, proxied: true }).then((started) => servers.use(started));
      return cluster;
    },
    [Symbol.asyncDispose]: () => servers.disposeAsync(),
  };
}
