/** The figures as a table for people and as JSON for programs. */
import type { BacklogResult, Reading } from './backlog-run.ts';
import type { Machine } from './environment.ts';
import type { Distribution, LatencyResult } from './latency.ts';
import { median } from './statistics.ts';

/** Everything that was found out. */
export interface Report {
  readonly machine: Machine;
  readonly versions: Readonly<Record<string, string>>;
  readonly settings: Readonly<Record<string, string>>;
  readonly commands: Readonly<Record<string, string>>;
  /** Why there is no comparison */
  readonly comparisonMissing: string | undefined;
  readonly backlogs: readonly BacklogResult[];
  readonly latency: LatencyResult | undefined;
}

/** A figure that was asked for. */
interface Verdict {
  readonly target: string;
  readonly met: boolean;
}

/** Medians over the readings of one reader. */
interface Summary {
  readonly seconds: number;
  readonly rowsPerSecond: number;
  readonly transactionsPerSecond: number;
  readonly cpuMicrosPerRow: number;
  readonly cpuMicrosPerTransaction: number;
  readonly walsenderCpuMicrosPerRow: number;
  readonly brokerCpuMicrosPerRow: number | undefined;
  /** The largest, not the median */
  readonly peakRssBytes: number;
}

/** The report as plain data. */
export function reportJson(report: Report): unknown {
  const { backlogs, ...rest } = report;
  return {
    ...rest,
    backlogs: backlogs.map((result) => {
      const { id, title, transactionCount, rowCount, recordCount, payloadBytes } = result.backlog;
      return {
        ...{ id, title, transactionCount, rowCount, recordCount, payloadBytes, walBytes: result.walBytes },
        notifier: { ...summaryOf(result, result.notifier), readings: result.notifier },
        recvLogical:
          result.recvLogical.length === 0
            ? null
            : { ...summaryOf(result, result.recvLogical), readings: result.recvLogical },
        ratioToRecvLogical: ratioOf(result) ?? null,
        targets: verdictsOf(result),
      };
    }),
  };
}

/** The report as text. */
export function reportText(report: Report): string {
  const { machine, versions, settings, commands, backlogs, latency } = report;
  const lines = [
    `Machine: ${machine.cpu}, ${machine.coreCount} cores, ${gigabytes(machine.memoryBytes)}, Linux ${machine.kernel}`,
    `Load average before the run: ${machine.loadAverage}${machine.loadAverage > 0.5 ? ' (others were at work: the figures are noisy)' : ''}`,
    `Versions: ${pairs(versions)}`,
    `Settings: ${pairs(settings)}`,
    ...Object.entries(commands).map(([name, command]) => `${name}: ${command}`),
  ];
  if (backlogs.length > 0) lines.push('', ...backlogLines(report));
  if (latency !== undefined) lines.push('', ...latencyLines(latency));
  return `${lines.join('\n')}\n`;
}

function backlogLines({ backlogs, comparisonMissing }: Report): string[] {
  const head = ['backlog', 'reader', 's', 'rows/s', 'tx/s', 'ratio', 'CPU us/row', 'walsender', 'broker', 'peak MB'];
  const rows = backlogs.flatMap((result) => {
    const ours = cells(summaryOf(result, result.notifier));
    const ratio = ratioOf(result)?.toFixed(2) ?? '-';
    const lines = [[result.backlog.id, 'cdc-notifier', ...ours.slice(0, 3), ratio, ...ours.slice(3)]];
    if (result.recvLogical.length > 0) {
      const theirs = cells(summaryOf(result, result.recvLogical));
      lines.push(['', 'pg_recvlogical', ...theirs.slice(0, 3), '1.00', ...theirs.slice(3)]);
    }
    return lines;
  });
  const lines = table([head, ...rows]);
  if (comparisonMissing !== undefined) lines.push(`No comparison with pg_recvlogical: ${comparisonMissing}`);
  lines.push('');
  for (const result of backlogs) {
    const { id, title, rowCount, transactionCount, recordCount, payloadBytes } = result.backlog;
    const readings = `${result.notifier.length} ${result.notifier.length === 1 ? 'reading' : 'readings, medians'}`;
    lines.push(
      `${id}: ${title}: ${count(rowCount)} rows in ${count(transactionCount)} ${transactionCount === 1 ? 'transaction' : 'transactions'}, ${count(recordCount)} records, payload ${payloadBytes} bytes, ${Math.round(result.walBytes / 1e6)} MB of WAL; ${readings}`,
      ...verdictsOf(result).map(({ target, met }) => `   ${met ? 'met' : 'below target'}: ${target}`),
    );
  }
  lines.push(
    'CPU in microseconds a row: the reader itself, the walsender, the broker. Rows are all changes that the slot sends.',
    'Every record count was checked against the high watermarks of the topics.',
  );
  return lines;
}

function latencyLines(latency: LatencyResult): string[] {
  const cellsOf = (name: string, { sampleCount, p50Ms, p99Ms, maxMs }: Distribution): string[] => [
    name,
    String(sampleCount),
    ...[p50Ms, p99Ms, maxMs].map((value) => value.toFixed(2)),
  ];
  const { transactionsPerSecond, achievedPerSecond, seconds, warmUpSeconds } = latency;
  return [
    `Latency at ${transactionsPerSecond} transactions/s (${achievedPerSecond.toFixed(0)} reached) for ${seconds} s after ${warmUpSeconds} s of warm-up, one event and one update each, fsync on, in ms`,
    ...table([
      ['', 'samples', 'p50', 'p99', 'max'],
      cellsOf('commit to append by the leader', latency.appended),
      cellsOf('sent to confirmed at PostgreSQL', latency.confirmed),
      cellsOf('one page written with fdatasync', latency.fsync),
    ]),
    'First line: LogAppendTime of each record minus the commit timestamp that Begin carries, rounded up to the next ms;',
    'the acknowledgement leaves the broker right after it. Second line: flush_lag of pg_stat_replication, which ends',
    "after the acknowledgement has come back as a confirmed LSN; about one sample a second, the server's choice.",
  ];
}

function summaryOf({ backlog }: BacklogResult, readings: readonly Reading[]): Summary {
  const middle = (value: (reading: Reading) => number): number => median(readings.map(value));
  const seconds = middle((reading) => reading.seconds);
  const cpuMicros = middle((reading) => reading.cpuMicros);
  const brokers = readings.flatMap(({ brokerCpuMicros }) => (brokerCpuMicros === undefined ? [] : [brokerCpuMicros]));
  return {
    seconds,
    rowsPerSecond: backlog.rowCount / seconds,
    transactionsPerSecond: backlog.transactionCount / seconds,
    cpuMicrosPerRow: cpuMicros / backlog.rowCount,
    cpuMicrosPerTransaction: cpuMicros / backlog.transactionCount,
    walsenderCpuMicrosPerRow: middle((reading) => reading.walsenderCpuMicros) / backlog.rowCount,
    brokerCpuMicrosPerRow: brokers.length === 0 ? undefined : median(brokers) / backlog.rowCount,
    peakRssBytes: Math.max(...readings.map((reading) => reading.peakRssBytes)),
  };
}

/** Rate of the service over that of pg_recvlogical, both medians. */
function ratioOf(result: BacklogResult): number | undefined {
  if (result.recvLogical.length === 0) return undefined;
  return summaryOf(result, result.recvLogical).seconds / summaryOf(result, result.notifier).seconds;
}

function verdictsOf(result: BacklogResult): Verdict[] {
  const { minimumRatio, maximumRssBytes } = result.backlog.targets;
  const ratio = ratioOf(result);
  const { peakRssBytes } = summaryOf(result, result.notifier);
  const verdicts = [
    {
      target: `peak RSS ${megabytes(peakRssBytes)} MB, at most ${megabytes(maximumRssBytes)} MB`,
      met: peakRssBytes <= maximumRssBytes,
    },
  ];
  if (minimumRatio !== undefined && ratio !== undefined) {
    const target = `${ratio.toFixed(2)} of pg_recvlogical's rate, at least ${minimumRatio.toFixed(2)}`;
    verdicts.unshift({ target, met: ratio >= minimumRatio });
  }
  return verdicts;
}

function cells(summary: Summary): string[] {
  return [
    summary.seconds.toFixed(2),
    count(Math.round(summary.rowsPerSecond)),
    summary.transactionsPerSecond < 10
      ? summary.transactionsPerSecond.toFixed(2)
      : count(Math.round(summary.transactionsPerSecond)),
    summary.cpuMicrosPerRow.toFixed(2),
    summary.walsenderCpuMicrosPerRow.toFixed(2),
    summary.brokerCpuMicrosPerRow?.toFixed(2) ?? '-',
    megabytes(summary.peakRssBytes),
  ];
}

/** Columns as wide as their widest cell; texts stand left, figures right. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const isText = (column: number): boolean => rows.slice(1).some((row) => /[a-z]/.test(row[column] ?? ''));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (isText(column) ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd();
  const [head = [], ...body] = rows;
  return [line(head), widths.map((width) => '-'.repeat(width)).join('  '), ...body.map(line)];
}

function pairs(values: Readonly<Record<string, string>>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
}

function count(value: number): string {
  return value.toLocaleString('en-US');
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

function gigabytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(0)} GiB`;
}
