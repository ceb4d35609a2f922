/**
 * Takes CopyData out of what the socket of a replication connection brings, before its driver sees it, and hands it over
 * as far as somebody is ready. It decides nothing.
 */
import type { Socket } from 'node:net';
import { MessageSplitter } from './message-splitter.ts';

/**
 * What is taken from a paused stream before its socket is no longer read: so much room for an error of the server, which
 * says why it ends the stream while nobody reads.
 */
const HELD_WHILE_PAUSED_BYTES = 64 * 1024;

/** See the head of this file. Paused until `resume`: the first frames may come with the answer to START_REPLICATION. */
export class CopyDataInbox {
  readonly #socket: Socket;
  readonly #onChunk: (messages: Buffer) => void;
  #held: Buffer[] = [];
  #heldBytes = 0;
  #isPaused = true;
  #rest: Timer | undefined;

  /** @param socket one that nobody listens to yet */
  constructor(socket: Socket, onChunk: (messages: Buffer) => void) {
    this.#socket = socket;
    this.#onChunk = onChunk;
    // A listener of ours could not keep the bytes from the other listeners.
    const emit = socket.emit.bind(socket) as (event: string | symbol, ...values: unknown[]) => boolean;
    const splitter = new MessageSplitter({
      onCopyData: (messages) => this.#take(messages),
      onOther: (messages) => emit('data', messages),
    });
    socket.emit = (event: string | symbol, ...values: unknown[]) => {
      if (event !== 'data') return emit(event, ...values);
      try {
        splitter.push(values[0] as Buffer);
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

  pause(): void {
    this.#isPaused = true;
  }

  /** Hands over what is held, soon but not at once: who resumes need not be ready for a chunk inside of the call. */
  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    queueMicrotask(() => this.#handOver());
  }

  /** Does not read the socket for so long; what the server sends meanwhile is then read at once. */
  rest(durationMs: number): void {
    this.#socket.pause();
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
    if (!this.#isPaused && this.#heldBytes === 0) {
      this.#onChunk(messages);
      return;
    }
    this.#held.push(messages);
    this.#heldBytes += messages.length;
    if (this.#heldBytes >= HELD_WHILE_PAUSED_BYTES) this.#socket.pause();
  }

  #readOn(): void {
    if (this.#rest === undefined && this.#heldBytes < HELD_WHILE_PAUSED_BYTES) this.#socket.resume();
  }

  #handOver(): void {
    while (!this.#isPaused) {
      const messages = this.#held.shift();
      if (messages === undefined) {
        this.#readOn();
        return;
      }
      this.#heldBytes -= messages.length;
      this.#onChunk(messages);
    }
  }
}
