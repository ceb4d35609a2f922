/**
 * What a start does about the publication of a namespace and the replica identity of its processes table. Pure;
 * `publication-sql.ts` has the statements.
 *
 * Source: PostgreSQL manual, "CREATE PUBLICATION", "ALTER PUBLICATION".
 */
import type { PublishSettings } from '../../config/config.ts';
import { RECORD_COLUMNS } from '../../progressor/tables.ts';
import {
  coversIdentity,
  createdAtLsn,
  missingColumns,
  type PublicationFacts,
  publishedTable,
} from '../catalog/publications.ts';
import { hasStatusIndex, type NamespaceTables, type TableFacts } from '../catalog/tables.ts';
import { quoteTable } from '../client/quote.ts';
import {
  describeExcess,
  describeMissingOperations,
  describeTableOmissions,
  uncoveredHazard,
} from '../hazards/publication-hazards.ts';
import type { MarkedDatabase } from '../replication/publication-marker.ts';

/** What must change so that a namespace is published as configured. */
export interface PublicationPlan {
  /**
   * - `none`: nothing
   * - `create`: there is no publication
   * - `change`: the publication has other contents
   * - `identity`: only the replica identity of processes is not FULL
   * - `refuse`: an operator must decide
   */
  readonly action: 'none' | 'create' | 'change' | 'identity' | 'refuse';
  /** ALTER TABLE ... REPLICA IDENTITY FULL is part of it */
  readonly setsIdentity: boolean;
  /** The list of tables is set */
  readonly setsTables: boolean;
  /** The published operations are set */
  readonly setsOperations: boolean;
  readonly columnLists: ColumnLists;
  /** What else the publication holds stays: another program has created it, and may need that */
  readonly keepsExcess: boolean;
  /**
   * The publication publishes its tables from here on, which is marked in the WAL and in its comment. False for one that
   * published a table before: rows since then are owed, and a mark would hide them.
   */
  readonly marks: boolean;
  /** How the publication differs, for the log: `it does not publish update`; empty for `none` and `create` */
  readonly findings: readonly string[];
}

/** What a plan depends on, beside publication and tables. */
export interface PublicationContext {
  /** Of the namespace */
  readonly settings: PublishSettings;
  /** In which the publication is */
  readonly database: MarkedDatabase;
  /** Slots and walsenders of other programs in the database, see `readOtherReaders` */
  readonly otherReaders: readonly string[];
}

/** The columns to list for each of the two tables; undefined = no list, which publishes all columns. */
export interface ColumnLists {
  readonly processes?: readonly string[] | undefined;
  readonly events?: readonly string[] | undefined;
}

/**
 * While a column list does not cover a table's replica identity, PostgreSQL refuses every update and delete of the table, and
 * no list covers FULL. So there is no list before the index exists.
 */
function planColumnLists(
  publication: PublicationFacts | undefined,
  { processes, events }: NamespaceTables,
  { settings, mayNarrow }: { readonly settings: PublishSettings; readonly mayNarrow: boolean },
): ColumnLists {
  if (settings.publishColumns === 'all' || !hasStatusIndex(processes)) return {};
  const list = (table: TableFacts, columns: readonly string[]) => {
    if (table.replicaIdentity === 'f') return undefined;
    const present = (publication && publishedTable(publication, table)?.columns) ?? undefined;
    if (!mayNarrow && present === undefined) return undefined;
    return [...new Set([...columns, ...table.identityColumns, ...(mayNarrow ? [] : present!)])];
  };
  return { processes: list(processes, RECORD_COLUMNS.processes), events: list(events, RECORD_COLUMNS.events) };
}

/**
 * Compares a publication (undefined = it does not exist) with what the settings ask for. What other programs may read is
 * only ever extended: a publication without the mark of this service, and the columns of any while such a program is seen.
 */
export function planPublication(
  publication: PublicationFacts | undefined,
  tables: NamespaceTables,
  { settings, database, otherReaders }: PublicationContext,
): PublicationPlan {
  const isOurs = publication === undefined || createdAtLsn(publication, database) !== undefined;
  const mayNarrow = isOurs && otherReaders.length === 0;
  const columnLists = planColumnLists(publication, tables, { settings, mayNarrow });
  // One without tables gets them, and a mark, from the service.
  const keepsExcess = !isOurs && !isEmpty(publication);
  const setsIdentity = settings.replicaIdentity === 'full' && tables.processes.replicaIdentity !== 'f';
  const same = { setsIdentity, columnLists, keepsExcess };
  if (publication === undefined) {
    return { action: 'create', ...same, setsTables: true, setsOperations: false, marks: true, findings: [] };
  }
  if (publication.forAllTables) {
    const findings = ['it is FOR ALL TABLES'];
    return { action: 'refuse', ...same, setsTables: false, setsOperations: false, marks: false, findings };
  }
  const tableFindings = [
    ...describeTableOmissions(publication, tables),
    ...describeColumnLists(publication, tables, columnLists),
    ...(keepsExcess ? [] : describeExcess(publication, tables)),
  ];
  const operationFindings = describeMissingOperations(publication);
  const setsTables = tableFindings.length > 0;
  const setsOperations = operationFindings.length > 0;
  return {
    action: setsTables || setsOperations ? 'change' : setsIdentity ? 'identity' : 'none',
    ...same,
    setsTables,
    setsOperations,
    marks: isEmpty(publication),
    findings: [
      ...tableFindings,
      ...operationFindings,
      ...(setsIdentity ? ['replica identity of the processes table is not FULL'] : []),
    ],
  };
}

/** Column lists that differ from what is asked for, although they hold all columns that records are made of. */
function describeColumnLists(
  publication: PublicationFacts,
  { processes, events }: NamespaceTables,
  wanted: ColumnLists,
): string[] {
  const findings: string[] = [];
  for (const [table, recordColumns, wantedColumns] of [
    [processes, RECORD_COLUMNS.processes, wanted.processes],
    [events, RECORD_COLUMNS.events, wanted.events],
  ] as const) {
    const published = publishedTable(publication, table);
    if (published === undefined || missingColumns(published, recordColumns).length > 0) continue;
    const name = quoteTable(table.name);
    if (wantedColumns === undefined) {
      if (published.columns !== null) findings.push(`its column list on ${name} is not asked for`);
    } else if (published.columns === null) findings.push(`it publishes columns of ${name} that are not needed`);
    else if (!coversIdentity(published, table)) findings.push(uncoveredHazard(table));
  }
  return findings;
}

function isEmpty({ tables, schemaCount }: PublicationFacts): boolean {
  return tables.length === 0 && schemaCount === 0;
}
