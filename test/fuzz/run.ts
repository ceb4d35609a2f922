/** Runs campaigns, each in a process of its own: a mutation that loops or takes all memory ends that process alone. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { guardProcess, releaseProcess } from '../support/process/guardian.ts';
import { temporaryDirectory } from '../support/process/temporary-directory.ts';
import type { CampaignReport } from './campaign.ts';
import { TARGETS } from './targets.ts';

/** Options of `runFuzz`. */
export interface FuzzOptions {
  readonly seed: number;
  /** For all targets together; each has its share */
  readonly mutationCount: number;
  /** Default: all of them */
  readonly targets?: readonly string[] | undefined;
  /** Longest time for one target, in ms */
  readonly limitMs: number;
  /** Called after each campaign */
  readonly onReport?: ((report: FuzzReport) => void) | undefined;
}

/** Result of the campaign of one target. */
export interface FuzzReport extends CampaignReport {
  /** Peak memory of the process, with the runtime and the seeds of the mutations */
  readonly peakRssBytes: number;
}

/**
 * Runs mutations of every target, one target after another. Rejects when one of them does harm: it raises an error that is
 * not a NotifierError, or one that nothing catches, it takes too long, or it does not end.
 */
export async function runFuzz(options: FuzzOptions): Promise<FuzzReport[]> {
  const { seed, mutationCount, targets = Object.keys(TARGETS), onReport } = options;
  await using directory = await temporaryDirectory('fuzz');
  const reports: FuzzReport[] = [];
  for (const target of targets) {
    const position = join(directory.path, target);
    const mutations = String(Math.ceil(mutationCount * TARGETS[target]!.share));
    const given = ['--target', target, '--seed', String(seed), '--mutations', mutations, '--position', position];
    const child = Bun.spawn([process.execPath, join(import.meta.dirname, 'main.ts'), ...given], {
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: 'pipe',
      timeout: options.limitMs,
      killSignal: 'SIGKILL',
    });
    guardProcess(child.pid, 'KILL');
    const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    releaseProcess(child.pid);
    if (code !== 0) {
      const at = (await readFile(position, 'utf8').catch(() => '')).trim();
      throw new Error(`Fuzzing ended with ${child.signalCode ?? code} at mutation ${at} of seed ${seed}: ${errors}`);
    }
    const report = { ...(JSON.parse(output) as CampaignReport), peakRssBytes: child.resourceUsage()!.maxRSS };
    reports.push(report);
    onReport?.(report);
  }
  return reports;
}
