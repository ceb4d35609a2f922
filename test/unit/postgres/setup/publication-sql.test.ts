import { describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PublishSettings } from '../../../../src/config/config.ts';
import type { PublicationFacts } from '../../../../src/postgres/catalog/publications.ts';
import type { NamespaceTables } from '../../../../src/postgres/catalog/tables.ts';
import { planPublication } from '../../../../src/postgres/setup/publication-plan.ts';
import {
  type PublicationTask,
  planAdvice,
  planSql,
  planStatements,
  removeListsSql,
} from '../../../../src/postgres/setup/publication-sql.ts';
import {
  DATABASE,
  plainEntry as plain,
  PUBLICATION as publication,
  table,
  TABLES as tables,
  TABLES_WITHOUT_IDENTITY as withoutIdentity,
} from '../../../support/postgres/catalog-facts.ts';

const LOCKED =
  'BEGIN; LOCK TABLE public."a""b_processes" IN SHARE ROW EXCLUSIVE MODE; ' +
  'LOCK TABLE public."a""b_events" IN SHARE ROW EXCLUSIVE MODE;';

const WHOLE_ROWS: PublishSettings = { replicaIdentity: 'full', publishColumns: 'all' };
const CONTEXT = { settings: WHOLE_ROWS, database: DATABASE, otherReaders: [] };
const taskOf = (publication: PublicationFacts | undefined, given: NamespaceTables): PublicationTask => ({
  plan: planPublication(publication, given, CONTEXT),
  publication,
  tables: given,
  database: DATABASE,
});

describe('planSql', () => {
  const sql = (facts: PublicationFacts | undefined, given = tables) => planSql(taskOf(facts, given));

  test('is identity, lock, publication and mark, in this order and in one transaction, for a creation', () => {
    const text = sql(undefined, withoutIdentity);
    expect(text).toStartWith(
      'BEGIN; ALTER TABLE public."a""b_processes" REPLICA IDENTITY FULL; ' +
        'LOCK TABLE public."a""b_events" IN SHARE ROW EXCLUSIVE MODE; ' +
        `CREATE PUBLICATION "a""b" FOR TABLE public."a""b_processes", public."a""b_events" WITH (publish = 'insert, update, delete'); ` +
        'DO ',
    );
    expect(text).toEndWith(' COMMIT;');
  });

  test('locks processes as well where its identity needs no change, so that no open transaction is left out', () => {
    expect(sql(undefined)).toStartWith(`${LOCKED} CREATE PUBLICATION`);
  });

  test('locks both tables for a change of the operations alone', () => {
    expect(sql({ ...publication, operations: [] })).toBe(
      `${LOCKED} ALTER PUBLICATION "a""b" SET (publish = 'insert, update, delete'); COMMIT;`,
    );
  });

  test('locks both tables for a change of the tables alone', () => {
    const text = sql({ ...publication, tables: [plain(1)] });
    expect(text).toStartWith(`${LOCKED} SELECT set_config(`);
    expect(text).toContain('ALTER PUBLICATION "a""b" SET TABLE');
  });

  test('is one statement without a transaction for a replica identity', () => {
    expect(sql(publication, withoutIdentity)).toBe('ALTER TABLE public."a""b_processes" REPLICA IDENTITY FULL;');
  });

  test('replaces a publication FOR ALL TABLES in one transaction', () => {
    expect(sql({ ...publication, forAllTables: true })).toBe(
      `${LOCKED} DROP PUBLICATION "a""b"; CREATE PUBLICATION "a""b" FOR TABLE public."a""b_processes", public."a""b_events" WITH (publish = 'insert, update, delete'); COMMIT;`,
    );
  });

  test('planAdvice names the role that may run it, and a superuser where no single role may', () => {
    const advice = (facts: PublicationFacts | undefined, given = tables) => {
      const task = taskOf(facts, given);
      return planAdvice(task, planStatements(task));
    };
    const filtered = { ...publication, tables: [plain(1)] };
    expect(advice(undefined)).toStartWith(
      'Run as "app" (which also needs CREATE on the database) or as a superuser: BEGIN; LOCK',
    );
    expect(advice(filtered)).toStartWith('Run as "app" or as a superuser: BEGIN; LOCK');
    expect(advice({ ...filtered, owner: 'dba' })).toStartWith('Run as a superuser: BEGIN; LOCK');
    expect(advice({ ...publication, owner: 'dba' }, withoutIdentity)).toStartWith(
      'Run as "app" or as a superuser: ALTER',
    );
  });

  test('every statement says which role may run it, and which lock it takes on which tables', () => {
    const plan = planPublication(undefined, withoutIdentity, CONTEXT);
    const task = { plan, publication: undefined, tables: withoutIdentity, database: DATABASE };
    const [identity, lock, create, mark] = planStatements(task);
    expect(identity).toMatchObject({ role: 'app', lock: 'ACCESS EXCLUSIVE', tables: [`a"b_processes`] });
    expect(lock).toMatchObject({ role: 'app', lock: 'SHARE ROW EXCLUSIVE', tables: [`a"b_events`] });
    expect(create).toMatchObject({ lock: 'SHARE UPDATE EXCLUSIVE', tables: [`a"b_processes`, `a"b_events`] });
    expect(mark).toMatchObject({ role: 'app', lock: undefined, tables: [] });
    const mixed = { ...withoutIdentity, events: { ...withoutIdentity.events, owner: 'other' } };
    expect(planStatements({ ...task, tables: mixed }).map(({ role }) => role)).toEqual([
      'app',
      'other',
      undefined,
      undefined,
    ]);
  });
});

test.each(['prepare.md', 'prepare.ru.md'])('%s has the statements that remove column lists', (paper) => {
  const given = { namespace: 'invoice', processes: table('invoice_processes', 1), events: table('invoice_events', 2) };
  const text = readFileSync(join(import.meta.dirname, '../../../../config/guide', paper), 'utf8');
  expect(text.replace(/\s+/g, ' ')).toContain(removeListsSql(taskOf({ ...publication, name: 'invoice' }, given)));
});
