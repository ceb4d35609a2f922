/**
 * The metrics, in a registry of prom-client that belongs to nobody else. Nothing is kept here: every value is read from
 * the statuses when somebody scrapes, so that the record path only adds to plain numbers.
 *
 * Names, units and types: https://prometheus.io/docs/practices/naming/. prom-client's default metrics are left out: on
 * Bun most of them are 0 or made up, and measuring the event loop costs 1 % of a core; the three about the process that
 * dashboards know are here by hand.
 */
import { type Metric, Registry } from 'prom-client';
import { measureLag, presentMoment } from './lag.ts';
import { LATENCY_BOUNDS_SECONDS, type LatencyHistogram } from './latency-histogram.ts';
import { judgeReadiness } from './readiness.ts';
import type { NamespaceCounts, SlotState, SlotStatus } from './slot-status.ts';

/** What the metrics are about. */
export interface MetricsOptions {
  readonly statuses: readonly SlotStatus[];
  /** Of the service */
  readonly version: string;
  /** As `ReadinessOptions` says */
  readonly inFlightLimitMs: number;
}

/** All series of one name. */
interface Family {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly name: string;
  readonly help: string;
  readonly samples: () => Iterable<Sample>;
}

/** One line of the text. */
interface Sample {
  /** Default: the family's */
  readonly metricName?: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Labels and value of a sample that bears its family's name; without a value there is no sample. */
type Reading = readonly [labels: Readonly<Record<string, string>>, value: number | undefined];

const STATES: readonly SlotState[] = ['starting', 'standby', 'streaming', 'retrying', 'needs_operator', 'closed'];

const ROW_COUNTERS: readonly (readonly [count: keyof NamespaceCounts, name: string, help: string])[] = [
  ['received', 'rows_received', 'Row changes received'],
  ['converted', 'rows_converted', 'Row changes that became a record'],
  ['produced', 'records_produced', 'Records that Kafka has acknowledged'],
  ['parked', 'rows_parked', 'Row changes that went to the parking topic, acknowledged there'],
  ['skipped', 'rows_skipped', 'Updates without their old tuple that were passed over'],
];

/** Makes the registry; `metrics()` of it gives the text, `contentType` its type. */
export function createMetrics(options: MetricsOptions): Registry {
  const registry = new Registry();
  for (const family of [...describeStreams(options), ...describeProcess(options.version)]) {
    const { samples, ...head } = family;
    const get = async () => ({ ...head, aggregator: 'sum', values: [...samples()] });
    // The registry asks a metric for its name and `get` alone; its type names the classes that count by themselves.
    registry.registerMetric({ ...head, get } as unknown as Metric);
  }
  return registry;
}

function describeStreams({ statuses, inFlightLimitMs }: MetricsOptions): Family[] {
  const family = (type: 'counter' | 'gauge', name: string, help: string, read: (status: SlotStatus) => Reading[]) => ({
    type,
    name: `cdc_notifier_${name}`,
    help,
    *samples(): Iterable<Sample> {
      for (const status of statuses) {
        for (const [labels, value] of read(status)) {
          if (value !== undefined) yield { labels: { ...labelsOf(status), ...labels }, value };
        }
      }
    },
  });
  const counter = (name: string, help: string, read: (status: SlotStatus) => number) =>
    family('counter', `${name}_total`, help, (status) => [[{}, read(status)]]);
  const gauge = (name: string, help: string, read: (status: SlotStatus) => number | undefined) =>
    family('gauge', name, help, (status) => [[{}, read(status)]]);
  const histogram = (name: string, help: string, read: (status: SlotStatus) => LatencyHistogram): Family => ({
    type: 'histogram',
    name: `cdc_notifier_${name}`,
    help,
    samples: () =>
      statuses.flatMap((status) => sampleHistogram(`cdc_notifier_${name}`, labelsOf(status), read(status))),
  });
  const lag = (status: SlotStatus) => measureLag(status, presentMoment());
  const isReady = (status: SlotStatus) => judgeReadiness(status, { ...presentMoment(), inFlightLimitMs }).ready;

  return [
    ...ROW_COUNTERS.map(([count, name, help]) =>
      family('counter', `${name}_total`, help, ({ namespaces }) =>
        [...namespaces].flatMap(([namespace, counts]): Reading[] => [
          [{ progressor_namespace: namespace, kind: 'event' }, counts[count].event],
          [{ progressor_namespace: namespace, kind: 'lifecycle' }, counts[count].lifecycle],
        ]),
      ),
    ),
    counter('received_bytes', 'Bytes received from the walsender', (status) => status.receivedBytes),
    counter('produced_bytes', 'Bytes of record batches that Kafka answered for', (status) => status.producedBytes),
    counter('produced_batches', 'Record batches that Kafka answered for', (status) => status.producedBatchCount),
    histogram('commit_receive_seconds', 'From a commit to the receipt of it', (status) => status.commitReceive),
    histogram(
      'commit_acknowledge_seconds',
      'From a commit until Kafka has acknowledged all up to it',
      (status) => status.commitAcknowledge,
    ),
    histogram(
      'produce_round_trip_seconds',
      'From a Produce request to its answer',
      (status) => status.produceRoundTrip,
    ),
    gauge('lag_bytes', 'WAL that Kafka has not acknowledged', (status) => lag(status).bytes),
    gauge('lag_seconds', 'Age of the oldest commit that is received and not confirmed', (status) =>
      inSeconds(lag(status).ms),
    ),
    gauge('in_flight_age_seconds', 'Age of the oldest thing that Kafka has not acknowledged', (status) =>
      inSeconds(lag(status).inFlightMs),
    ),
    gauge(
      'slot_retained_wal_bytes',
      'WAL that the server keeps for the slot',
      (status) => status.server?.retainedWalBytes,
    ),
    gauge(
      'slot_safe_wal_bytes',
      'WAL that may be written before the slot is in danger; absent without a limit',
      (status) => status.server?.safeWalBytes,
    ),
    family('counter', 'reconnects_total', 'Failed attempts to stream, each followed by another', ({ failureCounts }) =>
      Array.from(failureCounts, ([reason, count]): Reading => [{ reason }, count]),
    ),
    family(
      'counter',
      'resends_total',
      "Requests to produce that were repeated, by Kafka's name of why",
      ({ resendCounts }) => Array.from(resendCounts, ([reason, count]): Reading => [{ reason }, count]),
    ),
    family('gauge', 'stream_state', '1 for the state that the stream is in', (status) =>
      STATES.map((state): Reading => [{ state }, state === status.state ? 1 : 0]),
    ),
    gauge('stream_ready', '1 when /ready counts the stream as ready', (status) => (isReady(status) ? 1 : 0)),
  ];
}

/** Names of the conventional process metrics: https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics */
function describeProcess(version: string): Family[] {
  const single = (labels: Reading[0], read: () => number) => () => [{ labels, value: read() }];
  const startedAtSeconds = Date.now() / 1000 - process.uptime();
  return [
    {
      type: 'gauge',
      name: 'cdc_notifier_build_info',
      help: 'Always 1; its labels tell what runs',
      samples: single({ version, bun_version: Bun.version }, () => 1),
    },
    {
      type: 'counter',
      name: 'process_cpu_seconds_total',
      help: 'User and system CPU time',
      samples: single({}, () => {
        const { user, system } = process.cpuUsage();
        return (user + system) / 1e6;
      }),
    },
    {
      type: 'gauge',
      name: 'process_resident_memory_bytes',
      help: 'Resident memory',
      samples: single({}, process.memoryUsage.rss),
    },
    {
      type: 'gauge',
      name: 'process_start_time_seconds',
      help: 'Start of the process, since 1970',
      samples: single({}, () => startedAtSeconds),
    },
  ];
}

function labelsOf({ database, slot }: SlotStatus): Record<string, string> {
  return { database, slot };
}

/** Buckets of Prometheus are cumulative; ours are not. */
function sampleHistogram(name: string, labels: Record<string, string>, histogram: LatencyHistogram): Sample[] {
  const samples: Sample[] = [];
  let count = 0;
  for (const [index, bucketCount] of histogram.counts.entries()) {
    count += bucketCount;
    const le = String(LATENCY_BOUNDS_SECONDS[index] ?? '+Inf');
    samples.push({ metricName: `${name}_bucket`, labels: { ...labels, le }, value: count });
  }
  samples.push({ metricName: `${name}_sum`, labels, value: histogram.sumSeconds });
  samples.push({ metricName: `${name}_count`, labels, value: count });
  return samples;
}

function inSeconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}
