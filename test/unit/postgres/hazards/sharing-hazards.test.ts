import { describe, expect, test } from 'bun:test';
import type { PublishSettings } from '../../../../src/config/config.ts';
import type { PublicationFacts } from '../../../../src/postgres/catalog/publications.ts';
import { findSharingHazards, type SharingHazardCode } from '../../../../src/postgres/hazards/sharing-hazards.ts';
import { DATABASE, PUBLICATION, plainEntry, TABLES, table } from '../../../support/postgres/catalog-facts.ts';

const INDEXED = table(`a"b_processes`, 1, { replicaIdentity: 'i', identityColumns: ['process_id', 'status'] });
const NEEDED: PublishSettings = { replicaIdentity: 'status_index', publishColumns: 'needed' };
const ALL: PublishSettings = { ...NEEDED, publishColumns: 'all' };
const LISTED = { tables: [{ ...plainEntry(1), columns: ['process_id', 'status', 'detail'] }, plainEntry(2)] };
const READER = ['slot cache_00'];

function codes(change: Partial<PublicationFacts>, settings: PublishSettings, otherReaders: readonly string[] = []) {
  const facts = {
    publications: new Map([[`a"b`, { ...PUBLICATION, ...change }]]),
    tables: new Map([INDEXED, TABLES.events].map((one) => [one.name, one])),
  };
  const hazards = findSharingHazards(new Map([[`a"b`, settings]]), facts, { database: DATABASE, otherReaders });
  return hazards.map(({ code }) => code);
}

describe('findSharingHazards', () => {
  test.each<[string, Partial<PublicationFacts>, PublishSettings, readonly string[], SharingHazardCode[]]>([
    ['one of the service that nobody else reads', {}, NEEDED, [], []],
    ['one with lists that nobody else reads', LISTED, NEEDED, [], []],
    ['one without lists that others read', {}, ALL, READER, []],
    ['one that is to have lists, while others may read it', {}, NEEDED, READER, ['column_lists_withheld']],
    ['one of another program that is to have lists', { comment: undefined }, NEEDED, [], ['column_lists_withheld']],
    ['one with lists on a table, while others may read it', LISTED, ALL, READER, ['column_lists_shared']],
    [
      'one of another program with another table',
      { comment: undefined, tables: [...PUBLICATION.tables, plainEntry(3)] },
      ALL,
      [],
      ['publication_excess'],
    ],
    ['one of the service with another table: a start removes it', { tables: [plainEntry(3)] }, ALL, [], []],
    ['one FOR ALL TABLES', { forAllTables: true, comment: undefined, tables: [] }, NEEDED, READER, []],
  ])('of %s', (_, change, settings, otherReaders, expected) => {
    expect(codes(change, settings, otherReaders)).toEqual(expected);
  });
});
