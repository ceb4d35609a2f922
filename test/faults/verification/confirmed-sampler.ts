/**
 * Samples `confirmed_flush_lsn` of a slot during a whole run. What a slot has confirmed must be in Kafka: afterwards every
 * sample is compared with the times at which the broker appended the records.
 */
import type { Sql } from 'postgres';
import { parseLsn } from '../../../src/lsn.ts';

/** A confirmed LSN and the time when it was first seen. */
export interface ConfirmedSample {
  /** Milliseconds since 1970 by the server's clock, read right after the LSN */
  readonly atMs: number;
  readonly confirmedFlushLsn: bigint;
}

/** A committed record with the time at which a broker first appended it. */
export interface Appended {
  readonly endLsn: bigint;
  readonly topic: string;
  readonly key: string;
  /** Milliseconds since 1970 (LogAppendTime); undefined when the record never arrived */
  readonly appendedAtMs: number | undefined;
}

/** Servers and broker share one clock; the broker truncates to milliseconds. */
const CLOCK_TOLERANCE_MS = 1;
const INTERVAL_MS = 25;

/** Samples the slot every 25 ms, also over restarts of the server. */
export class ConfirmedSampler implements AsyncDisposable {
  /** Only increases are kept: an LSN that a crash takes back was confirmed nevertheless */
  readonly samples: ConfirmedSample[] = [];
  /** Number of samples taken */
  count = 0;
  readonly #sql: Sql;
  readonly #slot: string;
  readonly #loop: Promise<void>;
  #stopped = false;

  /** @param sql a client for the sampler only, which the caller ends */
  constructor(sql: Sql, slot: string) {
    this.#sql = sql;
    this.#slot = slot;
    this.#loop = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    await this.#loop;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      // A server that is down confirms nothing.
      await this.#sample().catch(() => {});
      await Bun.sleep(INTERVAL_MS);
    }
  }

  async #sample(): Promise<void> {
    // The function lists all slots before it returns the first row: the clock is read after the LSN.
    const [row] = await this.#sql<{ lsn: string; at: number }[]>`
      SELECT confirmed_flush_lsn::text AS lsn, (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS at
      FROM pg_get_replication_slots() WHERE slot_name = ${this.#slot} AND confirmed_flush_lsn IS NOT NULL`;
    if (row === undefined) return;
    this.count++;
    const confirmedFlushLsn = parseLsn(row.lsn);
    if (confirmedFlushLsn > (this.samples.at(-1)?.confirmedFlushLsn ?? -1n)) {
      this.samples.push({ atMs: row.at, confirmedFlushLsn });
    }
  }
}

/** The records whose commit was confirmed before the broker appended them, or that never arrived. */
export function prematurelyConfirmed(samples: readonly ConfirmedSample[], records: Iterable<Appended>): Appended[] {
  return [...records].filter(({ endLsn, appendedAtMs = Number.POSITIVE_INFINITY }) => {
    const confirmed = samples[firstIndexAtLeast(samples, endLsn)];
    return confirmed !== undefined && appendedAtMs > confirmed.atMs + CLOCK_TOLERANCE_MS;
  });
}

/** Index of the first sample at or after an LSN, by binary search. */
function firstIndexAtLeast(samples: readonly ConfirmedSample[], lsn: bigint): number {
  let [low, high] = [0, samples.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((samples[middle] as ConfirmedSample).confirmedFlushLsn < lsn) low = middle + 1;
    else high = middle;
  }
  return low;
}
