/** Looks at the slot on the server from time to time: for the status, and to keep the slot's ledger up to date. */
import { setTimeout as sleep } from 'node:timers/promises';
import { answeredWithin } from '../bounded-wait.ts';
import { readSlot } from '../postgres/slot.ts';
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

async function look({ control, prepared, options, ledger }: Session): Promise<void> {
  const { status, stream } = options;
  try {
    const slot = await readSlot(control, stream.slot, prepared.serverMajor);
    if (slot !== undefined) status.server = slot;
    await ledger.keep();
  } catch {
    // A connection that is lost is the shutdown watch's to judge.
  }
}
