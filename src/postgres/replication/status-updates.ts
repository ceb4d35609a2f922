/**
 * Our half of what a standby and its server tell each other beside the data: statuses go out when they carry news, when
 * they are asked for and when their time has come, also while nothing is read; and a server that stays silent is asked
 * whether it is still there. When that is, postgres/liveness.ts decides.
 */

import type { Progress } from '../../flow/progress.ts';
import type { Lsn } from '../../lsn.ts';
import { postgresMicros } from './clock.ts';
import { encodeStandbyStatusUpdate } from './frames.ts';
import { isStatusDue, judgeSilence, type LivenessTimings } from './liveness.ts';
import type { ReplicationStream } from './stream.ts';

/** How often statuses and silence are looked at; a status that carries news does not wait for it. */
const TICK_MS = 100;

/** Whom to talk to, about what, and by which rules. */
export interface StandbyDialogueOptions {
  readonly replication: ReplicationStream;
  readonly progress: Progress;
  readonly timings: LivenessTimings;
  /** Called when the server did not answer in time */
  readonly onDead: () => void;
}

/** See the head of this file. */
export class StandbyDialogue {
  readonly #options: StandbyDialogueOptions;
  readonly #ticker: Timer;
  #lastInboundMs = performance.now();
  #lastStatusMs = performance.now();
  /** When the server was asked for a sign of life; undefined when it has given one since */
  #askedMs: number | undefined;
  #replyRequested = false;
  #sentWritten: Lsn = 0n;
  #sentFlushed: Lsn = 0n;
  /** `written` when it was last looked at, and since when it has been that */
  #seenWritten: Lsn = 0n;
  #standsSinceMs = performance.now();

  /** Sends the first status and begins to keep time. */
  constructor(options: StandbyDialogueOptions) {
    this.#options = options;
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    this.sendStatus();
  }

  /** When the server was last heard of, by performance.now(). */
  get lastInboundMs(): number {
    return this.#lastInboundMs;
  }

  /** Since when nothing new was received, neither data nor a higher position, by performance.now(); exact to a tick. */
  get standsSinceMs(): number {
    return this.#standsSinceMs;
  }

  /** Something has come in; or we have begun to read again, after a silence that was ours. */
  noteInbound(): void {
    this.#lastInboundMs = performance.now();
    this.#askedMs = undefined;
  }

  /** Data has come in. That of a long transaction may lie before a position that a keepalive told long ago. */
  noteData(): void {
    this.#standsSinceMs = performance.now();
  }

  /** The server wants a status. It gets one at once when there is news, and soon otherwise. */
  noteReplyRequest(): void {
    this.#replyRequested = true;
  }

  /** Sends a status if one is due. To be called whenever the numbers may have moved. */
  sendStatusIfDue(): void {
    const { written, flushed } = this.#options.progress;
    const flushedMoved = flushed > this.#sentFlushed;
    const due = isStatusDue({
      nowMs: performance.now(),
      lastSentMs: this.#lastStatusMs,
      flushedMoved,
      numbersMoved: flushedMoved || written > this.#sentWritten,
      replyRequested: this.#replyRequested,
      statusIntervalMs: this.#options.timings.statusIntervalMs,
    });
    if (due) this.sendStatus();
  }

  /** Sends a status now. */
  sendStatus(options: { readonly replyRequested: boolean } = { replyRequested: false }): void {
    const { written, flushed } = this.#options.progress;
    this.#lastStatusMs = performance.now();
    this.#replyRequested = false;
    this.#sentWritten = written;
    this.#sentFlushed = flushed;
    const clockMicros = postgresMicros(Date.now());
    const status = { written, flushed, applied: flushed, clockMicros, replyRequested: options.replyRequested };
    this.#options.replication.writeStatus(encodeStandbyStatusUpdate(status));
  }

  /** Says nothing more by itself. */
  stop(): void {
    clearInterval(this.#ticker);
  }

  #tick(): void {
    const nowMs = performance.now();
    const { written } = this.#options.progress;
    if (written > this.#seenWritten) this.#standsSinceMs = nowMs;
    this.#seenWritten = written;
    const verdict = judgeSilence(
      {
        nowMs,
        lastInboundMs: this.#lastInboundMs,
        askedMs: this.#askedMs,
        pausedByUs: this.#options.replication.isPaused,
      },
      this.#options.timings,
    );
    if (verdict === 'dead') {
      this.#options.onDead();
    } else if (verdict === 'ask') {
      this.#askedMs = nowMs;
      this.sendStatus({ replyRequested: true });
    } else {
      this.sendStatusIfDue();
    }
  }
}
