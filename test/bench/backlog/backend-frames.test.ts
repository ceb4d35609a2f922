import { describe, expect, test } from 'bun:test';
import { BackendFrames } from './backend-frames.ts';

function frame(kind: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.write(kind);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

function xlogData(message: Buffer): Buffer {
  return frame('d', Buffer.concat([Buffer.from('w'), Buffer.alloc(24), message]));
}

function commit(end: bigint): Buffer {
  const message = Buffer.alloc(26);
  message.write('C');
  message.writeBigUInt64BE(end - 8n, 2);
  message.writeBigUInt64BE(end, 10);
  return xlogData(message);
}

function keepalive(end: bigint, replyWished: boolean): Buffer {
  const body = Buffer.alloc(18);
  body.write('k');
  body.writeBigUInt64BE(end, 1);
  body[17] = replyWished ? 1 : 0;
  return frame('d', body);
}

const ROW = xlogData(Buffer.concat([Buffer.from('I'), Buffer.alloc(300, 'C')]));
const STREAM = Buffer.concat([frame('W', Buffer.alloc(3)), ROW, commit(0x100n), ROW, keepalive(0x180n, true), ROW]);

describe('BackendFrames', () => {
  test.each([1, 2, 7, 64, 100, 311, STREAM.length])('finds the same frames in chunks of %p bytes', (chunkBytes) => {
    const frames = new BackendFrames();
    const reached: bigint[] = [];
    for (let at = 0; at < STREAM.length; at += chunkBytes) {
      frames.read(STREAM.subarray(at, at + chunkBytes));
      if (reached.at(-1) !== frames.reachedLsn) reached.push(frames.reachedLsn);
    }
    expect(reached.at(-1)).toBe(0x180n);
    if (chunkBytes < ROW.length) expect(reached).toEqual([0n, 0x100n, 0x180n]);
    expect([frames.takeStarted(), frames.takeStarted()]).toEqual([true, false]);
    expect([frames.takeReplyWish(), frames.takeReplyWish()]).toEqual([true, false]);
  });

  test('reports the end of the stream and an error of the server', () => {
    const frames = new BackendFrames();
    let doneCount = 0;
    frames.onCopyDone = () => doneCount++;
    frames.read(Buffer.concat([frame('Z', Buffer.from('I')), frame('c', Buffer.alloc(0))]));
    frames.read(frame('E', Buffer.from('SERROR\0Mslot is in use\0\0')));
    expect([frames.takeReady(), doneCount, frames.error]).toEqual([true, 1, 'SERROR Mslot is in use  ']);
  });
});
