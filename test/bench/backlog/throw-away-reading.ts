/** Reads a backlog with the discarding reader: the ceiling of any client on this machine. */
import { join } from 'node:path';
import { ProcessWatch } from '../../support/process/process-usage.ts';
import type { Environment } from '../environment.ts';
import { ChildProgram } from '../service/child-program.ts';
import { walsenderPid } from '../service/replication-slots.ts';
import { NAMESPACE } from '../workload/workloads.ts';
import type { Reading, ReadingPlace } from './reading.ts';

/** Size of a read and pause after it; which is best depends on machine and backlog. */
export interface Gulp {
  readonly bytes: number;
  readonly pauseMs: number;
}

/** The combinations to try, one per reading. */
export const GULPS: readonly Gulp[] = [
  { bytes: 256 * 1024, pauseMs: 3 },
  { bytes: 1024 * 1024, pauseMs: 8 },
  { bytes: 512 * 1024, pauseMs: 0 },
];

/** Reads the backlog; the program exits at its end. */
export async function readByThrowAway({ postgres }: Environment, gulp: Gulp, place: ReadingPlace): Promise<Reading> {
  const options = {
    host: postgres.host,
    port: postgres.port,
    user: postgres.superuser,
    database: place.database,
    slot: place.slot,
    publication: NAMESPACE,
    end: place.end,
    gulpBytes: gulp.bytes,
    pauseMs: gulp.pauseMs,
  };
  const reader = join(import.meta.dirname, 'throw-away-reader.ts');
  await using program = new ChildProgram([process.execPath, reader, JSON.stringify(options)]);
  await program.line('streaming initiated');
  const startedMs = performance.now();
  using walsender = new ProcessWatch(await walsenderPid(place.sql, place.slot));
  using client = new ProcessWatch(program.pid);
  const lastLine = await program.line('CPU ');
  await program.ended();
  return {
    seconds: (performance.now() - startedMs) / 1000,
    cpuMicros: Number(/CPU (\d+) us/.exec(lastLine)?.[1]),
    walsenderCpuMicros: walsender.cpuMicros,
    peakRssBytes: client.peakRssBytes,
    setting: `${gulp.bytes / 1024} KiB, ${gulp.pauseMs} ms`,
  };
}
