/**
 * How a stream stops in good order: Kafka acknowledges what is in flight, the last status and CopyDone go out, and the
 * server is asked whether the slot has the last confirmation.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import { settlesWithin, within } from '../deadline.ts';
import type { Flow, FlowEnd } from '../flow/flow.ts';
import type { Progress } from '../flow/progress.ts';
import { formatLsn } from '../lsn.ts';
import { readSlotPosition } from '../postgres/catalog/slots.ts';
import type { ReplicationStream } from '../postgres/replication/stream.ts';

/** How long the rest of an open transaction may take; the rows of a larger one are sent again by the next start */
const FINISH_TRANSACTION_TIMEOUT_MS = 2_000;
/** How long the server may take for its CopyDone; in the middle of a large transaction it does not look at ours */
const COPY_DONE_TIMEOUT_MS = 5_000;
const VERIFY_TIMEOUT_MS = 2_000;
const VERIFY_INTERVAL_MS = 20;

/**
 * Takes the rest of the open transaction, then waits until Kafka has acknowledged everything in flight. Neither wait is
 * without end: the next start sends the rest again.
 * @returns how the flow ended, if it ended first: after a failure nothing more may be confirmed
 */
export async function settleInFlight(
  flow: Pick<Flow, 'finishTransaction' | 'drain' | 'ended'>,
  { shutdownTimeoutMs, log }: { readonly shutdownTimeoutMs: number; readonly log: Logger },
): Promise<FlowEnd | undefined> {
  let end: FlowEnd | undefined;
  const startedMs = performance.now();
  const finished = Promise.race([flow.finishTransaction(), flow.ended]);
  await settlesWithin(Math.min(FINISH_TRANSACTION_TIMEOUT_MS, shutdownTimeoutMs), finished);
  const settled = Promise.race([flow.drain(), flow.ended]).then((ended) => {
    end = ended ?? undefined;
  });
  const restMs = shutdownTimeoutMs - (performance.now() - startedMs);
  if (!(await settlesWithin(Math.max(0, restMs), settled))) {
    log.warn(
      { event: 'shutdown_timeout', shutdownTimeoutMs },
      'kafka has not acknowledged everything in time; the next start sends the rest again',
    );
  }
  return end;
}

/** Options of a close in good order. */
export interface CloseOptions {
  readonly control: Sql;
  readonly slot: string;
  readonly progress: Progress;
  readonly log: Logger;
}

/** Ends the replication so that the last confirmation arrives: a dropped connection may lose it. */
export async function closeInOrder(replication: ReplicationStream, options: CloseOptions): Promise<void> {
  replication.finish();
  await settlesWithin(COPY_DONE_TIMEOUT_MS, replication.closed);
  replication.destroy();
  await verifyConfirmed(options);
}

/** Asks the server for the position of the slot: that a status was sent does not prove that the server has read it. */
async function verifyConfirmed({ control, slot, progress, log }: CloseOptions): Promise<void> {
  const isConfirmed = async (): Promise<boolean> => {
    const position = await readSlotPosition(control, slot);
    return position !== undefined && !position.active && position.confirmedFlushLsn >= progress.flushed;
  };
  const deadlineMs = performance.now() + VERIFY_TIMEOUT_MS;
  try {
    // A server that does not answer must not hold up the stop.
    while (!(await within(Math.ceil(deadlineMs - performance.now()), 'verify the last confirmation', isConfirmed()))) {
      await sleep(VERIFY_INTERVAL_MS);
      if (performance.now() < deadlineMs) continue;
      log.warn(
        { event: 'confirmation_missing', confirmedLsn: formatLsn(progress.flushed) },
        'the server has not stored the last confirmation; some transactions will be sent again',
      );
      return;
    }
  } catch (error) {
    log.warn({ event: 'confirmation_unverified', error }, 'the last confirmation could not be verified');
  }
}
