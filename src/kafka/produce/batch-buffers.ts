/**
 * Buffers of acknowledged batches, kept for the next ones: in the steady state of a backlog nothing is allocated,
 * which is what keeps the resident size flat (garbage buffers are returned late).
 */

const FIRST_BUFFER_BYTES = 16 * 1024;

/** See the head of this file. */
export class BatchBuffers {
  readonly #keepBytes: number;
  readonly #free: Buffer[] = [];
  #freeBytes = 0;

  /** @param keepBytes how much may lie here unused before buffers are given up */
  constructor(keepBytes: number) {
    this.#keepBytes = keepBytes;
  }

  /** A buffer with undefined contents; a batch that outgrows it replaces it. */
  take(): Buffer {
    const buffer = this.#free.pop();
    if (buffer === undefined) return Buffer.allocUnsafeSlow(FIRST_BUFFER_BYTES);
    this.#freeBytes -= buffer.length;
    return buffer;
  }

  /** Gives a buffer back; nobody may hold a view of it any more. */
  give(buffer: Buffer): void {
    if (this.#freeBytes + buffer.length > this.#keepBytes) return;
    this.#free.push(buffer);
    this.#freeBytes += buffer.length;
  }
}
