import { expect, test } from 'bun:test';
import { refusal } from '../../../../src/postgres/setup/ensure-publication.ts';
import { planPublication } from '../../../../src/postgres/setup/publication-plan.ts';
import { DATABASE, PUBLICATION, TABLES } from '../../../support/postgres/catalog-facts.ts';

test('refusal lists the findings, and the statements that correct them', () => {
  const publication = { ...PUBLICATION, forAllTables: true, tables: [] };
  const plan = planPublication(publication, TABLES, {
    settings: { replicaIdentity: 'full', publishColumns: 'all' },
    database: DATABASE,
    otherReaders: [],
  });
  const { code, detail, advice } = refusal({ plan, publication, tables: TABLES, database: DATABASE });
  expect(code).toBe('publication_for_all_tables');
  expect(detail).toBe('publication "a""b" is not as configured: it is FOR ALL TABLES');
  expect(advice).toStartWith('Run as "app" or as a superuser: BEGIN; LOCK TABLE');
  expect(advice).toContain('DROP PUBLICATION "a""b"; CREATE');
});
