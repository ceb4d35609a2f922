/** Takes the slot in its ledger, once the walsender of this process holds it. */
import type { Sql } from 'postgres';
import { type ErrorPlace, SlotInUseError } from '../../errors.ts';
import type { Lsn } from '../../lsn.ts';
import { readPublicationOids } from '../catalog/publications.ts';
import { readSlot } from '../catalog/slots.ts';
import { type LedgerRefusal, type SlotLedger, writeLedger } from '../continuity/ledger.ts';
import type { PreparedPublication } from './ensure-publication.ts';

/** What was prepared, and must still be so when the slot is taken. */
export interface SlotClaim {
  /** 14, 17, 18 */
  readonly serverMajor: number;
  readonly confirmedFlushLsn: Lsn;
  readonly publications: readonly PreparedPublication[];
  /** The ledger on the server, which the next one replaces */
  readonly storedLedger: SlotLedger | undefined;
  /** The ledger to write when the slot is taken; what this process remembers from now on */
  readonly nextLedger: SlotLedger;
}

/**
 * Takes the slot in the ledger. To be called when the walsender of this process holds the slot and nothing is confirmed yet:
 * no other process can move the slot then, so that what was prepared stays true if it is true now.
 *
 * @returns a refusal when the server does not write the ledger
 * @throws SlotInUseError when the slot or a publication was changed, or another instance took the slot, since it was prepared:
 * the session starts over, and the change is judged
 */
export async function claimSlot(
  control: Sql,
  {
    slot,
    databaseRef,
    prepared,
  }: { readonly slot: string; readonly databaseRef: string; readonly prepared: SlotClaim },
): Promise<'written' | LedgerRefusal> {
  const place = { database: databaseRef, slot };
  const { nextLedger, storedLedger, confirmedFlushLsn, publications, serverMajor } = prepared;
  const present = await readSlot(control, slot, serverMajor);
  refuseChanged(present?.confirmedFlushLsn !== confirmedFlushLsn, place);
  const names = publications.map(({ name }) => name);
  const oids = await readPublicationOids(control, names);
  const isOther = publications.some(({ name, oid }) => oids.get(name) !== oid);
  refuseChanged(isOther, place);
  const outcome = await writeLedger(control, { slot, ledger: nextLedger, replaces: storedLedger });
  if (outcome === 'superseded') throw slotChangedError(place);
  return outcome;
}

/** @throws SlotInUseError when what was compared is not what exists now */
export function refuseChanged(isChanged: boolean, place: ErrorPlace): void {
  if (isChanged) throw slotChangedError(place);
}

/** Most probably another instance changed it: the next attempt finds that instance, and waits for the slot. */
function slotChangedError(place: ErrorPlace): SlotInUseError {
  return new SlotInUseError(
    'Cannot use slot: another process changed it, its ledger or its publications while it was prepared',
    { code: 'slot_changed', place, advice: 'Nothing to do: the service prepares it again' },
  );
}
