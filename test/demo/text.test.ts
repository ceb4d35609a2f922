import { expect, test } from 'bun:test';
import { byteSize, clock, fit, pad, palette, printable } from './text.ts';

test('printable replaces characters that move the cursor or reverse the text', () => {
  expect(printable('a\x1b[31mb\nc\u009bd\u202ee')).toBe('a·[31mb·c·d·e');
  expect(printable('Счёт №5 ✓')).toBe('Счёт №5 ✓');
});

test.each([
  ['abc', 3, 'abc'],
  ['abcd', 3, 'ab…'],
  ['abcd', 1, '…'],
  ['abcd', 0, ''],
  ['日本語', 4, '日…'],
  ['日本', 4, '日本'],
])('fit %p into %d columns', (text, columns, fitted) => {
  expect(fit(text, columns)).toBe(fitted);
});

test('pad pads and cuts to the same width', () => {
  expect([pad('ab', 4), pad('abcdef', 4), pad('日本語', 4)]).toEqual(['ab  ', 'abc…', '日… ']);
});

test.each([
  [0, '0 B'],
  [999, '999 B'],
  [1000, '1.0 kB'],
  [1_500_000, '1.5 MB'],
  [12_345_678_900, '12.3 GB'],
])('byteSize %d', (bytes, text) => {
  expect(byteSize(bytes)).toBe(text);
});

test.each([
  [0, '0:00'],
  [7_900, '0:07'],
  [754_000, '12:34'],
  [3_723_000, '1:02:03'],
])('clock %d', (ms, text) => {
  expect(clock(ms)).toBe(text);
});

test('palette without colors returns the text unchanged', () => {
  expect(palette(false).red('x')).toBe('x');
  expect(palette(true).red('x')).toBe('\x1b[31mx\x1b[39m');
});
