/**
 * Requests with large parts, without copies of them. @platformatic/kafka 2.12.1 joins the parts of a request into one buffer,
 * and a socket keeps a copy of what the kernel does not take at once: a record of 100 MB was in memory four times.
 * Importing this file installs the first part of it; `sendInPieces` is the second.
 */
import type { Socket } from 'node:net';
import { Writer } from '@platformatic/kafka';

/** A part of a request from this size on is sent from where it is; it must not change until the connection is closed. */
export const LARGE_PART_BYTES = 4 * 1024 * 1024;
/** What the socket gets at once */
const WRITE_BYTES = 256 * 1024;

/** Parts of a request, by the empty buffer that stands for all of them. */
const partsOf = new WeakMap<Buffer, readonly Buffer[]>();

const { get: joined } = Object.getOwnPropertyDescriptor(Writer.prototype, 'buffer')!;

Object.defineProperty(Writer.prototype, 'buffer', {
  get(this: Writer): Buffer {
    const { buffers } = this;
    if (!buffers.some(({ length }) => length >= LARGE_PART_BYTES)) return joined!.call(this);
    const whole = Buffer.alloc(0);
    partsOf.set(whole, joinSmall(buffers));
    return whole;
  },
});

/** Copies the small ones, whose memory may be used again when the batches in them are acknowledged. */
function joinSmall(buffers: readonly Buffer[]): Buffer[] {
  const parts: Buffer[] = [];
  let small: Buffer[] = [];
  for (const buffer of buffers) {
    if (buffer.length < LARGE_PART_BYTES) {
      small.push(buffer);
      continue;
    }
    parts.push(Buffer.concat(small), buffer);
    small = [];
  }
  parts.push(Buffer.concat(small));
  return parts.filter(({ length }) => length > 0);
}

/** Makes a socket send a request with large parts in pieces, each after the one before it has left; others wait meanwhile. */
export function sendInPieces(socket: Socket): void {
  const write = socket.write.bind(socket) as (bytes: Buffer, onLeft?: (error?: Error | null) => void) => boolean;
  const waiting: Buffer[] = [];
  let isWriting = false;
  const writeNext = (error?: Error | null) => {
    if (error) waiting.length = 0;
    const part = waiting.shift();
    isWriting = part !== undefined;
    if (part === undefined) return;
    if (part.length > WRITE_BYTES) waiting.unshift(part.subarray(WRITE_BYTES));
    write(part.subarray(0, WRITE_BYTES), writeNext);
  };
  socket.write = (request: Buffer) => {
    const parts = partsOf.get(request);
    if (parts === undefined && !isWriting) return write(request);
    waiting.push(...(parts ?? [request]));
    if (!isWriting) writeNext();
    return true;
  };
}
