/** Workarounds for defects of the Kafka library (@platformatic/kafka 2.12.1). Importing this file installs the first. */
import type { Socket } from 'node:net';
import { type Connection, Reader, ResponseError } from '@platformatic/kafka';

/*
 * @platformatic/kafka 2.12.1 reads a length of 2^31 or more as a negative one. Its reader then steps back and reads the
 * same bytes as often as a count before them says: minutes in which nothing else runs.
 */
const readUnsignedVarInt = Reader.prototype.readUnsignedVarInt;

Reader.prototype.readUnsignedVarInt = function (this: Reader): number {
  const value = readUnsignedVarInt.call(this);
  // The code is that of the library's own errors of this kind.
  if (value < 0) throw Object.assign(new RangeError('A length is larger than any answer'), { code: 'OUT_OF_BOUNDS' });
  return value;
};

/**
 * Makes an exception in a `data` listener of the socket end the connection instead of the process: the listener of
 * @platformatic/kafka 2.12.1 throws at bytes that no broker sends (a frame shorter than its head, an answer to SCRAM
 * without its parts).
 */
export function destroyOnThrow(socket: Socket): void {
  const emit = socket.emit.bind(socket) as (event: string | symbol, ...values: unknown[]) => boolean;
  socket.emit = (event: string | symbol, ...values: unknown[]) => {
    try {
      return emit(event, ...values);
    } catch (error) {
      if (event !== 'data' || !(error instanceof Error)) throw error;
      socket.destroy(error);
      return true;
    }
  };
}

/** A session that long is authenticated again sooner than any broker asks for. */
const SHORTEST_SESSION_MS = 100;

/**
 * Keeps a connection from authenticating without end: @platformatic/kafka 2.12.1 sets a timer to four fifths of the session's
 * lifetime, which fires at once when a broker allows more than 31 days (connections.max.reauth.ms), and then again and again.
 */
export function boundReauthentication(connection: Connection): void {
  const reauthenticate = connection.reauthenticate.bind(connection);
  let lastMs = performance.now();
  connection.on('connect', () => {
    lastMs = performance.now();
  });
  connection.reauthenticate = () => {
    const sinceMs = performance.now() - lastMs;
    lastMs = performance.now();
    if (sinceMs >= SHORTEST_SESSION_MS) reauthenticate();
  };
}

/**
 * The answer in a rejected request, for `catch`: @platformatic/kafka 2.12.1 throws when any part of an answer has an
 * error code, although the other parts are valid.
 * @throws the error itself when it holds no answer
 */
export function answerDespiteErrors<T>(error: unknown): T {
  if (error instanceof ResponseError) return error.response as T;
  throw error;
}
