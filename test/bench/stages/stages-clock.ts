/**
 * Measures short pieces of work against each other: warmed up, in many short rounds, in turns. What is measured is the
 * processor time of the process, collector and compiler included: whatever else the machine does hardly shows.
 */
import { percentile } from '../report/statistics.ts';

/** Something to be measured. */
export interface Stage {
  readonly name: string;
  /** Rows, or transactions, that one run works on */
  readonly countPerRun: number;
  /** Does the work once and returns a number that depends on all of it, the same one each time: so none is optimised away. */
  run(): number;
}

/** What one stage took for one row, or one transaction. */
export interface StageTiming {
  readonly stage: string;
  readonly medianNs: number;
  /** Of the quickest round: what it takes when nothing else is in the way */
  readonly leastNs: number;
  /** Between the first and the third quarter of the rounds, half of it, as a share of the median */
  readonly spread: number;
}

/** How long to measure. */
export interface ClockOptions {
  /** Of each stage, twice: the second time the compiler has mostly done its work, and the length of a round is found */
  readonly warmUpMs: number;
  readonly roundMs: number;
  readonly roundCount: number;
}

/**
 * Measures all stages. Rounds are taken in turns, so that a machine that is slow for a while is so for all of them, and
 * after all are warm: code that several of them share is then compiled for all that they do with it, as in the service.
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

/** Runs a stage for a while; returns how often. */
function runFor(stage: Stage, durationMs: number): number {
  const untilMs = performance.now() + durationMs;
  let count = 0;
  for (; performance.now() < untilMs; count++) stage.run();
  return count;
}
