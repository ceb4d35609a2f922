/** Steps that faults share: watching the service fail and recover, server settings, the walsender. */

import { waitFor } from '../../support/process/wait.ts';
import { type BinaryLogLine, STARTED } from '../../support/service/binary.ts';
import { isFailure } from '../../support/service/binary-fixture.ts';
import type { FaultFixture, Mark } from '../fixture/fault-fixture.ts';

/** Resolves when the service logs a failed session, or another service has taken over. */
export async function noticed(fixture: FaultFixture, since: Mark): Promise<void> {
  await fixture.waitForLine(
    'the failure',
    (line) => fixture.service !== since.service || isFailure(fixture.slot)(line),
    since,
  );
}

/** Does harm from which the service must recover by itself; resolves when it streams again. */
export async function cameBack(fixture: FaultFixture, harm: (since: Mark) => Promise<void> | void): Promise<void> {
  const since = fixture.mark();
  await harm(since);
  await fixture.streamsAgain(since);
}

/** What the log says about sessions that failed or started after a mark: nothing while one session goes on. */
export function sessionsSince({ service, line: from }: Mark): unknown[] {
  const isOfSession = (line: BinaryLogLine) => line.msg === STARTED || isFailure()(line);
  return service.lines.slice(from).flatMap((line) => (isOfSession(line) ? [line.error ?? line.msg] : []));
}

/** Changes a server setting during `work`; it applies to sessions that start meanwhile. */
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

/** Pid of the slot's walsender; undefined without one. */
export async function walsenderPid({ database, slot }: FaultFixture): Promise<number | undefined> {
  const [row] = await database.sql`
    SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = ${slot} AND active`;
  return row?.pid;
}

/** Resolves when this walsender no longer holds the slot, with the time (performance.now()). */
export async function released(fixture: FaultFixture, pid: number | undefined): Promise<number> {
  await waitFor(`the end of walsender ${pid}`, async () => (await walsenderPid(fixture).catch(() => pid)) !== pid);
  return performance.now();
}
