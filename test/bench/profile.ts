/**
 * Where the time of a profile went: `bun test/bench/profile.ts FILE.cpuprofile...`, with files that the benchmark wrote
 * under `--profile`. Prints the functions with the most self time, sampled, garbage collection and idling included.
 */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';

/** The parts of a V8 CPU profile that are used here; times are in microseconds. */
interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

const SHOWN_FUNCTIONS = 25;

/** Lines of a summary, the most expensive function first. */
export function summarize(profile: CpuProfile): string[] {
  const names = new Map(
    profile.nodes.map(({ id, callFrame: { functionName, url, lineNumber } }) => [
      id,
      url === '' ? functionName : `${functionName || '(anonymous)'} ${basename(url)}:${lineNumber + 1}`,
    ]),
  );
  const selfMicros = new Map<string, number>();
  let totalMicros = 0;
  for (const [index, id] of profile.samples.entries()) {
    const name = names.get(id) ?? '(unknown)';
    const micros = profile.timeDeltas[index] ?? 0;
    totalMicros += micros;
    selfMicros.set(name, (selfMicros.get(name) ?? 0) + micros);
  }
  const rows = [...selfMicros].sort(([, one], [, other]) => other - one).slice(0, SHOWN_FUNCTIONS);
  return rows.map(
    ([name, micros]) =>
      `${((100 * micros) / totalMicros).toFixed(1).padStart(5)} %  ${(micros / 1000).toFixed(0).padStart(6)} ms  ${name}`,
  );
}

if (import.meta.main) {
  for (const file of process.argv.slice(2)) {
    const profile = JSON.parse(readFileSync(file, 'utf8')) as CpuProfile;
    process.stdout.write(`${basename(file)}\n${summarize(profile).join('\n')}\n\n`);
  }
}
