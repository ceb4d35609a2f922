/**
 * `bun test/fuzz/main.ts [--seed N] [--mutations N]` runs the campaigns of all targets one after another, each in a process of
 * its own; N mutations of all targets together. `--target NAME [--from N] [--position FILE]` runs the campaign of one target
 * in this process, and writes to FILE which mutation runs. Both write the report of each campaign as a line of JSON, and
 * end with 1 at the first mutation that does harm.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { runCampaign } from './campaign.ts';
import { runFuzz } from './run.ts';
import { TARGETS } from './targets.ts';

/** Least of the longest time for the campaign of one target, which is 1 ms a mutation: far more than one takes */
const LEAST_LIMIT_MS = 600_000;

const { values } = parseArgs({
  options: {
    target: { type: 'string' },
    seed: { type: 'string', default: '1' },
    mutations: { type: 'string', default: '1000' },
    from: { type: 'string', default: '0' },
    position: { type: 'string', default: '/dev/null' },
  },
});
const seed = Number(values.seed);
const mutationCount = Number(values.mutations);

/** The mutation that began last. Where several run at once, an earlier one may be the cause. */
let latest = 'none';

async function runTarget(name: string): Promise<void> {
  const target = TARGETS[name];
  if (target === undefined) throw new Error(`No target "${name}"; there are ${Object.keys(TARGETS).join(', ')}`);
  const position = openSync(values.position, 'w');
  const report = await runCampaign(await target.make(), {
    seed,
    mutationCount,
    from: Number(values.from),
    onMutation: (index) => {
      latest = `${name} ${index}`;
      writeSync(position, latest.padEnd(40), 0);
    },
  });
  console.log(JSON.stringify(report));
  closeSync(position);
}

async function runAll(): Promise<void> {
  await runFuzz({
    seed,
    mutationCount,
    limitMs: Math.max(LEAST_LIMIT_MS, mutationCount),
    onReport: (report) => console.log(JSON.stringify(report)),
  });
}

const fail = (error: unknown): never => {
  if (values.target !== undefined) console.error(`latest mutation: ${latest}`);
  console.error(error instanceof Error ? (error.stack ?? error.message) : error);
  process.exit(1);
};
// An error that nothing catches would end the service, whichever of its slots it came from.
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);
const running = values.target === undefined ? runAll() : runTarget(values.target);
running.then(() => process.exit(0), fail);
