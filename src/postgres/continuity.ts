/**
 * Whether the server still has the slot and the publications that this process has seen on it. Start-up creates what is
 * missing; behind our back that would hide a gap, so what vanished while the service ran stops the slot instead.
 */
import type { Sql } from 'postgres';
import { SourceError } from '../errors.ts';
import { formatLsn, type Lsn, parseLsn } from './lsn.ts';

/** What was seen on the server before. */
export interface SeenState {
  readonly slot: string;
  /** Confirmed by this process; undefined when the slot was not seen yet */
  readonly confirmedLsn: Lsn | undefined;
  /** OID by publication name */
  readonly publicationOids: ReadonlyMap<string, number>;
}

/**
 * Does nothing before the first session of a process.
 * @throws SourceError when the slot, or a publication, is gone or is another one
 */
export async function refuseVanished(control: Sql, seen: SeenState): Promise<void> {
  if (seen.confirmedLsn === undefined) return;
  const position = formatLsn(seen.confirmedLsn);
  if ((await readSlotPosition(control, seen.slot)) === undefined) {
    throw new SourceError(`Cannot go on behind ${position}: the replication slot was dropped while it was in use`, {
      place: { slot: seen.slot, lsn: position },
      advice:
        'Rows committed behind this LSN may be lost to the stream. Compare the tables with the topics from there on; ' +
        'to accept the loss, restart the service, which creates the slot anew',
    });
  }
  const names = [...seen.publicationOids.keys()];
  if (names.length === 0) return;
  const rows = await control<{ name: string; oid: string }[]>`
    SELECT pubname::text AS name, oid::bigint::text AS oid FROM pg_catalog.pg_publication WHERE pubname IN ${control(names)}`;
  const present = new Map(rows.map((row) => [row.name, Number(row.oid)]));
  for (const [name, oid] of seen.publicationOids) {
    if (present.get(name) !== oid) throw droppedPublicationError(name, seen.confirmedLsn);
  }
}

/** Rows were written that no publication carried: only a person can say what becomes of them. */
export function droppedPublicationError(publication: string, confirmedLsn: Lsn): SourceError {
  const position = formatLsn(confirmedLsn);
  return new SourceError(
    `Cannot go on behind ${position}: publication "${publication}" was dropped while it was in use`,
    {
      place: { namespace: publication, lsn: position },
      advice:
        'Rows written while it was gone cannot be read from the WAL. Compare the tables with the topics from this LSN ' +
        'on; to accept the loss, restart the service',
    },
  );
}

/** Where a slot stands, and whether a walsender has it; undefined when there is no such slot. */
export async function readSlotPosition(
  control: Sql,
  slot: string,
): Promise<{ readonly confirmedFlushLsn: Lsn; readonly active: boolean } | undefined> {
  const [row] = await control<{ lsn: string | null; active: boolean }[]>`
    SELECT confirmed_flush_lsn::text AS lsn, active FROM pg_catalog.pg_replication_slots WHERE slot_name = ${slot}`;
  if (row === undefined) return undefined;
  return { confirmedFlushLsn: row.lsn === null ? 0n : parseLsn(row.lsn), active: row.active };
}
