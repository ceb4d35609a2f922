import { describe, expect, test } from 'bun:test';
import { MalformedError } from '../../../../src/errors.ts';
import { parseTimelineHistory, sharedUpTo } from '../../../../src/postgres/continuity/timeline.ts';

/** As PostgreSQL writes it, with an empty line between entries. */
const HISTORY = [
  '1\t0/3000148\tno recovery target specified\n',
  '\n',
  '2\t0/5000000\tbefore 2024-05-01 10:00:00+00\n',
  '# a person was here\n',
  '4\t1A/F\n',
].join('');
const SWITCHES = [
  { timeline: 1, endLsn: 0x300_0148n },
  { timeline: 2, endLsn: 0x500_0000n },
  { timeline: 4, endLsn: 0x1a_0000_000fn },
];

describe('parseTimelineHistory', () => {
  test('reads entries, and passes over comments and empty lines', () => {
    expect(parseTimelineHistory(HISTORY)).toEqual(SWITCHES);
    expect(parseTimelineHistory('')).toEqual([]);
  });

  test.each([
    ['no position', '1\t0/3000148\tx\n2\n', 14],
    ['no timeline', 'x\t0/1\n', 0],
    ['a timeline that is none', '4294967296\t0/1\n', 0],
    ['a position that is none', '1\t0/123456789\n', 0],
    ['the hexadecimal text of a bytea', '\\x3109302f33303030313438', 0],
  ])('refuses a line with %s', (_, text, offset) => {
    const error = (() => {
      try {
        return parseTimelineHistory(text);
      } catch (thrown) {
        return thrown;
      }
    })();
    expect(error).toBeInstanceOf(MalformedError);
    expect((error as MalformedError).offset).toBe(offset);
  });
});

describe('sharedUpTo', () => {
  test('says where a descendant left each of its ancestors', () => {
    expect(sharedUpTo(SWITCHES, 1)).toEqual({ lsn: 0x300_0148n, isAncestor: true });
    expect(sharedUpTo(SWITCHES, 4)).toEqual({ lsn: 0x1a_0000_000fn, isAncestor: true });
  });

  test('bounds a timeline that is no ancestor by the last one before it', () => {
    expect(sharedUpTo(SWITCHES, 3)).toEqual({ lsn: 0x500_0000n, isAncestor: false });
    expect(sharedUpTo([], 3)).toEqual({ lsn: 0n, isAncestor: false });
  });
});
