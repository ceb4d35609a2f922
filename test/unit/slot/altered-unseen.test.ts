import { expect, test } from 'bun:test';
import type { PublicationFacts } from '../../../src/postgres/catalog/publications.ts';
import { UnseenAlterations } from '../../../src/slot/altered-unseen.ts';
import { PUBLICATION } from '../../support/postgres/catalog-facts.ts';

const seen = (...changes: readonly Partial<PublicationFacts>[]) =>
  new Map(changes.map((change) => ({ ...PUBLICATION, ...change })).map((facts) => [facts.name, facts]));

test('a publication that other transactions wrote since the last look is warned of, with the range of both looks', () => {
  const unseen = new UnseenAlterations();
  expect(unseen.note(seen({ serverLsn: 0x100n }))).toEqual([]);
  expect(unseen.note(seen({ serverLsn: 0x200n }))).toEqual([]);
  const [warning] = unseen.note(seen({ serverLsn: 0x300n, version: '800' }));
  expect(warning).toMatchObject({ code: 'publication_touched', subject: PUBLICATION.name });
  expect(warning!.message).toContain('between 0/200 and 0/300');
  // It stays, and a second alteration widens the range.
  expect(unseen.note(seen({ serverLsn: 0x400n, version: '800' }))).toEqual([warning!]);
  expect(unseen.note(seen({ serverLsn: 0x500n, version: '900' }))[0]!.message).toContain('between 0/200 and 0/500');
});

test('a publication that was created again is no alteration: its OID is judged elsewhere', () => {
  const unseen = new UnseenAlterations();
  unseen.note(seen({}));
  expect(unseen.note(seen({ oid: 11, version: '800' }))).toEqual([]);
});
