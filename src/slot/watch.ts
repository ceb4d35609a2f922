import { setTimeout as sleep } from 'node:timers/promises';
import type { Sql } from 'postgres';
import { within } from '../deadline.ts';
import { SourceError } from '../errors.ts';
import { readPublishing } from '../postgres/catalog/publications.ts';
import { readSlot } from '../postgres/catalog/slots.ts';
import { describePublicationHazards } from '../postgres/hazards/publication-hazards.ts';
import type { PreparedSlot } from '../postgres/setup/prepare-slot.ts';
import type { SlotStatus } from '../status/slot-status.ts';
import type { LedgerKeeper } from './ledger-keeper.ts';

const LOOK_INTERVAL_MS = 5_000;
/** A control connection that is silent for longer is half-open, and would not report a shutdown of the server */
const ANSWER_TIMEOUT_MS = 10_000;

/** Options of a watch. */
export interface SlotWatchOptions {
  readonly control: Sql;
  readonly slot: string;
  readonly namespaces: readonly string[];
  readonly prepared: PreparedSlot;
  readonly ledger: LedgerKeeper;
  readonly status: SlotStatus;
  /** Ends the watch */
  readonly signal: AbortSignal;
}

/**
 * Looks at slot and publications on the server at intervals: for the status, to notice a publication that leaves changes
 * out, and to keep the slot's ledger up to date. Runs until the signal aborts; never resolves before.
 * @throws SourceError when the server does not answer, or a publication was altered
 */
export async function watchSlot(options: SlotWatchOptions): Promise<void> {
  const { signal } = options;
  while (!signal.aborted) {
    const hazards = await within(ANSWER_TIMEOUT_MS, 'look at the slot', look(options));
    // What is lost is judged by the next start: the server goes on without an error, and leaves rows out.
    if (hazards.length > 0) throw alteredPublicationError(hazards);
    await sleep(LOOK_INTERVAL_MS, undefined, { signal }).catch(() => {});
  }
}

/** Returns what publications leave out; nothing also when the connection is lost, which the shutdown watch judges. */
async function look(options: SlotWatchOptions): Promise<readonly string[]> {
  const { control, slot, namespaces, prepared, ledger, status } = options;
  const { serverMajor } = prepared;
  try {
    const facts = await readSlot(control, slot, serverMajor);
    if (facts !== undefined) status.server = facts;
    const { entryOids } = prepared.nextLedger;
    const publishing = await readPublishing(control, namespaces, serverMajor);
    const hazards = describePublicationHazards(namespaces, publishing, entryOids);
    // The session ends at once then, and closes the ledger.
    if (hazards.length > 0) return hazards;
    await ledger.keep();
    return [];
  } catch {
    return [];
  }
}

function alteredPublicationError(hazards: readonly string[]): SourceError {
  return new SourceError(`Cannot continue: publications were changed while they were in use: ${hazards.join('; ')}`, {
    code: 'publication_altered',
  });
}
