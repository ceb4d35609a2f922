import { describe, expect, test } from 'bun:test';
import { resolveRelation } from '../../../src/conversion/relation.ts';
import { identifiesStatus, parseTableName, RECORD_COLUMNS } from '../../../src/progressor/tables.ts';
import { EVENTS_COLUMNS, PROCESSES_COLUMNS, relationMessage } from '../../support/codecs/pgoutput.ts';

describe('parseTableName', () => {
  test.each([
    ['invoice_events', { namespace: 'invoice', kind: 'events' }],
    ['default/default_processes', { namespace: 'default/default', kind: 'processes' }],
    ['a_b_events', { namespace: 'a_b', kind: 'events' }],
    ['a__events', { namespace: 'a_', kind: 'events' }],
    ['__events', { namespace: '_', kind: 'events' }],
    ['заявка "тест"_tasks', { namespace: 'заявка "тест"', kind: 'tasks' }],
    ['a_Events', { namespace: 'a', kind: 'Events' }],
  ])('splits %j at the last underscore', (name, expected) => {
    expect(parseTableName(name)).toEqual(expected);
  });

  test.each(['', '_', 'events', '_events', 'invoice_'])('finds no namespace and kind in %j', (name) => {
    expect(parseTableName(name)).toBeUndefined();
  });
});

describe.each([
  ['processes', PROCESSES_COLUMNS],
  ['events', EVENTS_COLUMNS],
] as const)('RECORD_COLUMNS of %s', (kind, columns) => {
  const resolve = (names: readonly string[]) =>
    resolveRelation(
      relationMessage({ name: `ns_${kind}`, columns: columns.filter(({ name }) => names.includes(name)) }),
      new Set(['ns']),
    );

  test('are all that a record is made of, and not one more', () => {
    const names = RECORD_COLUMNS[kind];
    expect(resolve(names)).toMatchObject({ kind, columnCount: names.length });
    for (const left of names) expect(() => resolve(names.filter((name) => name !== left))).toThrow(left);
  });
});

test('identifiesStatus wants both process_id and status, in any order, and accepts more', () => {
  expect(identifiesStatus(['status', 'created_at', 'process_id'])).toBe(true);
  expect(identifiesStatus(['process_id'])).toBe(false);
  expect(identifiesStatus(['status'])).toBe(false);
  expect(identifiesStatus([])).toBe(false);
});
