/** Topics that grow, are deleted or refuse records while the service produces to them. Real servers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { phash2 } from '../../../src/kafka/produce/partitioner.ts';
import type { ReadinessReport } from '../../../src/status/report.ts';
import { encodePayload } from '../../support/codecs/etf.ts';
import { kafkaAccess } from '../../support/kafka/access.ts';
import { startKafkaCluster } from '../../support/kafka/cluster.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { CA_FILE, SERVER_IDENTITY } from '../../support/network/certificates.ts';
import { freePort } from '../../support/network/ports.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import type { InProcessService } from '../../support/service/in-process.ts';
import type { LogLine } from '../../support/service/recording-logger.ts';
import {
  type Emitted,
  event,
  firstOccurrences,
  inOrder,
  insertEvent,
  insertProcess,
  lifecycle,
  openStreamFixture,
  PARTITIONS,
  type StartOptions,
  type StreamFixture,
} from '../../support/service/stream-fixture.ts';

const NS = 'default/default';
const OTHER = 'other';
const USER = 'notifier';
const PASSWORD = 'secret';
const PRODUCE = 0;
const GROWN = 7;
const TIMEOUT_MS = 90_000;
/** Refreshes metadata every 100 ms */
const WATCHFUL = { metadata_max_age: 100 } as const;

let postgres: PostgresServer;
let kafka: KafkaServer;
beforeAll(async () => {
  const secure = { ...SERVER_IDENTITY, users: { [USER]: PASSWORD } };
  [postgres, kafka] = await Promise.all([
    startPostgres({ settings: { track_commit_timestamp: 'on' } }),
    startKafka({ secure, authorizer: true, proxied: true }),
  ]);
}, 120_000);
afterAll(async () => {
  await Promise.all([postgres?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
}, 30_000);

const openFixture = () => openStreamFixture({ postgres, kafka, slots: { one: [NS], two: [OTHER] } });

/** A service, and its answers to `/ready`. */
async function startObserved(fixture: StreamFixture, options: StartOptions) {
  const port = await freePort();
  const service = fixture.start({ ...options, settings: { ...options.settings, http: { port } } });
  const ask = () => fetch(`http://127.0.0.1:${port}/ready`);
  return {
    service,
    isReady: async () => (await ask()).status === 200,
    reasons: async () => ((await (await ask()).json()) as ReadinessReport).streams.flatMap(({ reasons }) => reasons),
  };
}

function partitionOf(id: string, partitions: number): number {
  return phash2(Buffer.from(`${NS} ${id}`)) % partitions;
}

/** Processes whose records move to another partition when the topic grows. */
const MOVING = Array.from({ length: 100 }, (_, index) => `p${index}`)
  .filter((id) => partitionOf(id, PARTITIONS.eventsink) !== partitionOf(id, GROWN))
  .slice(0, 20);

/** Commits one event of each process in one transaction. */
async function writeEvents(
  fixture: StreamFixture,
  eventId: number,
  ids: readonly string[] = MOVING,
): Promise<Emitted[]> {
  const createdAt = await fixture.commit(async (tx) => {
    for (const id of ids) await insertEvent(tx, NS, id, eventId);
  });
  return ids.map((id) => event(NS, id, { eventId, createdAt }));
}

function eventIdOf({ value }: Emitted): number {
  return Number((value as { event_id: bigint }).event_id);
}

/** Records without their partition, sorted by event id within a key. */
function anywhere(records: readonly Emitted[]): Emitted[] {
  const placed = records.map((record) => ({ ...record, partition: 0 }));
  return inOrder(placed.sort((one, other) => eventIdOf(one) - eventIdOf(other)));
}

/** The number of partitions by which each transaction was partitioned, oldest first; its records must agree. */
function modulusByTransaction(emitted: readonly Emitted[]): number[] {
  const byTransaction = Map.groupBy(emitted, eventIdOf);
  const moduli: number[] = [];
  for (const [eventId, records] of [...byTransaction].sort(([one], [other]) => one - other)) {
    const fits = (modulus: number) =>
      records.every(({ key, partition }) => partition === phash2(Buffer.from(key)) % modulus);
    const found = [PARTITIONS.eventsink, GROWN].find(fits);
    if (found === undefined)
      throw new Error(`Records of transaction ${eventId} were partitioned by different numbers of partitions`);
    moduli.push(found);
  }
  return moduli;
}

const isChange = ({ msg }: LogLine) => msg.startsWith('the partition count of a topic has changed');
const isRenewal = ({ reason }: LogLine) => reason === 'changed topic';

describe('a topic with more partitions than before', () => {
  test(
    'is adopted between two transactions, with a log line, each record once and in order',
    async () => {
      await using fixture = await openFixture();
      const { eventsink_topic: topic } = fixture.topics(NS);
      const service = fixture.start({ kafkaSettings: WATCHFUL });
      await fixture.confirmed('one');
      const expected: Emitted[] = [];
      let eventId = 0;
      const writeMore = async (count: number) => {
        for (let index = 0; index < count; index++) expected.push(...(await writeEvents(fixture, ++eventId)));
      };
      await writeMore(10);
      // These are partitioned by the former number.
      await fixture.confirmed('one');
      const growing = kafka.setPartitions(topic, GROWN);
      const isFollowed = () => service.log.find(isRenewal);
      while (isFollowed() === undefined && eventId < 2_000) await writeMore(1);
      await growing;
      await writeMore(10);
      await fixture.confirmed('one');

      const emitted = await fixture.emitted(NS);
      expect(anywhere(emitted)).toEqual(anywhere(expected));
      const moduli = modulusByTransaction(emitted);
      expect(moduli).toEqual(moduli.toSorted((one, other) => one - other));
      expect([moduli[0], moduli.at(-1)]).toEqual([PARTITIONS.eventsink, GROWN]);
      expect(service.log.filter(isChange)).toMatchObject([
        { level: 'warn', slot: fixture.slot('one'), topic, fromPartitions: PARTITIONS.eventsink, toPartitions: GROWN },
      ]);
      expect(service.failures()).toEqual([]);
      // The other slot has not started a new session.
      const started = service.log.filter(
        ({ msg, slot }) => msg === 'replication started' && slot === fixture.slot('two'),
      );
      expect(started).toHaveLength(1);
    },
    TIMEOUT_MS,
  );

  test(
    'is adopted when everything is acknowledged, also when it was noticed within a large transaction',
    async () => {
      await using fixture = await openFixture();
      const { eventsink_topic: topic } = fixture.topics(NS);
      const { port } = kafka.proxy!;
      // Another name of the same address: metadata requests get a connection of their own, which the gate does not hold.
      const brokers = [`localhost:${port}`];
      const service = fixture.start({ kafkaSettings: { ...WATCHFUL, brokers, request_timeout: 120_000 } });
      await fixture.confirmed('one');
      const expected = await writeEvents(fixture, 1);
      await fixture.confirmed('one');
      let heldCount = 0;
      const gate = kafka.proxy!.onRequest(PRODUCE, () => {
        heldCount++;
        return 'hold';
      });
      try {
        // Larger than the in-flight budget: its Commit has not been read when the topic grows.
        const payload = encodePayload({ bin: Buffer.alloc(10_000, 0x61) });
        const createdAt = await fixture.commit(
          (tx) => tx`
            INSERT INTO ${tx(tablesOf(NS).events)} (process_id, task_id, event_id, "timestamp", payload)
            SELECT id, 1, i, NULL, ${payload}
            FROM generate_series(2, 61) i, unnest(${MOVING as string[]}::text[]) WITH ORDINALITY AS ids (id, place)
            ORDER BY i, place`,
        );
        await waitFor('a request to produce', () => heldCount > 0);
        await kafka.setPartitions(topic, GROWN);
        await waitFor('the change', () => service.log.find(isChange));
        const later = await writeEvents(fixture, 62);
        expect(service.log.filter(isRenewal)).toEqual([]);
        gate.release();
        await fixture.confirmed('one');
        const emitted = await fixture.emitted(NS);
        const large = MOVING.flatMap((id) =>
          Array.from({ length: 60 }, (_, index) => event(NS, id, { eventId: index + 2, createdAt })),
        );
        const withoutData = (records: readonly Emitted[]) =>
          anywhere(records).map((record) => ({ ...record, value: { ...(record.value as object), data: undefined } }));
        expect(withoutData(emitted)).toEqual(withoutData([...expected, ...large, ...later]));
        expect(modulusByTransaction(emitted)).toEqual([
          ...Array.from({ length: 61 }, () => PARTITIONS.eventsink),
          GROWN,
        ]);
        expect(service.failures()).toEqual([]);
      } finally {
        gate.release();
      }
    },
    TIMEOUT_MS,
  );
});

test(
  'a deleted topic stops only its slot, with a clear error, until it is created again with any number of partitions',
  async () => {
    await using fixture = await openFixture();
    const { eventsink_topic: topic } = fixture.topics(NS);
    const service = fixture.start({ settings: { max_retries: 1 } });
    await fixture.confirmed('one');
    await writeEvents(fixture, 1);
    await fixture.confirmed('one');
    for (const [round, partitions] of [6, 2].entries()) {
      const eventId = 10 * (round + 1);
      await kafka.deleteTopic(topic);
      const expected = await writeEvents(fixture, eventId);
      const written = await fixture.currentLsn();
      const failed = service.failures(fixture.slot('one')).length;
      const error = await service.waitForFailure(fixture.slot('one'), failed + 3);
      expect(error).toMatchObject({
        name: 'SinkError',
        message: `Cannot use topic "${topic}": UNKNOWN_TOPIC_OR_PARTITION`,
        advice: expect.stringContaining('Create the topic'),
        place: { slot: fixture.slot('one'), topic },
      });
      expect(await fixture.confirmedLsn('one')).toBeLessThan(written);
      await fixture.commit((tx) => insertProcess(tx, OTHER, `other ${round}`));
      await fixture.confirmed('two');
      expect(service.failures(fixture.slot('two'))).toEqual([]);

      await kafka.createTopic(topic, { partitions });
      await fixture.confirmed('one');
      expected.push(...(await writeEvents(fixture, eventId + 1)));
      await fixture.confirmed('one');
      const placed = expected.map((record) => ({ ...record, partition: phash2(Buffer.from(record.key)) % partitions }));
      expect(firstOccurrences(await fixture.emitted(NS))).toEqual(inOrder(placed));
    }
  },
  TIMEOUT_MS,
);

test(
  'a revoked right to write stops only its slot, which continues when the right is granted again',
  async () => {
    await using fixture = await openFixture();
    const topics = [NS, OTHER].flatMap((namespace) => Object.values(fixture.topics(namespace)) as string[]);
    const right = (topic: string, operation: 'DESCRIBE' | 'WRITE') => ({ user: USER, operation, topic });
    await kafka.access.allow(...topics.flatMap((topic) => [right(topic, 'DESCRIBE'), right(topic, 'WRITE')]));
    const service = fixture.start({
      kafkaSettings: {
        brokers: [kafka.secureBootstrap],
        tls: { ca: CA_FILE },
        sasl: { mechanism: 'SCRAM-SHA-512', username: USER, password: PASSWORD },
      },
    });
    await fixture.confirmed('one');
    const expected = await writeEvents(fixture, 1, ['p', 'q']);
    await fixture.confirmed('one');
    const { eventsink_topic: topic } = fixture.topics(NS);
    await kafka.access.withdraw(right(topic, 'WRITE'));
    const createdAt = await fixture.commit(async (tx) => {
      await insertProcess(tx, NS, 'p');
      await insertEvent(tx, NS, 'p', 2);
    });
    const written = await fixture.currentLsn();
    await service.waitForFailure(fixture.slot('one'), 3);
    const [first, second] = service.failures(fixture.slot('one'));
    const refused = { name: 'SinkError', advice: expect.stringContaining('WRITE and DESCRIBE'), place: { topic } };
    expect(first).toMatchObject({
      ...refused,
      message: expect.stringContaining('TOPIC_AUTHORIZATION_FAILED after 1 attempts'),
    });
    // From then on nothing is sent, so nothing is repeated in the topics that may be written to.
    expect(second).toMatchObject({ ...refused, message: `Cannot use topic "${topic}": TOPIC_AUTHORIZATION_FAILED` });
    const otherAt = await fixture.commit((tx) => insertProcess(tx, OTHER, 'other'));
    await fixture.confirmed('two');
    expect(service.failures(fixture.slot('two'))).toEqual([]);
    expect(await fixture.confirmedLsn('one')).toBeLessThan(written);
    expect((await fixture.emitted(NS)).filter(({ kind }) => kind === 'eventsink')).toEqual(inOrder(expected));

    await kafka.access.allow(right(topic, 'WRITE'));
    await fixture.confirmed('one');
    expected.push(event(NS, 'p', { eventId: 2, createdAt }), lifecycle(NS, 'p', 'created', createdAt));
    expected.push(...(await writeEvents(fixture, 3, ['p'])), lifecycle(OTHER, 'other', 'created', otherAt));
    await fixture.confirmed('one');
    expect(firstOccurrences(await fixture.emitted())).toEqual(inOrder(expected));
  },
  TIMEOUT_MS,
);

test(
  'a standby that could not deliver is not ready, says why once, and leaves the slot to the process that can',
  async () => {
    await using fixture = await openFixture();
    const topics = [NS, OTHER].flatMap((namespace) => Object.values(fixture.topics(namespace)) as string[]);
    const right = (topic: string, operation: 'DESCRIBE' | 'WRITE') => ({ user: USER, operation, topic });
    const forbidden = fixture.topics(NS).eventsink_topic;
    const missing = `${forbidden}-of-the-new-configuration`;
    await kafka.access.allow(...topics.flatMap((topic) => [right(topic, 'DESCRIBE'), right(topic, 'WRITE')]));
    await kafka.access.allow(right(missing, 'DESCRIBE'), right(missing, 'WRITE'));
    await kafka.access.withdraw(right(forbidden, 'WRITE'));

    const secured = (password: string, brokers = [kafka.secureBootstrap]) => ({
      kafkaSettings: { brokers, tls: { ca: CA_FILE }, sasl: { mechanism: 'SCRAM-SHA-512', username: USER, password } },
    });
    const slots = { one: [NS] };
    const holder = await startObserved(fixture, { slots });
    await waitFor('the slot holder', holder.isReady);
    const topicOf = { [NS]: { eventsink_topic: missing } };
    const standbys = {
      SASL_AUTHENTICATION_FAILED: await startObserved(fixture, { slots, ...secured('wrong') }),
      UNKNOWN_TOPIC_OR_PARTITION: await startObserved(fixture, { slots, namespaceSettings: topicOf }),
      TOPIC_AUTHORIZATION_FAILED: await startObserved(fixture, { slots, ...secured(PASSWORD) }),
      ECONNREFUSED: await startObserved(fixture, { slots, ...secured(PASSWORD, ['127.0.0.1:1']) }),
    };
    for (const [cause, standby] of Object.entries(standbys)) {
      const isUnfit = async () => (await standby.reasons()).some((reason) => reason.includes('could not take'));
      await waitFor(`the standby with ${cause}`, isUnfit);
      // As many checks as it takes to see that the log does not repeat itself
      await Bun.sleep(1_000);
      expect(await standby.isReady()).toBe(false);
      const lines = standby.service.log.filter(({ level }) => level === 'warn');
      expect(lines.map(({ event, error }) => [event, JSON.stringify(error).includes(cause)])).toEqual([
        ['standby_unfit', true],
      ]);
      expect(standby.service.failures()).toEqual([]);
    }
    const expected = await writeEvents(fixture, 1, ['p', 'q']);
    await fixture.confirmed('one');
    expect(await holder.isReady()).toBe(true);

    await kafka.access.allow(right(forbidden, 'WRITE'));
    await kafka.createTopic(missing, { partitions: PARTITIONS.eventsink });
    for (const cause of ['UNKNOWN_TOPIC_OR_PARTITION', 'TOPIC_AUTHORIZATION_FAILED'] as const) {
      const { isReady, service } = standbys[cause];
      await waitFor(`the standby that had ${cause}`, isReady);
      expect(service.log.filter(({ event }) => event === 'standby_fit')).toHaveLength(1);
    }
    expect(firstOccurrences(await fixture.emitted(NS))).toEqual(inOrder(expected));
  },
  TIMEOUT_MS,
);

test(
  'a free slot goes to a standby that can deliver; one that cannot takes it only when no other does, to hold it',
  async () => {
    await using fixture = await openFixture();
    const slots = { one: [NS] };
    const wrong = {
      settings: { reconnect_timeout: 2_000 },
      kafkaSettings: {
        brokers: [kafka.secureBootstrap],
        tls: { ca: CA_FILE },
        sasl: { mechanism: 'SCRAM-SHA-512', username: USER, password: 'wrong' },
      },
    };
    const holder = await startObserved(fixture, { slots });
    await waitFor('the slot holder', holder.isReady);
    const unfit = await startObserved(fixture, { slots, ...wrong });
    await unfit.service.waitForLog('the failed check', ({ event }) => event === 'standby_unfit');
    const fit = await startObserved(fixture, { slots });
    await waitFor('the standby', fit.isReady);
    for (const active of [holder, fit]) {
      const took = () => unfit.service.log.some(({ event }) => event === 'taking_over');
      expect(took()).toBe(false);
      await active.service.stop();
      if (active === holder) {
        await fit.service
          .waitForLog('the takeover', ({ event }) => event === 'replication_started');
      } else {
        await waitFor('the unfit process', took);
      }
    }
    // It tries Kafka again and again, and leaves the slot inactive for no longer than the pause in between.
    await unfit.service.waitForFailure(fixture.slot('one'), 3, { timeoutMs: 30_000 });
    const isHeld = async () => (await fixture.walsender('one')) !== undefined;
    await waitFor('the slot to be held', isHeld, { intervalMs: 1, timeoutMs: 10_000 });
  },
  TIMEOUT_MS,
);

test(
  'another Kafka cluster at the same addresses gets no record, while streaming and after a restart, until it is accepted by name',
  async () => {
    await using fixture = await openFixture();
    // A cluster of its own, as its id changes
    await using cluster = await startKafka();
    const { eventsink_topic, lifecycle_topic } = fixture.topics(NS);
    for (const topic of [eventsink_topic, lifecycle_topic]) await cluster.createTopic(topic, { partitions: 2 });
    const options = { slots: { one: [NS] }, kafkaSettings: { brokers: [cluster.bootstrap] } };
    const service = fixture.start(options);
    await fixture.confirmed('one');
    await writeEvents(fixture, 1, ['p', 'q']);
    await fixture.confirmed('one');
    const count = async () => (await cluster.readAll([eventsink_topic])).length;
    expect(await count()).toBe(2);

    await cluster.stop();
    await writeEvents(fixture, 2, ['p', 'q']);
    const written = await fixture.currentLsn();
    const metaFile = join(cluster.dataDirectory, 'meta.properties');
    const meta = await readFile(metaFile, 'utf8');
    const former = /^cluster\.id=(.*)$/m.exec(meta)![1]!;
    const other = 'AnotherClusterOfTests0';
    await writeFile(metaFile, meta.replace(`cluster.id=${former}`, `cluster.id=${other}`));
    await cluster.start();

    const refusal = {
      code: 'another_cluster',
      message: expect.stringContaining(`Kafka cluster ${other}: the slot delivers to cluster ${former}`),
      advice: expect.stringContaining(`kafka_clients.main.accept_cluster_id: ${other}`),
    };
    const isRefusal = ({ error }: LogLine) => JSON.stringify(error ?? '').includes(`Kafka cluster ${other}`);
    await service.waitForLog('the refusal', isRefusal, { timeoutMs: 60_000 });
    await service.stop();
    // The ledger remembers the cluster for the next process.
    const next = fixture.start(options);
    expect(await next.waitForFailure(fixture.slot('one'), 2)).toMatchObject(refusal);
    await next.stop();
    expect(await count()).toBe(2);
    expect(await fixture.confirmedLsn('one')).toBeLessThan(written);

    const accepting = { ...options, kafkaSettings: { ...options.kafkaSettings, accept_cluster_id: other } };
    const accepted = fixture.start(accepting);
    await fixture.confirmed('one');
    expect(await count()).toBe(4);
    expect(accepted.log.filter(({ event: name }) => name === 'kafka_cluster_accepted')).toHaveLength(1);
  },
  TIMEOUT_MS,
);

test(
  'a topic with too few in-sync replicas is retried until they are back, and nothing is confirmed before',
  async () => {
    await using cluster = await startKafkaCluster();
    const [first, , third] = cluster.nodes;
    const server: KafkaServer = { ...first!, ...cluster, access: kafkaAccess(first!.port) };
    await using fixture = await openStreamFixture({ postgres, kafka: server, slots: { one: [NS] } });
    const { eventsink_topic: topic } = fixture.topics(NS);
    await cluster.configureTopic(topic, { 'min.insync.replicas': '3' });
    const service: InProcessService = fixture.start({
      // A leader that has not noticed the loss accepts the records and waits for the replica until the request times out.
      kafkaSettings: { ...WATCHFUL, brokers: cluster.bootstraps, request_timeout: 3_000 },
      settings: { max_retries: 2 },
    });
    await fixture.confirmed('one');
    const expected = await writeEvents(fixture, 1);
    await fixture.confirmed('one');
    await third!.kill();
    await waitFor('the loss of a replica', async () =>
      (await cluster.describeTopic(topic)).every(({ inSync }) => inSync.length === 2),
    );
    expected.push(...(await writeEvents(fixture, 2)));
    const written = await fixture.currentLsn();
    const isMeant = ({ message }: { readonly message: string }) =>
      message.includes('NOT_ENOUGH_REPLICAS after 3 attempts');
    await waitFor('two sessions that gave up', () => service.failures().filter(isMeant).length >= 2);
    expect(await fixture.confirmedLsn('one')).toBeLessThan(written);
    expected.push(...(await writeEvents(fixture, 3)));

    await third!.start();
    await fixture.confirmed('one', { timeoutMs: 60_000 });
    await cluster.waitUntilInSync([topic]);
    expect(firstOccurrences(await fixture.emitted())).toEqual(inOrder(expected));
    for (const { name } of service.failures()) expect(name).toBe('SinkError');
  },
  2 * TIMEOUT_MS,
);

test(
  'a partition that refuses costs the others one repetition, however often it refuses',
  async () => {
    await using fixture = await openFixture();
    const { lifecycle_topic } = fixture.topics(NS);
    const refuse = (beforeMaxMs: string) =>
      kafka.configureTopic(lifecycle_topic, { 'message.timestamp.before.max.ms': beforeMaxMs });
    const { host, port, latency, heal } = kafka.proxy!;
    const service = fixture.start({
      settings: { max_retries: 0 },
      kafkaSettings: { brokers: [`${host}:${port}`] },
    });
    await service.waitForStart(fixture.slot('one'));
    await writeEvents(fixture, 1);
    await fixture.confirmed('one');

    await refuse('0');
    // A batch that arrives in the millisecond of its timestamp would be accepted.
    latency(10);
    await fixture.commit(async (tx) => {
      for (const id of MOVING) await insertEvent(tx, NS, id, 2);
      await insertProcess(tx, NS, 'refused');
    });
    await service.waitForFailure(fixture.slot('one'), 6);
    await heal();
    await refuse('9223372036854775807');
    await fixture.confirmed('one');
    const events = (await fixture.emitted(NS)).filter(({ kind }) => kind === 'eventsink');
    const counts = [...Map.groupBy(events, (one) => `${one.key} ${eventIdOf(one)}`).values()].map(
      ({ length }) => length,
    );
    expect(counts).toHaveLength(2 * MOVING.length);
    expect(Math.max(...counts)).toBeLessThanOrEqual(2);
    expect(await kafka.countRecords([lifecycle_topic])).toEqual([1]);
  },
  TIMEOUT_MS,
);

test(
  'partitions without a leader cost the others one repetition, however long they are without one',
  async () => {
    await using cluster = await startKafkaCluster();
    const [first, second, third] = cluster.nodes;
    // With one replica each, the partitions of a broker that is gone have no leader.
    const server: KafkaServer = {
      ...first!,
      ...cluster,
      createTopic: (name, options) => cluster.createTopic(name, { ...options, replicas: 1 }),
      access: kafkaAccess(first!.port),
    };
    await using fixture = await openStreamFixture({ postgres, kafka: server, slots: { one: [NS] } });
    const service: InProcessService = fixture.start({
      kafkaSettings: { ...WATCHFUL, brokers: [first!.bootstrap, second!.bootstrap] },
      settings: { max_retries: 0 },
    });
    await service.waitForStart(fixture.slot('one'));
    const expected = await writeEvents(fixture, 1);
    await fixture.confirmed('one');
    const topic = fixture.topics(NS).eventsink_topic;
    const orphaned = new Set(
      (await cluster.describeTopic(topic)).flatMap(({ leader }, partition) =>
        leader === third!.id ? [partition] : [],
      ),
    );
    expect(orphaned.size).toBeGreaterThan(0);

    await third!.kill();
    await waitFor('partitions without a leader', async () => {
      const states = await cluster.describeTopic(topic);
      return [...orphaned].every((partition) => (states[partition]?.leader ?? -1) < 0);
    });
    expected.push(...(await writeEvents(fixture, 2)));
    await service.waitForFailure(fixture.slot('one'), 20, { timeoutMs: 60_000 });
    await third!.start();
    await fixture.confirmed('one', { timeoutMs: 60_000 });
    await cluster.waitUntilInSync([topic]);

    const emitted = await fixture.emitted(NS);
    expect(firstOccurrences(emitted)).toEqual(inOrder(expected));
    const healthy = emitted.filter(({ kind, partition }) => kind === 'eventsink' && !orphaned.has(partition));
    const counts = [...Map.groupBy(healthy, (one) => `${one.key} ${eventIdOf(one)}`).values()].map(
      ({ length }) => length,
    );
    expect(counts.length).toBeGreaterThan(1);
    expect(Math.max(...counts)).toBeLessThanOrEqual(2);
  },
  2 * TIMEOUT_MS,
);
