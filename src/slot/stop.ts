/**
 * How a stream stops in good order: Kafka acknowledges what is in flight, the last status and CopyDone go out, and the
 * server is asked whether the slot has the last confirmation. `shutdown_timeout` bounds all of it together.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import { settlesWithin } from '../deadline.ts';
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
/** What Kafka leaves to PostgreSQL of a stop's time: a confirmation that does not arrive repeats more than it saves */
const MAX_CLOSING_MS = 5_000;
const CLOSING_SHARE = 1 / 4;

/**
 * The end of a stop, `shutdown_timeout` after its signal. Until that signal a wait has only its own limit.
 */
export class StopDeadline {
  readonly timeoutMs: number;
  readonly #over = Promise.withResolvers<false>();
  #endMs = Number.POSITIVE_INFINITY;

  constructor(timeoutMs: number, { stop, ended }: { readonly stop: AbortSignal; readonly ended: AbortSignal }) {
    this.timeoutMs = timeoutMs;
    const start = () => {
      this.#endMs = performance.now() + timeoutMs;
      setTimeout(() => this.#over.resolve(false), timeoutMs).unref();
    };
    if (stop.aborted) start();
    else stop.addEventListener('abort', start, { once: true, signal: ended });
  }

  /** What is left of the stop's time; without an end until the stop begins. */
  get restMs(): number {
    return Math.max(0, this.#endMs - performance.now());
  }

  /** The part of the rest that Kafka may use. */
  get kafkaMs(): number {
    return Math.max(0, this.restMs - Math.min(MAX_CLOSING_MS, this.timeoutMs * CLOSING_SHARE));
  }

  /** A limit for a step that others follow: half of the rest at most. */
  limit(limitMs: number): number {
    return Math.min(limitMs, this.restMs / 2);
  }

  /** True when the promise resolves within the limit and before the end of the stop. @throws what it rejects with */
  async settles(limitMs: number, promise: Promise<unknown>): Promise<boolean> {
    return await Promise.race([settlesWithin(limitMs, promise), this.#over.promise]);
  }
}

/**
 * Takes the rest of the open transaction, then waits until Kafka has acknowledged everything in flight. Neither wait is
 * without end: the next start sends the rest again.
 * @returns how the flow ended, if it ended first: after a failure nothing more may be confirmed
 */
export async function settleInFlight(
  flow: Pick<Flow, 'finishTransaction' | 'drain' | 'ended'>,
  { deadline, log }: { readonly deadline: StopDeadline; readonly log: Logger },
): Promise<FlowEnd | undefined> {
  let end: FlowEnd | undefined;
  const finished = Promise.race([flow.finishTransaction(), flow.ended]);
  await deadline.settles(Math.min(FINISH_TRANSACTION_TIMEOUT_MS, deadline.kafkaMs), finished);
  const settled = Promise.race([flow.drain(), flow.ended]).then((ended) => {
    end = ended ?? undefined;
  });
  if (!(await deadline.settles(deadline.kafkaMs, settled))) {
    log.warn(
      { event: 'shutdown_timeout', shutdownTimeoutMs: deadline.timeoutMs },
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
  readonly deadline: StopDeadline;
  readonly log: Logger;
}

/** Ends the replication so that the last confirmation arrives: a dropped connection may lose it. */
export async function closeInOrder(
  replication: Pick<ReplicationStream, 'finish' | 'closed' | 'destroy'>,
  options: CloseOptions,
): Promise<void> {
  const { deadline } = options;
  replication.finish();
  await deadline.settles(deadline.limit(COPY_DONE_TIMEOUT_MS), replication.closed);
  replication.destroy();
  await verifyConfirmed(options);
}

/** Asks the server for the position of the slot: that a status was sent does not prove that the server has read it. */
async function verifyConfirmed({ control, slot, progress, deadline, log }: CloseOptions): Promise<void> {
  let hasAnswered = false;
  let isOver = false;
  const confirmed = async (): Promise<void> => {
    while (!isOver) {
      const position = await readSlotPosition(control, slot);
      hasAnswered = true;
      if (position !== undefined && !position.active && position.confirmedFlushLsn >= progress.flushed) return;
      await sleep(VERIFY_INTERVAL_MS);
    }
  };
  const unverified = 'the last confirmation could not be verified';
  try {
    if (await deadline.settles(deadline.limit(VERIFY_TIMEOUT_MS), confirmed())) return;
    if (!hasAnswered) return log.warn({ event: 'confirmation_unverified' }, unverified);
    log.warn(
      { event: 'confirmation_missing', confirmedLsn: formatLsn(progress.flushed) },
      'the server has not stored the last confirmation; some transactions will be sent again',
    );
  } catch (error) {
    log.warn({ event: 'confirmation_unverified', error }, unverified);
  } finally {
    isOver = true;
  }
}
