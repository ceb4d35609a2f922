/** The figures of restarts. */
import { atMost, type Section } from '../report/section.ts';
import type { StartResult } from './start.ts';

const MAXIMUM_SECONDS = 1;

/** From the start of the program to the first record. */
export function startSection(result: StartResult): Section {
  const readings = result.readings.map((seconds) => seconds.toFixed(2)).join(', ');
  return {
    name: 'start',
    lines: [`Start of the program to its first record in Kafka, after a restart: ${readings} s`],
    verdicts: [atMost('start to first record, median', result.seconds, MAXIMUM_SECONDS, 's', 2)],
    figures: result,
  };
}
