import { describe, expect, test } from 'bun:test';
import { creationCommentParts, parseCreationComment } from '../../../../src/postgres/replication/publication-marker.ts';

const SYSTEM = '7710967555485513451';

describe('parseCreationComment', () => {
  test.each<[string | undefined, bigint | undefined]>([
    [`cdc-notifier: created at 16/B374D848 of system ${SYSTEM}`, 0x16_b374d848n],
    ['cdc-notifier: created at 16/B374D848 of system 1', undefined],
    [`see cdc-notifier: created at 16/B374D848 of system ${SYSTEM}`, undefined],
    [`cdc-notifier: created at nowhere of system ${SYSTEM}`, undefined],
    ['made by hand', undefined],
    [undefined, undefined],
  ])('reads %p as %p', (comment, lsn) => {
    expect(parseCreationComment(comment, SYSTEM)).toBe(lsn as bigint);
  });

  test('reads what is written', () => {
    expect(parseCreationComment(creationCommentParts(SYSTEM).join('0/40'), SYSTEM)).toBe(0x40n);
  });
});
