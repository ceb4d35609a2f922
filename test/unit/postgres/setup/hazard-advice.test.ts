import { expect, test } from 'bun:test';
import type { TableHazardCode } from '../../../../src/postgres/hazards/table-hazards.ts';
import { hazardAdvice } from '../../../../src/postgres/setup/hazard-advice.ts';

const advice = (code: TableHazardCode, objects: readonly string[]) =>
  hazardAdvice({ code, effect: 'hides_rows', namespace: 'ns', table: 'ns_events', detail: 'wrong', objects });
const INDEX = 'give the table an index as its replica identity, with replica_identity: status_index of namespace "ns"';

test.each<[TableHazardCode, string[], string]>([
  [
    'table_children',
    ['public.one', 'two'],
    'Move their rows into the table, and run as their owner: ALTER TABLE public.one NO INHERIT public."ns_events"; ALTER TABLE two NO INHERIT public."ns_events";',
  ],
  [
    'identity_column_list',
    ['a"b'],
    `Remove the column list of public."ns_events" from publication "a""b", or let it hold process_id and status, and ${INDEX}`,
  ],
  [
    'identity_row_filter',
    ['a"b'],
    `Let the row filter name columns of the replica identity only, or remove it, or run as the owner of the publication: ALTER PUBLICATION "a""b" SET (publish = 'insert');`,
  ],
  [
    'identity_stored_columns',
    ['ns'],
    `Run as the owner of the publication, after it is created: ALTER PUBLICATION "ns" SET (publish_generated_columns = stored);, or ${INDEX}`,
  ],
  ['table_rules', ['r'], 'Move the rows into the table, and run as its owner: DROP RULE "r" ON public."ns_events";'],
  ['table_unlogged', [], 'Run as its owner: ALTER TABLE public."ns_events" SET LOGGED;'],
  [
    'published_as_root',
    ['ns'],
    'Run as the owner of the publication: ALTER PUBLICATION "ns" SET (publish_via_partition_root = false);',
  ],
  ['identity_virtual_columns', [], `Remove the column, or ${INDEX}`],
])('advice about %s', (code, objects, expected) => {
  expect(advice(code, objects)).toBe(expected);
});
