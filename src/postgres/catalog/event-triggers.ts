import type { Sql } from 'postgres';

/** Reads the enabled event triggers of the database, each as `audit_ddl (public.log_ddl)`: every DDL statement runs them. */
export async function readEventTriggers(control: Sql): Promise<string[]> {
  const rows = await control`
    SELECT evtname, evtfoid::regproc::text AS function FROM pg_event_trigger WHERE evtenabled <> 'D' ORDER BY evtname`;
  return rows.map((row) => `${row.evtname} (${row.function})`);
}
