/** The comparison as a table and as JSON. */
import type { Machine } from '../environment.ts';
import { median } from '../report/statistics.ts';
import { count } from '../report/text-table.ts';
import type { Comparison, Reading } from './reading.ts';
import type { Properties } from './settings.ts';

/** All results. */
export interface Report {
  readonly machine: Machine;
  readonly versions: Readonly<Record<string, string>>;
  readonly settings: { readonly java: readonly string[]; readonly worker: Properties; readonly connector: Properties };
  readonly partitionCount: number;
  readonly comparisons: readonly Comparison[];
}

/** Medians over the readings of one reader. */
interface Summary {
  readonly seconds: number;
  readonly rowsPerSecond: number;
  readonly cpuMicrosPerRow: number;
  /** The same in the second half; undefined when it was not measured */
  readonly secondHalf: { readonly rowsPerSecond: number; readonly cpuMicrosPerRow: number } | undefined;
  /** The largest, not the median */
  readonly peakRssBytes: number;
  readonly bytesPerRecord: number;
}

/** The report as plain data. */
export function reportJson({ comparisons, ...rest }: Report): unknown {
  return {
    ...rest,
    backlogs: comparisons.map(({ backlog, walBytes, notifier, debezium }) => {
      const { id, title, transactionCount, rowCount, recordCount, payloadBytes } = backlog;
      const described = { id, title, transactionCount, rowCount, recordCount, payloadBytes, walBytes };
      const reader = (readings: readonly Reading[]) => ({ ...summaryOf(backlog, readings), readings });
      return { ...described, notifier: reader(notifier), debezium: reader(debezium) };
    }),
  };
}

/** The report as text. */
export function reportText({ machine, versions, settings, partitionCount, comparisons }: Report): string {
  const head = [
    'backlog',
    'reader',
    's',
    'rows/s',
    'CPU, us a row',
    'second half: rows/s',
    'CPU, us a row',
    'peak RSS',
    'bytes a record',
  ];
  const rows = comparisons.flatMap(({ backlog, notifier, debezium }) => [
    [backlog.id, 'cdc-notifier', ...cells(summaryOf(backlog, notifier))],
    [backlog.id, 'Debezium', ...cells(summaryOf(backlog, debezium))],
  ]);
  const lines = [
    `Machine: ${machine.cpu}, ${machine.coreCount} cores, Linux ${machine.kernel}; load average before the run ${machine.loadAverage}`,
    `Versions: ${pairs(versions)}`,
    `Java: ${settings.java.join(' ')}`,
    `Worker: ${pairs(settings.worker)}`,
    `Connector: ${pairs(settings.connector)}`,
    `Both: acks all, idempotent, ${partitionCount} partitions, one broker, all on 127.0.0.1, keyed by process`,
    '',
    ...table([head, ...rows]),
    '',
    ...comparisons.map(({ backlog: { id, title, rowCount, recordCount, payloadBytes }, notifier }) => {
      const readings = notifier.length === 1 ? 'one reading' : `medians of ${notifier.length}`;
      return `${id}: ${title}: ${count(rowCount)} rows, ${count(recordCount)} records, payload ${payloadBytes} bytes; ${readings}`;
    }),
    'From the appearance of the walsender until every record is in its topic, for cdc-notifier until that is confirmed',
    'to PostgreSQL. CPU is that of the reader. Java begins each reading cold; the second half of the records leaves out',
    "most of its compiling. cdc-notifier's records are Thrift; Debezium's are JSON with its envelope, the payload in base64:",
    'other bytes, and more of them.',
  ];
  return `${lines.join('\n')}\n`;
}

function summaryOf(
  { rowCount, recordCount }: Pick<Comparison['backlog'], 'rowCount' | 'recordCount'>,
  readings: readonly Reading[],
): Summary {
  const middle = (value: (reading: Reading) => number): number => median(readings.map(value));
  const seconds = middle((reading) => reading.seconds);
  const halves = readings.flatMap(({ secondHalf }) => secondHalf ?? []);
  return {
    seconds,
    rowsPerSecond: rowCount / seconds,
    cpuMicrosPerRow: middle((reading) => reading.cpuMicros) / rowCount,
    secondHalf:
      halves.length === 0
        ? undefined
        : {
            rowsPerSecond: rowCount / 2 / median(halves.map((half) => half.seconds)),
            cpuMicrosPerRow: median(halves.map((half) => half.cpuMicros)) / (rowCount / 2),
          },
    peakRssBytes: Math.max(...readings.map((reading) => reading.peakRssBytes)),
    bytesPerRecord: middle((reading) => reading.topicBytes) / recordCount,
  };
}

function cells(summary: Summary): string[] {
  return [
    summary.seconds.toFixed(2),
    count(summary.rowsPerSecond),
    summary.cpuMicrosPerRow.toFixed(1),
    summary.secondHalf === undefined ? '-' : count(summary.secondHalf.rowsPerSecond),
    summary.secondHalf?.cpuMicrosPerRow.toFixed(1) ?? '-',
    `${count(summary.peakRssBytes / 1e6)} MB`,
    count(summary.bytesPerRecord),
  ];
}

/** A Markdown table with padded columns. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
  const [head = [], ...body] = rows;
  return [line(head), `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`, ...body.map(line)];
}

function pairs(values: Readonly<Record<string, string>>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
}
