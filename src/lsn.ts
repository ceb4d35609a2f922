/**
 * Log sequence numbers: positions in PostgreSQL's WAL, 64-bit and unsigned.
 * Source: https://www.postgresql.org/docs/current/datatype-pg-lsn.html
 */
import { MalformedError } from './errors.ts';

/** A position in the WAL, in bytes from its beginning. 0 means "none". */
export type Lsn = bigint;

const LSN_TEXT = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/;
const LOW_HALF = 0xffff_ffffn;

/**
 * Parses PostgreSQL's text form: the high and the low 32 bits in hexadecimal, `16/B374D848`.
 * Throws MalformedError for anything else.
 */
export function parseLsn(text: string): Lsn {
  const match = LSN_TEXT.exec(text);
  if (match === null)
    throw new MalformedError('LSN', 0, `"${text}" is not two hexadecimal numbers with a slash between`);
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`);
}

/** Formats an LSN as PostgreSQL prints it: upper case, without leading zeros, `16/B374D848`. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16)}/${(lsn & LOW_HALF).toString(16)}`.toUpperCase();
}

/** The one that lies farther on in the WAL; Math.max does not take them. */
export function laterLsn(one: Lsn, other: Lsn): Lsn {
  return one < other ? other : one;
}

/** The one that lies further back in the WAL. */
export function earlierLsn(one: Lsn, other: Lsn): Lsn {
  return one < other ? one : other;
}
