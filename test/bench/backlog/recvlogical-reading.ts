/** Reads a backlog with pg_recvlogical into /dev/null. */

import { ProcessWatch } from '../../support/process/process-usage.ts';
import type { Environment } from '../environment.ts';
import { ChildProgram } from '../service/child-program.ts';
import { walsenderPid } from '../service/replication-slots.ts';
import { NAMESPACE } from '../workload/workloads.ts';
import type { Reading, ReadingPlace } from './reading.ts';
import type { RecvLogical } from './recvlogical.ts';

/** The command line of a comparison. */
export function recvLogicalCommand(
  program: string,
  target: { readonly host: string; readonly port: number } & Pick<ReadingPlace, 'database' | 'slot' | 'end'>,
): string[] {
  const { host, port, database, slot, end } = target;
  const connection = ['-h', host, '-p', String(port), '-U', 'postgres', '-d', database];
  const plugin = ['proto_version=1', `publication_names="${NAMESPACE}"`, 'binary=true', 'messages=true'];
  const options = plugin.flatMap((option) => ['-o', option]);
  return [program, ...connection, '--slot', slot, '--start', '--endpos', end, '-f', '/dev/null', '-v', ...options];
}

/** Reads the backlog; the program exits at its end. */
export async function readByRecvLogical(
  { postgres }: Environment,
  recvLogical: RecvLogical,
  place: ReadingPlace,
): Promise<Reading> {
  const command = recvLogicalCommand(recvLogical.program, { ...place, host: postgres.host, port: postgres.port });
  await using program = new ChildProgram(command, { env: recvLogical.env });
  await program.line('streaming initiated');
  const startedMs = performance.now();
  using walsender = new ProcessWatch(await walsenderPid(place.sql, place.slot));
  using client = new ProcessWatch(program.pid);
  await program.ended();
  const seconds = (performance.now() - startedMs) / 1000;
  const [row] = await place.sql`
    SELECT confirmed_flush_lsn >= ${place.end}::pg_lsn AS confirmed FROM pg_replication_slots
    WHERE slot_name = ${place.slot}`;
  if (row?.confirmed !== true) throw new Error('pg_recvlogical has ended before the end of the backlog');
  return {
    seconds,
    cpuMicros: program.cpuMicros(),
    walsenderCpuMicros: walsender.cpuMicros,
    peakRssBytes: client.peakRssBytes,
  };
}
