/** What conversion needs of a table: from its Relation message, once, so that a row costs no look-up. */
import { InvalidRowError } from '../errors.ts';
import type { RelationMessage, ReplicaIdentity } from '../postgres/replication/pgoutput.ts';
import { identifiesStatus, parseTableName } from '../progressor/tables.ts';
import { FormatVersionReader } from './format-version.ts';

/** Schema of progressor's tables. */
const SCHEMA = 'public';

/** OIDs of text and varchar, whose binary form is their text; PostgreSQL's pg_type.dat, as all OIDs here. */
export const TEXT_TYPES: readonly number[] = [25, 1043];
/** int2, int4, int8 */
const INTEGER_TYPES = [21, 23, 20];
/** timestamptz */
const TIMESTAMP_TYPES = [1184];
const JSONB_TYPES = [3802];
const BYTEA_TYPES = [17];

/** FirstNormalObjectId: types from this OID on were created by users. An enum has no fixed OID. */
const FIRST_USER_TYPE_OID = 16384;

interface AnyRelation {
  readonly namespace: string;
  /** As PostgreSQL names it, without quotes */
  readonly table: string;
  readonly replicaIdentity: ReplicaIdentity;
  readonly columnCount: number;
  readonly namespaceBytes: Buffer;
  /** Namespace and a space: the start of every record key */
  readonly keyPrefix: Buffer;
}

/** An events table, with the positions of the columns that records are made of, from 0. */
export interface EventsRelation extends AnyRelation {
  readonly kind: 'events';
  readonly processId: number;
  readonly eventId: number;
  readonly timestamp: number;
  readonly metadata: number;
  readonly payload: number;
  readonly formatVersions: FormatVersionReader;
}

/** A processes table, with the positions of the columns that records are made of, from 0. */
export interface ProcessesRelation extends AnyRelation {
  readonly kind: 'processes';
  readonly processId: number;
  readonly status: number;
  readonly detail: number;
  /** True when an index identifies rows and the status is part of it: an update without an old key left the status alone */
  readonly isIdentifiedByStatus: boolean;
  /** Labels of the status type in the catalog, by namespace */
  readonly statusLabels: StatusLabels;
}

/** Labels of the status types as the catalog has them at present, by namespace; without an entry every label is accepted. */
export type StatusLabels = ReadonlyMap<string, readonly string[]>;

const NO_LABELS: StatusLabels = new Map();

/** A configured table as its last Relation message describes it. */
export type SourceRelation = EventsRelation | ProcessesRelation;

/** True for a Relation message of this table in progressor's schema. */
export function isTable({ schema, name }: RelationMessage, table: string): boolean {
  return schema === SCHEMA && name === table;
}

/** For rows of a table that had another name or schema when they were written: which namespace they belong to is unknown. */
export function renamedRelation({ schema, name }: RelationMessage, table: string): InvalidRowError {
  return new InvalidRowError(
    `Cannot read table "${table}": it was called "${schema}"."${name}" when a row of it was written`,
    {
      code: 'relation_renamed',
      place: { namespace: parseTableName(table)?.namespace, table },
      advice:
        'Leave name and schema of the table as they are while it is streamed; to go on, set on_invalid: park for the namespace, ' +
        'which puts the rows of that time into its parking topic',
    },
  );
}

/**
 * Reads a Relation message; undefined when the table is not the processes or events table of one of `namespaces` in schema
 * public.
 * @throws InvalidRowError when a column that records are made of is missing, or of a type that cannot be read
 */
export function resolveRelation(
  message: RelationMessage,
  namespaces: ReadonlySet<string>,
  statusLabels: StatusLabels = NO_LABELS,
): SourceRelation | undefined {
  if (message.schema !== SCHEMA) return undefined;
  const name = parseTableName(message.name);
  if (name === undefined || !namespaces.has(name.namespace)) return undefined;
  const { namespace } = name;
  const column = (columnName: string, isReadable: (typeOid: number) => boolean): number =>
    findColumn(message, namespace, columnName, isReadable);
  const common = {
    namespace,
    table: message.name,
    replicaIdentity: message.replicaIdentity,
    columnCount: message.columns.length,
    namespaceBytes: Buffer.from(namespace),
    keyPrefix: Buffer.from(`${namespace} `),
  };
  if (name.kind === 'events') {
    return {
      kind: 'events',
      ...common,
      processId: column('process_id', (oid) => TEXT_TYPES.includes(oid)),
      eventId: column('event_id', (oid) => INTEGER_TYPES.includes(oid)),
      timestamp: column('timestamp', (oid) => TIMESTAMP_TYPES.includes(oid)),
      metadata: column('metadata', (oid) => JSONB_TYPES.includes(oid)),
      payload: column('payload', (oid) => BYTEA_TYPES.includes(oid)),
      formatVersions: new FormatVersionReader(),
    };
  }
  if (name.kind === 'processes') {
    return {
      kind: 'processes',
      ...common,
      processId: column('process_id', (oid) => TEXT_TYPES.includes(oid)),
      status: column('status', (oid) => oid >= FIRST_USER_TYPE_OID),
      detail: column('detail', (oid) => TEXT_TYPES.includes(oid)),
      statusLabels,
      isIdentifiedByStatus:
        message.replicaIdentity === 'i' &&
        identifiesStatus(message.columns.filter(({ isKey }) => isKey).map((one) => one.name)),
    };
  }
  return undefined;
}

/** Position of a column, found by its name. */
function findColumn(
  message: RelationMessage,
  namespace: string,
  columnName: string,
  isReadable: (typeOid: number) => boolean,
): number {
  const place = { namespace, table: message.name };
  const position = message.columns.findIndex((candidate) => candidate.name === columnName);
  const found = message.columns[position];
  if (found === undefined) {
    throw new InvalidRowError(`Cannot read table "${message.name}": it has no column "${columnName}"`, {
      code: 'column_missing',
      place,
      advice: 'Restore the column as progressor creates it',
    });
  }
  if (!isReadable(found.typeOid)) {
    throw new InvalidRowError(
      `Cannot read table "${message.name}": column "${columnName}" has the unexpected type with OID ${found.typeOid}`,
      { code: 'column_type', place, advice: 'Restore the type that progressor gives the column' },
    );
  }
  return position;
}
