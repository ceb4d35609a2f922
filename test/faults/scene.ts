/**
 * Where faults happen: a database, topics, a workload, the compiled service between them, the journal of the database and
 * the sampler of the slot. What is known at the end of it is judged (verifier.ts).
 */
import type { CompressionType } from '../../src/config/config.ts';
import { describeRecord } from '../support/codecs/record-text.ts';
import type { KafkaProxy } from '../support/kafka/proxy.ts';
import type { KafkaTopics } from '../support/kafka/topics.ts';
import type { PostgresServer } from '../support/postgres/server.ts';
import { freePort } from '../support/process/ports.ts';
import { waitFor } from '../support/process/wait.ts';
import { createNamespace, type Generation, tablesOf } from '../support/progressor/tables.ts';
import { type BinaryLogLine, type RunningBinary, STARTED } from '../support/service/binary.ts';
import {
  createDatabase,
  PASSWORD,
  QUICK,
  ROLE,
  startService,
  type TestDatabase,
  uniqueName,
  waitUntilConfirmed,
} from '../support/service/scenario.ts';
import { ConfirmedSampler } from './confirmed-sampler.ts';
import { Journal } from './journal.ts';
import type { Stage } from './stage.ts';
import type { LostRange, Run } from './verifier.ts';
import { Workload, type WorkloadNamespace } from './workload.ts';

const PARTITIONS = 3;
/** API key of Kafka's request to produce */
export const PRODUCE = 0;
/** Bounds for a machine that has other things to do; a scene that keeps the promise is done long before. */
const CATCH_UP_TIMEOUT_MS = 120_000;
const IN_FLIGHT_LIMIT_MS = 2_000;
const LINE_TIMEOUT_MS = 60_000;
/** Which of them a scene has follows from its seed */
const COMPRESSIONS: readonly CompressionType[] = ['none', 'none', 'none', 'none', 'gzip', 'snappy', 'lz4', 'zstd'];

/** What a scene is made of. */
export interface SceneOptions {
  readonly seed: number;
  /** Topics on three brokers in place of one */
  readonly onCluster?: boolean | undefined;
  /** Keys at the top of the configuration */
  readonly settings?: object | undefined;
}

/** A place in the log of a service. */
export interface Mark {
  readonly service: RunningBinary;
  readonly line: number;
}

/** See the head of this file. */
export interface Scene extends AsyncDisposable {
  readonly stage: Stage;
  readonly kafka: KafkaTopics;
  /** The proxies between the service and the brokers */
  readonly kafkaProxies: readonly KafkaProxy[];
  readonly database: TestDatabase;
  readonly slot: string;
  readonly topics: readonly string[];
  readonly workload: Workload;
  readonly journal: Journal;
  readonly sampler: ConfirmedSampler;
  /** How many partitions each topic has, or had at some time of the run */
  readonly partitionCounts: number[];
  /** What the service was told to give up; faults that lose something on purpose add to it */
  readonly accepted: LostRange[];
  readonly config: { readonly http: { readonly port: number }; readonly [key: string]: unknown };
  /** The service that was started last */
  readonly service: RunningBinary;
  /** Starts the service, in place of one that may still be running, and waits until the slot streams. */
  start(config?: object): Promise<void>;
  /**
   * From now on another process, which the caller has started, is the service of this scene; the caller ends the former.
   * `httpPort` is where it listens, by default where the former did.
   */
  handOver(service: RunningBinary, httpPort?: number): void;
  /** What the service answers to `/ready`: true for 200, false for 503. */
  isReady(): Promise<boolean>;
  /** Resolves when it says that it is not ready; fails when it is not live, or does not run. */
  saysNotReady(): Promise<void>;
  /** Now, in the log of the service */
  mark(): Mark;
  /** Waits for a line of the log behind a mark, also of a service that has taken over since. */
  waitForLine(what: string, isIt: (line: BinaryLogLine) => boolean, since: Mark): Promise<BinaryLogLine>;
  /** Waits until the slot streams again. */
  streamsAgain(since: Mark): Promise<void>;
  /** Resolves when everything that is committed by now is confirmed. */
  confirmed(): Promise<void>;
  /** Ends the workload, waits until everything is confirmed, and tells all that is known of the run. */
  end(): Promise<Run>;
}

/** Makes a database, topics and all else; the service is not started, nothing is written. */
export async function openScene(stage: Stage, options: SceneOptions): Promise<Scene> {
  const { postgres, postgresProxy } = stage;
  const cluster = options.onCluster === true ? await stage.cluster() : undefined;
  const kafka: KafkaTopics = cluster ?? stage.broker;
  const kafkaProxies = (cluster?.nodes ?? [stage.broker]).map(({ proxy }) => proxy as KafkaProxy);
  await using stack = new AsyncDisposableStack();
  const database = stack.use(await createDatabase(postgres));
  const generations: Readonly<Record<string, Generation>> = { 'default/default': 'new', invoice: 'old' };
  const namespaces = Object.entries(generations).map(([namespace, generation]) => {
    const stem = uniqueName('faults');
    return { namespace, generation, eventsinkTopic: `${stem}_eventsink`, lifecycleTopic: `${stem}_lifecycle` };
  });
  for (const { namespace, generation } of namespaces) {
    await createNamespace(database.sql, namespace, generation);
    // Tasks concern neither the service nor the workload.
    const { events } = tablesOf(namespace);
    await database.sql`ALTER TABLE ${database.sql(events)} DROP CONSTRAINT ${database.sql(`${events}_task_id_fkey`)}`;
  }
  const kinds = new Map(
    namespaces.flatMap(({ eventsinkTopic, lifecycleTopic }) => [
      [eventsinkTopic, 'eventsink'] as const,
      [lifecycleTopic, 'lifecycle'] as const,
    ]),
  );
  const topics = [...kinds.keys()];
  const config = { 'message.timestamp.type': 'LogAppendTime' };
  await Promise.all(topics.map((topic) => kafka.createTopic(topic, { partitions: PARTITIONS, config })));

  const slot = uniqueName('cdc_slot');
  const journal = await Journal.create(database.sql, uniqueName('oracle'), namespaces);
  const samplerSql = postgres.sql(database.name, { max: 1, connect_timeout: 2 });
  stack.defer(() => samplerSql.end({ timeout: 0 }));
  const sampler = stack.use(new ConfirmedSampler(samplerSql, slot));
  const workload = stack.use(
    new Workload({
      connection: {
        host: postgres.host,
        port: postgres.port,
        database: database.name,
        username: ROLE,
        password: PASSWORD,
      },
      namespaces: namespaces.map(({ namespace, generation }): WorkloadNamespace => ({ namespace, generation })),
      seed: options.seed,
    }),
  );
  const streams = Object.fromEntries(
    namespaces.map(({ namespace, eventsinkTopic, lifecycleTopic }) => [
      namespace,
      { kafka_client: 'main', eventsink_topic: eventsinkTopic, lifecycle_topic: lifecycleTopic },
    ]),
  );
  const wholeConfig = {
    databases: { db: { ...database.config, host: postgresProxy.host, port: postgresProxy.port } },
    kafka_clients: {
      main: {
        brokers: kafkaProxies.map(({ host, port }) => `${host}:${port}`),
        request_timeout: 2000,
        connect_timeout: 2000,
        metadata_max_age: 2000,
        compression: COMPRESSIONS[options.seed % COMPRESSIONS.length],
      },
    },
    streams: { db: { [slot]: streams } },
    http: { port: await freePort(), in_flight_limit: IN_FLIGHT_LIMIT_MS },
    ...QUICK,
    ...options.settings,
  };
  let service: RunningBinary | undefined;
  let httpPort = wholeConfig.http.port;
  /** The status code of an answer; 0 when nobody answers, because the service was killed */
  const ask = (path: string): Promise<number> =>
    fetch(`http://127.0.0.1:${httpPort}/${path}`).then(
      ({ status }) => status,
      () => 0,
    );
  /** Whoever waits in vain is told what the service said last. */
  const orTail = <T>(waiting: Promise<T>): Promise<T> =>
    waiting.catch((error: unknown) => {
      const tail = service?.stderr.trimEnd().split('\n').slice(-6).join('\n');
      throw new Error(`${error instanceof Error ? error.message : String(error)}; last lines:\n${tail}`);
    });
  const owned = stack.move();
  const scene: Scene = {
    stage,
    kafka,
    kafkaProxies,
    database,
    slot,
    topics,
    workload,
    journal,
    sampler,
    partitionCounts: [PARTITIONS],
    accepted: [],
    config: wholeConfig,
    get service() {
      if (service === undefined) throw new Error('The service was not started');
      return service;
    },
    async start(own = wholeConfig) {
      await service?.[Symbol.asyncDispose]();
      service = await startService(own);
      httpPort = wholeConfig.http.port;
      await scene.streamsAgain({ service, line: 0 });
    },
    handOver(other, port = httpPort) {
      service = other;
      httpPort = port;
    },
    isReady: async () => (await ask('ready')) === 200,
    async saysNotReady() {
      await waitFor('readiness to fail', async () => (await ask('ready')) === 503);
      if ((await ask('live')) !== 200) throw new Error('The service is not live');
    },
    mark: () => ({ service: scene.service, line: scene.service.lines.length }),
    async waitForLine(what, isIt, since) {
      const find = () => scene.service.lines.slice(scene.service === since.service ? since.line : 0).find(isIt);
      return await orTail(waitFor(what, find, { timeoutMs: LINE_TIMEOUT_MS }));
    },
    async streamsAgain(since) {
      await scene.waitForLine(`the start of ${slot}`, (line) => line.msg === STARTED && line.slot === slot, since);
    },
    confirmed: () => orTail(waitUntilConfirmed(database, slot, { timeoutMs: CATCH_UP_TIMEOUT_MS })),
    async end() {
      await workload.stop();
      await scene.confirmed();
      const records = await kafka.readAll(topics);
      return {
        committed: await journal.read(),
        arrived: records.map((record) => ({
          ...describeRecord(record, kinds.get(record.topic) as 'eventsink' | 'lifecycle'),
          timestampMs: record.timestampMs,
        })),
        samples: sampler.samples,
        partitionCounts: new Map(topics.map((topic) => [topic, scene.partitionCounts])),
        accepted: scene.accepted,
      };
    },
    async [Symbol.asyncDispose]() {
      await service?.[Symbol.asyncDispose]();
      await owned.disposeAsync();
      await dropSlots(postgres, database.name);
    },
  };
  return scene;
}

/** Slots that stay would keep the server from forgetting its WAL. */
async function dropSlots(postgres: PostgresServer, database: string): Promise<void> {
  const sql = postgres.sql('postgres', { max: 1 });
  try {
    await waitFor('the end of the scene', async () => {
      await sql`
        SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = ${database} AND NOT active`;
      return (await sql`SELECT FROM pg_replication_slots WHERE database = ${database}`).length === 0;
    });
  } finally {
    await sql.end({ timeout: 1 });
  }
}
