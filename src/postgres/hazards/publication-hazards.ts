/**
 * Hazards of a publication: what a record needs and the publication leaves out (changes, columns, the status before an
 * update), and column lists that make PostgreSQL refuse the writer's updates. Pure: facts of the catalog in, phrases for logs
 * and errors out, such as `it does not publish delete`.
 */
import { RECORD_COLUMNS } from '../../progressor/tables.ts';
import {
  coversIdentity,
  entriesOf,
  missingColumns,
  type PublicationEntries,
  type PublicationFacts,
  type PublishingFacts,
  publishedTable,
} from '../catalog/publications.ts';
import { type NamespaceTables, showsStatusChanges, type TableFacts, tablesOf } from '../catalog/tables.ts';
import { quoteIdentifier, quoteTable } from '../client/quote.ts';

/** Operations that a publication must publish. It may publish truncate as well: that produces no record. */
export const NEEDED_OPERATIONS = ['insert', 'update', 'delete'] as const;

/** Independent of the settings: either identity shows every change of a status. */
const IDENTITY_HAZARD =
  'replica identity of the processes table is neither FULL nor an index over process_id and status';

/**
 * All hazards of the publications that exist, each with its namespace; empty when nothing is left out. A table that does not
 * exist is no hazard: nothing writes to it.
 * @param entryOids entries of the publications as the stream knows them, by namespace
 */
export function describePublicationHazards(
  namespaces: readonly string[],
  { publications, tables: facts }: Pick<PublishingFacts, 'publications' | 'tables'>,
  entryOids?: ReadonlyMap<string, readonly number[]>,
): readonly string[] {
  return namespaces.flatMap((namespace) => {
    const publication = publications.get(namespace);
    const tables = tablesOf(namespace, facts);
    if (publication === undefined) return [];
    return [
      ...(tables === undefined ? [] : describeOmissions(publication, tables)),
      // No change is lost by it, but the next start corrects it.
      ...(tables === undefined ? [] : describeUncovered(publication, tables)),
      ...describeEntries(entriesOf(publication, facts), entryOids?.get(namespace)),
      ...(tables === undefined || showsStatusChanges(tables.processes) ? [] : [IDENTITY_HAZARD]),
    ].map((hazard) => `publication ${quoteIdentifier(namespace)}: ${hazard}`);
  });
}

/** Changes of the two tables that a publication leaves out, and columns that records are made of. */
export function describeOmissions(publication: PublicationFacts, tables: NamespaceTables): string[] {
  if (publication.forAllTables) return [];
  return [...describeTableOmissions(publication, tables), ...describeMissingOperations(publication)];
}

/** Needed operations that a publication does not publish. */
export function describeMissingOperations({ operations }: PublicationFacts): string[] {
  const missing = NEEDED_OPERATIONS.filter((operation) => !operations.includes(operation));
  return missing.length === 0 ? [] : [`it does not publish ${missing.join(', ')}`];
}

/** What a publication holds beside the two tables. */
export function describeExcess(
  { tables, schemaCount }: PublicationFacts,
  { processes, events }: NamespaceTables,
): string[] {
  const count = tables.filter(({ oid }) => oid !== processes.oid && oid !== events.oid).length;
  return [
    ...(count === 0 ? [] : [`it holds ${count} other table${count === 1 ? '' : 's'}`]),
    ...(schemaCount === 0 ? [] : ['it is FOR TABLES IN SCHEMA']),
  ];
}

/** Tables, rows and columns that a publication leaves out. */
export function describeTableOmissions(
  publication: PublicationFacts,
  { processes, events }: NamespaceTables,
): string[] {
  const omissions: string[] = [];
  // FOR TABLES IN SCHEMA publishes all changes of a table, even if an entry for the table has a filter or a column list.
  if (publication.holdsPublic) return omissions;
  for (const [table, columns] of [
    [processes, RECORD_COLUMNS.processes],
    [events, RECORD_COLUMNS.events],
  ] as const) {
    const published = publishedTable(publication, table);
    if (published === undefined) {
      omissions.push(`it does not hold ${quoteTable(table.name)}`);
      continue;
    }
    if (published.filtered) omissions.push(`it has a row filter on ${quoteTable(table.name)}`);
    const missing = missingColumns(published, columns).map(quoteIdentifier);
    if (missing.length > 0) {
      omissions.push(`it has a column list on ${quoteTable(table.name)} without ${missing.join(', ')}`);
    }
  }
  return omissions;
}

/** Column lists that make PostgreSQL refuse every update and delete of a table. */
export function describeUncovered(publication: PublicationFacts, { processes, events }: NamespaceTables): string[] {
  return [processes, events].flatMap((table) => {
    const published = publishedTable(publication, table);
    return published === undefined || coversIdentity(published, table) ? [] : [uncoveredHazard(table)];
  });
}

/** The hazard of a table whose column list does not cover its replica identity. */
export function uncoveredHazard({ name }: TableFacts): string {
  return `its column list on ${quoteTable(name)} does not cover the replica identity, so that updates and deletes fail`;
}

/**
 * Shows that a publication has left changes out since its entries were `knownOids`, even if it is complete again: PostgreSQL
 * gives no entry the OID of an earlier one. Empty where the earlier entries are unknown.
 */
export function describeEntries(
  { entryOids, otherEntryOids, formerOids }: PublicationEntries,
  knownOids: readonly number[] | undefined,
): string[] {
  if (knownOids === undefined) return [];
  const isSucceeded = formerOids.length > 0 && knownOids.every((oid) => [...entryOids, ...formerOids].includes(oid));
  const isReadded = !isSucceeded && entryOids.some((oid) => !knownOids.includes(oid));
  const isRenamed = otherEntryOids.some((oid) => knownOids.includes(oid));
  return [
    ...(isReadded ? ['a table was removed from it and added again'] : []),
    // Its rows arrive under the new name, which belongs to no namespace.
    ...(isRenamed ? ['a table of it has another name or schema now'] : []),
  ];
}
