/** The command line of the benchmark. */
import { parseArgs } from 'node:util';
import { BACKLOG_IDS } from './backlog/backlogs.ts';

/** Options of the benchmark; `USAGE` explains them. */
export interface BenchOptions {
  readonly quick: boolean;
  readonly jsonFile: string | undefined;
  readonly plotsDirectory: string | undefined;
  readonly only: ReadonlySet<string>;
  readonly profileDirectory: string | undefined;
}

/** All measurements in the order of the run; a quick run omits the last unless it is named. */
export const MEASUREMENTS: readonly string[] = [...BACKLOG_IDS, 'start', 'latency', 'slots', 'growth'];

/** The help text. */
export const USAGE = `Usage: bun test/bench/main.ts [--quick] [--json FILE] [--plots DIRECTORY] [--only LIST] [--profile DIRECTORY]

  --quick              smaller backlogs, each read once, shorter latency measurements, fewer slots, no growth
  --json FILE          write all figures to FILE too
  --plots DIRECTORY    draw growth as SVG files there
  --only LIST          some of ${MEASUREMENTS.join(', ')}, separated by commas
  --profile DIRECTORY  run the sources under Bun's CPU profiler, one file a reading; the figures are worth less then
`;

/** @throws Error for the user */
export function readOptions(args: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
      plots: { type: 'string' },
      only: { type: 'string' },
      profile: { type: 'string' },
    },
  });
  const usual = MEASUREMENTS.filter((name) => !values.quick || name !== 'growth');
  const only = new Set(values.only?.split(',') ?? usual);
  for (const name of only) if (!MEASUREMENTS.includes(name)) throw new Error(`There is no measurement "${name}"`);
  return {
    quick: values.quick,
    jsonFile: values.json,
    plotsDirectory: values.plots,
    only,
    profileDirectory: values.profile,
  };
}
