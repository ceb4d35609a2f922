/** What the ledger of a slot says next: when the slot is taken, and when the stream stands still because of a loss. Pure. */
import { type Continuity, type Loss, lastWord } from './continuity.ts';
import type { SlotLedger } from './ledger.ts';
import type { Lsn } from './lsn.ts';

/** Who writes, over what. */
export interface LedgerContext {
  /** What this process remembers of its last session */
  readonly known: SlotLedger | undefined;
  /** What the server has */
  readonly foundLedger: SlotLedger | undefined;
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** Of this process */
  readonly instance: string;
}

/** The word of an instance that takes the slot at this position. */
export function ledgerOfStart(
  continuity: Continuity,
  { known, foundLedger, systemIdentifier, timeline, instance }: LedgerContext,
  start: { readonly confirmedFlushLsn: Lsn; readonly publicationOids: ReadonlyMap<string, number> },
): SlotLedger {
  const last = lastWord({ known, ledger: foundLedger });
  const { confirmedFlushLsn: position, publicationOids } = start;
  const isSameWal = last !== undefined && last.systemIdentifier === systemIdentifier;
  return {
    systemIdentifier,
    timeline,
    instance,
    revision: (foundLedger?.revision ?? 0) + 1,
    fromLsn: isSameWal && last.fromLsn < position ? last.fromLsn : position,
    // A server that crashed goes back to what it had saved; what was confirmed before stays delivered.
    confirmedLsn:
      isSameWal && continuity.verdict === 'goes-on' && last.confirmedLsn > position ? last.confirmedLsn : position,
    closed: false,
    publicationOids,
  };
}

/**
 * What the ledger has to say of a loss, so that whoever comes next, with the loss accepted, finds the same loss under the
 * same position. Undefined when it says so already, or when it is about another server.
 */
export function ledgerOfLoss(
  { fromLsn, needsNewSlot }: Loss,
  { known, foundLedger, systemIdentifier, timeline, instance }: LedgerContext,
): SlotLedger | undefined {
  const last = lastWord({ known, ledger: foundLedger });
  if (last !== undefined && last.systemIdentifier !== systemIdentifier) return undefined;
  if (needsNewSlot) {
    // The slot will go, or the WAL will pass it: then nothing but the ledger shows where the loss begins.
    if (foundLedger?.closed && foundLedger.confirmedLsn <= fromLsn) return undefined;
    return {
      systemIdentifier,
      timeline: last?.timeline ?? timeline,
      instance,
      revision: Math.max(known?.revision ?? 0, foundLedger?.revision ?? 0) + 1,
      fromLsn: last !== undefined && last.fromLsn < fromLsn ? last.fromLsn : fromLsn,
      confirmedLsn: fromLsn,
      closed: true,
      publicationOids: last?.publicationOids ?? new Map(),
    };
  }
  if (known === undefined || last !== known) return undefined;
  const isKept =
    foundLedger?.instance === known.instance && foundLedger.closed && foundLedger.confirmedLsn === known.confirmedLsn;
  return isKept ? undefined : { ...known, closed: true };
}
