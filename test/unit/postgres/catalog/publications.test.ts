import { describe, expect, test } from 'bun:test';
import { entriesOf } from '../../../../src/postgres/catalog/publications.ts';
import {
  plainEntry as plain,
  PUBLICATION as publication,
  TABLES as tables,
} from '../../../support/postgres/catalog-facts.ts';

describe('the entries of a publication', () => {
  const facts = new Map([tables.processes, tables.events].map((each) => [each.name, each]));

  test('are separated by the names of their tables, in ascending order', () => {
    const mixed = { ...publication, tables: [plain(9), plain(2), plain(1)] };
    expect(entriesOf(mixed, facts)).toEqual({ entryOids: [10_001, 10_002], otherEntryOids: [10_009], formerOids: [] });
    expect(entriesOf(mixed, new Map())).toEqual({
      entryOids: [],
      otherEntryOids: [10_001, 10_002, 10_009],
      formerOids: [],
    });
  });
});
