/**
 * `bun test/fuzz/main.ts [--target NAME]... [--seed N] [--mutations N] [--from N] [--position FILE]`: runs campaigns one
 * after another, mutations of each, and writes a report of each as a line of JSON. It runs apart from those who ask for it,
 * because a mutation that loops or eats all memory takes its process with it; FILE then tells which mutation it was.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { runCampaign } from './campaign.ts';
import { TARGETS } from './targets.ts';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      target: { type: 'string', multiple: true, default: Object.keys(TARGETS) },
      seed: { type: 'string', default: '1' },
      mutations: { type: 'string', default: '1000' },
      from: { type: 'string', default: '0' },
      position: { type: 'string', default: '/dev/null' },
    },
  });
  const position = openSync(values.position, 'w');
  for (const name of values.target) {
    const target = TARGETS[name];
    if (target === undefined) throw new Error(`No target "${name}"; there are ${Object.keys(TARGETS).join(', ')}`);
    const report = await runCampaign(await target.make(), {
      seed: Number(values.seed),
      mutationCount: Number(values.mutations),
      from: Number(values.from),
      onMutation: (index) => {
        latest = `${name} ${index}`;
        writeSync(position, latest.padEnd(40), 0);
      },
    });
    console.log(JSON.stringify(report));
  }
  closeSync(position);
}

/** The mutation that was begun last. Where several run at once, one of those before it may be to blame. */
let latest = 'none';

const fail = (error: unknown): never => {
  console.error(`latest mutation: ${latest}`);
  console.error(error instanceof Error ? (error.stack ?? error.message) : error);
  process.exit(1);
};
// What nobody catches would end the service, whichever of its slots it came from.
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);
main().then(() => process.exit(0), fail);
