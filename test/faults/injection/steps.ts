/** What faults have in common: watching the service go and come back. */

import { waitFor } from '../../support/process/wait.ts';
import { type RunningBinary, STARTED } from '../../support/service/binary.ts';
import { isFailure } from '../../support/service/binary-fixture.ts';
import type { FaultFixture, Mark } from '../fixture/fault-fixture.ts';

/** Waits until the service says that replication failed, unless another one has taken its place. */
export async function noticed(fixture: FaultFixture, since: Mark): Promise<void> {
  await fixture.waitForLine(
    'the failure',
    (line) => fixture.service !== since.service || isFailure(fixture.slot)(line),
    since,
  );
}

/** Does something to the service from which it must come back by itself. */
export async function cameBack(fixture: FaultFixture, harm: (since: Mark) => Promise<void> | void): Promise<void> {
  const since = fixture.mark();
  await harm(since);
  await fixture.streamsAgain(since);
}

/** How often the slot has begun to stream */
export function startCount({ lines }: RunningBinary): number {
  return lines.filter(({ msg }) => msg === STARTED).length;
}

/** Changes a setting of the server while `work` goes on, for sessions that begin in it. */
export async function withServerSetting(
  { servers }: FaultFixture,
  [name, value]: readonly [string, string],
  work: () => Promise<void>,
): Promise<void> {
  const sql = servers.postgres.sql('postgres', { max: 1 });
  try {
    await sql.unsafe(`ALTER SYSTEM SET ${name} = '${value}'`);
    await sql`SELECT pg_reload_conf()`;
    await waitFor(`${name} = ${value}`, async () => {
      const [row] = await sql`SELECT current_setting(${name}) AS now`;
      return row?.now === value;
    });
    await work();
  } finally {
    await sql.unsafe(`ALTER SYSTEM RESET ${name}`);
    await sql`SELECT pg_reload_conf()`;
    await sql.end();
  }
}

/** The walsender of the slot, undefined when it has none. */
export async function walsenderPid({ database, slot }: FaultFixture): Promise<number | undefined> {
  const [row] = await database.sql`
    SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = ${slot} AND active`;
  return row?.pid;
}

/** Resolves when the slot does not belong to this walsender any more, with the time (performance.now()) of that. */
export async function released(fixture: FaultFixture, pid: number | undefined): Promise<number> {
  await waitFor(`the end of walsender ${pid}`, async () => (await walsenderPid(fixture)) !== pid);
  return performance.now();
}
