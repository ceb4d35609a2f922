import { describe, expect, test } from 'bun:test';
import type { Sql } from 'postgres';
import { roleOf, runStatements, type Statement, statementsText } from '../../../../src/postgres/setup/statements.ts';

const statement = (sql: string, role: string | undefined): Statement => ({ sql, role, lock: undefined, tables: [] });

test('statementsText puts several statements into a transaction', () => {
  expect(statementsText([statement('A', 'a')])).toBe('A;');
  expect(statementsText([statement('A', 'a'), statement('B', 'a')])).toBe('BEGIN; A; B; COMMIT;');
});

test('roleOf is the role that may run all of them', () => {
  expect(roleOf([statement('A', 'a'), statement('B', 'a')])).toBe('a');
  expect(roleOf([statement('A', 'a'), statement('B', 'b')])).toBeUndefined();
  expect(roleOf([statement('A', 'a'), statement('B', undefined)])).toBeUndefined();
});

describe('runStatements', () => {
  const run = async (...[statements, limits]: [Statement[], Parameters<typeof runStatements>[2]]) => {
    const sent: string[] = [];
    const control = { unsafe: async (text: string) => sent.push(text) } as unknown as Sql;
    await runStatements(control, statements, limits);
    const isOfSession = (one: string) => /transaction_timeout|search_path/.test(one);
    return sent.map((text) => text.split(';\n').filter((one) => !isOfSession(one)));
  };

  test('sends one transaction, with a shorter wait for each lock after the first', async () => {
    const limits = { statementTimeoutMs: 30_000, lockTimeoutMs: 2_000, furtherLockTimeoutMs: 500 };
    expect(await run([statement('A', 'a'), statement('B', 'a')], limits)).toEqual([
      [
        'BEGIN',
        'SET LOCAL lock_timeout = 2000',
        'SET LOCAL statement_timeout = 30000',
        'A',
        'SET LOCAL lock_timeout = 500',
        'B',
        'COMMIT',
      ],
    ]);
  });

  test('bounds the statement alone where it takes no table lock', async () => {
    expect(await run([statement('A', 'a')], { statementTimeoutMs: 10 })).toEqual([
      ['BEGIN', 'SET LOCAL statement_timeout = 10', 'A', 'COMMIT'],
    ]);
    expect(await run([], { statementTimeoutMs: 10 })).toEqual([]);
  });
});
