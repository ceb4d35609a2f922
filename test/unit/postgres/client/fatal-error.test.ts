import { describe, expect, test } from 'bun:test';
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { listenForFatalError, parseFatal } from '../../../../src/postgres/client/fatal-error.ts';

/** ErrorResponse: 'E', i32 length, fields of a letter and a text each, a zero. */
function errorResponse(fields: Readonly<Record<string, string>>): Buffer {
  const body = Buffer.from(
    `${Object.entries(fields)
      .map(([letter, text]) => `${letter}${text}\0`)
      .join('')}\0`,
  );
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

const FATAL = errorResponse({
  S: 'ВАЖНО',
  V: 'FATAL',
  C: '57P01',
  M: 'закрытие подключения по команде администратора',
  F: 'postgres.c',
  L: '3345',
  R: 'ProcessInterrupts',
});

describe('parseFatal', () => {
  test('reads the FATAL with which the bytes end, whatever stands before it', () => {
    for (const before of ['', 'd\0\0\0\x05x', 'E'.repeat(10_000)]) {
      expect(parseFatal(Buffer.concat([Buffer.from(before), FATAL]))).toMatchObject({
        name: 'PostgresError',
        severity: 'FATAL',
        code: '57P01',
        message: 'закрытие подключения по команде администратора',
      });
    }
  });

  test('reads a PANIC too', () => {
    expect(parseFatal(errorResponse({ S: 'PANIC', V: 'PANIC', C: 'XX000', M: 'x' }))).toMatchObject({ code: 'XX000' });
  });

  test.each([
    ['nothing', Buffer.alloc(0)],
    ['an ERROR, after which the connection goes on', errorResponse({ S: 'ERROR', V: 'ERROR', C: '42704', M: 'x' })],
    ['a FATAL that something follows', Buffer.concat([FATAL, Buffer.from('Z')])],
    ['a FATAL whose length is wrong', Buffer.concat([FATAL.subarray(0, 4), Buffer.from([7]), FATAL.subarray(5)])],
  ])('finds none in %s', (_, bytes) => {
    expect(parseFatal(bytes)).toBeUndefined();
  });

  test('finds none in any truncation of one', () => {
    for (let length = 0; length < FATAL.length; length++) {
      expect(parseFatal(FATAL.subarray(0, length))).toBeUndefined();
    }
  });
});

test('listenForFatalError reads the error at the end of the last read', () => {
  const socket = new EventEmitter();
  const fatalError = listenForFatalError(socket as Socket);
  expect(fatalError()).toBeUndefined();
  socket.emit('data', Buffer.from('d\0\0\0\x05x'));
  socket.emit('data', FATAL);
  expect(fatalError()).toMatchObject({ code: '57P01' });
});
