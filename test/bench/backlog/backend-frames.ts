/**
 * Steps from frame to frame through what a walsender sends, without looking into rows.
 * Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
 */

const FRAME_HEADER_BYTES = 5;
/** CopyData, XLogData or keepalive, and of a Commit as much as its end LSN */
const WANTED_BYTES = 64;
const COPY_DATA = 0x64; // 'd'
const COPY_DONE = 0x63; // 'c'
const COPY_BOTH = 0x57; // 'W'
const READY_FOR_QUERY = 0x5a; // 'Z'
const ERROR_RESPONSE = 0x45; // 'E'
const XLOG_DATA = 0x77; // 'w'
const KEEPALIVE = 0x6b; // 'k'
const COMMIT = 0x43; // 'C'

/** Where the fields are, counted from the beginning of the frame. */
const XLOG_MESSAGE_AT = FRAME_HEADER_BYTES + 25;
/** 'C', u8 flags, u64 commit LSN, u64 end LSN */
const COMMIT_END_AT = XLOG_MESSAGE_AT + 10;
/** 'k', u64 end of WAL, i64 clock, u8 reply requested */
const KEEPALIVE_END_AT = FRAME_HEADER_BYTES + 1;
const KEEPALIVE_REPLY_AT = FRAME_HEADER_BYTES + 17;

/** See the head of this file. */
export class BackendFrames {
  /** The server has sent everything up to here */
  reachedLsn = 0n;
  /** Text of the server's refusal */
  error: string | undefined;
  /** Called when the server ends the stream */
  onCopyDone: () => void = () => {};
  #ready = false;
  #started = false;
  #replyWished = false;
  /** Bytes of the next chunk that belong to a frame of which nothing more is wanted */
  #skip = 0;
  /** Beginning of a frame of which too little is there */
  #rest: Buffer = Buffer.alloc(0);

  /** Takes what the socket gave. */
  read(chunk: Buffer): void {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = this.#skip;
    for (;;) {
      const available = bytes.length - at;
      if (available < FRAME_HEADER_BYTES) break;
      const frameBytes = 1 + bytes.readInt32BE(at + 1);
      if (available < Math.min(frameBytes, WANTED_BYTES)) break;
      this.#onFrame(bytes, at, at + frameBytes);
      at += frameBytes;
    }
    this.#skip = Math.max(0, at - bytes.length);
    // The socket may use its buffer again.
    this.#rest = Buffer.from(bytes.subarray(Math.min(at, bytes.length)));
  }

  /** True once for each time that the server has become ready for a command. */
  takeReady(): boolean {
    const ready = this.#ready;
    this.#ready = false;
    return ready;
  }

  /** True once, after the stream has begun. */
  takeStarted(): boolean {
    const started = this.#started;
    this.#started = false;
    return started;
  }

  /** True when the server has asked for a status since the last call. */
  takeReplyWish(): boolean {
    const wished = this.#replyWished;
    this.#replyWished = false;
    return wished;
  }

  #onFrame(bytes: Buffer, at: number, end: number): void {
    switch (bytes[at]) {
      case COPY_DATA:
        this.#onCopyData(bytes, at);
        return;
      case READY_FOR_QUERY:
        this.#ready = true;
        return;
      case COPY_BOTH:
        this.#started = true;
        return;
      case ERROR_RESPONSE:
        this.error = bytes.toString('utf8', at + FRAME_HEADER_BYTES, end).replaceAll('\0', ' ');
        return;
      case COPY_DONE:
        this.onCopyDone();
        return;
    }
  }

  #onCopyData(bytes: Buffer, at: number): void {
    const kind = bytes[at + FRAME_HEADER_BYTES];
    if (kind === XLOG_DATA && bytes[at + XLOG_MESSAGE_AT] === COMMIT) {
      this.reachedLsn = bytes.readBigUInt64BE(at + COMMIT_END_AT);
    } else if (kind === KEEPALIVE) {
      this.reachedLsn = bytes.readBigUInt64BE(at + KEEPALIVE_END_AT);
      if (bytes[at + KEEPALIVE_REPLY_AT] === 1) this.#replyWished = true;
    }
  }
}
