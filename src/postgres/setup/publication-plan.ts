/**
 * What a start does about the publication of a namespace and the replica identity of its processes table. Pure;
 * `publication-sql.ts` has the statements.
 *
 * Source: PostgreSQL manual, "CREATE PUBLICATION", "ALTER PUBLICATION".
 */
import type { PublishSettings } from '../../config/config.ts';
import { RECORD_COLUMNS } from '../../progressor/tables.ts';
import { coversIdentity, missingColumns, type PublicationFacts, publishedTable } from '../catalog/publications.ts';
import { hasStatusIndex, type NamespaceTables, type TableFacts } from '../catalog/tables.ts';
import { quoteTable } from '../client/quote.ts';
import { describeMissingOperations, describeTableOmissions, uncoveredHazard } from '../hazards/publication-hazards.ts';

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
  /**
   * The publication publishes its tables from here on, which is marked in the WAL and in its comment. False for one that
   * published a table before: rows since then are owed, and a mark would hide them.
   */
  readonly marks: boolean;
  /** How the publication differs, for the log: `it does not publish update`; empty for `none` and `create` */
  readonly findings: readonly string[];
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
function planColumnLists({ publishColumns }: PublishSettings, { processes, events }: NamespaceTables): ColumnLists {
  if (publishColumns === 'all' || !hasStatusIndex(processes)) return {};
  const list = (table: TableFacts, columns: readonly string[]) =>
    table.replicaIdentity === 'f' ? undefined : [...new Set([...columns, ...table.identityColumns])];
  return { processes: list(processes, RECORD_COLUMNS.processes), events: list(events, RECORD_COLUMNS.events) };
}

/** Compares a publication (undefined = it does not exist) with what the settings ask for. */
export function planPublication(
  publication: PublicationFacts | undefined,
  tables: NamespaceTables,
  settings: PublishSettings,
): PublicationPlan {
  const columnLists = planColumnLists(settings, tables);
  const setsIdentity = settings.replicaIdentity === 'full' && tables.processes.replicaIdentity !== 'f';
  const same = { setsIdentity, columnLists };
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
    ...describeExcess(publication, [tables.processes, tables.events]),
  ];
  const operationFindings = describeMissingOperations(publication);
  const setsTables = tableFindings.length > 0;
  const setsOperations = operationFindings.length > 0;
  return {
    action: setsTables || setsOperations ? 'change' : setsIdentity ? 'identity' : 'none',
    ...same,
    setsTables,
    setsOperations,
    marks: publication.tables.length === 0 && publication.schemaCount === 0,
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

function describeExcess(publication: PublicationFacts, needed: readonly TableFacts[]): string[] {
  const findings: string[] = [];
  const others = publication.tables.filter(({ oid }) => !needed.some((table) => table.oid === oid)).length;
  if (others > 0) findings.push(`it holds ${others} other table${others === 1 ? '' : 's'}`);
  if (publication.schemaCount > 0) findings.push('it is FOR TABLES IN SCHEMA');
  return findings;
}
