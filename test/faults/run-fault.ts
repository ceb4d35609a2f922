/** One fault at one moment on one stage, and what became of it. */
import { expect } from 'bun:test';
import { waitFor } from '../support/process/wait.ts';
import { expectCleanLogs } from '../support/service/binary-fixture.ts';
import { openScene } from './fixture/fault-fixture.ts';
import type { Stage } from './fixture/servers.ts';
import type { Fault, Moment } from './injection/fault.ts';
import { reach } from './injection/moments.ts';
import { judgeRun, type RunVerdict } from './verification/verifier.ts';

/** When, and with which dice. */
export interface RehearsalOptions {
  readonly moment: Moment;
  readonly seed: number;
}

/** Runs a fault from an empty database to a verdict. Rejects when the service did not come back as the fault says. */
export async function rehearse(stage: Stage, fault: Fault, { moment, seed }: RehearsalOptions): Promise<RunVerdict> {
  await using scene = await openScene(stage, { seed, onCluster: fault.onCluster, settings: fault.settings });
  await scene.start();
  await reach(scene, moment);
  await fault.inject(scene);
  scene.workload.start();
  await scene.workload.advance(100);
  const verdict = judgeRun(await scene.end());
  // A promise that was broken is told before anything else.
  if (!verdict.ok) return verdict;
  await waitFor('the service to be ready', scene.isReady);
  expect(verdict.expected).toBeGreaterThan(100);
  expect(scene.sampler.samples.length).toBeGreaterThan(1);
  if (fault.repeats) expect(verdict.duplicates).toBeGreaterThan(0);
  expectCleanLogs();
  return verdict;
}
