/**
 * The CPU profile of a backlog: `bun test/bench/profile/profile.ts [--only ID] [--directory DIRECTORY]` runs one through the
 * sources under Bun's CPU profiler; `bun test/bench/profile/profile.ts FILE.cpuprofile...` reads existing profiles.
 * Prints the time by stage and by function, and writes a flame graph beside each profile.
 *
 * Bun samples about once a millisecond, and only while JavaScript is on the stack. What JavaScript calls is seen, under
 * the names that Bun has for it: `writeBuffered` is the system call of a socket's write, `gc` the collections that the
 * service asks for, `concat`, `copy` and `subarray` those of Buffer. Not seen are the event loop's reading of sockets and
 * its waiting, and other threads: helpers of the collector and the compiler. All of it is in the gaps between samples;
 * what the benchmark's table has as CPU beyond the time seen is the part that was not waiting. A function that was compiled
 * into its caller, or the line of a class's first fields ("(anonymous) FILE:1"), may bear a neighbour's name. CRC-32C is
 * native here and twice as dear in the compiled program, which has WebAssembly for it: see `make bench-stages`.
 */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { PROJECT_DIRECTORY } from '../../support/process/directories.ts';
import { guardProcess, releaseProcess } from '../../support/process/guardian.ts';
import { flameGraph } from './flame-graph.ts';
import { type CpuProfile, readSampling, type Sampling } from './profile-samples.ts';
import { STAGE_NAMES, stageOf } from './profile-stages.ts';

const SHOWN_FUNCTIONS = 25;

/** Lines of a summary: time by stage, then by function, the most expensive first. */
function summarize({ stacks, durationMicros, gapMicros }: Sampling): string[] {
  const seenMicros = durationMicros - gapMicros;
  const byStage = new Map<string, number>();
  const byFunction = new Map<string, number>();
  for (const { frames, micros } of stacks) {
    const stage = stageOf(frames);
    const name = `${selfName(frames)}  [${stage}]`;
    byStage.set(stage, (byStage.get(stage) ?? 0) + micros);
    byFunction.set(name, (byFunction.get(name) ?? 0) + micros);
  }
  const ranking = (micros: ReadonlyMap<string, number>): string[] =>
    [...micros].sort(([, one], [, other]) => other - one).map(([name, spent]) => line(name, spent, seenMicros));
  return [
    `${milliseconds(durationMicros)} ms of streaming: ${milliseconds(seenMicros)} ms in JavaScript and what it calls (100 % below),`,
    `${milliseconds(gapMicros)} ms in gaps: waiting, for data or for a core, and the event loop reading from sockets`,
    '',
    ...ranking(byStage),
    '',
    ...ranking(byFunction).slice(0, SHOWN_FUNCTIONS),
  ];
}

/** The function; native ones with their caller. */
function selfName(frames: Sampling['stacks'][number]['frames']): string {
  const self = frames.at(-1);
  if (self === undefined) return '(unknown)';
  const caller = frames.at(-2);
  return self.url === '' && caller !== undefined ? `${self.label}, called by ${caller.label}` : self.label;
}

function line(name: string, micros: number, totalMicros: number): string {
  const share = ((100 * micros) / totalMicros).toFixed(1);
  return `${share.padStart(5)} %  ${milliseconds(micros).padStart(6)} ms  ${name}`;
}

function milliseconds(micros: number): string {
  return (micros / 1000).toFixed(0);
}

async function readProfile(file: string): Promise<Sampling> {
  return readSampling(JSON.parse(await readFile(file, 'utf8')) as CpuProfile);
}

async function report(file: string): Promise<void> {
  const sampling = await readProfile(file);
  const svgFile = file.replace(/(\.cpuprofile)?$/, '.svg');
  const title = `${basename(file)}: ${milliseconds(sampling.durationMicros - sampling.gapMicros)} ms in JavaScript and what it calls`;
  await writeFile(svgFile, flameGraph(sampling.stacks, { title, groupOf: stageOf, groups: STAGE_NAMES }));
  process.stdout.write(
    `\n${relative('.', file)}\n${summarize(sampling).join('\n')}\n\nFlame graph: ${relative('.', svgFile)}\n`,
  );
}

/** Runs the benchmark; returns the profile of the reading, not those of warm-up and preparation. */
async function profileBacklog(id: string, directory: string): Promise<string> {
  await mkdir(directory, { recursive: true });
  const known = new Set(await readdir(directory));
  const options = ['--quick', '--only', id, '--profile', directory];
  const benchmark = Bun.spawn([process.execPath, join(import.meta.dirname, '../main.ts'), ...options], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  guardProcess(benchmark.pid, 'TERM');
  const code = await benchmark.exited;
  releaseProcess(benchmark.pid);
  if (code !== 0) throw new Error(`Cannot profile backlog ${id}: the benchmark ended with ${code}`);
  const files = (await readdir(directory)).filter((name) => name.endsWith('.cpuprofile') && !known.has(name));
  const lengths = await Promise.all(
    files.map(async (name) => ({
      file: join(directory, name),
      micros: (await readProfile(join(directory, name))).durationMicros,
    })),
  );
  const [longest] = lengths.sort((one, other) => other.micros - one.micros);
  if (longest === undefined) throw new Error(`Cannot profile backlog ${id}: the benchmark left no profile`);
  return longest.file;
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      only: { type: 'string', default: 'a' },
      directory: { type: 'string', default: join(PROJECT_DIRECTORY, 'dist/profiles') },
    },
  });
  const files = positionals.length > 0 ? positionals : [await profileBacklog(values.only, values.directory)];
  for (const file of files) await report(file);
}
