import { expect, test } from 'bun:test';
import { Socket } from 'node:net';
import { Connection, initProducerIdV4, Reader, ResponseError } from '@platformatic/kafka';
import {
  answerDespiteErrors,
  boundReauthentication,
  destroyOnThrow,
} from '../../../../src/kafka/client/library-patches.ts';

test('a length of 2^31 and more is refused; the library would read its bytes again 268,435,455 times', () => {
  const [count, tag, lengthThatGoesBack] = ['ffffff7f', '00', 'faffffff0f'];
  const body = Buffer.from(`00000000000000000000000000010000${count}${tag}${lengthThatGoesBack}`, 'hex');
  expect(() => initProducerIdV4.parseResponse(1, 22, 4, Reader.from(body))).toThrow(
    'A length is larger than any answer',
  );
});

test('destroyOnThrow turns an exception of a data listener into the end of the connection, and no other', async () => {
  const socket = new Socket();
  destroyOnThrow(socket);
  const failure = new RangeError('listener');
  socket.on('data', () => {
    throw failure;
  });
  socket.on('lookup', () => {
    throw failure;
  });
  const ended = new Promise((resolve) => socket.once('error', resolve));
  expect(() => socket.emit('lookup', failure, '', 4, '')).toThrow(failure);
  expect(socket.destroyed).toBe(false);
  socket.emit('data', Buffer.alloc(1));
  expect(await ended).toBe(failure);
  expect(socket.destroyed).toBe(true);
});

test('answerDespiteErrors returns the answer of an error that has one, and throws every other error', () => {
  const answer = { topics: [] };
  expect(answerDespiteErrors<unknown>(new ResponseError(3, 12, { '/': [3, null] }, answer))).toBe(answer);
  const other = new Error('other');
  expect(() => answerDespiteErrors(other)).toThrow(other);
});

test('a connection whose session lifetime overflows a timer is not authenticated again at once', async () => {
  let count = 0;
  const connection = new (class extends Connection {
    override reauthenticate(): void {
      count += 1;
    }
  })('test');
  boundReauthentication(connection);
  connection.emit('connect');
  connection.reauthenticate();
  expect(count).toBe(0);
  await Bun.sleep(150); // longer than the shortest session
  connection.reauthenticate();
  connection.reauthenticate();
  expect(count).toBe(1);
});
