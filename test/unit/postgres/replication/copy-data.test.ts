import { describe, expect, test } from 'bun:test';
import { EventEmitter, once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { MalformedError } from '../../../../src/errors.ts';
import { CopyDataInbox } from '../../../../src/postgres/replication/copy-data.ts';
import { copyData, int4 } from '../../../support/codecs/pgoutput.ts';
import { waitFor } from '../../../support/process/wait.ts';

/** A socket as far as it matters here: who listens, and whether it is read. */
class BareSocket extends EventEmitter {
  isRead = true;
  destroyedBy: unknown;

  pause(): this {
    this.isRead = false;
    return this;
  }
  resume(): this {
    this.isRead = true;
    return this;
  }
  destroy(error?: unknown): this {
    this.destroyedBy = error;
    return this;
  }
}

function open(onChunk: (text: string, inbox: CopyDataInbox) => void = () => {}) {
  const socket = new BareSocket();
  const chunks: string[] = [];
  const seenByDriver: string[] = [];
  const inbox: CopyDataInbox = new CopyDataInbox(socket as unknown as Socket);
  const start = () =>
    inbox.start({
      onChunk: (messages) => {
        chunks.push(textOf(messages));
        onChunk(textOf(messages), inbox);
      },
      onPart: ({ length }) => chunks.push(`part of ${length}`),
    });
  socket.on('data', (bytes: Buffer) => seenByDriver.push(bytes.toString('latin1', 0, 1)));
  return { socket, inbox, start, chunks, seenByDriver };
}

/** The contents of CopyData messages, one after the other. */
function textOf(messages: Buffer): string {
  let text = '';
  for (let at = 0; at < messages.length; ) {
    const end = at + 1 + messages.readInt32BE(at + 1);
    text += messages.toString('latin1', at + 5, end);
    at = end;
  }
  return text;
}

const row = (text: string): Buffer => copyData(Buffer.from(text));
const COPY_BOTH = Buffer.concat([Buffer.from('W'), int4(7), Buffer.from([0, 0, 0])]);
const COPY_DONE = Buffer.concat([Buffer.from('c'), int4(4)]);
/** Lets a turn of the event loop pass, and everything that waits for one after the other. */
const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
};

describe('CopyDataInbox', () => {
  test('keeps CopyData from the driver, and nothing else', async () => {
    const { socket, chunks, seenByDriver, start } = open();
    start();
    await settled();
    socket.emit('data', Buffer.concat([COPY_BOTH, row('a'), row('b'), COPY_DONE]));
    expect([chunks, seenByDriver]).toEqual([['ab'], ['W', 'c']]);
  });

  test('holds what comes before it is started', async () => {
    const { socket, chunks, start } = open();
    socket.emit('data', Buffer.concat([COPY_BOTH, row('a')]));
    socket.emit('data', row('b'));
    expect(chunks).toEqual([]);
    start();
    expect(chunks).toEqual([]);
    socket.emit('data', row('c'));
    await settled();
    expect(chunks).toEqual(['a', 'b', 'c']);
  });

  test('stops in the middle of what is held when it is paused there', async () => {
    const { socket, inbox, chunks, start } = open((text, self) => {
      if (text === 'b') self.pause();
    });
    for (const text of ['a', 'b', 'c']) socket.emit('data', row(text));
    start();
    await settled();
    expect([chunks, inbox.isPaused]).toEqual([['a', 'b'], true]);
    start();
    await settled();
    expect(chunks).toEqual(['a', 'b', 'c']);
  });

  test('reads the socket while paused until enough is held, so that an error still arrives', async () => {
    const { socket, inbox, chunks, seenByDriver, start } = open();
    start();
    await settled();
    inbox.pause();
    socket.emit('data', row('x'.repeat(1000)));
    expect(socket.isRead).toBe(true);
    socket.emit('data', Buffer.concat([Buffer.from('E'), int4(4)]));
    expect(seenByDriver).toEqual(['E']);
    socket.emit('data', row('x'.repeat(70_000)));
    await settled();
    expect([socket.isRead, chunks.length]).toEqual([false, 0]);
    start();
    await settled();
    expect([socket.isRead, chunks.length]).toEqual([true, 2]);
  });

  test('does not read the socket while it rests, nor after that while enough is held', async () => {
    const { socket, inbox, chunks, start } = open();
    start();
    await settled();
    inbox.rest(5);
    await Promise.resolve();
    expect([socket.isRead, inbox.isPaused]).toEqual([false, false]);
    socket.emit('data', row('already read'));
    expect(chunks).toEqual(['already read']);
    await waitFor('the end of the rest', () => socket.isRead);
    inbox.pause();
    socket.emit('data', row('x'.repeat(70_000)));
    inbox.rest(1);
    await Bun.sleep(5);
    expect(socket.isRead).toBe(false);
    start();
    await settled();
    expect(socket.isRead).toBe(true);
  });

  test('hands over a large read in pieces, with a turn of the event loop after each', async () => {
    const { socket, inbox, chunks, start } = open();
    start();
    await settled();
    const texts = Array.from({ length: 40 }, (_, index) => String(index).padEnd(10_000));
    socket.emit('data', Buffer.concat(texts.map(row)));
    expect([chunks.length, inbox.isHandingOver, inbox.lastReadBytes]).toEqual([1, true, 40 * 10_005]);
    let turnCount = 0;
    while (inbox.isHandingOver) {
      const before = chunks.length;
      await new Promise((resolve) => setImmediate(resolve));
      if (chunks.length > before) turnCount++;
    }
    expect([chunks.length, turnCount]).toEqual([3, 2]);
    expect(chunks.join('')).toBe(texts.join(''));
  });

  test('hands over everything that was read before an error of the server, and before the end', async () => {
    for (const last of ['error of the server', 'end', 'close']) {
      const { socket, chunks, seenByDriver, start } = open();
      start();
      await settled();
      const rows = Buffer.concat(Array.from({ length: 40 }, () => row('x'.repeat(10_000))));
      socket.emit('data', last === 'error of the server' ? Buffer.concat([rows, COPY_DONE]) : rows);
      if (last !== 'error of the server') socket.emit(last);
      expect([last, chunks.join('').length]).toEqual([last, 400_000]);
      expect(seenByDriver).toEqual(last === 'error of the server' ? ['c'] : []);
    }
  });

  test('passes on all other events, and drops a connection of another protocol', () => {
    const { socket } = open();
    const seen: unknown[] = [];
    socket.on('close', (hadError: boolean) => seen.push(hadError));
    socket.emit('close', true);
    expect(seen).toEqual([true]);
    socket.emit('data', Buffer.from('HTTP/1.1 400 Bad Request'));
    expect(socket.destroyedBy).toBeInstanceOf(MalformedError);
  });

  test('holds a bounded amount when large reads follow small ones, and does not rest after each of those', async () => {
    const small = row('x'.repeat(120));
    const large = Buffer.concat(Array.from({ length: 10_000 }, () => row('x'.repeat(1000))));
    const smallCount = 1200;
    const largeCount = 4;
    await using server = createServer(async (socket) => {
      socket.setNoDelay(true);
      for (let sent = 0; sent < smallCount; sent++) {
        socket.write(small);
        await new Promise((resolve) => setImmediate(resolve));
      }
      for (let sent = 0; sent < largeCount; sent++) socket.write(large);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
    const inbox = new CopyDataInbox(socket);
    let received = 0;
    let mostUnread = 0;
    let pauseCount = 0;
    socket.on('pause', () => pauseCount++);
    inbox.start({
      onChunk: (messages) => {
        received += messages.length;
        mostUnread = Math.max(mostUnread, socket.readableLength);
        if (inbox.lastReadBytes < 64 * 1024) inbox.rest(2);
      },
      onPart: () => {},
    });
    socket.on('data', () => {});
    await waitFor('all', () => received === smallCount * small.length + largeCount * large.length);
    socket.destroy();
    expect(mostUnread).toBeLessThan(4 * 1024 * 1024);
    expect(pauseCount).toBeLessThan(smallCount / 2);
  });

  test('that is paused stays so when the driver resumes the socket, and reads on when it is started', async () => {
    const messages = Buffer.concat(Array.from({ length: 1000 }, () => row('x'.repeat(1000))));
    await using server = createServer((peer) => {
      const writeMore = () => {
        while (!peer.destroyed && peer.write(messages));
      };
      peer.on('error', () => {}).on('drain', writeMore);
      writeMore();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
    const inbox = new CopyDataInbox(socket);
    socket.on('data', () => {});
    await once(socket, 'pause');
    socket.resume();
    // A socket that is read brings more with each turn.
    for (let turn = 0; turn < 500; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect([socket.isPaused(), socket.bytesRead < 4 * 1024 * 1024]).toEqual([true, true]);
    let received = 0;
    inbox.start({ onChunk: ({ length }) => (received += length), onPart: () => {} });
    await waitFor('what comes later', () => received > 16 * 1024 * 1024);
    socket.destroy();
  });
});
