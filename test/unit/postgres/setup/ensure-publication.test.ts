import { expect, test } from 'bun:test';
import type { PublicationFacts } from '../../../../src/postgres/catalog/publications.ts';
import type { TableFacts } from '../../../../src/postgres/catalog/tables.ts';
import { refusal } from '../../../../src/postgres/setup/ensure-publication.ts';
import { planPublication } from '../../../../src/postgres/setup/publication-plan.ts';

const table: TableFacts = {
  name: `a"b_processes`,
  oid: 1,
  kind: 'r',
  persistence: 'p',
  replicaIdentity: 'f',
  identityColumns: [],
  children: [],
  generatedColumns: [],
  owner: 'app',
  isOwner: true,
};

test('refusal lists the findings, and the statements that correct them', () => {
  const tables = { namespace: `a"b`, processes: table, events: { ...table, name: `a"b_events`, oid: 2 } };
  const publication: PublicationFacts = {
    name: `a"b`,
    oid: 10,
    owner: 'app',
    forAllTables: true,
    operations: ['insert', 'update', 'delete'],
    tables: [],
    schemaCount: 0,
    holdsPublic: false,
    publishesStoredColumns: false,
    comment: undefined,
  };
  const plan = planPublication(publication, tables, { replicaIdentity: 'full', publishColumns: 'all' });
  const { code, detail, advice } = refusal({ plan, publication, tables, systemIdentifier: '1' });
  expect(code).toBe('publication_for_all_tables');
  expect(detail).toBe('publication "a""b" is not as configured: it is FOR ALL TABLES');
  expect(advice).toStartWith('Run as "app" or as a superuser: BEGIN; LOCK TABLE');
  expect(advice).toContain('DROP PUBLICATION "a""b"; CREATE');
});
