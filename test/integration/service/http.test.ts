/** What the running service tells of itself over HTTP, held against what happens to it. Real servers. */
import { afterAll, beforeAll, expect, test } from 'bun:test';
import { parseLsn } from '../../../src/lsn.ts';
import type { ReadinessReport, StreamReadinessReport, StreamReport } from '../../../src/status/report.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { freePort } from '../../support/network/ports.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { lintExposition, type ParsedFamily, parseExposition } from '../../support/service/exposition.ts';
import { type InProcessService, startInProcessService } from '../../support/service/in-process.ts';
import {
  insertEvent,
  insertProcess,
  openStreamFixture,
  type StartOptions,
  type StreamFixture,
  setStatus,
} from '../../support/service/stream-fixture.ts';

const ONE = 'default/default';
const TWO = 'invoice';
const POISON = { payload: Buffer.of(131, 255) };

let postgres: PostgresServer;
let kafka: KafkaServer;
beforeAll(async () => {
  const settings = { track_commit_timestamp: 'on', wal_sender_timeout: '2s' };
  [postgres, kafka] = await Promise.all([startPostgres({ settings }), startKafka()]);
}, 120_000);
afterAll(async () => {
  await Promise.all([postgres?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
}, 30_000);

const openScene = () => openStreamFixture({ postgres, kafka, slots: { one: [ONE], two: [TWO] } });

/** A service with its listener. */
interface ToldService {
  readonly service: InProcessService;
  get(path: string): Promise<Response>;
  /** The answer of `/ready`, which has the status that it must have, with what it says of one slot of the fixture */
  ready(slotName?: string): Promise<ReadinessReport & { readonly stream: StreamReadinessReport }>;
  status(slotName?: string): Promise<StreamReport>;
  metrics(): Promise<Map<string, ParsedFamily>>;
  /** Sum of the samples with these labels */
  metric(name: string, labels?: Readonly<Record<string, string>>): Promise<number>;
}

async function start(
  fixture: StreamFixture,
  options: StartOptions = {},
  inFlightLimitMs = 30_000,
): Promise<ToldService> {
  const http = { port: await freePort(), in_flight_limit: inFlightLimitMs };
  const service = fixture.start({ ...options, settings: { ...options.settings, http } });
  const get = (path: string) => fetch(`http://127.0.0.1:${http.port}${path}`);
  const ofSlot = <Of extends { readonly slot: string }>(streams: readonly Of[], slotName: string): Of =>
    streams.find(({ slot }) => slot === fixture.slot(slotName))!;
  const metrics = async () => parseExposition(await (await get('/metrics')).text());
  return {
    service,
    get,
    async ready(slotName = 'one') {
      const response = await get('/ready');
      const report = (await response.json()) as ReadinessReport;
      expect(response.status).toBe(report.ready ? 200 : 503);
      return { ...report, stream: ofSlot(report.streams, slotName) };
    },
    async status(slotName = 'one') {
      const { streams } = (await (await get('/status')).json()) as { streams: StreamReport[] };
      return ofSlot(streams, slotName);
    },
    metrics,
    async metric(name, labels = { slot: fixture.slot('one') }) {
      const { samples } = (await metrics()).get(`cdc_notifier_${name}`)!;
      const isMeant = (of: Readonly<Record<string, string>>) =>
        Object.entries(labels).every(([label, value]) => of[label] === value);
      return samples.filter((sample) => isMeant(sample.labels)).reduce((sum, { value }) => sum + value, 0);
    },
  };
}

/** Resolves when every stream is ready; the error of a wait in vain says why they were not. */
async function becomesReady(told: ToldService): Promise<void> {
  let last: ReadinessReport | undefined;
  const isReady = async () => {
    last = await told.ready();
    return last.ready;
  };
  await waitFor('readiness', isReady, { timeoutMs: 60_000 }).catch((error: Error) => {
    throw new Error(`${error.message}: ${JSON.stringify(last)}`);
  });
}

test('a service that streams is ready, and counts and places what has passed', async () => {
  await using fixture = await openScene();
  const told = await start(fixture);
  expect(await (await told.get('/live')).json()).toEqual({ live: true });
  await becomesReady(told);

  await fixture.commit(async (tx) => {
    await insertProcess(tx, ONE, 'p');
    for (const eventId of [1, 2, 3]) await insertEvent(tx, ONE, 'p', eventId);
  });
  // An update that no record is made of, and one that is.
  await fixture.commit((tx) => setStatus(tx, ONE, 'p', 'running', 'a detail'));
  await fixture.commit((tx) => setStatus(tx, ONE, 'p', 'error', 'a reason'));
  await fixture.commit((tx) => insertProcess(tx, TWO, 'q'));
  await fixture.confirmed('one');
  await fixture.confirmed('two');

  const counts = (kind: string, namespace = ONE) =>
    Promise.all(
      ['rows_received', 'rows_converted', 'records_produced', 'rows_parked', 'rows_skipped'].map((name) =>
        told.metric(`${name}_total`, { progressor_namespace: namespace, kind }),
      ),
    );
  expect(await counts('event')).toEqual([3, 3, 3, 0, 0]);
  expect(await counts('lifecycle')).toEqual([3, 2, 2, 0, 0]);
  expect(await counts('event', TWO)).toEqual([0, 0, 0, 0, 0]);
  expect(await counts('lifecycle', TWO)).toEqual([1, 1, 1, 0, 0]);
  expect(lintExposition(await told.metrics())).toEqual([]);
  for (const name of ['received_bytes', 'produced_bytes', 'produced_batches'])
    expect(await told.metric(`${name}_total`)).toBeGreaterThan(0);
  for (const name of ['commit_receive', 'commit_acknowledge', 'produce_round_trip']) {
    const { samples } = (await told.metrics()).get(`cdc_notifier_${name}_seconds`)!;
    const counted = samples.find((one) => one.name.endsWith('_count') && one.labels.slot === fixture.slot('one'))!;
    expect([name, counted.value > 0]).toEqual([name, true]);
  }
  expect(await told.metric('stream_state', { slot: fixture.slot('one'), state: 'streaming' })).toBe(1);
  expect(await told.metric('stream_ready')).toBe(1);

  const goal = await fixture.currentLsn();
  const status = await waitFor('the slot as the server shows it', async () => {
    const one = await told.status();
    return one.walStatus !== null && parseLsn(one.flushedLsn!) >= goal ? one : undefined;
  });
  const [{ active_pid, wal_status }] = (await fixture.sql`
    SELECT active_pid, wal_status FROM pg_replication_slots WHERE slot_name = ${fixture.slot('one')}`) as [
    { active_pid: number; wal_status: string },
  ];
  expect(status).toMatchObject({
    database: fixture.database,
    state: 'streaming',
    lagSeconds: 0,
    oldestInFlightSeconds: 0,
    lastError: null,
    failures: {},
    consecutiveFailures: 0,
    walStatus: wal_status,
    safeWalBytes: null,
    activePid: active_pid,
    namespaces: { [ONE]: { produced: { event: 3, lifecycle: 2 } } },
  });
  expect(status.retainedWalBytes).toBeGreaterThan(0);
  expect(parseLsn(status.receivedLsn!)).toBeGreaterThanOrEqual(parseLsn(status.flushedLsn!));
}, 120_000);

test('a Kafka that is stuck ends readiness after in_flight_limit, and liveness never', async () => {
  await using fixture = await openScene();
  const told = await start(fixture, { kafkaSettings: { request_timeout: 120_000 } }, 1_000);
  await becomesReady(told);
  kafka.pause();
  try {
    await fixture.commit((tx) => insertProcess(tx, ONE, 'p'));
    const { stream } = await waitFor('the end of readiness', async () => {
      const report = await told.ready();
      expect((await told.get('/live')).status).toBe(200);
      return report.ready ? undefined : report;
    });
    expect(stream.state).toBe('streaming');
    expect(stream.reasons).toEqual([
      expect.stringMatching(/^Kafka has not acknowledged a row received \S+ s ago; http\.in_flight_limit is 1 s$/),
    ]);
    const status = await told.status();
    expect(status.oldestInFlightSeconds).toBeGreaterThan(1);
    expect(status.lagSeconds).toBeGreaterThan(1);
    expect(status.lagBytes).toBeGreaterThan(0);
    expect(await told.metric('in_flight_age_seconds')).toBeGreaterThan(1);
    expect(await told.metric('stream_ready')).toBe(0);
    // The other slot waits for nothing.
    expect((await told.ready('two')).stream).toMatchObject({ ready: true, reasons: [] });
  } finally {
    kafka.resume();
  }
  await becomesReady(told);
  await fixture.confirmed('one');
  expect(await told.status()).toMatchObject({ oldestInFlightSeconds: 0, lagSeconds: 0 });
}, 120_000);

test('a row that cannot be converted stops its slot: it says so, and the other one stays ready', async () => {
  await using fixture = await openScene();
  const told = await start(fixture);
  await becomesReady(told);
  await fixture.commit((tx) => insertEvent(tx, ONE, 'p', 1, POISON));
  await waitFor('some attempts', async () => (await told.status()).consecutiveFailures >= 3);
  const { ready, stream } = await told.ready();
  expect({ ready, state: stream.state, streamReady: stream.ready }).toEqual({
    ready: false,
    state: 'needs_operator',
    streamReady: false,
  });
  expect(stream.reasons[0]).toMatch(/^Needs an operator, after failure \d+ in a row: /);
  const status = await told.status();
  expect(status.failures).toEqual({ 'invalid-row': status.consecutiveFailures });
  expect(status.lastError?.reason).toBe('invalid-row');
  expect(await told.metric('reconnects_total')).toBeGreaterThanOrEqual(3);
  expect((await told.ready('two')).stream).toMatchObject({ state: 'streaming', ready: true });
  expect((await told.get('/live')).status).toBe(200);
}, 120_000);

test('of two instances the second stands by, is ready, and takes over', async () => {
  await using fixture = await openScene();
  const slots = { one: [ONE] };
  const first = await start(fixture, { slots });
  await becomesReady(first);
  const second = await start(fixture, { slots });
  const { stream } = await waitFor('the standby', async () => {
    const report = await second.ready();
    return report.ready ? report : undefined;
  });
  expect(stream).toMatchObject({ state: 'standby', ready: true, reasons: [] });
  expect(await second.metric('stream_state', { state: 'standby' })).toBe(1);
  // What a standby does not know it does not tell.
  expect(await second.status()).toMatchObject({ lagBytes: null, lagSeconds: null, oldestInFlightSeconds: null });

  await first.service.stop();
  await expect(first.get('/live')).rejects.toThrow();
  await waitFor('the takeover', async () => (await second.ready()).stream.state === 'streaming');
  await becomesReady(second);
}, 120_000);

test('a PostgreSQL that is down ends readiness with its reason, until it is back', async () => {
  await using fixture = await openScene();
  const told = await start(fixture);
  await becomesReady(told);
  await postgres.stop('fast');
  try {
    await waitFor('failed attempts', async () => (await told.status()).consecutiveFailures >= 2);
    const { ready, stream } = await told.ready();
    expect({ ready, state: stream.state }).toEqual({ ready: false, state: 'retrying' });
    expect(stream.reasons[0]).toMatch(/^Waiting for the next attempt, after failure \d+ in a row: /);
    expect((await told.get('/live')).status).toBe(200);
    const { failures, lastError } = await told.status();
    expect(lastError!.message.length).toBeGreaterThan(0);
    expect(Object.values(failures).reduce((sum, count) => sum + count)).toBeGreaterThanOrEqual(2);
  } finally {
    await postgres.start();
  }
  await becomesReady(told);
  expect(await told.status()).toMatchObject({ state: 'streaming', consecutiveFailures: 0 });
}, 120_000);

test('a port in use ends the service at once with a clear error', async () => {
  await using fixture = await openScene();
  // One that would share its port, as another process of Bun might.
  const blocker = Bun.serve({ hostname: '127.0.0.1', port: 0, reusePort: true, fetch: () => new Response() });
  try {
    const settings = { http: { port: blocker.port } };
    const service = startInProcessService(fixture.serviceOptions({ settings }));
    const error = await service.stop().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      name: 'NotifierError',
      message: `Cannot listen for HTTP on 127.0.0.1, port ${blocker.port}`,
    });
    expect(service.log).toEqual([]);
  } finally {
    await blocker.stop(true);
  }
}, 60_000);
