import { describe, expect, test } from 'bun:test';
import { SupersededStream, TakeoverPatience } from '../../../src/slot/superseded.ts';

describe('TakeoverPatience', () => {
  test('the newest configuration takes a free slot at once', () => {
    expect(new TakeoverPatience(5_000).mayTake('newest', 0)).toBe(true);
  });

  test('a superseded one takes it when no newer one was seen for three pauses, without a break', () => {
    const patience = new TakeoverPatience(5_000);
    const at = (precedence: 'alone' | 'superseded', nowMs: number) => patience.mayTake(precedence, nowMs);
    expect([at('superseded', 0), at('alone', 1_000), at('alone', 15_999)]).toEqual([false, false, false]);
    expect([at('superseded', 16_000), at('alone', 17_000), at('alone', 31_999)]).toEqual([false, false, false]);
    expect(at('alone', 32_000)).toBe(true);
  });

  test('a holder in between starts the wait over', () => {
    const patience = new TakeoverPatience(0);
    patience.mayTake('alone', 0);
    patience.reset();
    expect([patience.mayTake('alone', 2_000), patience.mayTake('alone', 4_000)]).toEqual([false, true]);
  });
});

describe('SupersededStream', () => {
  test('is settled when no newer configuration was seen for an hour', () => {
    const stream = new SupersededStream('slot');
    const hourMs = 3_600_000;
    expect(stream.isSettled('alone', 0)).toBe(false);
    expect(stream.isSettled('superseded', hourMs)).toBe(false);
    expect(stream.isSettled('alone', hourMs + 1)).toBe(false);
    expect(stream.isSettled('alone', 2 * hourMs + 1)).toBe(true);
  });
});
