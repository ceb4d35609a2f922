/**
 * What a slot's sessions hand on to each other. It lives in the process only: the slot itself is the offset store, and
 * what has to outlive the process stands in the slot's ledger (postgres/ledger.ts).
 */
import type { TopicLimits } from '../kafka/produce/topic-limits.ts';
import type { Lsn } from '../lsn.ts';
import type { SlotLedger } from '../postgres/continuity/ledger.ts';

/** See the head of this file. */
export interface SlotMemory {
  /** By Kafka client, because two clusters may have topics of one name */
  readonly topicLimits: Map<string, TopicLimits>;
  /** Smallest LSN at which each publication is known to have existed, by name; see `notePublication` */
  readonly publicationExistedAt: Map<string, Lsn>;
  /** Boundaries found with a copy of the slot, by publication (StreamingPlan) */
  readonly probedBoundaries: Map<string, Lsn>;
  /** Relations that nobody configured and that were already warned of, as schema.table */
  readonly warnedRelations: Set<string>;
  /** Slots that nobody reads and that were already warned of */
  readonly warnedSlots: Set<string>;
  /**
   * Commit LSN of a transaction with a row that could not be delivered. When it comes again, its rows are only tried
   * until that row is good: sent each time, those in front of it would pile up in Kafka with every attempt.
   */
  refusedCommitLsn: Lsn | undefined;
  /** The role may not write the slot's ledger, as its last attempt has shown */
  isLedgerRefused: boolean;
  /** What the last session left, as exact as a ledger that was closed; undefined before the first */
  known: SlotLedger | undefined;
}

/** The memory of a slot that nothing is known of yet. */
export function createSlotMemory(): SlotMemory {
  return {
    topicLimits: new Map(),
    publicationExistedAt: new Map(),
    probedBoundaries: new Map(),
    warnedRelations: new Set(),
    warnedSlots: new Set(),
    refusedCommitLsn: undefined,
    isLedgerRefused: false,
    known: undefined,
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

/** What was learned of a publication does not hold of another one with its name. */
export function forgetPublication(memory: SlotMemory, name: string): void {
  memory.publicationExistedAt.delete(name);
  memory.probedBoundaries.delete(name);
}
