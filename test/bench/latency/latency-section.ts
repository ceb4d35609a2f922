/** The figures of latency. */

import { atLeast, atMost, type Section, type Verdict } from '../report/section.ts';
import { table } from '../report/text-table.ts';
import { type Distribution, LATENCY_LIMIT_MS, type LatencyResult } from './latency.ts';

const MAXIMUM_P50_MS = 3;
const MAXIMUM_P99_MS = 12;
/** From this rate the limit of the p99 is larger */
const HIGH_RATE = 5_000;
const MAXIMUM_P99_AT_HIGH_RATE_MS = 20;
/** Minimum share of the wanted rate: below it another rate was measured */
const MINIMUM_ACHIEVED = 0.99;

/** Of each rate. */
export function latencySection(results: readonly LatencyResult[]): Section {
  const head = ['tx/s', 'reached', 'from commit to', 'samples', 'p50 ms', 'p99 ms', 'max ms', 'CPU us/tx'];
  const rows = results.flatMap((result) => {
    const { transactionsPerSecond, achievedPerSecond, cpuMicrosPerTransaction } = result;
    return [
      [
        String(transactionsPerSecond),
        achievedPerSecond.toFixed(0),
        ...cells('acknowledgement', result.acknowledged),
        cpuMicrosPerTransaction.toFixed(1),
      ],
      ['', '', ...cells('append by the leader', result.appended), ''],
      ['', '', ...cells('one fdatasync alone', result.fsync), ''],
    ];
  });
  const { seconds, warmUpSeconds } = results[0] ?? { seconds: 0, warmUpSeconds: 0 };
  return {
    name: 'latency',
    lines: [
      `Latency, ${seconds} s of each rate after ${warmUpSeconds} s of warm-up, one event and one update a transaction, fsync on`,
      ...table([head, ...rows]),
      'To the acknowledgement: as the service counts it in commit_acknowledge_seconds, interpolated, its maximum a bound of a',
      'bucket. To the append: LogAppendTime of each record, seen from outside. Both clocks are cut off to a millisecond, so',
      'one was added: all figures are upper bounds.',
    ],
    verdicts: results.flatMap(verdictsOf),
    figures: results,
  };
}

function cells(name: string, { sampleCount, p50Ms, p99Ms, maxMs }: Distribution): string[] {
  return [name, String(sampleCount), ...[p50Ms, p99Ms, maxMs].map((value) => value.toFixed(2))];
}

function verdictsOf(result: LatencyResult): Verdict[] {
  const { transactionsPerSecond, achievedPerSecond, acknowledged, acknowledgedAboveLimit, appended } = result;
  const label = `latency at ${transactionsPerSecond}/s`;
  const p99 = transactionsPerSecond >= HIGH_RATE ? MAXIMUM_P99_AT_HIGH_RATE_MS : MAXIMUM_P99_MS;
  return [
    atLeast(`${label}: rate reached`, achievedPerSecond / transactionsPerSecond, MINIMUM_ACHIEVED, ' of it'),
    atMost(`${label}: p50`, acknowledged.p50Ms, MAXIMUM_P50_MS, 'ms', 1),
    atMost(`${label}: p99`, acknowledged.p99Ms, p99, 'ms', 1),
    {
      what: `${label}: maximum`,
      wanted: `none above ${LATENCY_LIMIT_MS} ms`,
      reached: `${acknowledgedAboveLimit} above, ${appended.maxMs.toFixed(0)} ms to the append`,
      met: acknowledgedAboveLimit === 0 && appended.maxMs <= LATENCY_LIMIT_MS,
    },
  ];
}
