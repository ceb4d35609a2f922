/** What a slot's sessions hand on to each other. It lives in the process only: the slot itself is the offset store. */
import type { Lsn } from '../postgres/lsn.ts';

/** See the head of this file. */
export interface SlotMemory {
  /** Batch sizes that Kafka turned out to take, by topic (ProducerOptions.learnedBatchBytes) */
  readonly learnedBatchBytes: Map<string, number>;
  /** Smallest LSN at which each publication is known to have existed, by name; see `notePublication` */
  readonly publicationExistedAt: Map<string, Lsn>;
  /** OID of each publication when it was first seen, by name: another one under the same name is another publication */
  readonly publicationOids: Map<string, number>;
  /** Boundaries found with a copy of the slot, by publication (StreamingPlan) */
  readonly probedBoundaries: Map<string, Lsn>;
  /** Relations that nobody configured and that were already warned of, as schema.table */
  readonly warnedRelations: Set<string>;
  /** Slots that nobody reads and that were already warned of */
  readonly warnedSlots: Set<string>;
  /** Updates of processes passed over by `on_missing_old_tuple: skip`, since the process started */
  skippedRowCount: number;
  /** Where the slot stood at last; undefined before it was seen for the first time. Once seen, it is not created again */
  confirmedLsn: Lsn | undefined;
}

/** The memory of a slot that nothing is known of yet. */
export function createSlotMemory(): SlotMemory {
  return {
    learnedBatchBytes: new Map(),
    publicationExistedAt: new Map(),
    publicationOids: new Map(),
    probedBoundaries: new Map(),
    warnedRelations: new Set(),
    warnedSlots: new Set(),
    skippedRowCount: 0,
    confirmedLsn: undefined,
  };
}

/**
 * Remembers that the catalogs had a publication when the WAL ended there. That the server streamed with it proves less:
 * it may have read an older change by what it had loaded for a later one, and cannot read it again on another connection.
 */
export function notePublication(memory: SlotMemory, name: string, lsn: Lsn): void {
  const known = memory.publicationExistedAt.get(name);
  if (known === undefined || lsn < known) memory.publicationExistedAt.set(name, lsn);
}
