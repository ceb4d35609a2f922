/**
 * Takes CopyData out of what the socket of a replication connection brings, before its driver sees it, and hands it over
 * as far as somebody is ready. It decides nothing.
 *
 * A large read is handed over in pieces, with a turn of the event loop after each: else requests that are half sent, and
 * answers that have arrived, would wait until all of it is worked off.
 */
import type { Socket } from 'node:net';
import { MessageSplitter } from './backend-messages.ts';

/**
 * What is taken from a paused stream before its socket is no longer read: so much room for an error of the server, which
 * says why it ends the stream while nobody reads.
 */
const HELD_WHILE_PAUSED_BYTES = 64 * 1024;

/** Behind them nothing more comes: what was read before must have been handed over. */
const LAST_EVENTS: ReadonlySet<string | symbol> = new Set(['end', 'error', 'close']);

/** See the head of this file. Paused until `resume`: the first frames may come with the answer to START_REPLICATION. */
export class CopyDataInbox {
  readonly #socket: Socket;
  readonly #onChunk: (messages: Buffer) => void;
  #held: Buffer[] = [];
  #heldBytes = 0;
  #lastReadBytes = 0;
  #isPaused = true;
  #isSocketPaused = false;
  #rest: Timer | undefined;
  /** Hands over the next piece when it fires */
  #turn: NodeJS.Immediate | undefined;

  /** @param socket one that nobody listens to yet */
  constructor(socket: Socket, onChunk: (messages: Buffer) => void) {
    this.#socket = socket;
    this.#onChunk = onChunk;
    // A listener of ours could not keep the bytes from the other listeners.
    const emit = socket.emit.bind(socket) as (event: string | symbol, ...values: unknown[]) => boolean;
    const splitter = new MessageSplitter({
      onCopyData: (messages) => this.#take(messages),
      onOther: (messages) => {
        // In the order in which they came: an error of the server stands behind what was sent before it.
        this.#handOverAll();
        emit('data', messages);
      },
    });
    socket.emit = (event: string | symbol, ...values: unknown[]) => {
      if (LAST_EVENTS.has(event)) this.#handOverAll();
      if (event !== 'data') return emit(event, ...values);
      try {
        const read = values[0] as Buffer;
        this.#lastReadBytes = read.length;
        splitter.push(read);
      } catch (error) {
        socket.destroy(error as Error);
      }
      return true;
    };
  }

  /** True from `pause` to `resume`. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** True while more of what was read is about to be handed over. */
  get isHandingOver(): boolean {
    return this.#held.length > 0 && !this.#isPaused;
  }

  /** Size of the last read, other messages included. */
  get lastReadBytes(): number {
    return this.#lastReadBytes;
  }

  pause(): void {
    this.#isPaused = true;
  }

  /** Hands over what is held, soon but not at once: who resumes need not be ready for a chunk inside of the call. */
  resume(): void {
    this.#isPaused = false;
    this.#handOverSoon();
  }

  /** Does not read the socket for so long; what the server sends meanwhile is then read at once. */
  rest(durationMs: number): void {
    this.#pauseSocket();
    this.#rest ??= setTimeout(() => {
      this.#rest = undefined;
      this.#readOn();
    }, durationMs);
  }

  /** Drops the connection at once. */
  destroy(): void {
    this.#socket.destroy();
  }

  #take(messages: Buffer): void {
    if (!this.#isPaused && this.#turn === undefined) {
      this.#onChunk(messages);
      this.#handOverSoon();
      return;
    }
    this.#held.push(messages);
    this.#heldBytes += messages.length;
    if (this.#heldBytes >= HELD_WHILE_PAUSED_BYTES) this.#pauseSocket();
  }

  #handOverSoon(): void {
    this.#turn ??= setImmediate(() => {
      this.#turn = undefined;
      if (this.#handOverNext()) this.#handOverSoon();
      else this.#readOn();
    });
  }

  #handOverAll(): void {
    while (this.#handOverNext());
  }

  /** False when there is nothing to hand over, or nobody ready for it. */
  #handOverNext(): boolean {
    if (this.#isPaused) return false;
    const messages = this.#held.shift();
    if (messages === undefined) return false;
    this.#heldBytes -= messages.length;
    this.#onChunk(messages);
    return true;
  }

  #pauseSocket(): void {
    this.#isSocketPaused = true;
    this.#socket.pause();
  }

  #readOn(): void {
    if (!this.#isSocketPaused || this.#rest !== undefined || this.#heldBytes >= HELD_WHILE_PAUSED_BYTES) return;
    this.#isSocketPaused = false;
    this.#socket.resume();
  }
}
