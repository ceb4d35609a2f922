/** Backend messages: u8 kind, i32 length that counts itself, contents. Source: PostgreSQL manual, "Message Formats". */
import { MalformedError } from '../../errors.ts';

const FORMAT = 'backend message';

const COPY_DATA = 0x64; // 'd'
/** Kind and length */
export const MESSAGE_HEADER_BYTES = 5;
/** The length counts itself, and PostgreSQL's MaxAllocSize bounds every message. */
const LEAST_LENGTH = 4;
const GREATEST_LENGTH = 0x3fff_ffff;

/** A run ends after the message that reaches this size: processing one run must not block the event loop for long. */
const RUN_BYTES = 128 * 1024;

/** A CopyData message of this size, cut by the end of a read, is given in parts. */
export const LARGE_MESSAGE_BYTES = 1024 * 1024;

/** Takes runs of whole messages, headers included, in the order of arrival. */
export interface MessageReceiver {
  onCopyData(messages: Buffer): void;
  /** Takes a part of a CopyData message that is too large to be held whole: the first with its header, in order */
  onCopyDataPart(part: Buffer): void;
  onOther(messages: Buffer): void;
}

/**
 * Splits the bytes of a replication connection into CopyData and all other messages, without a look at the contents. The
 * many CopyData messages of one read come out in few runs, as views of the read; only a message that the end of a read
 * cuts is copied together, and a large one not even then.
 */
export class MessageSplitter {
  readonly #receiver: MessageReceiver;
  /** Pieces of a message whose end has not come yet */
  #pieces: Buffer[] = [];
  #pieceBytes = 0;
  /** Size of that message, or of its header while not even that is whole */
  #wantedBytes = 0;
  /** Bytes of a large message that are still to come */
  #largeBytes = 0;

  constructor(receiver: MessageReceiver) {
    this.#receiver = receiver;
  }

  /** Takes the bytes of one read. @throws MalformedError when they are not PostgreSQL's protocol */
  push(read: Buffer): void {
    let at = this.#largeBytes > 0 ? this.#passOn(read) : this.#complete(read);
    if (this.#wantedBytes > 0 || this.#largeBytes > 0) return;
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

  /** Completes the message that the last read cut off; returns the offset of the next one. */
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
        if (this.#largeBytes > 0) return at + this.#passOn(read.subarray(at));
      }
    }
    return at;
  }

  /** Gives a read, or its beginning, as a part of the large message; returns the offset of the next message. */
  #passOn(read: Buffer): number {
    const end = Math.min(this.#largeBytes, read.length);
    this.#largeBytes -= end;
    if (end > 0) this.#receiver.onCopyDataPart(read.subarray(0, end));
    return end;
  }

  #keep(piece: Buffer, wantedBytes: number): void {
    if (wantedBytes >= LARGE_MESSAGE_BYTES && piece[0] === COPY_DATA) {
      this.#largeBytes = wantedBytes;
      this.#passOn(piece);
      this.#keep(EMPTY, 0);
      return;
    }
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

/** End of the message that begins at `at`, which may lie past the bytes; undefined while its header is incomplete. */
export function messageEnd(bytes: Buffer, at: number): number | undefined {
  if (at + MESSAGE_HEADER_BYTES > bytes.length) return undefined;
  const length = (bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!;
  if (length < LEAST_LENGTH || length > GREATEST_LENGTH) {
    throw new MalformedError(FORMAT, at + 1, `impossible length ${length}`);
  }
  return at + 1 + length;
}
