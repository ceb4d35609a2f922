/**
 * What server, slot and tables must be before anything is created. Pure: each function judges facts of the catalog, and
 * returns the first thing that is wrong with its remedy, or undefined.
 */
import { type ErrorPlace, SetupError } from '../../errors.ts';
import { majorOf, type ServerFacts } from '../catalog/server.ts';
import { OUTPUT_PLUGIN, type SlotFacts } from '../catalog/slots.ts';
import type { TableFacts } from '../catalog/tables.ts';
import { quoteIdentifier, quoteTable } from '../client/quote.ts';

/** The oldest PostgreSQL that has pgoutput's `binary` and `messages`. */
const OLDEST_MAJOR = 14;
/** The first version with failover slots: standbys keep a copy of them. */
const FAILOVER_MAJOR = 17;

/** A precondition that does not hold, and the remedy. */
export interface Mistake {
  /** Stable name of the cause, see `ErrorDetails` */
  readonly code: string;
  /** Completes `Cannot prepare slot: ...` */
  readonly detail: string;
  readonly advice: string;
  /** The table that it is about, without schema and quotes */
  readonly table?: string | undefined;
  /** What others did to the table, see SetupError */
  readonly isHazard?: boolean;
}

/** The mistake of a standby. */
export const STANDBY_MISTAKE: Mistake = {
  code: 'server_in_recovery',
  detail: 'the server is a standby (in recovery)',
  advice:
    'Point host or hosts of the database at the primary; slots of a standby, synchronized failover slots included, cannot be streamed from',
};

/** @throws SetupError when there is a mistake */
export function refuse(mistake: Mistake | undefined, place: ErrorPlace): void {
  if (mistake !== undefined) throw mistakeError(mistake, place);
}

/** The error that says a mistake. */
export function mistakeError(mistake: Mistake, place: ErrorPlace, cause?: unknown): SetupError {
  const { code, detail, advice, table, isHazard } = mistake;
  return new SetupError(`Cannot prepare slot: ${detail}`, {
    code,
    place: { ...place, ...(table === undefined ? {} : { table }) },
    advice,
    cause,
    ...(isHazard === undefined ? {} : { isHazard }),
  });
}

/** Judges the server. `needs.slot`: the slot must be created; `needs.sender`: no walsender streams from it yet. */
export function serverMistake(
  server: ServerFacts,
  needs: { readonly slot: boolean; readonly sender: boolean },
): Mistake | undefined {
  if (majorOf(server.versionNumber) < OLDEST_MAJOR) {
    return {
      code: 'server_version',
      detail: `PostgreSQL ${server.version} is too old`,
      advice: `Upgrade the server to PostgreSQL ${OLDEST_MAJOR} or newer`,
    };
  }
  if (server.inRecovery) return STANDBY_MISTAKE;
  if (server.walLevel !== 'logical') {
    return {
      code: 'wal_level',
      detail: `wal_level is ${server.walLevel}, and must be logical`,
      advice: 'Run as a superuser: ALTER SYSTEM SET wal_level = logical; then restart the server',
    };
  }
  if (needs.slot && server.slotCount >= server.maxReplicationSlots) return noFreeSlot(server.maxReplicationSlots);
  if (needs.sender && server.walSenderCount >= server.maxWalSenders) {
    return {
      code: 'max_wal_senders',
      detail: `all ${server.maxWalSenders} WAL senders of the server are in use`,
      advice:
        'Raise max_wal_senders and restart the server, or end replication connections that are not needed (see pg_stat_replication)',
    };
  }
  return undefined;
}

/**
 * Judges the encoding of the database. Its bytes are delivered as they are; names of tables and publications are compared
 * with those of the configuration, which are UTF-8.
 */
export function encodingMistake({ encoding }: ServerFacts, namespace: string): Mistake | undefined {
  if (encoding === 'UTF8' || /^[\x20-\x7e]*$/.test(namespace)) return undefined;
  return {
    code: 'database_encoding',
    detail: `the database has encoding ${encoding}, in which the name of namespace ${quoteIdentifier(namespace)} has other bytes than in UTF-8`,
    advice: 'Stream only namespaces with ASCII names from this database, or move it to a database with encoding UTF8',
  };
}

/** The mistake of a role that the server lets open no walsender. */
export function replicationMistake({ sessionRole }: ServerFacts): Mistake {
  const role = quoteIdentifier(sessionRole);
  return {
    code: 'replication_privilege',
    detail: `the server lets role ${sessionRole} open no replication connection`,
    advice: `On a managed server grant the role that it has for this, such as rds_replication; elsewhere run as a superuser: ALTER ROLE ${role} REPLICATION;`,
  };
}

/** The mistake of a connection that ends in a pooler, which passes no replication on. */
export const POOLER_MISTAKE: Mistake = {
  code: 'connection_pooler',
  detail: 'a connection pooler answers, or another program that does not know replication connections',
  advice:
    'Point host and port of the database at PostgreSQL itself: PgBouncer, Odyssey and their like pass no replication on',
};

/** The mistake of a server without a free replication slot. */
export function noFreeSlot(maxReplicationSlots: number): Mistake {
  return {
    code: 'max_replication_slots',
    detail: `all ${maxReplicationSlots} replication slots of the server are in use`,
    advice:
      'Raise max_replication_slots and restart the server, or drop slots that are not needed (see pg_replication_slots)',
  };
}

/** Judges a server on which the slot must be a failover slot. */
export function failoverMistake(server: ServerFacts, place: ErrorPlace): Mistake | undefined {
  if (majorOf(server.versionNumber) >= FAILOVER_MAJOR) return undefined;
  return {
    code: 'failover_slots',
    detail: `PostgreSQL ${server.version} has no failover slots`,
    advice: `Remove slots.${place.database}.${place.slot}.failover from the configuration, or upgrade the server to PostgreSQL ${FAILOVER_MAJOR} or newer`,
  };
}

/** Judges an existing slot that is to be streamed from in `database`. */
export function slotMistake(slot: SlotFacts, database: string): Mistake | undefined {
  const name = quoteIdentifier(slot.name);
  const another = 'Give the stream another slot name in the configuration';
  if (slot.type !== 'logical') {
    return {
      code: 'slot_type',
      detail: `slot ${name} is a ${slot.type} slot, and must be logical`,
      advice: another,
    };
  }
  if (slot.plugin !== OUTPUT_PLUGIN) {
    return {
      code: 'slot_plugin',
      detail: `slot ${name} has output plugin ${slot.plugin}, and must have ${OUTPUT_PLUGIN}`,
      advice: another,
    };
  }
  if (slot.database !== database) {
    return {
      code: 'slot_database',
      detail: `slot ${name} belongs to database ${quoteIdentifier(slot.database ?? '')}, not to ${quoteIdentifier(database)}`,
      advice: `${another}: slot names are unique on a server`,
    };
  }
  if (slot.temporary) {
    return {
      code: 'slot_temporary',
      detail: `slot ${name} is temporary: the session that created it drops it when it ends`,
      advice: `${another}, or end that session`,
    };
  }
  if (slot.twoPhase) {
    return {
      code: 'slot_two_phase',
      detail: `slot ${name} has two_phase, which streams prepared transactions in messages that this service does not read`,
      advice: `${another}, or drop the slot when nothing in it is needed any more: the service creates one without two_phase`,
    };
  }
  return undefined;
}

/** Judges one table of a namespace; `facts` undefined = it does not exist. */
export function tableMistake(table: string, facts: TableFacts | undefined): Mistake | undefined {
  if (facts === undefined) {
    return {
      code: 'table_missing',
      table,
      detail: `table ${quoteTable(table)} does not exist`,
      advice:
        'Start the service that owns this namespace, which creates its tables, or correct the namespace or the database in the configuration; until then all namespaces of the slot wait',
    };
  }
  if (facts.kind !== 'r') {
    return {
      code: 'table_kind',
      table,
      detail: `${quoteTable(table)} is ${KINDS[facts.kind] ?? 'not a table'}, and must be an ordinary table`,
      advice: "Make it an ordinary table, as progressor's own script does",
    };
  }
  if (facts.persistence !== 'p') {
    return {
      code: 'table_unlogged',
      table,
      detail: `table ${quoteTable(table)} is unlogged, so its changes are not in the WAL`,
      advice: `Run as its owner ${facts.owner}: ALTER TABLE ${quoteTable(table)} SET LOGGED;`,
    };
  }
  return undefined;
}

const KINDS: Readonly<Record<string, string>> = {
  p: 'a partitioned table',
  v: 'a view',
  m: 'a materialized view',
  f: 'a foreign table',
  i: 'an index',
  S: 'a sequence',
};

/**
 * Judges whether an events table may be published. PostgreSQL refuses all updates and deletes of a published table without
 * a replica identity: publishing such a table would stop the service that owns it.
 */
export function eventsIdentityMistake(facts: TableFacts): Mistake | undefined {
  if (facts.replicaIdentity === 'f' || facts.identityColumns.length > 0) return undefined;
  return {
    code: 'events_identity',
    table: facts.name,
    detail: `table ${quoteTable(facts.name)} has no replica identity, so that publishing it would make its updates and deletes fail`,
    advice: `Add its primary key (process_id, event_id), or run as its owner ${facts.owner}: ALTER TABLE ${quoteTable(facts.name)} REPLICA IDENTITY FULL;`,
  };
}
