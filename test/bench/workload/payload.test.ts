import { describe, expect, test } from 'bun:test';
import { deflateSync } from 'node:zlib';
import { deepPayloads, meanBytes, PAYLOAD_VARIANT_COUNT, payloadsOf } from './payload.ts';

describe('payloadsOf', () => {
  test.each([100, 270, 2_000, 20_000])('returns different payloads of exactly %p bytes', (bytes) => {
    const payloads = payloadsOf(bytes);
    expect(payloads.map(({ length }) => length)).toEqual(Array.from({ length: PAYLOAD_VARIANT_COUNT }, () => bytes));
    expect(new Set(payloads.map((payload) => payload.toString('latin1'))).size).toBe(PAYLOAD_VARIANT_COUNT);
  });

  test('returns the same payloads each time', () => {
    expect(payloadsOf(270)).toEqual(payloadsOf(270));
  });

  test('returns large payloads that hardly compress', () => {
    const [payload] = payloadsOf(20_000);
    expect(deflateSync(payload!).length).toBeGreaterThan(12_000);
  });

  test('rejects a size that is too small', () => {
    expect(() => payloadsOf(10)).toThrow('Cannot make a payload of 10 bytes');
  });
});

test('deepPayloads have a few KB, as their mean says', () => {
  const payloads = deepPayloads();
  expect(meanBytes(payloads)).toBeGreaterThan(4_000);
  expect(meanBytes(payloads)).toBeLessThan(6_000);
});
