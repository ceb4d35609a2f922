import type { Socket } from 'node:net';
import { MessageSplitter } from './backend-messages.ts';

/**
 * How much a paused stream still reads before its socket is paused as well: room for an error of the server, which says
 * why it ends a stream that is not read.
 */
const HELD_WHILE_PAUSED_BYTES = 64 * 1024;

/** Handed over in one turn of the event loop at least, if it is there: many small reads cost as little as one large read */
const TURN_BYTES = 64 * 1024;

/** Nothing comes after them: what was read before must have been handed over. */
const LAST_EVENTS: ReadonlySet<string | symbol> = new Set(['end', 'error', 'close']);

/** Takes what an inbox hands over. */
export interface CopyDataReceiver {
  /** Called with whole CopyData messages */
  readonly onChunk: (messages: Buffer) => void;
  /** Called with the parts of a large CopyData message, see MessageReceiver */
  readonly onPart: (part: Buffer) => void;
}

/** Something that waits to be handed over. */
interface Held {
  readonly bytes: Buffer;
  readonly isPart: boolean;
}

/**
 * Takes CopyData out of what the socket of a replication connection brings, before the driver sees it, and hands it over
 * unless it is paused; it decides nothing. Paused until `start`: the first frames may come with the answer to
 * START_REPLICATION.
 *
 * A large read is handed over in pieces, with a turn of the event loop after each: otherwise requests that are half sent,
 * and answers that have arrived, would wait until all of the read is processed.
 */
export class CopyDataInbox {
  readonly #socket: Socket;
  readonly #resumeSocket: () => Socket;
  /** Set by `start`; a paused inbox does not call it */
  #receiver: CopyDataReceiver | undefined;
  #held: Held[] = [];
  #heldBytes = 0;
  #lastReadBytes = 0;
  #isPaused = true;
  #isSocketPaused = false;
  #rest: Timer | undefined;
  /** Hands over the next piece when it fires */
  #turn: NodeJS.Immediate | undefined;

  /** @param socket without listeners: the inbox sees its events first */
  constructor(socket: Socket) {
    this.#socket = socket;
    this.#resumeSocket = socket.resume.bind(socket);
    // The driver's stream resumes the socket when it is first read: only the inbox ends its own pause.
    socket.resume = () => (this.#isSocketPaused ? socket : this.#resumeSocket());
    // A listener could not keep the bytes from the other listeners.
    const emit = socket.emit.bind(socket) as (event: string | symbol, ...values: unknown[]) => boolean;
    const splitter = new MessageSplitter({
      onCopyData: (messages) => this.#take(messages, false),
      onCopyDataPart: (part) => this.#take(part, true),
      onOther: (messages) => {
        // In the order of arrival: an error of the server comes after the data that was sent before it.
        this.#handOverAll();
        emit('data', messages);
      },
    });
    socket.emit = (event: string | symbol, ...values: unknown[]) => {
      if (LAST_EVENTS.has(event)) this.#handOverAll();
      if (event !== 'data') return emit(event, ...values);
      try {
        const read = values[0] as Buffer;
        if (this.#held.length === 0 && this.#turn === undefined) this.#lastReadBytes = 0;
        this.#lastReadBytes += read.length;
        splitter.push(read);
      } catch (error) {
        socket.destroy(error as Error);
      }
      return true;
    };
  }

  /** True until `start`, and from `pause` to `resume`. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** True while more of what was read is about to be handed over. */
  get isHandingOver(): boolean {
    return this.#held.length > 0 && !this.#isPaused;
  }

  /** Size of what was read since the inbox last held nothing, other messages included. */
  get lastReadBytes(): number {
    return this.#lastReadBytes;
  }

  /** Hands over CopyData messages from now on, beginning with those that are held. */
  start(receiver: CopyDataReceiver): void {
    this.#receiver = receiver;
    this.resume();
  }

  pause(): void {
    this.#isPaused = true;
  }

  /** Hands over what is held, soon but not at once: the caller need not be ready for a chunk inside the call. */
  resume(): void {
    this.#isPaused = false;
    this.#handOverSoon();
  }

  /** Does not read the socket for this time; the next read then brings what the server has sent meanwhile. */
  rest(durationMs: number): void {
    this.#pauseSocket();
    this.#rest ??= setTimeout(() => {
      this.#rest = undefined;
      this.#readOn();
    }, durationMs);
  }

  #take(bytes: Buffer, isPart: boolean): void {
    if (!this.#isPaused && this.#turn === undefined) {
      this.#handOver(bytes, isPart);
      this.#handOverSoon();
      return;
    }
    this.#held.push({ bytes, isPart });
    this.#heldBytes += bytes.length;
    if (this.#heldBytes >= HELD_WHILE_PAUSED_BYTES) this.#pauseSocket();
  }

  #handOverSoon(): void {
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined;
      if (this.#handOverTurn()) this.#handOverSoon();
      else this.#readOn();
    });
  }

  /** False when there was nothing to hand over. */
  #handOverTurn(): boolean {
    const before = this.#heldBytes;
    while (before - this.#heldBytes < TURN_BYTES && this.#handOverNext());
    return this.#heldBytes < before;
  }

  #handOverAll(): void {
    while (this.#handOverNext());
  }

  /** False when nothing is held, or the inbox is paused. */
  #handOverNext(): boolean {
    if (this.#isPaused) return false;
    const next = this.#held.shift();
    if (next === undefined) return false;
    this.#heldBytes -= next.bytes.length;
    this.#handOver(next.bytes, next.isPart);
    return true;
  }

  #handOver(bytes: Buffer, isPart: boolean): void {
    if (isPart) this.#receiver?.onPart(bytes);
    else this.#receiver?.onChunk(bytes);
  }

  /**
   * Pauses the socket when it has emitted all that it has read. A paused socket of Bun reads on until its own buffer is
   * full, and reads again for each piece that it emits from there: paused after every small piece, it would read a large
   * one in exchange for each, without a bound.
   */
  #pauseSocket(): void {
    if (this.#isSocketPaused) return;
    this.#isSocketPaused = true;
    queueMicrotask(() => {
      if (this.#isSocketPaused) this.#socket.pause();
    });
  }

  #readOn(): void {
    if (!this.#isSocketPaused || this.#rest !== undefined || this.#heldBytes >= HELD_WHILE_PAUSED_BYTES) return;
    this.#isSocketPaused = false;
    this.#resumeSocket();
  }
}
