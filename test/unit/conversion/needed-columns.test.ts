import { expect, test } from 'bun:test';
import { neededColumns } from '../../../src/conversion/needed-columns.ts';
import { resolveRelation } from '../../../src/conversion/relation.ts';
import type { RowMessage } from '../../../src/postgres/replication/pgoutput.ts';
import { EVENTS_COLUMNS, PROCESSES_COLUMNS, relationMessage } from '../../support/codecs/pgoutput.ts';

const COLUMNS = { events: EVENTS_COLUMNS, processes: PROCESSES_COLUMNS } as const;

function namesOf(
  kind: 'events' | 'processes',
  operation: RowMessage['tag'],
  version: 'old' | 'new',
  identity: 'f' | 'i',
) {
  const message = relationMessage({ name: `invoice_${kind}`, columns: COLUMNS[kind], replicaIdentity: identity });
  const relation = resolveRelation(message, new Set(['invoice']))!;
  return neededColumns(relation, { relationId: 16_400, operation, version })
    .map((column) => COLUMNS[kind][column]!.name)
    .join(' ');
}

test.each([
  ['events', 'insert', 'new', 'f', 'process_id event_id timestamp metadata payload'],
  ['events', 'update', 'old', 'f', ''],
  ['events', 'update', 'new', 'f', ''],
  ['events', 'delete', 'old', 'f', ''],
  ['processes', 'insert', 'new', 'f', 'process_id status'],
  ['processes', 'update', 'old', 'f', 'process_id status detail'],
  ['processes', 'update', 'new', 'f', 'process_id status detail'],
  ['processes', 'update', 'old', 'i', 'process_id status'],
  ['processes', 'update', 'new', 'i', 'process_id status detail'],
  ['processes', 'delete', 'old', 'f', 'process_id'],
] as const)('%s, %s, %s row, identity %s: %s', (kind, operation, version, identity, names) => {
  expect(namesOf(kind, operation, version, identity)).toBe(names);
});
