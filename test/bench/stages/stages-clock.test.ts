import { expect, test } from 'bun:test';
import { measureStages } from './stages-clock.ts';

const CLOCK = { warmUpMs: 1, roundMs: 1, roundCount: 3 };

/** Work proportional to `steps`, whose result depends on every step. */
function spin(steps: number): number {
  let state = 1;
  for (let step = 0; step < steps; step++) state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
  return state;
}

test('gives the time of one row for any number of rows per run', () => {
  const stages = [
    { name: 'few', countPerRun: 10, run: () => spin(100_000) },
    { name: 'many', countPerRun: 1_000, run: () => spin(100_000) },
  ];
  const [few, many] = measureStages(stages, CLOCK);
  expect([few?.stage, many?.stage]).toEqual(['few', 'many']);
  // A factor of 100 on an idle machine.
  expect((few?.medianNs as number) / (many?.medianNs as number)).toBeGreaterThan(10);
});

test('rejects a stage with differing results', () => {
  let runs = 0;
  expect(() => measureStages([{ name: 'counter', countPerRun: 1, run: () => runs++ }], CLOCK)).toThrow(
    /Stage "counter" gives \d+, not 0/,
  );
});
