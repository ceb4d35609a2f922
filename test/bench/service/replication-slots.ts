/** Replication slots of measurements: copies of a slot at the start of a backlog, and waiting for confirmation. */
import type { Sql } from 'postgres';
import { waitFor } from '../../support/process/wait.ts';

const CONFIRMATION_TIMEOUT_MS = 300_000;
const POLL_MS = 5;

/** Runs `use` with a new copy of a slot, which is dropped afterwards. */
export async function withSlotCopy<T>(
  sql: Sql,
  { base, copy }: { readonly base: string; readonly copy: string },
  use: (slot: string) => Promise<T>,
): Promise<T> {
  await copySlot(sql, base, copy);
  try {
    return await use(copy);
  } finally {
    await dropSlot(sql, copy);
  }
}

/** Creates a copy of slot `base`. */
export async function copySlot(sql: Sql, base: string, copy: string): Promise<void> {
  await sql`SELECT pg_copy_logical_replication_slot(${base}, ${copy})`;
}

/** Drops a slot as soon as it is inactive; a missing one is not an error. */
export async function dropSlot(sql: Sql, slot: string): Promise<void> {
  await waitFor(`slot ${slot} free`, async () => {
    const [row] = await sql`SELECT active FROM pg_replication_slots WHERE slot_name = ${slot}`;
    if (row === undefined) return true;
    if (row.active === true) return false;
    await sql`SELECT pg_drop_replication_slot(${slot})`;
    return true;
  });
}

/** Pid of the walsender of a slot. */
export async function walsenderPid(sql: Sql, slot: string): Promise<number> {
  const [row] = await sql`SELECT active_pid FROM pg_replication_slots WHERE slot_name = ${slot}`;
  if (typeof row?.active_pid !== 'number') throw new Error(`Cannot find the walsender of slot ${slot}`);
  return row.active_pid;
}

/**
 * Resolves when everything up to an LSN is confirmed. The server polls by itself: queries from here would take CPU time from
 * the measurement.
 */
export async function waitUntilConfirmed(sql: Sql, slot: string, lsn: string): Promise<void> {
  const quoted = (text: string): string => `'${text.replaceAll("'", "''")}'`;
  await sql.unsafe(`
    DO $$ BEGIN
      FOR i IN 1 .. ${CONFIRMATION_TIMEOUT_MS / POLL_MS} LOOP
        IF (SELECT confirmed_flush_lsn >= ${quoted(lsn)} FROM pg_replication_slots WHERE slot_name = ${quoted(slot)})
        THEN RETURN; END IF;
        PERFORM pg_sleep(${POLL_MS / 1000});
      END LOOP;
      RAISE EXCEPTION 'Cannot see the confirmation of ${lsn} within ${CONFIRMATION_TIMEOUT_MS} ms';
    END $$`);
}

/** An LSN after everything written, flushed, so that walsenders can reach it. */
export async function endOfWal(sql: Sql): Promise<string> {
  const [row] = await sql`SELECT pg_current_wal_insert_lsn()::text AS lsn`;
  // Without synchronous_commit the last transactions may not be flushed yet, and a walsender sends only flushed WAL.
  await sql`CHECKPOINT`;
  return String(row?.lsn);
}
