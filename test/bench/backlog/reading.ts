/** Readings of a backlog and their summaries. */
import type { Sql } from 'postgres';
import { median } from '../report/statistics.ts';
import type { Backlog } from '../workload/workloads.ts';

/** A reader of backlogs. */
export type ReaderName = 'cdc-notifier' | 'pg_recvlogical' | 'throw-away';

/** One reading of a backlog. CPU times are of the whole reading, in microseconds. */
export interface Reading {
  /** From the start of streaming to the confirmation on the server, or to the exit of the reader */
  readonly seconds: number;
  readonly cpuMicros: number;
  readonly walsenderCpuMicros: number;
  /** undefined when the broker is not involved */
  readonly brokerCpuMicros?: number | undefined;
  readonly peakRssBytes: number;
  /** After an idle time, if one was asked for */
  readonly idleRssBytes?: number | undefined;
  /** Options of the reader, where readings differ in them */
  readonly setting?: string | undefined;
}

/** A backlog in a slot. */
export interface ReadingPlace {
  readonly sql: Sql;
  readonly database: string;
  readonly slot: string;
  /** LSN that must be confirmed */
  readonly end: string;
}

/** All readings of a backlog, by reader, in the order of the run. */
export interface BacklogResult {
  readonly backlog: Backlog;
  readonly walBytes: number;
  readonly readings: ReadonlyMap<ReaderName, readonly Reading[]>;
}

/** Figures of all readings of one reader. */
export interface Summary {
  readonly seconds: number;
  readonly rowsPerSecond: number;
  readonly transactionsPerSecond: number;
  readonly cpuMicrosPerRow: number;
  readonly cpuMicrosPerTransaction: number;
  readonly walsenderCpuMicrosPerRow: number;
  readonly brokerCpuMicrosPerRow: number | undefined;
  /** The largest, not the median */
  readonly peakRssBytes: number;
  /** The largest as well */
  readonly idleRssBytes: number | undefined;
  /** Options of the summarized reading, where readings differ in them */
  readonly setting: string | undefined;
}

/** Medians over the readings of one reader; the best reading of the discarding reader, which is a ceiling. */
export function summaryOf({ backlog, readings }: BacklogResult, reader: ReaderName): Summary | undefined {
  const all = readings.get(reader) ?? [];
  const best = all.toSorted((one, other) => one.seconds - other.seconds).slice(0, 1);
  const counted = reader === 'throw-away' ? best : all;
  if (counted.length === 0) return undefined;
  const middle = (value: (reading: Reading) => number): number => median(counted.map(value));
  const defined = (value: (reading: Reading) => number | undefined): number[] =>
    counted.map(value).filter((one) => one !== undefined);
  const seconds = middle((reading) => reading.seconds);
  const cpuMicros = middle((reading) => reading.cpuMicros);
  const brokers = defined((reading) => reading.brokerCpuMicros);
  const idle = defined((reading) => reading.idleRssBytes);
  return {
    seconds,
    rowsPerSecond: backlog.rowCount / seconds,
    transactionsPerSecond: backlog.transactionCount / seconds,
    cpuMicrosPerRow: cpuMicros / backlog.rowCount,
    cpuMicrosPerTransaction: cpuMicros / backlog.transactionCount,
    walsenderCpuMicrosPerRow: middle((reading) => reading.walsenderCpuMicros) / backlog.rowCount,
    brokerCpuMicrosPerRow: brokers.length === 0 ? undefined : median(brokers) / backlog.rowCount,
    peakRssBytes: Math.max(...counted.map((reading) => reading.peakRssBytes)),
    idleRssBytes: idle.length === 0 ? undefined : Math.max(...idle),
    setting: counted[0]?.setting,
  };
}

/** Rate of the service divided by that of another reader; undefined when one of them did not read. */
export function ratioTo(result: BacklogResult, reader: ReaderName): number | undefined {
  const ours = summaryOf(result, 'cdc-notifier');
  const theirs = summaryOf(result, reader);
  return ours === undefined || theirs === undefined ? undefined : theirs.seconds / ours.seconds;
}
