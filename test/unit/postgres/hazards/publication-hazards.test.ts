import { describe, expect, test } from 'bun:test';
import { entriesOf, type PublicationFacts } from '../../../../src/postgres/catalog/publications.ts';
import {
  describeEntries,
  describeOmissions,
  describePublicationHazards,
} from '../../../../src/postgres/hazards/publication-hazards.ts';
import {
  plainEntry as plain,
  PUBLICATION as publication,
  TABLES as tables,
} from '../../../support/postgres/catalog-facts.ts';

describe('describeEntries', () => {
  const facts = new Map([tables.processes, tables.events].map((table) => [table.name, table]));
  const known = entriesOf(publication, facts).entryOids;

  test.each<[string, PublicationFacts['tables'], readonly number[] | undefined, string[]]>([
    ['are as they were', [plain(1), plain(2)], known, []],
    ['are not known', [plain(3), plain(2)], undefined, []],
    ['are fewer: what is missing shows without them', [plain(1)], known, []],
    ['have an addition of another name', [plain(1), plain(2), plain(3)], known, []],
    [
      'hold a table that was added again',
      [{ ...plain(1), entryOid: 7 }, plain(2)],
      known,
      ['a table was removed from it and added again'],
    ],
    [
      'hold a table under another name',
      [{ ...plain(3), entryOid: 10_001 }, plain(2)],
      known,
      ['a table of it has another name or schema now'],
    ],
  ])('of entries that %s', (_, entries, knownOids, findings) => {
    expect(describeEntries(entriesOf({ ...publication, tables: entries }, facts), knownOids)).toEqual(findings);
  });
});

describe('describePublicationHazards', () => {
  const facts = new Map([tables.processes, tables.events].map((each) => [each.name, each]));
  const hazards = (change: Partial<PublicationFacts>, given = facts, entryOids?: readonly number[]) =>
    describePublicationHazards(
      [`a"b`],
      { publications: new Map([[`a"b`, { ...publication, ...change }]]), tables: given },
      entryOids && new Map([[`a"b`, entryOids]]),
    );

  test('names each hazard with its namespace', () => {
    expect(hazards({})).toEqual([]);
    expect(hazards({ tables: [plain(1)], operations: ['insert'] })).toEqual([
      'publication "a""b": it does not hold public."a""b_events"',
      'publication "a""b": it does not publish update, delete',
    ]);
    expect(hazards({}, facts, [7, 10_002])).toEqual([
      'publication "a""b": a table was removed from it and added again',
    ]);
    expect(hazards({}, new Map(facts).set(`a"b_processes`, { ...tables.processes, replicaIdentity: 'd' }))).toEqual([
      'publication "a""b": replica identity of the processes table is neither FULL nor an index over process_id and status',
    ]);
  });

  test('finds none in what does not exist, nor in FOR ALL TABLES', () => {
    expect(hazards({ tables: [] }, new Map())).toEqual([]);
    expect(hazards({ forAllTables: true, tables: [] })).toEqual([]);
    expect(describePublicationHazards(['other'], { publications: new Map(), tables: facts })).toEqual([]);
    expect(describeOmissions({ ...publication, tables: [], holdsPublic: true }, tables)).toEqual([]);
  });
});
