/**
 * `bun test/faults/soak.ts [--duration SECONDS] [--seed N] [--workers N] [--mutations N] [--pair 14:3.9.2]...
 * [--fault TEXT] [--moment MOMENT]`: every fault at every moment on every pair of versions and seeded
 * combinations of faults, for so long, and meanwhile mutations of everything that is decoded. It prints each cycle and counts
 * at the end; Ctrl-C ends it after the running cycles. Exit code 0 when every promise was kept.
 */
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import { parseArgs } from 'node:util';
import { seededRandom } from '../support/codecs/etf.ts';
import { KAFKA_VERSIONS } from '../support/kafka/server.ts';
import { guardProcess, releaseProcess } from '../support/process/guardian.ts';
import { type FaultServers, startFaultServers, type VersionPair } from './fixture/servers.ts';
import { combine, FAULTS } from './injection/all-faults.ts';
import type { Fault, Moment } from './injection/fault.ts';
import { runFault } from './run-fault.ts';
import type { RunVerdict } from './verification/verifier.ts';

/** One run. */
interface Cycle {
  readonly fault: Fault;
  readonly moment: Moment;
}

/** Sums over the cycles of one fault. */
interface Tally {
  cycles: number;
  failed: number;
  rows: number;
  duplicated: number;
  lost: number;
  reordered: number;
  wrong: number;
  premature: number;
}

const PAIRS: readonly VersionPair[] = ([14, 18, 16, 15, 17] as const).flatMap((postgres) =>
  KAFKA_VERSIONS.map((kafka) => ({ postgres, kafka })),
);
const COMBINATIONS_OF_A_PAIR = 25;
/** Cycles on one pair before the next pair: a short soak covers all versions too */
const CYCLES_OF_A_TURN = 12;
/** Many times the duration of a cycle: one that hangs must not stop the soak */
const CYCLE_TIMEOUT_MS = 300_000;
const COMBINED = 'several faults together';

const { values } = parseArgs({
  options: {
    duration: { type: 'string', default: '3600' },
    seed: { type: 'string', default: String(Math.floor(Date.now() / 1000) % 1_000_000) },
    workers: { type: 'string', default: '2' },
    mutations: { type: 'string', default: '1000000' },
    pair: { type: 'string', multiple: true },
    fault: { type: 'string', default: '' },
    moment: { type: 'string' },
  },
});
const seed = Number(values.seed);
const random = seededRandom(seed);
const startMs = performance.now();
const endMs = startMs + Number(values.duration) * 1000;
const tallies = new Map<string, Tally>();
const failures: string[] = [];
let stopped = false;
let cycleCount = 0;

const isOver = (): boolean => stopped || performance.now() >= endMs;

function say(text: string): void {
  const seconds = Math.floor((performance.now() - startMs) / 1000);
  const clock = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map((part) =>
    String(Math.floor(part)).padStart(2, '0'),
  );
  console.log(`${clock.join(':')}  ${text}`);
}

function shuffled<T>(items: readonly T[]): T[] {
  const rest = [...items];
  return Array.from({ length: rest.length }, () => rest.splice(Math.floor(random() * rest.length), 1)[0] as T);
}

/** All cycles of one pair, in random order. */
function planCycles(): Cycle[] {
  const possible = FAULTS.filter(({ name }) => name.includes(values.fault));
  const alone = possible.flatMap((fault) => fault.moments.map((moment) => ({ fault, moment })));
  const together =
    values.fault === '' ? Array.from({ length: COMBINATIONS_OF_A_PAIR }, () => combine(possible, random)) : [];
  const all = [...alone, ...together.flatMap((fault) => fault.moments.map((moment) => ({ fault, moment })))];
  return shuffled(all.filter(({ moment }) => values.moment === undefined || moment === values.moment));
}

function tallyOf(fault: Fault): Tally {
  const name = FAULTS.includes(fault) ? fault.name : COMBINED;
  const known = tallies.get(name);
  if (known !== undefined) return known;
  const tally = { cycles: 0, failed: 0, rows: 0, duplicated: 0, lost: 0, reordered: 0, wrong: 0, premature: 0 };
  tallies.set(name, tally);
  return tally;
}

function count(tally: Tally, verdict: RunVerdict): void {
  tally.rows += verdict.expected;
  tally.duplicated += verdict.duplicates;
  tally.lost += verdict.missing;
  tally.reordered += verdict.outOfOrder;
  tally.wrong += verdict.unexpected + verdict.wrongPartition + verdict.wrongTime;
  tally.premature += verdict.premature;
}

/** Runs a cycle; true when every promise was kept. */
async function runCycle(servers: FaultServers, { fault, moment }: Cycle): Promise<boolean> {
  const number = ++cycleCount;
  const own = seed * 10_000 + number;
  const { postgres, kafka } = servers.pair;
  const what = `PostgreSQL ${postgres}, Kafka ${kafka}: ${fault.name} (${moment}, seed ${own})`;
  const tally = tallyOf(fault);
  tally.cycles++;
  try {
    const verdict = await within(CYCLE_TIMEOUT_MS, runFault(servers, fault, { moment, seed: own }));
    count(tally, verdict);
    say(`${verdict.ok ? 'ok    ' : 'BROKEN'}  ${what}: ${verdict.expected} records, ${verdict.duplicates} duplicates`);
    if (verdict.ok) return true;
    failures.push(`${what}: ${verdict.findings.join('; ')}`);
  } catch (error) {
    say(`FAILED  ${what}`);
    failures.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
  }
  tally.failed++;
  return false;
}

function within<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`It took longer than ${timeoutMs} ms`)), timeoutMs);
  return Promise.race([work, late.promise]).finally(() => clearTimeout(timer));
}

/** Runs cycles on one pair after another until the time is over. */
async function work(turns: Iterator<VersionPair>, plans: Map<VersionPair, Cycle[]>): Promise<void> {
  while (!isOver()) {
    const pair = turns.next().value as VersionPair;
    let plan = plans.get(pair) ?? [];
    if (plan.length === 0) plan = planCycles();
    if (plan.length === 0) throw new Error('No such fault, or not at this moment');
    const turn = plan.splice(0, CYCLES_OF_A_TURN);
    plans.set(pair, plan);
    while (turn.length > 0 && !isOver()) {
      await using servers = await startFaultServers(pair);
      // After a failed cycle its servers may be in any state: start new ones.
      while (turn.length > 0 && !isOver() && (await runCycle(servers, turn.shift() as Cycle)));
    }
  }
}

function* cycleThrough<T>(items: readonly T[]): Generator<T> {
  for (;;) yield* items;
}

/** Runs the fuzz program beside the faults, as a process of its own; returns the number of mutations that passed. */
async function fuzz(): Promise<number> {
  if (Number(values.mutations) === 0) return 0;
  const program = join(import.meta.dirname, '../fuzz/main.ts');
  const child = Bun.spawn([process.execPath, program, '--seed', String(seed), '--mutations', values.mutations], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  guardProcess(child.pid, 'KILL');
  const errors = child.stderr.text();
  let done = 0;
  for await (const line of createInterface({ input: Readable.fromWeb(child.stdout) })) {
    const { target, mutationCount } = JSON.parse(line) as { readonly target: string; readonly mutationCount: number };
    done += mutationCount;
    say(`ok      ${mutationCount} mutations of ${target}`);
  }
  const code = await child.exited;
  releaseProcess(child.pid);
  // Ctrl-C reaches the program as well, and ends it at once.
  if (code !== 0 && !stopped) {
    failures.push(`The fuzz program ended with ${child.signalCode ?? code}: ${await errors}`);
    say('FAILED  mutations');
  }
  return done;
}

function report(mutationCount: number): void {
  const total: Tally = { cycles: 0, failed: 0, rows: 0, duplicated: 0, lost: 0, reordered: 0, wrong: 0, premature: 0 };
  const line = (name: string, tally: Tally): void => {
    const cells = Object.values(tally).map((value) => String(value).padStart(10));
    console.log(`${name.padEnd(76)}${cells.join('')}`);
  };
  console.log(
    `\n${''.padEnd(76)}${Object.keys(total)
      .map((key) => key.padStart(10))
      .join('')}`,
  );
  for (const [name, tally] of [...tallies].sort(([a], [b]) => a.localeCompare(b))) {
    line(name, tally);
    for (const key of Object.keys(total) as (keyof Tally)[]) total[key] += tally[key];
  }
  line('all', total);
  for (const failure of failures) console.log(`\n${failure}`);
  console.log(`\nseed ${seed}, ${mutationCount} mutations, ${total.cycles} cycles, ${failures.length} failures`);
}

process.once('SIGINT', () => {
  stopped = true;
  say('stopping after the running cycles; press Ctrl-C again to stop at once');
});
const chosen = PAIRS.filter(({ postgres, kafka }) => values.pair?.includes(`${postgres}:${kafka}`) ?? true);
const turns = cycleThrough(chosen);
const plans = new Map<VersionPair, Cycle[]>();
const [mutationCount] = await Promise.all([
  fuzz(),
  ...Array.from({ length: Number(values.workers) }, () => work(turns, plans)),
]);
report(mutationCount);
process.exit(failures.length === 0 ? 0 : 1);
