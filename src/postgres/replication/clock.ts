/** The clock of PostgreSQL's binary formats, timestamptz and pgoutput alike: microseconds since 2000-01-01 00:00:00 UTC. */

/** From 1970-01-01 to 2000-01-01, in milliseconds: POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE of PostgreSQL's timestamp.h, in days. */
export const POSTGRES_EPOCH_MS = 946_684_800_000;

/** Microseconds since 2000-01-01 as milliseconds since 1970-01-01, with their fraction. */
export function wallClockMs(postgresMicros: bigint): number {
  return Number(postgresMicros) / 1000 + POSTGRES_EPOCH_MS;
}

/** Whole milliseconds since 1970-01-01, as `Date.now()` returns them, as microseconds since 2000-01-01. */
export function postgresMicros(wallClockMs: number): bigint {
  return BigInt(wallClockMs - POSTGRES_EPOCH_MS) * 1000n;
}
