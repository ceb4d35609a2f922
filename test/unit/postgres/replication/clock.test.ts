import { describe, expect, test } from 'bun:test';
import { postgresMicros, wallClockMs } from '../../../../src/postgres/replication/clock.ts';

describe("PostgreSQL's clock", () => {
  test.each([
    [0n, '2000-01-01T00:00:00.000Z'],
    [512_201_547_012_000n, '2016-03-25T06:12:27.012Z'],
    [-946_684_800_000_000n, '1970-01-01T00:00:00.000Z'],
    [-1_000n, '1999-12-31T23:59:59.999Z'],
  ])('%p microseconds since 2000-01-01 are %s, and back', (micros, text) => {
    expect(new Date(wallClockMs(micros)).toISOString()).toBe(text);
    expect(postgresMicros(Date.parse(text))).toBe(micros);
  });

  test('keeps fractions of a millisecond', () => {
    expect(wallClockMs(1_500n)).toBe(Date.UTC(2000, 0, 1) + 1.5);
  });
});
