/** Runs one fault at one moment and judges the run. */
import { expect } from 'bun:test';
import { waitFor } from '../support/process/wait.ts';
import { expectCleanLogs } from '../support/service/binary-fixture.ts';
import { openFaultFixture } from './fixture/fault-fixture.ts';
import type { FaultServers } from './fixture/servers.ts';
import type { Fault, Moment } from './injection/fault.ts';
import { reach } from './injection/moments.ts';
import { judgeRun, type RunVerdict } from './verification/verifier.ts';

/** Moment and seed of a run. */
export interface FaultRunOptions {
  readonly moment: Moment;
  readonly seed: number;
}

/** Runs a fault from an empty database to a verdict. Rejects when the service did not recover as the fault requires. */
export async function runFault(
  servers: FaultServers,
  fault: Fault,
  { moment, seed }: FaultRunOptions,
): Promise<RunVerdict> {
  await using fixture = await openFaultFixture(servers, { seed, onCluster: fault.onCluster, settings: fault.settings });
  await fixture.start();
  await reach(fixture, moment);
  await fault.inject(fixture);
  fixture.workload.start();
  await fixture.workload.advance(100);
  const verdict = judgeRun(await fixture.end());
  // A broken promise comes before all other checks.
  if (!verdict.ok) return verdict;
  await waitFor('the service to be ready', fixture.isReady);
  expect(verdict.expected).toBeGreaterThan(100);
  expect(fixture.sampler.samples.length).toBeGreaterThan(1);
  if (fault.repeats) expect(verdict.duplicates).toBeGreaterThan(0);
  expectCleanLogs();
  return verdict;
}
