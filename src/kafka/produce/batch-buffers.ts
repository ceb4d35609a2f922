import { LARGE_PART_BYTES } from '../client/large-requests.ts';

const FIRST_BUFFER_BYTES = 16 * 1024;

/**
 * Buffers of acknowledged batches, kept for later batches. In the steady state of a backlog nothing is allocated, which
 * keeps the resident size flat: garbage buffers are returned to the system late.
 */
export class BatchBuffers {
  readonly #keepBytes: number;
  readonly #free: Buffer[] = [];
  #freeBytes = 0;

  /** @param keepBytes size of the unused buffers to keep; further ones are left to the garbage collector */
  constructor(keepBytes: number) {
    this.#keepBytes = keepBytes;
  }

  /** Returns a buffer with undefined contents. A batch that outgrows it replaces it. */
  take(): Buffer {
    const buffer = this.#free.pop();
    if (buffer === undefined) return Buffer.allocUnsafeSlow(FIRST_BUFFER_BYTES);
    this.#freeBytes -= buffer.length;
    return buffer;
  }

  /**
   * Returns a buffer of which no view is in use any more. A large one is never used again: a request to a broker that leads
   * the partition no more may still be sending from it.
   */
  give(buffer: Buffer): void {
    if (buffer.length >= LARGE_PART_BYTES) return;
    if (this.#freeBytes + buffer.length > this.#keepBytes) return;
    this.#free.push(buffer);
    this.#freeBytes += buffer.length;
  }
}
