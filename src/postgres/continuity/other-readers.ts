import type { Sql } from 'postgres';
import { readPublicationOids } from '../catalog/publications.ts';
import { isProbe, readPublicationReaders } from '../catalog/slots.ts';
import { walsenderName } from '../replication/stream.ts';
import { ledgerName } from './ledger.ts';

/**
 * The slots and walsenders of this database that may read a publication and belong to other programs: not configured, and
 * without a ledger, which this service leaves for each of its slots, of any deployment.
 */
export async function readOtherReaders(
  control: Sql,
  isConfiguredSlot: (slot: string) => boolean,
): Promise<readonly string[]> {
  const { slots, walsenders } = await readPublicationReaders(control);
  const unknown = slots.filter((slot) => !isConfiguredSlot(slot) && !isProbe(slot));
  const ledgers = unknown.length === 0 ? undefined : await readPublicationOids(control, unknown.map(ledgerName));
  return [
    ...unknown.filter((slot) => !ledgers?.has(ledgerName(slot))).map((slot) => `slot ${slot}`),
    ...walsenders.filter((name) => !name.startsWith(walsenderName(''))).map((name) => `walsender "${name}"`),
  ];
}
