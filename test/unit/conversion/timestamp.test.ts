import { describe, expect, test } from 'bun:test';
import { formatTimestamp } from '../../../src/conversion/timestamp.ts';
import { InvalidRowError } from '../../../src/errors.ts';
import { readEventVectors, timestampMicros } from '../../support/codecs/vectors.ts';

const format = (micros: bigint) => formatTimestamp(micros).toString('latin1');
const YEAR_0 = -63_113_904_000_000_000n;
const YEAR_10000 = 252_455_616_000_000_000n;

describe('formatTimestamp', () => {
  test.each([
    [0n, '2000-01-01T00:00:00Z'],
    [999_999n, '2000-01-01T00:00:00Z'],
    [1_000_000n, '2000-01-01T00:00:01Z'],
    [-1n, '1999-12-31T23:59:59Z'],
    [-1_000_000n, '1999-12-31T23:59:59Z'],
    [-1_000_001n, '1999-12-31T23:59:58Z'],
    [-946_684_800_000_000n, '1970-01-01T00:00:00Z'],
    [-946_684_800_000_001n, '1969-12-31T23:59:59Z'],
    [512_201_547_000_000n, '2016-03-25T06:12:27Z'],
    [YEAR_0, '0000-01-01T00:00:00Z'],
    [YEAR_0 + 1n, '0000-01-01T00:00:00Z'],
    [-60_000_000_000_000_000n, '0098-09-03T13:20:00Z'],
    [YEAR_10000 - 1n, '9999-12-31T23:59:59Z'],
  ])('gives %p as %p, fractions cut toward the past', (micros, text) => {
    expect(format(micros)).toBe(text);
  });

  test('agrees with the golden vectors', () => {
    for (const { timestamp, value_hex } of readEventVectors()) {
      expect(value_hex).toContain(formatTimestamp(timestampMicros(timestamp)).toString('hex').toUpperCase());
    }
  });

  test.each([
    [2n ** 63n - 1n, 'the timestamp is infinite'],
    [-(2n ** 63n), 'the timestamp is infinite'],
    [2n ** 63n - 2n, 'the timestamp is outside the years 0 to 9999'],
    [YEAR_10000, 'the timestamp is outside the years 0 to 9999'],
    [YEAR_0 - 1n, 'the timestamp is outside the years 0 to 9999'],
  ])('refuses %p', (micros, message) => {
    expect(() => formatTimestamp(micros)).toThrow(
      expect.objectContaining({ name: 'InvalidRowError', message: message }),
    );
  });

  test('keeps the text of one second, and never returns it for another', () => {
    const first = formatTimestamp(5_000_000n);
    expect(formatTimestamp(5_999_999n)).toBe(first);
    expect(format(6_000_000n)).toBe('2000-01-01T00:00:06Z');
    expect(format(4_999_999n)).toBe('2000-01-01T00:00:04Z');
    expect(first.toString()).toBe('2000-01-01T00:00:05Z');
    expect(() => formatTimestamp(2n ** 63n - 1n)).toThrow(InvalidRowError);
    expect(format(4_000_000n)).toBe('2000-01-01T00:00:04Z');
  });
});
