/**
 * timestamptz in PostgreSQL's binary format to the text in the Thrift structures (`base.Timestamp` of machinegun-proto:
 * RFC 3339 in UTC, `2016-03-22T06:12:27Z`).
 */
import { InvalidRowError } from '../errors.ts';
import { POSTGRES_EPOCH_MS } from '../postgres/replication/clock.ts';

/** 0000-01-01T00:00:00Z and 10000-01-01T00:00:00Z, in microseconds since 2000-01-01. */
const FIRST_MICROS = -63_113_904_000_000_000n;
const END_MICROS = 252_455_616_000_000_000n;
/** `infinity` and `-infinity` of timestamptz (PostgreSQL, `DT_NOEND` and `DT_NOBEGIN`). */
const INFINITY_MICROS = 0x7fff_ffff_ffff_ffffn;
const MINUS_INFINITY_MICROS = -0x8000_0000_0000_0000n;

// The last text: the rows of one transaction, and of a busy second, share it.
let cachedText = Buffer.alloc(0);
let cachedFromMicros = 0n;
let cachedToMicros = 0n;

/**
 * Text of a timestamptz: `microsSince2000` microseconds after 2000-01-01T00:00:00Z, as 20 bytes. Fractions of a second are
 * cut toward the past, also before 2000. All moments of a second share the Buffer: copy it, do not change it.
 * @throws InvalidRowError for infinity, -infinity and years outside 0 to 9999
 */
export function formatTimestamp(microsSince2000: bigint): Buffer {
  if (microsSince2000 >= cachedFromMicros && microsSince2000 < cachedToMicros) return cachedText;
  if (microsSince2000 === INFINITY_MICROS || microsSince2000 === MINUS_INFINITY_MICROS) {
    throw new InvalidRowError('the timestamp is infinite', { code: 'timestamp_infinite' });
  }
  if (microsSince2000 < FIRST_MICROS || microsSince2000 >= END_MICROS) {
    throw new InvalidRowError('the timestamp is outside the years 0 to 9999', { code: 'timestamp_year' });
  }
  // After the shift the years 0 to 9999 are positive: bigint's division toward zero is then toward the past.
  const seconds = (microsSince2000 - FIRST_MICROS) / 1_000_000n + FIRST_MICROS / 1_000_000n;
  const iso = new Date(Number(seconds) * 1000 + POSTGRES_EPOCH_MS).toISOString();
  cachedText = Buffer.from(`${iso.slice(0, 19)}Z`, 'latin1');
  cachedFromMicros = seconds * 1_000_000n;
  cachedToMicros = cachedFromMicros + 1_000_000n;
  return cachedText;
}
