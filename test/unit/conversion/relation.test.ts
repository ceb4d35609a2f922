import { describe, expect, test } from 'bun:test';
import { resolveRelation } from '../../../src/conversion/relation.ts';
import { InvalidRowError } from '../../../src/errors.ts';
import type { RelationMessage } from '../../../src/postgres/replication/pgoutput.ts';
import { EVENTS_COLUMNS, PROCESSES_COLUMNS, relationMessage } from '../../support/codecs/pgoutput.ts';

const NAMESPACE = 'default/default';

type Columns = readonly { name: string; typeOid: number; isKey?: boolean }[];

describe('resolveRelation', () => {
  const message = (name: string, columns: Columns, schema = 'public') => relationMessage({ name, columns, schema });
  const namespaces = new Set([NAMESPACE, 'a_b']);
  const failureOf = (relation: RelationMessage): InvalidRowError => {
    try {
      resolveRelation(relation, namespaces);
    } catch (error) {
      return error as InvalidRowError;
    }
    throw new Error('Resolved a relation that cannot be read');
  };

  test('finds the columns of a processes table by name', () => {
    expect(resolveRelation(message(`${NAMESPACE}_processes`, PROCESSES_COLUMNS), namespaces)).toMatchObject({
      kind: 'processes',
      namespace: NAMESPACE,
      table: 'default/default_processes',
      replicaIdentity: 'f',
      columnCount: 9,
      processId: 0,
      status: 1,
      detail: 2,
    });
  });

  test('finds the columns of an events table by name, in any order', () => {
    const columns = [...EVENTS_COLUMNS, { name: 'added', typeOid: 25 }].reverse();
    expect(resolveRelation(message('a_b_events', columns), namespaces)).toMatchObject({
      kind: 'events',
      namespace: 'a_b',
      columnCount: 7,
      processId: 6,
      eventId: 4,
      timestamp: 3,
      metadata: 2,
      payload: 1,
    });
  });

  test.each([
    ['a table of a namespace that is not configured', message('b_events', EVENTS_COLUMNS)],
    ['a namespace that is only the beginning of the configured one', message('a_events', EVENTS_COLUMNS)],
    ['another table of the namespace', message('a_b_tasks', EVENTS_COLUMNS)],
    ['a kind in capitals', message('a_b_Events', EVENTS_COLUMNS)],
    ['a table without a kind', message('events', EVENTS_COLUMNS)],
    ['another schema', message('a_b_events', EVENTS_COLUMNS, 'archive')],
    ['pg_catalog', message('a_b_events', EVENTS_COLUMNS, '')],
  ])('is undefined for %s', (_name, relation) => {
    expect(resolveRelation(relation, namespaces)).toBeUndefined();
  });

  const needed = [
    ...['process_id', 'event_id', 'timestamp', 'metadata', 'payload'].map((name) => ['events', name] as const),
    ...['process_id', 'status', 'detail'].map((name) => ['processes', name] as const),
  ];

  test.each(needed)('refuses %s without column %s', (kind, name) => {
    const columns = (kind === 'events' ? EVENTS_COLUMNS : PROCESSES_COLUMNS).filter((column) => column.name !== name);
    expect(failureOf(message(`a_b_${kind}`, columns))).toMatchObject({
      code: 'column_missing',
      message: `Cannot read table "a_b_${kind}": it has no column "${name}"`,
      place: { namespace: 'a_b', table: `a_b_${kind}` },
    });
  });

  test.each(needed)('refuses %s whose column %s has a type that cannot be read', (kind, name) => {
    const columns = (kind === 'events' ? EVENTS_COLUMNS : PROCESSES_COLUMNS).map((column) =>
      column.name === name ? { ...column, typeOid: 114 } : column,
    );
    const error = failureOf(message(`a_b_${kind}`, columns));
    expect(error).toBeInstanceOf(InvalidRowError);
    expect(error.code).toBe('column_type');
    expect(error.message).toBe(
      `Cannot read table "a_b_${kind}": column "${name}" has the unexpected type with OID 114`,
    );
    expect(error.place).toEqual({ namespace: 'a_b', table: `a_b_${kind}` });
  });

  test.each([
    ['process_id', 25],
    ['event_id', 20],
    ['event_id', 23],
    ['detail', 1043],
    ['status', 987_654],
  ])('accepts column %s with type OID %i as well', (name, typeOid) => {
    const kind = name === 'event_id' ? 'events' : 'processes';
    const columns = (kind === 'events' ? EVENTS_COLUMNS : PROCESSES_COLUMNS).map((column) =>
      column.name === name ? { ...column, typeOid } : column,
    );
    expect(resolveRelation(message(`a_b_${kind}`, columns), namespaces)).toMatchObject({ kind });
  });
});
