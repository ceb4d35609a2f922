import { describe, expect, test } from 'bun:test';
import { MalformedError } from '../../src/errors.ts';
import { formatLsn, laterLsn, parseLsn } from '../../src/lsn.ts';

const PAIRS: readonly [string, bigint][] = [
  ['0/0', 0n],
  ['0/1', 1n],
  ['0/FFFFFFFF', 0xffff_ffffn],
  ['1/0', 0x1_0000_0000n],
  ['16/B374D848', 0x16_b374_d848n],
  ['7FFFFFFF/FFFFFFFF', 0x7fff_ffff_ffff_ffffn],
  ['FFFFFFFF/FFFFFFFF', 0xffff_ffff_ffff_ffffn],
];

describe('lsn', () => {
  test.each(PAIRS)('parseLsn reads %s and formatLsn writes it back', (text, lsn) => {
    expect(parseLsn(text)).toBe(lsn);
    expect(formatLsn(lsn)).toBe(text);
  });

  test('parseLsn takes lower case and leading zeros, as PostgreSQL does', () => {
    expect(parseLsn('16/b374d848')).toBe(0x16_b374_d848n);
    expect(parseLsn('00000016/0000000A')).toBe(0x16_0000_000an);
  });

  test.each(['', '/', '0', '0/', '/0', '0/0/0', 'G/0', '123456789/0', '0/123456789', ' 0/0', '0/0\n', '-1/0', '0x1/0'])(
    'parseLsn refuses %j',
    (text) => {
      expect(() => parseLsn(text)).toThrow(MalformedError);
    },
  );
});

test('laterLsn', () => {
  expect([laterLsn(1n, 2n), laterLsn(2n, 1n), laterLsn(2n, 2n)]).toEqual([2n, 2n, 2n]);
});
