/**
 * StandbyStatusUpdate: what the service reports to a walsender, when, and what the walsender's silence means.
 * Source: PostgreSQL manual, "Streaming Replication Protocol", Standby status update.
 */
import { ByteWriter } from '../../bytes/writer.ts';
import { SourceError } from '../../errors.ts';
import type { Lsn } from '../../lsn.ts';
import { postgresMicros } from './clock.ts';
import { isStatusDue, judgeSilence, type LivenessTimings, silenceLimitMs } from './liveness.ts';

/** How often due statuses and silence are looked at; a status with news does not wait for it. */
const TICK_MS = 100;

const STANDBY_STATUS_UPDATE = 0x72; // 'r'
const STANDBY_STATUS_UPDATE_BYTES = 34;

/** The two positions of a status. Both only rise. */
export interface ReportedPositions {
  /** Received */
  readonly written: Lsn;
  /** Acknowledged by Kafka: the server may remove the WAL before it */
  readonly flushed: Lsn;
}

/** Options of StatusUpdates. */
export interface StatusUpdatesOptions {
  /** Read again for each status */
  readonly positions: ReportedPositions;
  readonly timings: LivenessTimings;
  /** Sends a status as the payload of a CopyData message; does nothing on a connection that has ended */
  readonly write: (status: Buffer) => void;
  /** True while the service does not read, so that silence says nothing about the server */
  readonly isPaused: () => boolean;
  /**
   * Asked when the server has not answered a request for a reply in time: true when its walsender is at work and cannot answer,
   * false also when that cannot be found out. Does not reject
   */
  readonly isAtWork: () => Promise<boolean>;
  /** Called once, when the server did not answer a request for a reply in time, and is not at work */
  readonly onDead: (error: SourceError) => void;
}

/** Reported before `start`: InvalidXLogRecPtr, which keeps the connection alive and confirms nothing. */
const NOTHING: ReportedPositions = { written: 0n, flushed: 0n };

/**
 * The statuses of one replication connection, from START_REPLICATION on and also while nothing is read. A status goes out
 * when it carries news, when the server asks for one, and at intervals; a server that stays silent is asked for a reply.
 * `liveness.ts` decides when.
 *
 * Before `start` a status reports no position. Another process may have advanced the slot since this one read its position,
 * which only the claim finds out (setup/claim-slot.ts). Not every server refuses to move a slot back to an older position,
 * and moved back, it would look unchanged to the claim.
 */
export class StatusUpdates {
  readonly #options: StatusUpdatesOptions;
  readonly #ticker: Timer;
  #positions = NOTHING;
  #lastInboundMs = performance.now();
  #lastStatusMs = performance.now();
  /** When the server was asked for a reply; undefined once it has answered */
  #askedMs: number | undefined;
  #isAskingForWork = false;
  #replyRequested = false;
  #sentWritten: Lsn = 0n;
  #sentFlushed: Lsn = 0n;
  /** `written` at the last tick, and since when it has that value */
  #seenWritten: Lsn = 0n;
  #lastProgressMs = performance.now();

  /** Sends the first status and starts the clock. */
  constructor(options: StatusUpdatesOptions) {
    this.#options = options;
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    this.send();
  }

  /** Reports the positions from now on. The silence so far does not count: the service did not read. */
  start(): void {
    this.#positions = this.#options.positions;
    this.noteInbound();
    this.noteData();
    this.send();
  }

  /** When the last bytes came in, by performance.now(). */
  get lastInboundMs(): number {
    return this.#lastInboundMs;
  }

  /** When data or a higher position was last received, by performance.now(); exact to a tick. */
  get lastProgressMs(): number {
    return this.#lastProgressMs;
  }

  /** A healthy server is never silent for longer, in ms. */
  get silenceLimitMs(): number {
    return silenceLimitMs(this.#options.timings);
  }

  /** Bytes have come in, or the service reads again after a silence that it caused itself. */
  noteInbound(): void {
    this.#lastInboundMs = performance.now();
    this.#askedMs = undefined;
  }

  /** Data has come in. That of a long transaction may lie before a position that an earlier keepalive reported. */
  noteData(): void {
    this.#lastProgressMs = performance.now();
  }

  /** The server asked for a status: it gets one at once when there is news, and soon otherwise. */
  noteReplyRequest(): void {
    this.#replyRequested = true;
  }

  /** Sends a status if one is due. To be called whenever the positions may have risen. */
  sendIfDue(): void {
    const { written, flushed } = this.#positions;
    const flushedMoved = flushed > this.#sentFlushed;
    const due = isStatusDue({
      nowMs: performance.now(),
      lastSentMs: this.#lastStatusMs,
      flushedMoved,
      numbersMoved: flushedMoved || written > this.#sentWritten,
      replyRequested: this.#replyRequested,
      statusIntervalMs: this.#options.timings.statusIntervalMs,
    });
    if (due) this.send();
  }

  /** Sends a status now. */
  send(options: { readonly replyRequested: boolean } = { replyRequested: false }): void {
    const { written, flushed } = this.#positions;
    this.#lastStatusMs = performance.now();
    this.#replyRequested = false;
    this.#sentWritten = written;
    this.#sentFlushed = flushed;
    const clockMicros = postgresMicros(Date.now());
    const status = { written, flushed, applied: flushed, clockMicros, replyRequested: options.replyRequested };
    this.#options.write(encodeStandbyStatusUpdate(status));
  }

  /** Ends the statuses at intervals; `send` still works. */
  stop(): void {
    clearInterval(this.#ticker);
  }

  #tick(): void {
    const nowMs = performance.now();
    const { written } = this.#positions;
    if (written > this.#seenWritten) this.#lastProgressMs = nowMs;
    this.#seenWritten = written;
    const verdict = judgeSilence(
      { nowMs, lastInboundMs: this.#lastInboundMs, askedMs: this.#askedMs, pausedByUs: this.#options.isPaused() },
      this.#options.timings,
    );
    if (verdict === 'dead') {
      if (!this.#isAskingForWork) void this.#giveUpUnlessAtWork();
      this.sendIfDue();
    } else if (verdict === 'ask') {
      this.#askedMs = nowMs;
      this.send({ replyRequested: true });
    } else {
      this.sendIfDue();
    }
  }

  async #giveUpUnlessAtWork(): Promise<void> {
    const askedMs = this.#askedMs;
    this.#isAskingForWork = true;
    const isAtWork = await this.#options.isAtWork();
    this.#isAskingForWork = false;
    // Bytes that came meanwhile are an answer.
    if (this.#askedMs !== askedMs) return;
    if (isAtWork) {
      this.#askedMs = performance.now();
      return;
    }
    this.stop();
    this.#options.onDead(deadServerError());
  }
}

function deadServerError(): SourceError {
  return new SourceError('Cannot continue: the server does not answer on the replication connection', {
    code: 'server_silent',
    advice:
      'Check the network between this service and PostgreSQL. When it comes again and again at one position, see the walsender in ' +
      'pg_stat_activity: it may be at work on a large transaction',
  });
}

/** The fields of a StandbyStatusUpdate. */
export interface StandbyStatus extends ReportedPositions {
  readonly applied: Lsn;
  /** The service's clock, in microseconds since 2000-01-01 UTC */
  readonly clockMicros: bigint;
  /** Asks the server for a keepalive at once */
  readonly replyRequested: boolean;
}

/**
 * Encodes a StandbyStatusUpdate, 34 bytes: 'r', u64 written, u64 flushed, u64 applied, i64 clock, u8 reply requested.
 * Each LSN goes out unchanged: the protocol wants the position after the last byte, which a commit's end LSN already is.
 */
export function encodeStandbyStatusUpdate(status: StandbyStatus): Buffer {
  return new ByteWriter(STANDBY_STATUS_UPDATE_BYTES)
    .u8(STANDBY_STATUS_UPDATE)
    .i64(BigInt.asIntN(64, status.written))
    .i64(BigInt.asIntN(64, status.flushed))
    .i64(BigInt.asIntN(64, status.applied))
    .i64(status.clockMicros)
    .u8(status.replyRequested ? 1 : 0)
    .toBuffer();
}
