import { describe, expect, test } from 'bun:test';
import {
  creationCommentParts,
  parseCreationComment,
  parseSuccession,
} from '../../../../src/postgres/replication/publication-marker.ts';

const SYSTEM = '7710967555485513451';
const DATABASE = { systemIdentifier: SYSTEM, databaseOid: 16_384 };
const MARK = `cdc-notifier: created at 16/B374D848 of system ${SYSTEM}, database 16384`;
const MARK_LSN = 0x16_b374d848n;

describe('parseCreationComment', () => {
  test.each<[string | undefined, bigint | undefined]>([
    [MARK, MARK_LSN],
    [`${MARK}; entries 7,8 follow 5,6`, MARK_LSN],
    // As older versions wrote it.
    [`cdc-notifier: created at 16/B374D848 of system ${SYSTEM}`, MARK_LSN],
    [MARK.replace('16384', '16385'), undefined],
    ['cdc-notifier: created at 16/B374D848 of system 1', undefined],
    ['cdc-notifier: entries 7,8 follow 5,6', undefined],
    [`see ${MARK}`, undefined],
    [MARK.replace('16/B374D848', 'nowhere'), undefined],
    ['made by hand', undefined],
    [undefined, undefined],
  ])('reads %p as %p', (comment, lsn) => {
    expect(parseCreationComment(comment, { ...DATABASE, serverLsn: MARK_LSN })).toBe(lsn as bigint);
  });

  test('reads what is written', () => {
    const comment = creationCommentParts(DATABASE).join('0/40');
    expect(parseCreationComment(comment, { ...DATABASE, serverLsn: 0x41n })).toBe(0x40n);
  });

  test('a mark after the end of the WAL is of another copy of the server', () => {
    expect(parseCreationComment(MARK, { ...DATABASE, serverLsn: MARK_LSN - 1n })).toBeUndefined();
  });
});

describe('parseSuccession', () => {
  test.each([
    ['cdc-notifier: entries 7,8 follow 5,6', { entryOids: [7, 8], formerOids: [5, 6] }],
    [`${MARK}; entries 7 follow 5,6`, { entryOids: [7], formerOids: [5, 6] }],
    [MARK, undefined],
    ['cdc-notifier: entries follow', undefined],
    ['entries 7,8 follow 5,6', undefined],
    [undefined, undefined],
  ])('reads %p as %p', (comment, succession) => {
    expect(parseSuccession(comment)).toEqual(succession);
  });
});
