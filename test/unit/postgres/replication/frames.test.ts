import { describe, expect, test } from 'bun:test';
import { MalformedError } from '../../../../src/errors.ts';
import { MESSAGE_HEADER_BYTES } from '../../../../src/postgres/replication/backend-messages.ts';
import { FrameReader, type KeepaliveMessage } from '../../../../src/postgres/replication/frames.ts';
import {
  begin,
  CAPTURES,
  commit,
  copyData,
  insert,
  keepalive,
  logicalMessage,
  readCapture,
  snapshot,
  xlogData,
} from '../../../support/codecs/pgoutput.ts';

/** Everything that a chunk of these frames holds, as plain values. */
function readAll(...frames: readonly Buffer[]): unknown[] {
  const reader = new FrameReader();
  reader.start(copyData(...frames));
  const messages: unknown[] = [];
  for (let message = reader.next(); message !== undefined; message = reader.next()) messages.push(snapshot(message));
  return messages;
}

describe('FrameReader', () => {
  test('next decodes a keepalive', () => {
    const expected: KeepaliveMessage = {
      tag: 'keepalive',
      walEnd: 0xffff_ffff_ffff_fff0n,
      replyRequested: true,
    };
    expect(readAll(keepalive(0xffff_ffff_ffff_fff0n, { clockMicros: -5n, replyRequested: true }))).toEqual([expected]);
    expect(readAll(keepalive(0n))).toEqual([{ ...expected, walEnd: 0n, replyRequested: false }]);
  });

  test('next gives nothing for an empty chunk', () => {
    expect(readAll()).toEqual([]);
  });

  test.each(CAPTURES)('next decodes the frames of %s in one chunk as it does alone', (name) => {
    const frames = readCapture(name).map((frame) => frame.bytes);
    const alone = frames.flatMap((frame) => readAll(frame));
    expect(alone).toHaveLength(frames.length);
    expect(readAll(...frames)).toEqual(alone);
    // Keepalives between the messages move nothing.
    const mixed = frames.flatMap((frame) => [keepalive(1n), frame]);
    expect(readAll(...mixed).filter((_, index) => index % 2 === 1)).toEqual(alone);
  });

  test.each(CAPTURES)('next refuses every truncation of every frame of %s', (name) => {
    for (const { note, bytes } of readCapture(name)) {
      for (let length = 1; length < bytes.length; length++) {
        // A copy, so that no byte after the cut can be read by mistake.
        const cut = Buffer.from(bytes.subarray(0, length));
        const error = failureOf(cut);
        if (!(error instanceof MalformedError)) throw new Error(`${note}: ${length} bytes gave ${error}`);
        expect(error.offset).toBeLessThanOrEqual(MESSAGE_HEADER_BYTES + length);
      }
    }
  });

  test.each(CAPTURES)('next refuses a frame of %s that is longer than its message', (name) => {
    for (const { bytes } of readCapture(name)) {
      expect(failureOf(Buffer.concat([bytes, Buffer.from([0])]))).toBeInstanceOf(MalformedError);
    }
  });

  test('next refuses a frame that is cut short, whose bytes the next one would lend', () => {
    const cut = xlogData(insert(1, ['x'])).subarray(0, -1);
    expect(failureOf(cut, xlogData(insert(1, ['x'])))).toMatchObject({ name: 'MalformedError' });
    expect(failureOf(xlogData(commit()).subarray(0, -1), keepalive(1n))).toMatchObject({ name: 'MalformedError' });
  });

  test('next refuses a CopyData message that the chunk does not hold whole', () => {
    const reader = new FrameReader();
    for (const length of [1, 4, 5, 22]) {
      reader.start(copyData(keepalive(1n)).subarray(0, length));
      expect(() => reader.next()).toThrow(MalformedError);
    }
  });

  test('next throws nothing but MalformedError on randomly changed frames', () => {
    const frames = CAPTURES.flatMap((name) => readCapture(name).map((frame) => frame.bytes));
    const random = seededRandom(0x5eed);
    let refused = 0;
    for (let round = 0; round < 40_000; round++) {
      const bytes = Buffer.from(frames[random(frames.length)]!);
      for (let change = 0; change <= random(3); change++) {
        // Mostly in the first hundred bytes, where structure is.
        bytes[random(2) === 0 ? random(bytes.length) : random(Math.min(bytes.length, 100))] = random(256);
      }
      const error = failureOf(bytes);
      if (error === undefined) continue;
      if (!(error instanceof MalformedError)) throw new Error(`${bytes.toString('hex')} gave ${error}`);
      refused++;
    }
    expect(refused).toBeGreaterThan(5_000);
  });

  test('next counts offsets of errors from the beginning of the chunk', () => {
    const good = xlogData(insert(1, ['x']));
    const bad = Buffer.from(xlogData(commit()));
    bad[26] = 7;
    const start = MESSAGE_HEADER_BYTES + good.length + MESSAGE_HEADER_BYTES;
    expect(failureOf(good, bad)).toMatchObject({ format: 'pgoutput', offset: start + 26 });
    expect(failureOf(good, Buffer.from('x'))).toMatchObject({ format: 'replication frame', offset: start });
    expect(failureOf(good, Buffer.alloc(0))).toMatchObject({ format: 'replication frame', offset: start });
    expect(failureOf(good, keepalive(1n).subarray(0, 17))).toMatchObject({ offset: start });
  });

  test('next refuses a keepalive whose last byte is neither 0 nor 1', () => {
    const bytes = keepalive(1n);
    bytes[17] = 2;
    expect(failureOf(bytes)).toMatchObject({ name: 'MalformedError', offset: MESSAGE_HEADER_BYTES + 17 });
  });

  test('walStart is the LSN of the frame that next returned, also above 2^63', () => {
    const reader = new FrameReader();
    expect(reader.walStart).toBeUndefined();
    reader.start(copyData(xlogData(begin(), 0xffff_ffff_ffff_fffen), keepalive(9n), xlogData(insert(1, [null]), 5n)));
    const seen: unknown[] = [];
    for (let message = reader.next(); message !== undefined; message = reader.next()) {
      seen.push([message.tag, reader.walStart]);
    }
    expect(seen).toEqual([
      ['begin', 0xffff_ffff_ffff_fffen],
      ['keepalive', undefined],
      ['insert', 5n],
    ]);
  });

  test('walStart is known of a frame that cannot be decoded, and not of one without its header', () => {
    const reader = new FrameReader();
    reader.start(copyData(xlogData(Buffer.from('?'), 42n)));
    expect(() => reader.next()).toThrow(MalformedError);
    expect(reader.walStart).toBe(42n);
    reader.start(copyData(xlogData(Buffer.alloc(0), 42n).subarray(0, 20)));
    expect(() => reader.next()).toThrow(MalformedError);
    expect(reader.walStart).toBeUndefined();
  });

  test('sentMicros is the clock of the frame that next returned, and unknown of a keepalive', () => {
    const reader = new FrameReader();
    expect(reader.sentMicros).toBeUndefined();
    const sent = [0n, -1n, 848_000_000_123_456n, 2n ** 32n - 1n];
    reader.start(copyData(...sent.map((micros) => xlogData(begin(), 1n, micros)), keepalive(1n, { clockMicros: 7n })));
    const seen: unknown[] = [];
    while (reader.next() !== undefined) seen.push(reader.sentMicros);
    expect(seen).toEqual([...sent.map(Number), undefined]);
  });

  test('release lets go of the chunk and keeps the facts about its last frame', () => {
    const reader = new FrameReader();
    reader.start(copyData(xlogData(begin(), 42n, 7n)));
    reader.next();
    const { walStart, sentMicros } = reader;
    reader.release();
    expect([reader.walStart, reader.sentMicros]).toEqual([walStart, sentMicros]);
    expect(walStart).toBe(42n);
    expect(reader.next()).toBeUndefined();
  });

  test('start forgets what was left of the chunk before', () => {
    const reader = new FrameReader();
    reader.start(copyData(keepalive(1n), keepalive(2n)));
    reader.next();
    reader.start(copyData(keepalive(3n)));
    expect(reader.next()).toMatchObject({ walEnd: 3n });
    expect(reader.next()).toBeUndefined();
  });

  test('next keeps the content of a logical message that holds frame letters apart from the next frame', () => {
    const content = Buffer.from('wkIUD');
    const message = logicalMessage({ transactional: false, lsn: 1n, prefix: 'w', content });
    expect(readAll(xlogData(message), keepalive(1n))).toEqual([
      { tag: 'message', transactional: false, lsn: 1n, prefix: 'w', content },
      { tag: 'keepalive', walEnd: 1n, replyRequested: false },
    ]);
  });
});

function failureOf(...frames: readonly Buffer[]): unknown {
  try {
    readAll(...frames);
    return undefined;
  } catch (error) {
    return error;
  }
}

/** mulberry32, as a function that gives an integer from 0 to below `limit`. */
function seededRandom(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
}
