/**
 * Looks at slot and publications on the server from time to time: for the status, to notice a publication that leaves
 * something out, and to keep the slot's ledger up to date.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { answeredWithin } from '../deadline.ts';
import { SourceError } from '../errors.ts';
import { readPublishing } from '../postgres/catalog/publications.ts';
import { readSlot } from '../postgres/catalog/slots.ts';
import { describePublicationHazards } from '../postgres/hazards/publication-hazards.ts';
import type { Session } from './session.ts';

const LOOK_INTERVAL_MS = 5_000;
/** A control connection that is silent for longer is half-open, and would not tell that the server shuts down. */
const ANSWER_TIMEOUT_MS = 10_000;

/** Runs until the session has ended; fails the flow when the server does not answer. Never rejects. */
export async function watchSlot(session: Session): Promise<void> {
  const { flow, ended } = session;
  while (!ended.aborted) {
    await answeredWithin('look at the slot', ANSWER_TIMEOUT_MS, look(session)).catch((error) => flow.fail(error));
    await sleep(LOOK_INTERVAL_MS, undefined, { signal: ended }).catch(() => {});
  }
}

async function look(session: Session): Promise<void> {
  const { control, prepared, options, ledger, flow } = session;
  const { status, stream } = options;
  const { serverMajor } = prepared;
  try {
    const slot = await readSlot(control, stream.slot, serverMajor);
    if (slot !== undefined) status.server = slot;
    const namespaces = [...stream.namespaces.keys()];
    const { entryOids } = prepared.nextLedger;
    const publishing = await readPublishing(control, namespaces, serverMajor);
    const hazards = describePublicationHazards(namespaces, publishing, entryOids);
    if (hazards.length > 0) flow.fail(alteredPublicationError(hazards));
    await ledger.keep();
  } catch {
    // A connection that is lost is the shutdown watch's to judge.
  }
}

/** The server goes on without a word, and rows are confirmed that it left out: what is lost is judged by the next start. */
function alteredPublicationError(hazards: readonly string[]): SourceError {
  return new SourceError(`Cannot go on: publications were changed while they were in use: ${hazards.join('; ')}`);
}
