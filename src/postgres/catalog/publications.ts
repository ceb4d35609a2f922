/**
 * Publications as the catalogs describe them. A namespace has a publication of its own name for its tables `NS_processes`
 * and `NS_events`.
 * Source: PostgreSQL manual, system catalogs pg_publication, pg_publication_rel, pg_publication_namespace.
 */
import type { Sql } from 'postgres';
import { type Lsn, parseLsn } from '../../lsn.ts';
import { type MarkedDatabase, parseCreationComment, parseSuccession } from '../replication/publication-marker.ts';
import { readTables, type TableFacts, tableNames } from './tables.ts';

/** One publication as the catalogs describe it. */
export interface PublicationFacts {
  readonly name: string;
  readonly oid: number;
  readonly owner: string;
  readonly forAllTables: boolean;
  /** Published operations: `insert`, `update`, `delete`, `truncate` */
  readonly operations: readonly string[];
  readonly tables: readonly PublishedTable[];
  /** FOR TABLES IN SCHEMA (PostgreSQL 15): the number of schemas */
  readonly schemaCount: number;
  /** Schema public, with every table of it, is one of them */
  readonly holdsPublic: boolean;
  /** publish_via_partition_root: rows of a partition are sent as rows of an ancestor that it holds */
  readonly publishesViaRoot: boolean;
  /** publish_generated_columns = stored (PostgreSQL 18) */
  readonly publishesStoredColumns: boolean;
  /** Ids of the transactions that wrote it and its entries: another value after every alteration */
  readonly version: string;
  /** COMMENT ON PUBLICATION */
  readonly comment: string | undefined;
  /** End of the server's WAL when this was read */
  readonly serverLsn: Lsn;
}

/** A table of a publication. */
export interface PublishedTable {
  readonly oid: number;
  /** OID of its entry in the publication (pg_publication_rel): removing and adding the table gives it another one */
  readonly entryOid: number;
  /** Has a row filter (PostgreSQL 15) */
  readonly filtered: boolean;
  /** Its column list (PostgreSQL 15); null = all columns */
  readonly columns: readonly string[] | null;
}

/** A table in a publication of another program that publishes updates or deletes of it. */
export interface OtherPublication {
  readonly name: string;
  readonly tableOid: number;
  /** Its column list; null = all columns */
  readonly columns: readonly string[] | null;
  /** Columns that its row filter names; empty without one */
  readonly filterColumns: readonly string[];
  /** publish_generated_columns = stored (PostgreSQL 18) */
  readonly publishesStoredColumns: boolean;
}

/** First version with column lists, row filters and FOR TABLES IN SCHEMA, and with the catalog columns for them. */
export const COLUMN_LISTS_MAJOR = 15;
/** First version that judges generated columns in publications. */
const GENERATED_COLUMNS_MAJOR = 18;

/**
 * Reads what other publications than these publish of these tables. A server before PostgreSQL 15 has nothing in them that
 * could matter to another publication: the result is empty there.
 */
async function readOtherPublications(
  control: Sql,
  { names, tableOids }: { readonly names: readonly string[]; readonly tableOids: readonly number[] },
  serverMajor: number,
): Promise<OtherPublication[]> {
  if (serverMajor < COLUMN_LISTS_MAJOR || tableOids.length === 0) return [];
  const generated = serverMajor >= GENERATED_COLUMNS_MAJOR ? control`p.pubgencols = 's'` : control`false`;
  const rows = await control`
    SELECT p.pubname, c.oid::int8 AS table_oid, ${generated} AS publishes_stored_columns,
      (
        SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_publication_rel r
          JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[])
        WHERE r.prpubid = p.oid AND r.prrelid = c.oid
      ) AS columns,
      (
        SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]') FROM pg_publication_rel r
          JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum IN (
            -- The stored form of an expression; one about a publication's rows has no other variables than columns of the table.
            SELECT number[1]::int2 FROM regexp_matches(r.prqual::text, ':varattno (\\d+)', 'g') number
          )
        WHERE r.prpubid = p.oid AND r.prrelid = c.oid
      ) AS filter_columns
    FROM pg_publication p, pg_class c
    WHERE c.oid IN ${control([...tableOids])} AND p.pubname NOT IN ${control([...names])} AND (p.pubupdate OR p.pubdelete)
      AND (
        p.puballtables
        OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
        OR EXISTS (SELECT FROM pg_publication_namespace n WHERE n.pnpubid = p.oid AND n.pnnspid = c.relnamespace)
      )
    ORDER BY p.pubname, c.oid`;
  return rows.map((row) => ({
    name: row.pubname,
    tableOid: Number(row.table_oid),
    columns: row.columns,
    filterColumns: row.filter_columns,
    publishesStoredColumns: row.publishes_stored_columns,
  }));
}

/** Reads those of the publications that exist, by name. */
export async function readPublications(
  control: Sql,
  names: readonly string[],
  serverMajor: number,
): Promise<Map<string, PublicationFacts>> {
  const modern = serverMajor >= COLUMN_LISTS_MAJOR;
  // One statement, so that all facts about a publication are from one moment.
  const publications = await control`
    SELECT oid::int8 AS oid, pubname, puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate,
      xmin::text || coalesce(
        (SELECT ' ' || string_agg(xmin::text, ' ' ORDER BY oid) FROM pg_publication_rel WHERE prpubid = pg_publication.oid), ''
      ) AS version,
      pg_get_userbyid(pubowner) AS owner, obj_description(oid, 'pg_publication') AS comment,
      CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text AS server_lsn,
      (
        SELECT coalesce(json_agg(json_build_object('oid', prrelid::int8, 'entryOid', oid::int8,
          'filtered', ${modern ? control`prqual IS NOT NULL` : control`false`},
          'columns', ${
            modern
              ? control`(SELECT json_agg(attname ORDER BY attnum) FROM pg_attribute
                  WHERE attrelid = prrelid AND attnum = ANY (prattrs::int2[]))`
              : control`NULL`
          }) ORDER BY prrelid), '[]')
        FROM pg_publication_rel WHERE prpubid = pg_publication.oid
      ) AS tables,
      ${serverMajor >= GENERATED_COLUMNS_MAJOR ? control`pubgencols = 's'` : control`false`} AS publishes_stored_columns,
      ${
        modern
          ? control`(
              SELECT coalesce(json_agg(pnnspid = 'public'::regnamespace), '[]')
              FROM pg_publication_namespace WHERE pnpubid = pg_publication.oid
            )`
          : control`'[]'::json`
      } AS schemas
    FROM pg_publication WHERE pubname IN ${control([...names])}`;
  return new Map(
    publications.map((row) => [
      row.pubname as string,
      {
        name: row.pubname,
        oid: Number(row.oid),
        owner: row.owner,
        forAllTables: row.puballtables,
        operations: ['insert', 'update', 'delete', 'truncate'].filter((operation) => row[`pub${operation}`]),
        tables: row.tables,
        schemaCount: row.schemas.length,
        holdsPublic: row.schemas.includes(true),
        publishesViaRoot: row.pubviaroot,
        publishesStoredColumns: row.publishes_stored_columns,
        version: row.version,
        comment: row.comment ?? undefined,
        serverLsn: parseLsn(row.server_lsn),
      },
    ]),
  );
}

/** What a set of namespaces publishes: the publications and tables that exist, by name, and what others publish of them. */
export interface PublishingFacts {
  readonly publications: ReadonlyMap<string, PublicationFacts>;
  readonly tables: ReadonlyMap<string, TableFacts>;
  readonly others: readonly OtherPublication[];
}

/** Reads the publications and tables of these namespaces, with short queries that take no table lock. */
export async function readPublishing(
  control: Sql,
  namespaces: readonly string[],
  serverMajor: number,
): Promise<PublishingFacts> {
  const publications = await readPublications(control, namespaces, serverMajor);
  const tables = await readTables(control, tableNames(namespaces));
  const tableOids = Array.from(tables.values(), ({ oid }) => oid);
  const others = await readOtherPublications(control, { names: namespaces, tableOids }, serverMajor);
  return { publications, tables, others };
}

/** OIDs of those of the publications that exist, by name: a publication that was recreated has another OID. */
export async function readPublicationOids(control: Sql, names: readonly string[]): Promise<Map<string, number>> {
  const rows = await control`
    SELECT pubname, oid::int8 AS oid FROM pg_publication WHERE pubname IN ${control([...names])}`;
  return new Map(rows.map((row) => [row.pubname as string, Number(row.oid)]));
}

/** The OIDs of a publication's entries for tables, in ascending order. */
export interface PublicationEntries {
  /** Of the tables of its namespace */
  readonly entryOids: readonly number[];
  /** Of tables with other names */
  readonly otherEntryOids: readonly number[];
  /** Entries that those of the namespace's tables follow, in the transaction that removed them, as the comment says */
  readonly formerOids: readonly number[];
}

/** @param facts the tables of the namespace that exist, by name */
export function entriesOf(
  { name, tables, comment }: PublicationFacts,
  facts: ReadonlyMap<string, TableFacts>,
): PublicationEntries {
  const needed = tableNames([name]).map((table) => facts.get(table)?.oid);
  const entries = tables.toSorted((one, other) => one.entryOid - other.entryOid);
  const entryOids = entries.filter(({ oid }) => needed.includes(oid)).map(({ entryOid }) => entryOid);
  const succession = parseSuccession(comment);
  return {
    entryOids,
    formerOids: succession?.entryOids.join() === entryOids.join() ? succession.formerOids : [],
    otherEntryOids: entries.filter(({ oid }) => !needed.includes(oid)).map(({ entryOid }) => entryOid),
  };
}

/**
 * LSN of the message that marks the publication's creation; undefined for one that an operator created, or that came with a
 * restored dump.
 */
export function createdAtLsn({ comment, serverLsn }: PublicationFacts, database: MarkedDatabase): Lsn | undefined {
  return parseCreationComment(comment, { ...database, serverLsn });
}

/** The entry of a table in a publication; undefined when the publication does not list the table. */
export function publishedTable({ tables }: PublicationFacts, { oid }: TableFacts): PublishedTable | undefined {
  return tables.find((table) => table.oid === oid);
}

/** Those of the columns that the table's column list leaves out. */
export function missingColumns({ columns: list }: PublishedTable, columns: readonly string[]): string[] {
  return list === null ? [] : columns.filter((column) => !list.includes(column));
}

/** True when the table's column list, if any, holds the replica identity; FULL is covered by no list. */
export function coversIdentity(published: PublishedTable, { replicaIdentity, identityColumns }: TableFacts): boolean {
  if (published.columns === null) return true;
  return replicaIdentity !== 'f' && missingColumns(published, identityColumns).length === 0;
}
