import type { FlowMemory } from '../flow/flow.ts';
import { DeliveryTrial } from '../kafka/produce/delivery-trial.ts';
import type { SizeLimits } from '../kafka/produce/size-limits.ts';
import type { Lsn } from '../lsn.ts';
import type { SlotLedger } from '../postgres/continuity/ledger.ts';

/**
 * What the sessions of a slot hand on to each other. It lives in the process only: the slot itself is the offset store, and
 * what must outlive the process is in the slot's ledger (postgres/continuity/ledger.ts).
 */
export interface SlotMemory extends FlowMemory {
  /** By Kafka client, because two clusters may have topics of one name */
  readonly sizeLimits: Map<string, SizeLimits>;
  /** The partition that refused at the end of the last session */
  readonly trial: DeliveryTrial;
  /** Ids of the Kafka clusters that the slot delivers to, by Kafka client; the ledger has them as well */
  readonly clusterIds: Map<string, string>;
  /** Smallest LSN at which each publication is known to have existed, by name; see `notePublication` */
  readonly publicationExistedAt: Map<string, Lsn>;
  /** Boundaries found with a copy of the slot, by publication (StreamingPlan) */
  readonly probedBoundaries: Map<string, Lsn>;
  /** Labels of the status types as the catalog was last seen, by namespace */
  readonly statusLabels: Map<string, readonly string[]>;
  /** Abandoned slots that have been logged */
  readonly warnedSlots: Set<string>;
  /** Replication connections that ended one after the other because the server was silent, all of them at this position */
  silentEnds: { readonly confirmedLsn: Lsn | undefined; readonly count: number };
  /** The server refused the last attempt to write the slot's ledger: the role lacks the right */
  isLedgerRefused: boolean;
  /** The ledger as the last session left it, as exact as a closed one; undefined before the first session */
  remembered: SlotLedger | undefined;
}

/** The memory of a slot before its first session. */
export function createSlotMemory(): SlotMemory {
  return {
    sizeLimits: new Map(),
    trial: new DeliveryTrial(),
    clusterIds: new Map(),
    publicationExistedAt: new Map(),
    probedBoundaries: new Map(),
    warnedRelations: new Set(),
    warnedSlots: new Set(),
    statusLabels: new Map(),
    refusedCommitLsn: undefined,
    silentEnds: { confirmedLsn: undefined, count: 0 },
    isLedgerRefused: false,
    remembered: undefined,
  };
}

/**
 * Remembers that the catalogs contained a publication when the WAL ended at this LSN. That the server streamed with it
 * proves less: it may have decoded an older change with what it had loaded for a later one, and cannot decode it again on
 * another connection.
 */
export function notePublication(memory: SlotMemory, name: string, lsn: Lsn): void {
  const known = memory.publicationExistedAt.get(name);
  if (known === undefined || lsn < known) memory.publicationExistedAt.set(name, lsn);
}

/** Forgets a publication that was dropped: what was learned does not hold for another one with its name. */
export function forgetPublication(memory: SlotMemory, name: string): void {
  memory.publicationExistedAt.delete(name);
  memory.probedBoundaries.delete(name);
}

/** Counts the end of a replication connection. @param isSilent the server had not answered in time */
export function noteStreamEnd(memory: SlotMemory, isSilent: boolean): void {
  const confirmedLsn = memory.remembered?.confirmedLsn;
  const { silentEnds } = memory;
  const isRepeated = silentEnds.confirmedLsn === confirmedLsn;
  memory.silentEnds = { confirmedLsn, count: isSilent ? (isRepeated ? silentEnds.count + 1 : 1) : 0 };
}
