/**
 * Compares short pieces of work: warmed up, in many short rounds, in turns. It measures the CPU time of the process, garbage
 * collector and compiler included, which other programs on the machine hardly influence.
 */
import { percentile } from '../report/statistics.ts';

/** A piece of work to measure. */
export interface Stage {
  readonly name: string;
  /** Rows or transactions per run */
  readonly countPerRun: number;
  /** Does the work once; returns the same number each time, which depends on all of it, so that nothing is optimized away. */
  run(): number;
}

/** Time of a stage per row or transaction. */
export interface StageTiming {
  readonly stage: string;
  readonly medianNs: number;
  /** Of the fastest round, undisturbed */
  readonly leastNs: number;
  /** Half of the interquartile range, as a share of the median */
  readonly spread: number;
}

/** Durations of warm-up and rounds. */
export interface ClockOptions {
  /** Warm-up of each stage, twice: the second time most code is compiled, and the length of a round is determined */
  readonly warmUpMs: number;
  readonly roundMs: number;
  readonly roundCount: number;
}

/**
 * Measures all stages. Rounds alternate, so that a temporarily slow machine affects all stages, and start when all are warm:
 * shared code is then compiled for all its uses, as in the service.
 */
export function measureStages(stages: readonly Stage[], options: ClockOptions): StageTiming[] {
  const expected = stages.map((stage) => stage.run());
  const runCounts = stages.map((stage) => {
    runFor(stage, options.warmUpMs);
    const runsPerMs = runFor(stage, options.warmUpMs) / options.warmUpMs;
    return Math.max(1, Math.round(runsPerMs * options.roundMs));
  });
  const samples = stages.map((): number[] => []);
  for (let round = 0; round < options.roundCount; round++) {
    for (const [index, stage] of stages.entries()) {
      const runCount = runCounts[index] as number;
      let result = 0;
      const before = process.cpuUsage();
      for (let run = 0; run < runCount; run++) result = stage.run();
      const { user, system } = process.cpuUsage(before);
      if (result !== expected[index]) throw new Error(`Stage "${stage.name}" gives ${result}, not ${expected[index]}`);
      samples[index]?.push(((user + system) * 1_000) / (runCount * stage.countPerRun));
    }
  }
  return stages.map(({ name }, index) => {
    const at = (percent: number): number => percentile(samples[index] as number[], percent);
    return { stage: name, medianNs: at(50), leastNs: at(0), spread: (at(75) - at(25)) / 2 / at(50) };
  });
}

/** Runs a stage for a while; returns the number of runs. */
function runFor(stage: Stage, durationMs: number): number {
  const untilMs = performance.now() + durationMs;
  let count = 0;
  for (; performance.now() < untilMs; count++) stage.run();
  return count;
}
