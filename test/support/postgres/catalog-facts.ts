/** Facts of the catalogs as the unit tests of the pure rooms start from: each test changes the one that it is about. */
import type { PublicationFacts, PublishedTable } from '../../../src/postgres/catalog/publications.ts';
import type { SlotFacts } from '../../../src/postgres/catalog/slots.ts';
import type { NamespaceTables, TableFacts } from '../../../src/postgres/catalog/tables.ts';
import { creationCommentParts, type MarkedDatabase } from '../../../src/postgres/replication/publication-marker.ts';

/** An ordinary table with replica identity FULL, with these changes. */
export function table(name: string, oid: number, change: Partial<TableFacts> = {}): TableFacts {
  return {
    name,
    oid,
    kind: 'r',
    persistence: 'p',
    replicaIdentity: 'f',
    identityColumns: [],
    children: [],
    insteadRules: [],
    ancestors: [],
    generatedColumns: [],
    statusLabels: [],
    owner: 'app',
    isOwner: true,
    ...change,
  };
}

/** The tables of namespace `a"b`, as a publication needs them: OID 1 and 2. */
export const TABLES: NamespaceTables = {
  namespace: `a"b`,
  processes: table(`a"b_processes`, 1),
  events: table(`a"b_events`, 2, { replicaIdentity: 'd', identityColumns: ['process_id', 'event_id'] }),
};

/** The same with replica identity DEFAULT of processes. */
export const TABLES_WITHOUT_IDENTITY: NamespaceTables = {
  ...TABLES,
  processes: { ...TABLES.processes, replicaIdentity: 'd' },
};

/** A table of a publication with all rows and columns; its entry has an OID of its own. */
export function plainEntry(oid: number): PublishedTable {
  return { oid, entryOid: oid + 10_000, filtered: false, columns: null };
}

/** The database of these facts. */
export const DATABASE: MarkedDatabase = { systemIdentifier: '7710967555485513451', databaseOid: 16_384 };

/** The publication of the namespace, as it must be, created by the service. */
export const PUBLICATION: PublicationFacts = {
  name: `a"b`,
  oid: 10,
  owner: 'app',
  forAllTables: false,
  operations: ['insert', 'update', 'delete'],
  tables: [plainEntry(1), plainEntry(2)],
  schemaCount: 0,
  holdsPublic: false,
  publishesViaRoot: false,
  publishesStoredColumns: false,
  version: '700',
  comment: creationCommentParts(DATABASE).join('0/40'),
  serverLsn: 0x80n,
};

/** A slot that can be streamed from, and that no process holds. */
export const SLOT: SlotFacts = {
  name: 'cdc_slot',
  type: 'logical',
  plugin: 'pgoutput',
  database: 'main',
  temporary: false,
  twoPhase: false,
  active: false,
  activePid: undefined,
  walStatus: 'reserved',
  invalidationReason: undefined,
  failover: false,
  confirmedFlushLsn: 1n,
  retainedWalBytes: 16,
  safeWalBytes: undefined,
  serverLsn: 1n,
};
