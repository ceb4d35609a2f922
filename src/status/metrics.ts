/**
 * The metrics, in a registry of their own. Nothing is stored here: every value is read from the statuses on scrape, so the
 * record path only adds to plain numbers.
 *
 * Names, units and types: https://prometheus.io/docs/practices/naming/. The client library's default metrics are left out:
 * on Bun most of them are 0 or made up, and measuring the event loop costs 1 % of a core. The three process metrics that
 * dashboards know are written by hand.
 */
import { type Metric, Registry } from '@prometheus-io/client';
import { measureLag, presentMoment } from './lag.ts';
import { LATENCY_BOUNDS_SECONDS, type LatencyHistogram } from './latency-histogram.ts';
import { judgeHealth, judgeReadiness } from './readiness.ts';
import type { NamespaceCounts, SlotState, SlotStatus } from './slot-status.ts';
import type { SlotWarning } from './slot-warnings.ts';

/** Options of `createMetrics`. */
export interface MetricsOptions {
  readonly statuses: readonly SlotStatus[];
  /** Version of the service */
  readonly version: string;
  /** See `ReadinessOptions` */
  readonly inFlightLimitMs: number;
}

/** All series of one name. */
interface Family {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly name: string;
  readonly help: string;
  readonly samples: () => Iterable<Sample>;
}

/** One line of the exposition. */
interface Sample {
  /** Default: the family's */
  readonly metricName?: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Labels and value of a sample with its family's name; a sample without a value is left out. */
type Reading = readonly [labels: Readonly<Record<string, string>>, value: number | undefined];

const STATES: readonly SlotState[] = ['starting', 'standby', 'streaming', 'retrying', 'needs_operator', 'closed'];

const ROW_COUNTERS: readonly (readonly [count: keyof NamespaceCounts, name: string, help: string])[] = [
  ['received', 'rows_received', 'Row changes received'],
  ['converted', 'rows_converted', 'Row changes converted to a record'],
  ['produced', 'records_produced', 'Records acknowledged by Kafka'],
  ['parked', 'rows_parked', 'Row changes parked, as acknowledged by Kafka in the parking topic'],
  ['skipped', 'rows_skipped', 'Updates skipped because they carry no old tuple'],
];

/** Creates the registry; its `metrics()` returns the exposition, its `contentType` the MIME type. */
export function createMetrics(options: MetricsOptions): Registry {
  const registry = new Registry();
  for (const family of [...describeTraffic(options), ...describeHealth(options), ...describeProcess(options.version)]) {
    const { samples, ...head } = family;
    const get = async () => ({ ...head, aggregator: 'sum', values: [...samples()] });
    // The registry only uses name and `get` of a metric; its type demands the library's own counting classes.
    registry.registerMetric({ ...head, get } as unknown as Metric);
  }
  return registry;
}

/** Makes families whose samples are read from each status. */
function streamFamilies(statuses: readonly SlotStatus[]) {
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
  return {
    family,
    counter: (name: string, help: string, read: (status: SlotStatus) => number) =>
      family('counter', `${name}_total`, help, (status) => [[{}, read(status)]]),
    gauge: (name: string, help: string, read: (status: SlotStatus) => number | undefined) =>
      family('gauge', name, help, (status) => [[{}, read(status)]]),
    histogram: (name: string, help: string, read: (status: SlotStatus) => LatencyHistogram): Family => ({
      type: 'histogram',
      name: `cdc_notifier_${name}`,
      help,
      samples: () =>
        statuses.flatMap((status) => sampleHistogram(`cdc_notifier_${name}`, labelsOf(status), read(status))),
    }),
  };
}

/** Rows, bytes and latencies. */
function describeTraffic({ statuses }: MetricsOptions): Family[] {
  const { family, counter, histogram } = streamFamilies(statuses);
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
    counter('produced_bytes', 'Bytes of record batches that Kafka responded to', (status) => status.producedBytes),
    counter('produced_batches', 'Record batches that Kafka responded to', (status) => status.producedBatchCount),
    histogram('commit_receive_seconds', 'From a commit in PostgreSQL to its receipt', (status) => status.commitReceive),
    histogram(
      'commit_acknowledge_seconds',
      'From a commit in PostgreSQL until Kafka has acknowledged everything up to it',
      (status) => status.commitAcknowledge,
    ),
    histogram(
      'produce_round_trip_seconds',
      'From a Produce request to its response',
      (status) => status.produceRoundTrip,
    ),
  ];
}

/** Lag, the slot on the server, failures and state. */
function describeHealth({ statuses, inFlightLimitMs }: MetricsOptions): Family[] {
  const { family, gauge } = streamFamilies(statuses);
  const lag = (status: SlotStatus) => measureLag(status, presentMoment());
  const options = () => ({ ...presentMoment(), inFlightLimitMs });
  const isReady = (status: SlotStatus) => judgeReadiness(status, options()).ready;
  const isHealthy = (status: SlotStatus) => judgeHealth(status, options()).healthy;
  return [
    gauge('lag_bytes', 'WAL not acknowledged by Kafka', (status) => lag(status).bytes),
    gauge('lag_seconds', 'Age of the oldest commit received and not confirmed', (status) => inSeconds(lag(status).ms)),
    gauge('in_flight_age_seconds', 'Age of the oldest row received and not acknowledged by Kafka', (status) =>
      inSeconds(lag(status).inFlightMs),
    ),
    gauge(
      'slot_retained_wal_bytes',
      'WAL that the server retains for the slot',
      (status) => status.server?.retainedWalBytes,
    ),
    gauge(
      'slot_safe_wal_bytes',
      'WAL that can be written before the slot may be invalidated; absent without a limit',
      (status) => status.server?.safeWalBytes,
    ),
    family(
      'counter',
      'reconnects_total',
      'Failed attempts to stream, by reason; each is followed by another attempt',
      ({ failureCounts }) => Array.from(failureCounts, ([reason, count]): Reading => [{ reason }, count]),
    ),
    family('counter', 'resends_total', "Produce requests repeated, by Kafka's error name", ({ resendCounts }) =>
      Array.from(resendCounts, ([reason, count]): Reading => [{ reason }, count]),
    ),
    family('gauge', 'stream_state', '1 for the current state of the stream, 0 for the others', (status) =>
      STATES.map((state): Reading => [{ state }, state === status.state ? 1 : 0]),
    ),
    family(
      'gauge',
      'slot_warnings',
      'Warnings that hold at present, by code; a code without any is absent',
      ({ warnings }) => Array.from(countByCode(warnings.current), ([code, count]): Reading => [{ code }, count]),
    ),
    gauge('stream_ready', '1 if the stream is ready, as /ready reports it', (status) => (isReady(status) ? 1 : 0)),
    gauge('stream_healthy', '1 if the stream is healthy, as /health reports it', (status) =>
      isHealthy(status) ? 1 : 0,
    ),
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
      help: 'Always 1; the labels are the versions of the service and of Bun',
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
      help: 'Start of the process, in seconds since 1970',
      samples: single({}, () => startedAtSeconds),
    },
  ];
}

function countByCode(warnings: readonly SlotWarning[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { code } of warnings) counts.set(code, (counts.get(code) ?? 0) + 1);
  return counts;
}

function labelsOf({ database, slot }: SlotStatus): Record<string, string> {
  return { database, slot };
}

/** Prometheus' buckets are cumulative, those of `LatencyHistogram` are not. */
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
