import { expect, test } from 'bun:test';
import { measureStages } from './stages-clock.ts';

const CLOCK = { warmUpMs: 1, roundMs: 1, roundCount: 3 };

/** Work that takes time in proportion to `steps`, and whose result depends on all of it. */
function spin(steps: number): number {
  let state = 1;
  for (let step = 0; step < steps; step++) state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
  return state;
}

test('tells what one row takes, whatever number of rows a run has', () => {
  const stages = [
    { name: 'few', countPerRun: 10, run: () => spin(100_000) },
    { name: 'many', countPerRun: 1_000, run: () => spin(100_000) },
  ];
  const [few, many] = measureStages(stages, CLOCK);
  expect([few?.stage, many?.stage]).toEqual(['few', 'many']);
  // A hundredfold, were nothing else at work on the machine.
  expect((few?.medianNs as number) / (many?.medianNs as number)).toBeGreaterThan(10);
});

test('refuses a stage that does not do the same each time', () => {
  let runs = 0;
  expect(() => measureStages([{ name: 'counter', countPerRun: 1, run: () => runs++ }], CLOCK)).toThrow(
    /Stage "counter" gives \d+, not 0/,
  );
});
