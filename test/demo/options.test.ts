import { expect, test } from 'bun:test';
import { parseOptions } from './options.ts';

test('parseOptions limits the duration only without a terminal', () => {
  expect(parseOptions([], true)).toEqual({ durationMs: undefined, rate: 20, postgres: 18, seed: 1 });
  expect(parseOptions([], false)?.durationMs).toBe(20_000);
});

test('parseOptions takes every option', () => {
  const args = ['--duration', '1.5', '--rate=300', '--postgres', '14', '--seed', '7'];
  expect(parseOptions(args, true)).toEqual({ durationMs: 1500, rate: 300, postgres: 14, seed: 7 });
  expect(parseOptions(['--help'], true)).toBeUndefined();
});

test.each(['--duration 0', '--duration x', '--rate -1', '--rate=-1', '--postgres 13', '--other', 'word'])(
  'parseOptions refuses %p',
  (args) => {
    expect(() => parseOptions(args.split(' '), true)).toThrow();
  },
);
