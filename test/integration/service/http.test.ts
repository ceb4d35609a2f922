/** What a running service reports over HTTP while its servers fail and recover. Real servers. */
import { afterAll, beforeAll, expect, test } from 'bun:test';
import { parseLsn } from '../../../src/lsn.ts';
import type {
  HealthReport,
  ReadinessReport,
  StreamHealthReport,
  StreamReadinessReport,
  StreamReport,
} from '../../../src/status/report.ts';
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

const openFixture = () => openStreamFixture({ postgres, kafka, slots: { one: [ONE], two: [TWO] } });

/** A service and a client of its HTTP listener. */
interface ObservedService {
  readonly service: InProcessService;
  get(path: string): Promise<Response>;
  /** The body of `/ready`, after a check of its status code, with the report of one slot of the fixture */
  ready(slotName?: string): Promise<ReadinessReport & { readonly stream: StreamReadinessReport }>;
  /** The body of `/health`, likewise */
  health(slotName?: string): Promise<HealthReport & { readonly stream: StreamHealthReport }>;
  status(slotName?: string): Promise<StreamReport>;
  metrics(): Promise<Map<string, ParsedFamily>>;
  /** Sum of the samples with these labels */
  metric(name: string, labels?: Readonly<Record<string, string>>): Promise<number>;
}

async function start(
  fixture: StreamFixture,
  options: StartOptions = {},
  inFlightLimitMs = 30_000,
): Promise<ObservedService> {
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
    async health(slotName = 'one') {
      const response = await get('/health');
      const report = (await response.json()) as HealthReport;
      expect(response.status).toBe(report.healthy ? 200 : 503);
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

/** Resolves when every stream is ready; a timeout says why they were not. */
async function becomesReady(observed: ObservedService): Promise<void> {
  let last: ReadinessReport | undefined;
  const isReady = async () => {
    last = await observed.ready();
    return last.ready;
  };
  await waitFor('readiness', isReady, { timeoutMs: 60_000 }).catch((error: Error) => {
    throw new Error(`${error.message}: ${JSON.stringify(last)}`);
  });
}

test('a service that streams is ready and reports counts and positions', async () => {
  await using fixture = await openFixture();
  const observed = await start(fixture);
  expect(await (await observed.get('/live')).json()).toEqual({ live: true });
  await becomesReady(observed);

  await fixture.commit(async (tx) => {
    await insertProcess(tx, ONE, 'p');
    for (const eventId of [1, 2, 3]) await insertEvent(tx, ONE, 'p', eventId);
  });
  // An update without a record, and one with a record.
  await fixture.commit((tx) => setStatus(tx, ONE, 'p', 'running', 'a detail'));
  await fixture.commit((tx) => setStatus(tx, ONE, 'p', 'error', 'a reason'));
  await fixture.commit((tx) => insertProcess(tx, TWO, 'q'));
  await fixture.confirmed('one');
  await fixture.confirmed('two');

  const counts = (kind: string, namespace = ONE) =>
    Promise.all(
      ['rows_received', 'rows_converted', 'records_produced', 'rows_parked', 'rows_skipped'].map((name) =>
        observed.metric(`${name}_total`, { progressor_namespace: namespace, kind }),
      ),
    );
  expect(await counts('event')).toEqual([3, 3, 3, 0, 0]);
  expect(await counts('lifecycle')).toEqual([3, 2, 2, 0, 0]);
  expect(await counts('event', TWO)).toEqual([0, 0, 0, 0, 0]);
  expect(await counts('lifecycle', TWO)).toEqual([1, 1, 1, 0, 0]);
  expect(lintExposition(await observed.metrics())).toEqual([]);
  for (const name of ['received_bytes', 'produced_bytes', 'produced_batches'])
    expect(await observed.metric(`${name}_total`)).toBeGreaterThan(0);
  for (const name of ['commit_receive', 'commit_acknowledge', 'produce_round_trip']) {
    const { samples } = (await observed.metrics()).get(`cdc_notifier_${name}_seconds`)!;
    const counted = samples.find((one) => one.name.endsWith('_count') && one.labels.slot === fixture.slot('one'))!;
    expect([name, counted.value > 0]).toEqual([name, true]);
  }
  expect(await observed.metric('stream_state', { slot: fixture.slot('one'), state: 'streaming' })).toBe(1);
  expect(await observed.metric('stream_ready')).toBe(1);

  const goal = await fixture.currentLsn();
  const status = await waitFor('the slot as the server shows it', async () => {
    const one = await observed.status();
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

test('a stuck Kafka makes the service unready after in_flight_limit, and the service stays live', async () => {
  await using fixture = await openFixture();
  const observed = await start(fixture, { kafkaSettings: { request_timeout: 120_000 } }, 1_000);
  await becomesReady(observed);
  kafka.pause();
  try {
    await fixture.commit((tx) => insertProcess(tx, ONE, 'p'));
    const { stream } = await waitFor('the end of readiness', async () => {
      const report = await observed.ready();
      expect((await observed.get('/live')).status).toBe(200);
      return report.ready ? undefined : report;
    });
    expect(stream.state).toBe('streaming');
    expect(stream.reasons).toEqual([
      expect.stringMatching(/^Kafka has not acknowledged a row received \S+ s ago; http\.in_flight_limit is 1 s$/),
    ]);
    const status = await observed.status();
    expect(status.oldestInFlightSeconds).toBeGreaterThan(1);
    expect(status.lagSeconds).toBeGreaterThan(1);
    expect(status.lagBytes).toBeGreaterThan(0);
    expect(await observed.metric('in_flight_age_seconds')).toBeGreaterThan(1);
    expect(await observed.metric('stream_ready')).toBe(0);
    // The other slot has nothing in flight.
    expect((await observed.ready('two')).stream).toMatchObject({ ready: true, reasons: [] });
  } finally {
    kafka.resume();
  }
  await becomesReady(observed);
  await fixture.confirmed('one');
  expect(await observed.status()).toMatchObject({ oldestInFlightSeconds: 0, lagSeconds: 0 });
}, 120_000);

test('a row that cannot be converted makes its slot unhealthy with a reason, and no process unready', async () => {
  await using fixture = await openFixture();
  const observed = await start(fixture);
  await becomesReady(observed);
  await fixture.commit((tx) => insertEvent(tx, ONE, 'p', 1, POISON));
  await waitFor('some attempts', async () => (await observed.status()).consecutiveFailures >= 3);
  // Between two attempts as well as in them
  for (let look = 0; look < 20; look++) expect((await observed.ready()).ready).toBe(true);
  const { healthy, stream } = await observed.health();
  expect({ healthy, streamHealthy: stream.healthy }).toEqual({ healthy: false, streamHealthy: false });
  expect(stream.reasons[0]).toMatch(/, after failure \d+ in a row: /);
  const status = await observed.status();
  expect(status.failures).toEqual({ 'invalid-row': status.consecutiveFailures });
  expect(status.lastError?.reason).toBe('invalid-row');
  expect(await observed.metric('reconnects_total')).toBeGreaterThanOrEqual(3);
  expect((await observed.health('two')).stream).toMatchObject({ state: 'streaming', healthy: true });
  expect(await observed.metric('stream_healthy')).toBe(0);
  expect((await observed.get('/live')).status).toBe(200);
}, 120_000);

test('a process that starts while Kafka is away reports the lag of the slot', async () => {
  await using fixture = await openFixture();
  const slots = { one: [ONE] };
  const former = await start(fixture, { slots });
  await becomesReady(former);
  await former.service.stop();
  await fixture.commit((tx) => insertProcess(tx, ONE, 'p'));
  const observed = await start(fixture, { slots, kafkaSettings: { brokers: ['127.0.0.1:1'] } });
  await waitFor('a failed attempt', async () => (await observed.status()).consecutiveFailures > 0);
  expect(await observed.metric('lag_bytes')).toBeGreaterThan(0);
}, 60_000);

test('the second of two processes is a ready standby, and takes over', async () => {
  await using fixture = await openFixture();
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
  // A standby reports null for what it does not know.
  expect(await second.status()).toMatchObject({ lagBytes: null, lagSeconds: null, oldestInFlightSeconds: null });

  await first.service.stop();
  await expect(first.get('/live')).rejects.toThrow();
  await waitFor('the takeover', async () => (await second.ready()).stream.state === 'streaming');
  await becomesReady(second);
}, 120_000);

test('a PostgreSQL that is down makes the service unready with a reason until it is back', async () => {
  await using fixture = await openFixture();
  const observed = await start(fixture);
  await becomesReady(observed);
  await postgres.stop('fast');
  try {
    await waitFor('failed attempts', async () => (await observed.status()).consecutiveFailures >= 2);
    const { ready, stream } = await observed.ready();
    expect({ ready, state: stream.state }).toEqual({ ready: false, state: 'retrying' });
    expect(stream.reasons[0]).toMatch(/^Waiting for the next attempt, after failure \d+ in a row: /);
    expect((await observed.get('/live')).status).toBe(200);
    const { failures, lastError } = await observed.status();
    expect(lastError!.message.length).toBeGreaterThan(0);
    expect(Object.values(failures).reduce((sum, count) => sum + count)).toBeGreaterThanOrEqual(2);
  } finally {
    await postgres.start();
  }
  await becomesReady(observed);
  expect(await observed.status()).toMatchObject({ state: 'streaming', consecutiveFailures: 0 });
}, 120_000);

test('a port in use stops the service at once with an error that names it', async () => {
  await using fixture = await openFixture();
  // The port is shared (reusePort), as another Bun process might do.
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
