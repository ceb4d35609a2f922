/**
 * What a server says last. A FATAL ends the connection without ReadyForQuery, and the driver (postgres 3.4.9) keeps the
 * errors of a running command, which a replication stream is, until that comes: of a session that was terminated it
 * reports CONNECTION_CLOSED alone. So the end of what the socket brought is looked at.
 * Source: PostgreSQL manual, "Message Formats", ErrorResponse; "Error and Notice Message Fields".
 */
import type { Socket } from 'node:net';
import postgres from 'postgres';

/** Severity, not translated (PostgreSQL 9.6 and newer), SQLSTATE and message; the Int32 length counts itself. */
const FATAL = /E([\s\S]{4})S[^\0]*\0V(?:FATAL|PANIC)\0C([0-9A-Z]{5})\0M([^\0]*)\0(?:[A-Za-z][^\0]*\0)*\0$/;
const LONGEST_BYTES = 4096;

/** Remembers the end of what a socket brings; the function returns the FATAL that stands there, if one does. */
export function listenForLastWords(socket: Socket): () => Error | undefined {
  let last: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    last = chunk;
  });
  return () => parseFatal(last);
}

/** The FATAL or PANIC with which these bytes end. */
export function parseFatal(bytes: Buffer): Error | undefined {
  const tail = bytes.subarray(Math.max(0, bytes.length - LONGEST_BYTES));
  const found = FATAL.exec(tail.toString('latin1'));
  if (found === null || tail.readInt32BE(found.index + 1) !== tail.length - found.index - 1) return undefined;
  const message = Buffer.from(found[3]!, 'latin1').toString();
  // The driver's types hide the constructor, which takes the fields of the message.
  const PostgresError = postgres.PostgresError as unknown as new (fields: object) => postgres.PostgresError;
  return new PostgresError({ message, severity: 'FATAL', code: found[2] });
}
