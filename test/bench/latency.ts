/**
 * How long a transaction takes to its record in Kafka, and to the confirmation at PostgreSQL, measured from outside:
 *
 * - `appended`: from the commit timestamp (the one that Begin carries) of each transaction to the moment when the leader
 *   appended its record (LogAppendTime), rounded up to the next millisecond, as the broker cuts it off. With acks=all and
 *   one replica the acknowledgement leaves the broker right after the append.
 * - `confirmed`: `flush_lag` of pg_stat_replication, the server's own clock from the moment when the walsender sends a
 *   commit to the status update that confirms it, thus past the acknowledgement. The server takes about one sample a
 *   second.
 */
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Sql } from 'postgres';
import { tablesOf } from '../support/progressor.ts';
import { createTopics, dropSlot, waitUntilConfirmed } from './backlog-run.ts';
import { diskOf, type Environment } from './environment.ts';
import { startNotifier } from './notifier.ts';
import { percentile } from './statistics.ts';
import { readAppendTimes } from './topics.ts';
import { NAMESPACE, type PacedSteps, preparePacedSteps, WRITER_CONNECTIONS, writePacedSteps } from './workloads.ts';

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
  readonly appended: Distribution;
  readonly confirmed: Distribution;
  /** One write of a WAL page and its fdatasync on the server's disk */
  readonly fsync: Distribution;
}

const SLOT = 'bench_latency';
const DATABASE = 'bench_latency';
const LAG_POLL_MS = 200;
const FSYNC_COUNT = 200;
const PAGE_BYTES = 8192;

/** Runs a paced writer for `warmUpSeconds`, which do not count, and then for `steps.seconds`. */
export async function measureLatency(
  environment: Environment,
  steps: PacedSteps,
  warmUpSeconds: number,
): Promise<LatencyResult> {
  const { postgres, kafka, progress } = environment;
  const label = `latency at ${steps.transactionsPerSecond} transactions/s`;
  const fsync = distributionOf(measureFsync(diskOf(postgres)));
  await postgres.createDatabase(DATABASE);
  const sql = postgres.sql(DATABASE, { max: WRITER_CONNECTIONS + 1 });
  try {
    // Every commit waits for the disk, as it does in production; the backlogs were written without.
    await sql`ALTER SYSTEM SET fsync = on`;
    await sql`SELECT pg_reload_conf()`;
    await preparePacedSteps(sql, steps);
    const target = await createTopics(
      environment,
      { database: DATABASE, slot: SLOT },
      { 'message.timestamp.type': 'LogAppendTime' },
    );
    await using program = await startNotifier(environment, target);
    progress(`${label}: writing for ${warmUpSeconds} + ${steps.seconds} s`);
    const allSteps = { ...steps, seconds: warmUpSeconds + steps.seconds };
    const lags = new LagSampler(sql, SLOT);
    await program.while(Promise.all([lags.sampleWhile(writePacedSteps(sql, allSteps))]));
    const [row] = await sql`SELECT pg_current_wal_insert_lsn()::text AS lsn`;
    await program.while(waitUntilConfirmed(sql, SLOT, String(row?.lsn)));
    await program.stop();

    const commits = await commitTimes(sql);
    const records = await readAppendTimes(kafka.bootstrap, target.eventsTopic);
    if (records.length !== commits.size) {
      throw new Error(`${label}: ${records.length} records arrived, not ${commits.size}`);
    }
    const first = Math.min(...commits.values());
    const last = Math.max(...commits.values());
    const measuredFrom = first + warmUpSeconds * 1e6;
    const appended = latenciesOf(commits, records, measuredFrom);
    const result: LatencyResult = {
      transactionsPerSecond: steps.transactionsPerSecond,
      achievedPerSecond: (commits.size - 1) / ((last - first) / 1e6),
      seconds: steps.seconds,
      warmUpSeconds,
      appended: distributionOf(appended),
      confirmed: distributionOf(lags.lagsMs(measuredFrom / 1000)),
      fsync,
    };
    progress(`${label}: p50 ${result.appended.p50Ms.toFixed(1)} ms, p99 ${result.appended.p99Ms.toFixed(1)} ms`);
    return result;
  } finally {
    await sql`ALTER SYSTEM RESET fsync`;
    await sql`SELECT pg_reload_conf()`;
    await dropSlot(sql, SLOT);
    await sql.end();
  }
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
  records: readonly { readonly key: string; readonly appendedMs: number }[],
  fromMicros: number,
): number[] {
  const countByKey = new Map<string, number>();
  const latencies: number[] = [];
  for (const { key, appendedMs } of records) {
    // Event ids of a process are dense from 1, and its records stand in their order.
    const eventId = (countByKey.get(key) ?? 0) + 1;
    countByKey.set(key, eventId);
    const commitMicros = commits.get(`${key} ${eventId}`);
    if (commitMicros === undefined) throw new Error('Cannot find the transaction of a record');
    if (commitMicros >= fromMicros) latencies.push(appendedMs + 1 - commitMicros / 1000);
  }
  return latencies;
}

/** Follows `flush_lag`, which holds the server's last sample. */
class LagSampler {
  readonly #sql: Sql;
  readonly #slot: string;
  readonly #samples: { readonly atMs: number; readonly lagMs: number }[] = [];

  constructor(sql: Sql, slot: string) {
    this.#sql = sql;
    this.#slot = slot;
  }

  /** Samples until the promise is settled. */
  async sampleWhile(work: Promise<void>): Promise<void> {
    let done = false;
    const finished = work.finally(() => {
      done = true;
    });
    finished.catch(() => {}); // awaited below
    while (!done) {
      await this.#sample();
      await Promise.race([finished, Bun.sleep(LAG_POLL_MS)]);
    }
    await finished;
  }

  /** Samples taken after a moment given in milliseconds since 1970. */
  lagsMs(fromMs: number): number[] {
    return this.#samples.filter(({ atMs }) => atMs >= fromMs).map(({ lagMs }) => lagMs);
  }

  async #sample(): Promise<void> {
    const [row] = await this.#sql`
      SELECT (extract(epoch FROM flush_lag) * 1000)::float8 AS ms FROM pg_stat_replication
      JOIN pg_replication_slots ON active_pid = pid WHERE slot_name = ${this.#slot}`;
    const lagMs = row?.ms;
    // The view repeats a sample until there is a new one; two that agree to the microsecond are one.
    if (typeof lagMs !== 'number' || this.#samples.at(-1)?.lagMs === lagMs) return;
    this.#samples.push({ atMs: Date.now(), lagMs });
  }
}

/** Milliseconds of each of many appends of a page with fdatasync. */
function measureFsync(directory: string): number[] {
  const path = join(directory, 'fsync');
  const file = openSync(path, 'w');
  try {
    const page = Buffer.alloc(PAGE_BYTES, 1);
    return Array.from({ length: FSYNC_COUNT }, () => {
      const started = performance.now();
      writeSync(file, page);
      fdatasyncSync(file);
      return performance.now() - started;
    });
  } finally {
    closeSync(file);
    rmSync(path);
  }
}

function distributionOf(valuesMs: readonly number[]): Distribution {
  return {
    sampleCount: valuesMs.length,
    p50Ms: percentile(valuesMs, 50),
    p99Ms: percentile(valuesMs, 99),
    maxMs: percentile(valuesMs, 100),
  };
}
