/**
 * Splits what a replication connection brings into CopyData and everything else, without touching what is inside.
 *
 * Input are the bytes of the socket as they come, output are runs of whole messages: the many CopyData of one read in few
 * pieces, where they lie. Only a message that is cut by the end of a read is put together in memory of its own.
 * Source: PostgreSQL manual, "Message Formats": u8 kind, i32 length that counts itself, contents.
 */
import { MalformedError } from '../../errors.ts';

const FORMAT = 'backend message';

const COPY_DATA = 0x64; // 'd'
/** Kind and length */
export const MESSAGE_HEADER_BYTES = 5;
/** The length counts itself, and PostgreSQL's MaxAllocSize bounds whatever it sends. */
const LEAST_LENGTH = 4;
const GREATEST_LENGTH = 0x3fff_ffff;

/** A run ends behind the message that reaches this size: whoever works it off is not kept from everything else for long. */
const RUN_BYTES = 128 * 1024;

/** Takes runs of whole messages, headers included, in the order in which they came. */
export interface MessageReceiver {
  onCopyData(messages: Buffer): void;
  onOther(messages: Buffer): void;
}

/** See the head of this file. */
export class MessageSplitter {
  readonly #receiver: MessageReceiver;
  /** Pieces of a message whose end has not come yet */
  #pieces: Buffer[] = [];
  #pieceBytes = 0;
  /** Size of that message, or of its header while not even that is whole */
  #wantedBytes = 0;

  constructor(receiver: MessageReceiver) {
    this.#receiver = receiver;
  }

  /** Takes what one read of the socket brought. @throws MalformedError when this is not PostgreSQL's protocol */
  push(read: Buffer): void {
    let at = this.#complete(read);
    if (this.#wantedBytes > 0) return;
    let runStart = at;
    let isCopyData = false;
    for (;;) {
      const end = messageEnd(read, at);
      if (end === undefined || end > read.length) {
        this.#give(read.subarray(runStart, at), isCopyData);
        this.#keep(read.subarray(at), end === undefined ? MESSAGE_HEADER_BYTES : end - at);
        return;
      }
      if ((read[at] === COPY_DATA) !== isCopyData || at - runStart >= RUN_BYTES) {
        this.#give(read.subarray(runStart, at), isCopyData);
        runStart = at;
        isCopyData = read[at] === COPY_DATA;
      }
      at = end;
    }
  }

  /** Takes the rest of the message that the last read cut off; returns where the next one begins. */
  #complete(read: Buffer): number {
    let at = 0;
    while (this.#wantedBytes > 0 && at < read.length) {
      const end = Math.min(at + this.#wantedBytes - this.#pieceBytes, read.length);
      this.#pieces.push(read.subarray(at, end));
      this.#pieceBytes += end - at;
      at = end;
      if (this.#pieceBytes < this.#wantedBytes) break;
      const message = Buffer.concat(this.#pieces, this.#pieceBytes);
      const messageBytes = messageEnd(message, 0)!;
      if (messageBytes === message.length) {
        this.#keep(EMPTY, 0);
        this.#give(message, message[0] === COPY_DATA);
      } else {
        this.#keep(message, messageBytes);
      }
    }
    return at;
  }

  #keep(piece: Buffer, wantedBytes: number): void {
    this.#pieces = piece.length === 0 ? [] : [piece];
    this.#pieceBytes = piece.length;
    this.#wantedBytes = piece.length === 0 ? 0 : wantedBytes;
  }

  #give(messages: Buffer, isCopyData: boolean): void {
    if (messages.length === 0) return;
    if (isCopyData) this.#receiver.onCopyData(messages);
    else this.#receiver.onOther(messages);
  }
}

const EMPTY = Buffer.alloc(0);

/** Where the message ends that begins at `at`, also when that is behind the bytes; undefined without its whole header. */
export function messageEnd(bytes: Buffer, at: number): number | undefined {
  if (at + MESSAGE_HEADER_BYTES > bytes.length) return undefined;
  const length = (bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!;
  if (length < LEAST_LENGTH || length > GREATEST_LENGTH) {
    throw new MalformedError(FORMAT, at + 1, `impossible length ${length}`);
  }
  return at + 1 + length;
}
