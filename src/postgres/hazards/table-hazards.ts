/**
 * Hazards of progressor's tables: rows that no publication of theirs shows, and what makes PostgreSQL refuse the statements of
 * progressor once the tables are published as this service needs them. Pure: facts of the catalog in.
 */

import { NEEDED_STATUSES, STATUSES } from '../../progressor/tables.ts';
import type { PublishingFacts } from '../catalog/publications.ts';
import { type TableFacts, tablesOf } from '../catalog/tables.ts';
import { quoteIdentifier, quoteTable } from '../client/quote.ts';

/**
 * - `table_children`: the table has child tables
 * - `table_unlogged`: changes of the table are not in the WAL
 * - `table_rules`: rules of the table do something else instead of writing its rows
 * - `published_as_root`: the publication sends the rows as those of a partitioned table above it
 * - `identity_column_list`: another publication has a column list that does not cover the replica identity
 * - `identity_row_filter`: another publication has a row filter on a column that is not of the replica identity
 * - `identity_stored_columns`: a stored generated column is part of the replica identity, and a publication leaves it out
 * - `identity_virtual_columns`: a virtual one is, which no publication can hold
 * - `status_labels`: the statuses of processes are others than those that records are made of
 */
export type TableHazardCode =
  | 'table_children'
  | 'table_unlogged'
  | 'table_rules'
  | 'published_as_root'
  | 'identity_column_list'
  | 'identity_row_filter'
  | 'identity_stored_columns'
  | 'identity_virtual_columns'
  | 'status_labels';

/** Something about a table that endangers delivery or progressor. `hazard-advice.ts` of the setup has the remedies. */
export interface TableHazard {
  readonly code: TableHazardCode;
  /**
   * - `hides_rows`: rows are in no topic, and nothing shows which
   * - `hides_changes`: updates lead to no record that should, or may have to
   * - `refuses_updates`: PostgreSQL refuses all updates and deletes of the table (SQLSTATE 42P10)
   */
  readonly effect: 'hides_rows' | 'hides_changes' | 'refuses_updates';
  readonly namespace: string;
  /** Without schema and quotes */
  readonly table: string;
  /** What is wrong, beginning with the table */
  readonly detail: string;
  /** The child tables as SQL needs them, the names of publications or rules, or the labels; empty where there are none */
  readonly objects: readonly string[];
}

/** The hazards of the tables that exist. `hasFullIdentity` says of a table whether it has REPLICA IDENTITY FULL, or will. */
export function findTableHazards(
  namespaces: readonly string[],
  publishing: PublishingFacts,
  hasFullIdentity: (table: TableFacts) => boolean = ({ replicaIdentity }) => replicaIdentity === 'f',
): TableHazard[] {
  return namespaces.flatMap((namespace) => {
    const tables = tablesOf(namespace, publishing.tables);
    if (tables === undefined) return [];
    const found = [tables.processes, tables.events].flatMap((table) => [
      ...childrenHazard(namespace, table),
      ...unloggedHazard(namespace, table),
      ...ruleHazard(namespace, table),
      ...rootHazard(namespace, table, publishing),
      ...(hasFullIdentity(table) ? identityHazards : indexHazards)(namespace, table, publishing),
    ]);
    return [...found, ...statusHazards(namespace, tables.processes)];
  });
}

function childrenHazard(namespace: string, { name, children }: TableFacts): TableHazard[] {
  if (children.length === 0) return [];
  const detail = `${quoteTable(name)} has child tables (${children.join(', ')}), whose rows reach no topic`;
  return [{ code: 'table_children', effect: 'hides_rows', namespace, table: name, detail, objects: children }];
}

/** PostgreSQL lets no table of a publication become unlogged, except by FOR TABLES IN SCHEMA and FOR ALL TABLES. */
function unloggedHazard(namespace: string, { name, persistence }: TableFacts): TableHazard[] {
  if (persistence === 'p') return [];
  const detail = `${quoteTable(name)} is unlogged, so its changes are not in the WAL and reach no topic`;
  return [{ code: 'table_unlogged', effect: 'hides_rows', namespace, table: name, detail, objects: [] }];
}

/** What such a rule writes elsewhere is not in the table: whether it should be is for an operator to say. */
function ruleHazard(namespace: string, { name, insteadRules }: TableFacts): TableHazard[] {
  if (insteadRules.length === 0) return [];
  const rules = insteadRules.map(quoteIdentifier).join(', ');
  const detail = `${quoteTable(name)} has rules with INSTEAD (${rules}): rows that they write elsewhere, or not at all, reach no topic`;
  return [{ code: 'table_rules', effect: 'hides_changes', namespace, table: name, detail, objects: insteadRules }];
}

/** Rows that are sent under the name of another table belong to no namespace. */
function rootHazard(
  namespace: string,
  { name, ancestors }: TableFacts,
  { publications }: PublishingFacts,
): TableHazard[] {
  const publication = publications.get(namespace);
  if (publication === undefined || !publication.publishesViaRoot) return [];
  const root = ancestors.find(
    (ancestor) =>
      publication.tables.some(({ oid }) => oid === ancestor.oid) ||
      (publication.holdsPublic && ancestor.name.startsWith('public.')),
  );
  if (root === undefined) return [];
  const detail =
    `publication ${quoteIdentifier(namespace)} sends rows of ${quoteTable(name)} as rows of ${root.name} (publish_via_partition_root), ` +
    'so that they reach no topic';
  return [{ code: 'published_as_root', effect: 'hides_rows', namespace, table: name, detail, objects: [namespace] }];
}

/** A renamed label hides changes of status, and records know nothing of one that was added. */
function statusHazards(namespace: string, { name, statusLabels }: TableFacts): TableHazard[] {
  if (statusLabels.length === 0) return [];
  const missing = NEEDED_STATUSES.filter((status) => !statusLabels.includes(status));
  const unknown = statusLabels.filter((label) => !STATUSES.some((status) => status === label));
  const parts = [
    ...(missing.length > 0 ? [`lacks ${missing.join(', ')}`] : []),
    ...(unknown.length > 0 ? [`has ${unknown.join(', ')} as well, to and from which no record is made`] : []),
  ];
  if (parts.length === 0) return [];
  const detail = `the type of column status of ${quoteTable(name)} ${parts.join(', and ')}`;
  return [
    {
      code: 'status_labels',
      effect: 'hides_changes',
      namespace,
      table: name,
      detail,
      objects: [...missing, ...unknown],
    },
  ];
}

/** What refuses every update and delete of a table with REPLICA IDENTITY FULL. Every publication of the table counts. */
function identityHazards(
  namespace: string,
  { oid, name: table, generatedColumns }: TableFacts,
  { publications, others }: PublishingFacts,
): TableHazard[] {
  const foreign = others.filter(({ tableOid }) => tableOid === oid);
  const hazard = (code: TableHazardCode, what: string, objects: readonly string[]) =>
    refusal({ code, namespace, table, objects }, `${what} REPLICA IDENTITY FULL`);
  const own = { name: namespace, publishesStoredColumns: publications.get(namespace)?.publishesStoredColumns ?? false };
  const silent = [own, ...foreign]
    .filter(({ publishesStoredColumns }) => !publishesStoredColumns)
    .map(({ name }) => name);
  const [stored, virtual] = [true, false].map((kind) =>
    generatedColumns.filter(({ isStored }) => isStored === kind).map(({ name }) => quoteIdentifier(name)),
  ) as [string[], string[]];
  return [
    ...foreign
      .filter(({ columns }) => columns !== null)
      .map(({ name }) => {
        const what = `is in publication ${quoteIdentifier(name)} with a column list, which does not cover`;
        return hazard('identity_column_list', what, [name]);
      }),
    ...(stored.length > 0 && silent.length > 0
      ? [hazard('identity_stored_columns', `has ${generated(stored)} not published and part of`, silent)]
      : []),
    ...(virtual.length > 0
      ? [hazard('identity_virtual_columns', `has ${generated(virtual)} never published and part of`, [])]
      : []),
  ];
}

/**
 * What refuses every update and delete of a table that an index identifies: a column list without a column of the index, and
 * a row filter on another column than those.
 */
function indexHazards(
  namespace: string,
  { oid, name: table, identityColumns }: TableFacts,
  { others }: PublishingFacts,
): TableHazard[] {
  const foreign = others.filter(({ tableOid }) => tableOid === oid);
  const hazard = (code: TableHazardCode, name: string, what: string) =>
    refusal(
      { code, namespace, table, objects: [name] },
      `is in publication ${quoteIdentifier(name)} with ${what} of its replica identity`,
    );
  return foreign.flatMap(({ name, columns, filterColumns }) => {
    const missing = identityColumns.filter((column) => columns !== null && !columns.includes(column));
    const outside = filterColumns.filter((column) => !identityColumns.includes(column));
    const named = (list: readonly string[]) => list.map(quoteIdentifier).join(', ');
    return [
      ...(missing.length === 0
        ? []
        : [hazard('identity_column_list', name, `a column list without ${named(missing)},`)]),
      ...(outside.length === 0 ? [] : [hazard('identity_row_filter', name, `a row filter on ${named(outside)}, not`)]),
    ];
  });
}

/** @param what is wrong with the table, without its name */
function refusal(hazard: Omit<TableHazard, 'effect' | 'detail'>, what: string): TableHazard {
  const detail = `${quoteTable(hazard.table)} ${what}: PostgreSQL refuses all updates and deletes of the table`;
  return { ...hazard, effect: 'refuses_updates', detail };
}

function generated(columns: readonly string[]): string {
  return `${columns.length === 1 ? 'a generated column' : 'generated columns'} (${columns.join(', ')})`;
}
