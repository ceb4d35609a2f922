/** What the ledger of a slot says next: when the slot is taken or claimed, and when a loss makes the stream stand still. Pure. */

import { type Lsn, laterLsn } from '../../lsn.ts';
import { type Continuity, type Loss, lastWord } from './judge.ts';
import { ALTERED_OID, type SlotLedger } from './ledger.ts';

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
  start: {
    readonly confirmedFlushLsn: Lsn;
    readonly publicationOids: ReadonlyMap<string, number>;
    readonly entryOids: ReadonlyMap<string, readonly number[]>;
  },
): SlotLedger {
  const word = lastWord({ known, ledger: foundLedger });
  const last = word?.systemIdentifier === systemIdentifier ? word : undefined;
  const { confirmedFlushLsn: position, publicationOids, entryOids } = start;
  const goesOn = continuity.verdict === 'goes-on';
  // A server that crashed goes back to what it had saved; what was confirmed before stays delivered.
  const confirmedLsn = goesOn ? laterLsn(continuity.confirmedLsn, position) : position;
  // Whoever crashed may have delivered all that it confirmed since its last word.
  const isBehind = last === undefined || last.confirmedLsn < position;
  const deliveredLsn = isBehind || (!goesOn && last.deliveredLsn > position) ? position : last.deliveredLsn;
  const formerly = [...(last?.publicationOids ?? [])].map(([name, oid]) => [name, { oid, lsn: confirmedLsn }] as const);
  return {
    systemIdentifier,
    timeline,
    instance,
    revision: (foundLedger?.revision ?? 0) + 1,
    fromLsn: last !== undefined && last.fromLsn < position ? last.fromLsn : position,
    confirmedLsn,
    deliveredLsn,
    closed: false,
    publicationOids,
    entryOids,
    left: new Map([...(last?.left ?? []), ...formerly].filter(([name]) => !publicationOids.has(name))),
    acceptedLsn: continuity.verdict === 'loss' ? continuity.loss.fromLsn : last?.acceptedLsn,
  };
}

/**
 * What the ledger has to say of a loss, so that whoever comes next, with the loss accepted, finds the same loss under the
 * same position. Undefined when it says so already, or when it is about another server.
 */
export function ledgerOfLoss(loss: Loss, context: LedgerContext): SlotLedger | undefined {
  const { known, foundLedger, systemIdentifier } = context;
  const last = lastWord({ known, ledger: foundLedger });
  const isElsewhere = last !== undefined && last.systemIdentifier !== systemIdentifier;
  // pg_upgrade gives the server another identifier and carries the ledger along; any other one is not ours to write.
  if (isElsewhere && foundLedger?.systemIdentifier !== last.systemIdentifier) return undefined;
  // The slot will go, or the WAL will pass it, or a person mends what was altered: then only the ledger shows the loss.
  if (!isElsewhere && (loss.needsNewSlot || loss.altered.length > 0)) {
    const isKept =
      foundLedger?.closed &&
      foundLedger.confirmedLsn <= loss.fromLsn &&
      loss.altered.every((name) => foundLedger.publicationOids.get(name) === ALTERED_OID);
    return isKept ? undefined : ledgerOfClaim(loss, context);
  }
  if (!isElsewhere && loss.isSetBack && last !== undefined) {
    if (foundLedger?.isSetBack) return undefined;
    const revision = Math.max(known?.revision ?? 0, foundLedger?.revision ?? 0) + 1;
    return { ...last, instance: context.instance, revision, closed: true, isSetBack: true };
  }
  if (known === undefined || last !== known) return undefined;
  const isKept =
    foundLedger?.instance === known.instance && foundLedger.closed && foundLedger.confirmedLsn === known.confirmedLsn;
  return isKept ? undefined : { ...known, closed: true };
}

/** The loss as it stands, as the word of this instance: nobody who has seen an older word makes the slot anew then. */
export function ledgerOfClaim(
  { fromLsn, altered }: Loss,
  { known, foundLedger, systemIdentifier, timeline, instance }: LedgerContext,
): SlotLedger {
  const last = lastWord({ known, ledger: foundLedger });
  const { publicationOids = new Map<string, number>() } = last ?? {};
  return {
    ...(last ?? {
      systemIdentifier,
      timeline,
      deliveredLsn: fromLsn,
      entryOids: new Map(),
      left: new Map(),
      acceptedLsn: undefined,
    }),
    instance,
    revision: Math.max(known?.revision ?? 0, foundLedger?.revision ?? 0) + 1,
    fromLsn: last !== undefined && last.fromLsn < fromLsn ? last.fromLsn : fromLsn,
    confirmedLsn: fromLsn,
    closed: true,
    publicationOids: new Map([...publicationOids, ...altered.map((name) => [name, ALTERED_OID] as const)]),
  };
}
