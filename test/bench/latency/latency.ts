/**
 * The time from the commit of a transaction (the timestamp of its Begin) until Kafka has acknowledged it, at an even rate.
 * Measured twice:
 *
 * - by the service, in `commit_acknowledge_seconds`: what was observed in the measured time, every transaction of it. Its
 *   clock is cut off to whole milliseconds, so one is added to each figure: they are upper bounds.
 * - from outside: to the moment when the leader appended the record (LogAppendTime), rounded up to the next millisecond
 *   in the same way. With acks=all and one replica the acknowledgement leaves the broker right after the append.
 */
import type { Sql } from 'postgres';
import type { KafkaRecord } from '../../support/kafka/topic-reader.ts';
import { freePort } from '../../support/network/ports.ts';
import { cpuMicros } from '../../support/process/process-usage.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import { parseExposition } from '../../support/service/exposition.ts';
import { diskOf, type Environment } from '../environment.ts';
import { percentile } from '../report/statistics.ts';
import { startNotifier } from '../service/notifier.ts';
import { dropSlot, endOfWal, waitUntilConfirmed } from '../service/replication-slots.ts';
import { createTopics, deleteTopics } from '../service/slot-topics.ts';
import { NAMESPACE, type PacedSteps, preparePacedSteps, writePacedSteps } from '../workload/workloads.ts';
import { measureFsync } from './fsync.ts';
import { type Buckets, bucketsOf, bucketsSince, countAbove, countOf, percentileOf } from './histogram.ts';

/** Percentiles of times in milliseconds. */
export interface Distribution {
  readonly sampleCount: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** Figures of one rate. */
export interface LatencyResult {
  readonly transactionsPerSecond: number;
  /** By commit timestamps */
  readonly achievedPerSecond: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
  /** By the service; the maximum is the bound of the last bucket that is not empty */
  readonly acknowledged: Distribution;
  readonly acknowledgedAboveLimit: number;
  readonly appended: Distribution;
  /** One write of a WAL page and its fdatasync on the server's disk */
  readonly fsync: Distribution;
  /** CPU of the service per transaction, warm-up included */
  readonly cpuMicrosPerTransaction: number;
}

/** Limit for every transaction. */
export const LATENCY_LIMIT_MS = 250;

const SLOT = 'bench_latency';
/** Resolution of the clocks of service and broker */
const CLOCK_RESOLUTION_MS = 1;

/** Runs a paced writer for `warmUpSeconds`, which are not measured, and then for `steps.seconds`. */
export async function measureLatency(
  environment: Environment,
  steps: PacedSteps,
  warmUpSeconds: number,
): Promise<LatencyResult> {
  const { postgres, kafka, progress } = environment;
  const { transactionsPerSecond } = steps;
  const label = `latency at ${transactionsPerSecond} transactions/s`;
  const database = `bench_latency_${transactionsPerSecond}`;
  const fsync = distributionOf(measureFsync(diskOf(postgres)));
  await postgres.createDatabase(database);
  const sql = postgres.sql(database, { max: steps.laneCount + 1 });
  try {
    // Commits wait for the disk as in production; backlogs are written without.
    await sql`ALTER SYSTEM SET fsync = on`;
    await sql`SELECT pg_reload_conf()`;
    await preparePacedSteps(sql, steps);
    const config = { 'message.timestamp.type': 'LogAppendTime' };
    const target = await createTopics(environment, { database, slot: SLOT }, { config });
    const httpPort = await freePort();
    await using program = await startNotifier(environment, target, { httpPort });
    progress(`${label}: writing for ${warmUpSeconds} + ${steps.seconds} s`);
    const allSteps = { ...steps, seconds: warmUpSeconds + steps.seconds };
    const cpuBefore = cpuMicros(program.pid) as number;
    const [beforeMeasured] = await program.while(
      Promise.all([Bun.sleep(warmUpSeconds * 1000).then(() => scrape(httpPort)), writePacedSteps(sql, allSteps)]),
    );
    await program.while(waitUntilConfirmed(sql, SLOT, await endOfWal(sql)));
    const measured = bucketsSince(beforeMeasured, await scrape(httpPort));
    const cpu = (cpuMicros(program.pid) as number) - cpuBefore;
    await program.stop();

    const commits = await commitTimes(sql);
    const records = await kafka.readTopic(target.eventsTopic);
    if (records.length !== commits.size) {
      throw new Error(`${label}: ${records.length} records arrived, not ${commits.size}`);
    }
    const times = [...commits.values()];
    const first = times.reduce((one, other) => Math.min(one, other));
    const last = times.reduce((one, other) => Math.max(one, other));
    const result: LatencyResult = {
      transactionsPerSecond,
      achievedPerSecond: (commits.size - 1) / ((last - first) / 1e6),
      seconds: steps.seconds,
      warmUpSeconds,
      acknowledged: distributionOfBuckets(measured),
      acknowledgedAboveLimit: countAbove(measured, LATENCY_LIMIT_MS / 1000),
      appended: distributionOf(latenciesOf(commits, records, first + warmUpSeconds * 1e6)),
      fsync,
      cpuMicrosPerTransaction: cpu / commits.size,
    };
    const { p50Ms, p99Ms } = result.acknowledged;
    progress(
      `${label}: ${result.achievedPerSecond.toFixed(0)} reached, p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms`,
    );
    await deleteTopics(environment, target);
    return result;
  } finally {
    await sql`ALTER SYSTEM RESET fsync`;
    await sql`SELECT pg_reload_conf()`;
    await dropSlot(sql, SLOT);
    await sql.end({ timeout: 1 });
  }
}

async function scrape(port: number): Promise<Buckets> {
  const response = await fetch(`http://127.0.0.1:${port}/metrics`);
  const family = parseExposition(await response.text()).get('cdc_notifier_commit_acknowledge_seconds');
  if (family === undefined) throw new Error('The service has no histogram of its latency');
  return bucketsOf(family);
}

/** Commit time of every event, in microseconds since 1970, by record key and event id. */
async function commitTimes(sql: Sql): Promise<Map<string, number>> {
  const { events } = tablesOf(NAMESPACE);
  const rows = await sql`
    SELECT process_id, event_id, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::float8 AS micros
    FROM ${sql(events)}`;
  return new Map(rows.map((row) => [`${NAMESPACE} ${row.process_id} ${row.event_id}`, Number(row.micros)]));
}

/** Milliseconds from commit to append of every event that was committed after `fromMicros`. */
function latenciesOf(
  commits: ReadonlyMap<string, number>,
  records: readonly KafkaRecord[],
  fromMicros: number,
): number[] {
  const countByKey = new Map<string, number>();
  const latencies: number[] = [];
  for (const { key: bytes, timestampMs } of records) {
    const key = bytes.toString();
    // Event ids of a process are dense from 1, and its records are in that order.
    const eventId = (countByKey.get(key) ?? 0) + 1;
    countByKey.set(key, eventId);
    const commitMicros = commits.get(`${key} ${eventId}`);
    if (commitMicros === undefined) throw new Error('Cannot find the transaction of a record');
    if (commitMicros >= fromMicros) latencies.push(timestampMs + CLOCK_RESOLUTION_MS - commitMicros / 1000);
  }
  return latencies;
}

function distributionOf(valuesMs: readonly number[]): Distribution {
  return {
    sampleCount: valuesMs.length,
    p50Ms: percentile(valuesMs, 50),
    p99Ms: percentile(valuesMs, 99),
    maxMs: percentile(valuesMs, 100),
  };
}

function distributionOfBuckets(buckets: Buckets): Distribution {
  const inMs = (seconds: number): number => seconds * 1000 + CLOCK_RESOLUTION_MS;
  const last = buckets.findLast(({ count }) => count > 0);
  return {
    sampleCount: countOf(buckets),
    p50Ms: inMs(percentileOf(buckets, 50)),
    p99Ms: inMs(percentileOf(buckets, 99)),
    maxMs: inMs(last?.upTo ?? Number.NaN),
  };
}
