import { describe, expect, test } from 'bun:test';
import { parseTableName } from '../../src/progressor/tables.ts';

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
