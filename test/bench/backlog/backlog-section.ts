/** The figures of the backlogs. */

import { atLeast, atMost, type Section, type Verdict } from '../report/section.ts';
import { count, megabytes, table } from '../report/text-table.ts';
import { type BacklogResult, type ReaderName, ratioTo, type Summary, summaryOf } from './reading.ts';

const MAXIMUM_PEAK_MB = 160;
const MAXIMUM_IDLE_MB = 110;
const READERS: readonly ReaderName[] = ['cdc-notifier', 'pg_recvlogical', 'throw-away'];

/** @param comparisonMissing why pg_recvlogical is missing */
export function backlogSection(results: readonly BacklogResult[], comparisonMissing: string | undefined): Section {
  return {
    name: 'backlogs',
    lines: linesOf(results, comparisonMissing),
    verdicts: results.flatMap(verdictsOf),
    figures: results.map(figuresOf),
  };
}

function figuresOf(result: BacklogResult): unknown {
  const { backlog, walBytes, readings } = result;
  const { id, title, transactionCount, rowCount, recordCount, payloadBytes } = backlog;
  return {
    ...{ id, title, transactionCount, rowCount, recordCount, payloadBytes, walBytes },
    ratioToRecvLogical: ratioTo(result, 'pg_recvlogical') ?? null,
    ratioToThrowAway: ratioTo(result, 'throw-away') ?? null,
    readers: Object.fromEntries(
      READERS.flatMap((reader) => {
        const summary = summaryOf(result, reader);
        return summary === undefined ? [] : [[reader, { ...summary, readings: readings.get(reader) }]];
      }),
    ),
  };
}

function linesOf(results: readonly BacklogResult[], comparisonMissing: string | undefined): string[] {
  const head = ['backlog', 'reader', 's', 'rows/s', 'tx/s', 'ratio', 'CPU us/row', 'walsender', 'broker', 'peak MB'];
  const rows = results.flatMap((result) =>
    READERS.flatMap((reader) => {
      const summary = summaryOf(result, reader);
      if (summary === undefined) return [];
      const baseline = summaryOf(result, 'pg_recvlogical');
      const ratio = baseline === undefined ? '-' : (baseline.seconds / summary.seconds).toFixed(2);
      return [[reader === 'cdc-notifier' ? result.backlog.id : '', reader, ...cells(summary, ratio)]];
    }),
  );
  const lines = table([head, ...rows]);
  if (comparisonMissing !== undefined) lines.push(`No comparison with pg_recvlogical: ${comparisonMissing}`);
  return [
    ...lines,
    '',
    ...results.map(descriptionOf),
    'The rate of pg_recvlogical is 1.00. CPU in microseconds a row: the reader itself, the walsender, the broker. Rows are',
    'all changes that the slot sends. throw-away reads in gulps and looks at nothing: a ceiling, the best of its readings.',
    'Every record count was checked against the high watermarks of the topics.',
  ];
}

function descriptionOf(result: BacklogResult): string {
  const { id, title, rowCount, transactionCount, recordCount, payloadBytes } = result.backlog;
  const readingCount = result.readings.get('cdc-notifier')?.length ?? 0;
  const ceiling = summaryOf(result, 'throw-away')?.setting;
  return [
    `${id}: ${title}: ${count(rowCount)} rows in ${count(transactionCount)} ${transactionCount === 1 ? 'transaction' : 'transactions'}`,
    `${count(recordCount)} records, payload ${payloadBytes} bytes, ${megabytes(result.walBytes)} MB of WAL`,
    readingCount === 1 ? 'one reading' : `medians of ${readingCount} readings`,
    ...(ceiling === undefined ? [] : [`best gulp ${ceiling}`]),
  ].join(', ');
}

function cells(summary: Summary, ratio: string): string[] {
  return [
    summary.seconds.toFixed(2),
    count(summary.rowsPerSecond),
    summary.transactionsPerSecond < 10
      ? summary.transactionsPerSecond.toFixed(2)
      : count(summary.transactionsPerSecond),
    ratio,
    summary.cpuMicrosPerRow.toFixed(2),
    summary.walsenderCpuMicrosPerRow.toFixed(2),
    summary.brokerCpuMicrosPerRow?.toFixed(2) ?? '-',
    megabytes(summary.peakRssBytes),
  ];
}

function verdictsOf(result: BacklogResult): Verdict[] {
  const { id, targets } = result.backlog;
  const { minimumRatio, maximumCpuMicrosPerRow: perRow, maximumCpuMicrosPerTransaction: perTransaction } = targets;
  const ours = summaryOf(result, 'cdc-notifier');
  if (ours === undefined) return [];
  const ratio = ratioTo(result, 'pg_recvlogical');
  const verdicts: Verdict[] = [];
  if (minimumRatio !== undefined && ratio !== undefined) {
    verdicts.push(atLeast(`${id}: rate, of pg_recvlogical's`, ratio, minimumRatio, ''));
  }
  if (perRow !== undefined) verdicts.push(atMost(`${id}: CPU a row`, ours.cpuMicrosPerRow, perRow, 'us', 2));
  if (perTransaction !== undefined) {
    verdicts.push(atMost(`${id}: CPU a transaction`, ours.cpuMicrosPerTransaction, perTransaction, 'us', 2));
  }
  verdicts.push(atMost(`${id}: peak RSS`, ours.peakRssBytes / 1e6, MAXIMUM_PEAK_MB, 'MB'));
  if (ours.idleRssBytes !== undefined) {
    verdicts.push(atMost(`${id}: RSS when idle afterwards`, ours.idleRssBytes / 1e6, MAXIMUM_IDLE_MB, 'MB'));
  }
  return verdicts;
}
