/** The tables of namespaces: what they are called, and how the catalogs describe them. */
import type { Sql } from 'postgres';
import { identifiesStatus } from '../../progressor/tables.ts';

/** One table as the catalogs describe it. */
export interface TableFacts {
  /** Without schema and quotes: `invoice_events` */
  readonly name: string;
  readonly oid: number;
  /** pg_class.relkind: `r` is an ordinary table, `p` a partitioned one */
  readonly kind: string;
  /** pg_class.relpersistence: `p` is permanent, `u` unlogged */
  readonly persistence: string;
  /** pg_class.relreplident: default, nothing, full, index */
  readonly replicaIdentity: 'd' | 'n' | 'f' | 'i';
  /** The key of the index by which updates and deletes identify rows; empty with FULL, and where there is none */
  readonly identityColumns: readonly string[];
  /** Tables that inherit from it, with their schemas and quoted as SQL needs them; partitions of a partitioned one */
  readonly children: readonly string[];
  /** Rules that do something else instead of an insert, update or delete */
  readonly insteadRules: readonly string[];
  /** Partitioned tables that it is a partition of, at any level */
  readonly ancestors: readonly PartitionAncestor[];
  /** Empty before PostgreSQL 18, which does not judge them in publications */
  readonly generatedColumns: readonly GeneratedColumn[];
  /** Labels of the enum type of its column status, in their order; empty without such a column */
  readonly statusLabels: readonly string[];
  readonly owner: string;
  /** The role of this connection is the owner, a member of it, or a superuser */
  readonly isOwner: boolean;
}

/** A column that the server computes; a stored one is kept in the row, a virtual one (PostgreSQL 18) is not. */
export interface GeneratedColumn {
  readonly name: string;
  readonly isStored: boolean;
}

/** A partitioned table above a partition. */
export interface PartitionAncestor {
  readonly oid: number;
  /** With its schema and quoted as SQL needs it */
  readonly name: string;
}

/** The two tables of one namespace. */
export interface NamespaceTables {
  readonly namespace: string;
  readonly processes: TableFacts;
  readonly events: TableFacts;
}

/** Name of the processes table of a namespace. */
export function processesTable(namespace: string): string {
  return `${namespace}_processes`;
}

/** Names of the tables of these namespaces. */
export function tableNames(namespaces: readonly string[]): string[] {
  return namespaces.flatMap((namespace) => [processesTable(namespace), `${namespace}_events`]);
}

/** The tables of one namespace; undefined unless both exist. */
export function tablesOf(namespace: string, facts: ReadonlyMap<string, TableFacts>): NamespaceTables | undefined {
  const [processes, events] = tableNames([namespace]).map((name) => facts.get(name));
  return processes === undefined || events === undefined ? undefined : { namespace, processes, events };
}

/** Reads those of the tables that exist in schema public, by name. */
export async function readTables(control: Sql, names: readonly string[]): Promise<Map<string, TableFacts>> {
  const rows = await control`
    SELECT c.relname, c.oid::int8 AS oid, c.relkind::text AS relkind, c.relpersistence::text AS relpersistence,
      c.relreplident::text AS relreplident, pg_get_userbyid(c.relowner) AS owner,
      pg_has_role(c.relowner, 'USAGE') AS is_owner,
      (
        SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]')
        FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
        WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
          AND ((c.relreplident = 'd' AND i.indisprimary) OR (c.relreplident = 'i' AND i.indisreplident))
      ) AS identity_columns,
      (
        SELECT coalesce(json_agg(inhrelid::regclass::text ORDER BY inhrelid), '[]') FROM pg_inherits WHERE inhparent = c.oid
      ) AS children,
      (
        SELECT coalesce(json_agg(rulename ORDER BY rulename), '[]') FROM pg_rewrite
        WHERE ev_class = c.oid AND c.relkind = 'r' AND is_instead AND ev_enabled <> 'D'
      ) AS instead_rules,
      (
        SELECT coalesce(json_agg(json_build_object('oid', relid::oid::int8, 'name', relid::text)), '[]')
        FROM pg_partition_ancestors(c.oid) WHERE relid <> c.oid
      ) AS ancestors,
      (
        SELECT coalesce(json_agg(json_build_object('name', attname, 'isStored', attgenerated = 's') ORDER BY attnum), '[]')
        FROM pg_attribute WHERE attrelid = c.oid AND attgenerated <> '' AND NOT attisdropped
          AND current_setting('server_version_num')::int4 >= 180000
      ) AS generated_columns,
      (
        SELECT coalesce(json_agg(e.enumlabel ORDER BY e.enumsortorder), '[]')
        FROM pg_attribute a JOIN pg_enum e ON e.enumtypid = a.atttypid
        WHERE a.attrelid = c.oid AND a.attname = 'status' AND NOT a.attisdropped
      ) AS status_labels
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relname IN ${control([...names])}`;
  return new Map(
    rows.map((row) => [
      row.relname as string,
      {
        name: row.relname,
        oid: Number(row.oid),
        kind: row.relkind,
        persistence: row.relpersistence,
        replicaIdentity: row.relreplident,
        identityColumns: row.identity_columns,
        children: row.children,
        insteadRules: row.instead_rules,
        ancestors: row.ancestors,
        generatedColumns: row.generated_columns,
        statusLabels: row.status_labels,
        owner: row.owner,
        isOwner: row.is_owner,
      },
    ]),
  );
}

/**
 * True when the replica identity of a processes table is an index over process_id and status. PostgreSQL then writes an
 * old key if, and only if, one of the two changes, so that an update without one proves that the status did not change.
 */
export function hasStatusIndex({ replicaIdentity, identityColumns }: TableFacts): boolean {
  return replicaIdentity === 'i' && identifiesStatus(identityColumns);
}

/** True when every update of a processes table shows whether the status changed: by such an index, or by its whole old row. */
export function showsStatusChanges(processes: TableFacts): boolean {
  return processes.replicaIdentity === 'f' || hasStatusIndex(processes);
}
