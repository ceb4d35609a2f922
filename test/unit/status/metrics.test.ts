import { describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LATENCY_BOUNDS_SECONDS } from '../../../src/status/latency-histogram.ts';
import { createMetrics } from '../../../src/status/metrics.ts';
import { reportStream } from '../../../src/status/report.ts';
import { SlotStatus } from '../../../src/status/slot-status.ts';
import { lintExposition, type ParsedFamily, parseExposition } from '../../support/service/exposition.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';
import { createStatus, serverView, streamView } from '../../support/service/statuses.ts';

const PREFIX = 'cdc_notifier_';

const scrape = async (...statuses: SlotStatus[]): Promise<Map<string, ParsedFamily>> => {
  const text = await createMetrics({ statuses, version: '1.2.3', inFlightLimitMs: 30_000 }).metrics();
  return parseExposition(text);
};

/** The values of a family, each under the labels that `by` names. */
const valuesOf = (families: ReadonlyMap<string, ParsedFamily>, name: string, ...by: string[]) =>
  Object.fromEntries(
    families.get(name)!.samples.map(({ labels, value }) => [by.map((label) => labels[label]).join(' '), value]),
  );

/** A stream whose every value is known, at the current time. */
function busyStatus(slot = 'cdc_slot'): SlotStatus {
  const status = createStatus({ slot });
  const failure = { message: 'Cannot', advice: undefined, atMs: 1 };
  for (const reason of ['tls', 'setup', 'tls'] as const) status.noteFailure({ ...failure, reason });
  status.noteResend('NOT_ENOUGH_REPLICAS');
  for (const source of ['catalog', 'ledger']) {
    const warning = { code: 'child_table', subject: source, message: 'Wrong', advice: 'Do' };
    status.warnings.update(source, [warning], recordingLogger().logger);
  }
  status.noteProven();
  status.stream = streamView({
    receivedLsn: 0x2000n,
    flushedLsn: 0x1000n,
    lastInboundMs: performance.now(),
    inFlightSinceMs: performance.now() - 10_000,
    oldestCommitTimeMs: Date.now() - 20_000,
  });
  status.server = serverView({ serverLsn: 0x3000n, safeWalBytes: 777 });
  const { received, converted, produced, parked, skipped } = status.namespaces.get('invoice')!;
  for (const [index, counts] of [received, converted, produced, parked, skipped].entries()) {
    counts.event = 10 * index + 1;
    counts.lifecycle = 10 * index + 2;
  }
  status.receivedBytes = 100;
  status.producedBytes = 200;
  status.producedBatchCount = 300;
  for (const seconds of [0.0004, 0.02, 0.02, 100]) status.produceRoundTrip.observe(seconds);
  return status;
}

describe('createMetrics', () => {
  test('gives every metric its HELP, TYPE and conventional name and unit', async () => {
    const families = await scrape(busyStatus('one'), busyStatus('two'));
    expect(lintExposition(families)).toEqual([]);
    expect(
      Object.fromEntries([...families.values()].map(({ name, type }) => [name.replace(PREFIX, ''), type])),
    ).toEqual({
      rows_received_total: 'counter',
      rows_converted_total: 'counter',
      records_produced_total: 'counter',
      rows_parked_total: 'counter',
      rows_skipped_total: 'counter',
      received_bytes_total: 'counter',
      produced_bytes_total: 'counter',
      produced_batches_total: 'counter',
      commit_receive_seconds: 'histogram',
      commit_acknowledge_seconds: 'histogram',
      produce_round_trip_seconds: 'histogram',
      lag_bytes: 'gauge',
      lag_seconds: 'gauge',
      in_flight_age_seconds: 'gauge',
      slot_retained_wal_bytes: 'gauge',
      slot_safe_wal_bytes: 'gauge',
      reconnects_total: 'counter',
      resends_total: 'counter',
      stream_state: 'gauge',
      slot_warnings: 'gauge',
      stream_ready: 'gauge',
      stream_healthy: 'gauge',
      build_info: 'gauge',
      process_cpu_seconds_total: 'counter',
      process_resident_memory_bytes: 'gauge',
      process_start_time_seconds: 'gauge',
    });
  });

  test('labels every series of a stream with database and slot', async () => {
    const families = await scrape(busyStatus('one'), busyStatus('two'));
    const perStream = [...families.values()].filter(({ name }) => /^cdc_notifier_(?!build_info)/.test(name));
    for (const { name, samples } of perStream) {
      const slots = new Set(samples.map(({ labels: { database, slot } }) => `${database} ${slot}`));
      expect([name, ...slots]).toEqual([name, 'db one', 'db two']);
    }
  });

  test.each([
    ['rows_received_total', 0],
    ['rows_converted_total', 10],
    ['records_produced_total', 20],
    ['rows_parked_total', 30],
    ['rows_skipped_total', 40],
  ])('%s counts by namespace and kind', async (name, base) => {
    expect(valuesOf(await scrape(busyStatus()), PREFIX + name, 'progressor_namespace', 'kind')).toEqual({
      'default/default event': 0,
      'default/default lifecycle': 0,
      'invoice event': base + 1,
      'invoice lifecycle': base + 2,
    });
  });

  test.each([
    ['received_bytes_total', 100],
    ['produced_bytes_total', 200],
    ['produced_batches_total', 300],
    ['lag_bytes', 0x2000],
    ['slot_retained_wal_bytes', 4096],
    ['slot_safe_wal_bytes', 777],
    ['stream_ready', 1],
    ['stream_healthy', 0],
  ])('%s is %d', async (name, value) => {
    expect(valuesOf(await scrape(busyStatus()), PREFIX + name, 'slot')).toEqual({ cdc_slot: value });
  });

  test.each([
    ['lag_seconds', 20],
    ['in_flight_age_seconds', 10],
  ])('%s ages, in seconds', async (name, atLeast) => {
    const { cdc_slot: value } = valuesOf(await scrape(busyStatus()), PREFIX + name, 'slot');
    expect(value).toBeGreaterThanOrEqual(atLeast);
    expect(value).toBeLessThan(atLeast + 60);
  });

  test('has no sample for what is not known', async () => {
    const families = await scrape(new SlotStatus({ database: 'db', slot: 's', namespaces: [] }));
    const empty = [...families.values()].filter(({ samples }) => samples.length === 0);
    expect(empty.map(({ name }) => name.replace(PREFIX, '')).sort()).toEqual([
      'in_flight_age_seconds',
      'lag_bytes',
      'lag_seconds',
      'reconnects_total',
      'records_produced_total',
      'resends_total',
      'rows_converted_total',
      'rows_parked_total',
      'rows_received_total',
      'rows_skipped_total',
      'slot_retained_wal_bytes',
      'slot_safe_wal_bytes',
      'slot_warnings',
    ]);
  });

  test('counts reconnects by reason', async () => {
    const families = await scrape(busyStatus());
    expect(valuesOf(families, `${PREFIX}reconnects_total`, 'reason')).toEqual({ tls: 2, setup: 1 });
    expect(valuesOf(families, `${PREFIX}resends_total`, 'reason')).toEqual({ NOT_ENOUGH_REPLICAS: 1 });
    expect(valuesOf(families, `${PREFIX}slot_warnings`, 'code')).toEqual({ child_table: 2 });
  });

  test('has one state of each stream at 1', async () => {
    const status = busyStatus();
    const states = ['starting', 'standby', 'streaming', 'retrying', 'needs_operator', 'closed'] as const;
    for (const state of states) {
      status.enter(state);
      const none = Object.fromEntries(states.map((one) => [one, 0]));
      expect(valuesOf(await scrape(status), `${PREFIX}stream_state`, 'state')).toEqual({ ...none, [state]: 1 });
    }
  });

  test('reports readiness as /ready does', async () => {
    const status = busyStatus();
    status.stream = streamView({ lastInboundMs: performance.now(), inFlightSinceMs: performance.now() - 31_000 });
    expect(valuesOf(await scrape(status), `${PREFIX}stream_ready`, 'slot')).toEqual({ cdc_slot: 0 });
  });

  test('adds the buckets of a histogram up', async () => {
    const { samples } = (await scrape(busyStatus())).get(`${PREFIX}produce_round_trip_seconds`)!;
    const bucket = (le: string) => samples.find(({ labels }) => labels.le === le)!.value;
    expect(samples).toHaveLength(LATENCY_BOUNDS_SECONDS.length + 3);
    expect(['0.0005', '0.01', '0.025', '60', '+Inf'].map(bucket)).toEqual([1, 1, 3, 3, 4]);
    expect(samples.slice(-2).map(({ name, value }) => [name.replace(PREFIX, ''), value])).toEqual([
      ['produce_round_trip_seconds_sum', 100.0404],
      ['produce_round_trip_seconds_count', 4],
    ]);
  });

  test('reads the statuses at each scrape and keeps nothing', async () => {
    const status = busyStatus();
    const registry = createMetrics({ statuses: [status], version: '1.2.3', inFlightLimitMs: 30_000 });
    const read = async () =>
      valuesOf(parseExposition(await registry.metrics()), `${PREFIX}received_bytes_total`, 'slot');
    expect(await read()).toEqual({ cdc_slot: 100 });
    status.receivedBytes++;
    expect(await read()).toEqual({ cdc_slot: 101 });
    expect(await read()).toEqual({ cdc_slot: 101 });
  });

  test('keeps names that need escapes as they are', async () => {
    const status = new SlotStatus({ database: 'a"b\\c\nd', slot: 's', namespaces: ['é/"'] });
    const { samples } = (await scrape(status)).get(`${PREFIX}rows_received_total`)!;
    expect(samples[0]!.labels).toEqual({
      database: 'a"b\\c\nd',
      slot: 's',
      progressor_namespace: 'é/"',
      kind: 'event',
    });
  });

  test('reports versions and process', async () => {
    const families = await scrape();
    expect(families.get(`${PREFIX}build_info`)!.samples).toEqual([
      { name: `${PREFIX}build_info`, labels: { version: '1.2.3', bun_version: Bun.version }, value: 1 },
    ]);
    const single = (name: string) => families.get(name)!.samples[0]!.value;
    expect(Math.abs(single('process_start_time_seconds') - (Date.now() / 1000 - process.uptime()))).toBeLessThan(5);
    expect(single('process_resident_memory_bytes')).toBeGreaterThan(10_000_000);
    expect(single('process_cpu_seconds_total')).toBeGreaterThan(0);
  });

  test('two registries are independent', async () => {
    const [one, two] = await Promise.all([scrape(busyStatus('one')), scrape(busyStatus('two'))]);
    expect(valuesOf(one!, `${PREFIX}stream_ready`, 'slot')).toEqual({ one: 1 });
    expect(valuesOf(two!, `${PREFIX}stream_ready`, 'slot')).toEqual({ two: 1 });
  });
});

test('a standby reports nothing about the slot that it held before', async () => {
  const status = busyStatus();
  status.enter('standby');
  const families = await scrape(status);
  for (const name of ['slot_retained_wal_bytes', 'slot_safe_wal_bytes', 'lag_bytes']) {
    expect([name, families.get(`${PREFIX}${name}`)?.samples ?? []]).toEqual([name, []]);
  }
  expect(reportStream(status, { nowMs: performance.now(), wallMs: Date.now() })).toMatchObject({
    receivedLsn: null,
    flushedLsn: null,
    walStatus: null,
    safeWalBytes: null,
    activePid: null,
  });
});

test('the text is what it was with prom-client 15, byte for byte', async () => {
  const silent = new SlotStatus({ database: 'a"b\\c\nd', slot: 's', namespaces: ['é/"'] });
  const busy = busyStatus();
  busy.stream = streamView({ receivedLsn: 0x2000n, flushedLsn: 0x1000n, lastInboundMs: performance.now() });
  const options = { statuses: [silent, busy], version: '1.2.3', inFlightLimitMs: 30_000 };
  const registry = createMetrics(options);
  const text = await registry.metrics();
  const steady = text
    .replace(/^(process_\w+) [\d.]+$/gm, '$1 0')
    .replace(`bun_version="${Bun.version}"`, 'bun_version="0"');
  expect(steady).toBe(readFileSync(join(import.meta.dirname, '../../fixtures/exposition.txt'), 'utf8'));
  expect(registry.contentType).toBe('text/plain; version=0.0.4; charset=utf-8');
});
