/**
 * The FATAL error with which a server ends a connection. It comes without ReadyForQuery, and the driver (postgres 3.4.9)
 * holds the errors of a running command, such as a replication stream, until that arrives: for a terminated session it
 * reports only CONNECTION_CLOSED. So the service reads the error from the last bytes of the socket itself.
 * Source: PostgreSQL manual, "Message Formats", ErrorResponse; "Error and Notice Message Fields".
 */
import type { Socket } from 'node:net';
import postgres from 'postgres';

/** Severity, not translated (PostgreSQL 9.6 and newer), SQLSTATE and message; the Int32 length counts itself. */
const FATAL = /E([\s\S]{4})S[^\0]*\0V(?:FATAL|PANIC)\0C([0-9A-Z]{5})\0M([^\0]*)\0(?:[A-Za-z][^\0]*\0)*\0$/;
const LONGEST_BYTES = 4096;

/** Keeps the last bytes of a socket; the returned function reads the FATAL at their end, if there is one. */
export function listenForFatalError(socket: Socket): () => Error | undefined {
  let last: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    last = chunk;
  });
  return () => parseFatal(last);
}

/** The FATAL or PANIC at the end of these bytes; undefined when they end with anything else. */
export function parseFatal(bytes: Buffer): Error | undefined {
  const tail = bytes.subarray(Math.max(0, bytes.length - LONGEST_BYTES));
  const found = FATAL.exec(tail.toString('latin1'));
  if (found === null || tail.readInt32BE(found.index + 1) !== tail.length - found.index - 1) return undefined;
  const message = Buffer.from(found[3]!, 'latin1').toString();
  // The driver's types hide the constructor, which takes the fields of the message.
  const PostgresError = postgres.PostgresError as unknown as new (fields: object) => postgres.PostgresError;
  return new PostgresError({ message, severity: 'FATAL', code: found[2] });
}
