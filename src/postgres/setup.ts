/**
 * Start-up of one slot on the PostgreSQL side: checks, publications, slot. One attempt; whoever calls repeats it.
 * All that can be refused is refused before anything is created.
 */
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import { type ErrorPlace, SetupError } from '../errors.ts';
import { type Lsn, parseLsn } from './lsn.ts';
import {
  eventsIdentityMistake,
  type Mistake,
  majorOf,
  readServer,
  readTables,
  type ServerFacts,
  serverMistake,
  type TableFacts,
  tableMistake,
} from './preconditions.ts';
import { type NamespaceTables, parseCreationComment, readPublications } from './publication.ts';
import { ensurePublication, type PreparedPublication } from './publish.ts';
import { createSlot, dropSql, findAbandonedSlots, readSlot, type SlotFacts, slotMistake } from './slot.ts';

/** Which slot to prepare, and for what. */
export interface SetupRequest {
  /** db_ref of the configuration */
  readonly databaseRef: string;
  readonly slot: string;
  readonly namespaces: readonly string[];
  /** True for a slot that is not to be warned of: the configuration names it, or it was warned of before */
  readonly isConfiguredSlot: (slot: string) => boolean;
  /** Called for each slot that was warned of */
  readonly onAbandonedSlot: (slot: string) => void;
  /** Binds database and slot already */
  readonly log: Logger;
  /** Looked at between steps; a step in progress ends with its connection */
  readonly signal: AbortSignal;
}

/** A slot that can be streamed from. */
export interface PreparedSlot {
  /** Identifies the cluster; another one behind the same address has another */
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** 14, 17, 18 */
  readonly serverMajor: number;
  /** Of the server, for our role; 0 = never */
  readonly walSenderTimeoutMs: number;
  /** Where the server's WAL ended when all of this was there */
  readonly currentLsn: Lsn;
  /** Where streaming starts */
  readonly confirmedFlushLsn: Lsn;
  /** In the order of the request's namespaces */
  readonly publications: readonly PreparedPublication[];
}

/**
 * Checks everything that replication of this slot needs, creates or mends what it may, and says where streaming starts.
 * Raises SetupError with cause and cure where a precondition does not hold; errors of the connection itself pass through.
 */
export async function prepareSlot(control: Sql, request: SetupRequest): Promise<PreparedSlot> {
  const { slot, log, signal } = request;
  const place = { database: request.databaseRef, slot };
  signal.throwIfAborted();
  const server = await readServer(control);
  const serverMajor = majorOf(server.versionNumber);
  const existing = await checkServerAndSlot(control, server, place);
  const tables = await checkTables(control, request.namespaces, place);
  await warnOfAbandonedSlots(control, request);

  const earlier = await readPublications(control, request.namespaces, serverMajor);
  const publications: PreparedPublication[] = [];
  for (const namespaceTables of tables) {
    const context = {
      server,
      slotExists: existing !== undefined,
      slotActive: existing?.active ?? false,
      place,
      log,
      signal,
    };
    publications.push(await ensurePublication(control, namespaceTables, context));
  }

  signal.throwIfAborted();
  if (existing === undefined) {
    await createSlot(control, slot, { place, maxReplicationSlots: server.maxReplicationSlots });
    // Nothing on the server tells a new slot from one that was lost in a failover: a person can.
    const marked = [...earlier.values()].filter(({ comment }) =>
      parseCreationComment(comment, server.systemIdentifier),
    );
    if (marked.length === 0) log.info('created replication slot');
    else {
      log.warn(
        { publications: marked.map(({ name }) => name) },
        'created replication slot although its publications were there before: if there was a slot before, what was written since its last confirmation is not delivered',
      );
    }
  }
  const prepared = await readSlot(control, slot, serverMajor);
  if (prepared?.confirmedFlushLsn === undefined || server.timeline === undefined) {
    throw new SetupError('Cannot prepare slot: it was dropped or invalidated meanwhile', { place });
  }
  const [row] = await control`SELECT pg_current_wal_insert_lsn()::text AS lsn`;
  return {
    systemIdentifier: server.systemIdentifier,
    timeline: server.timeline,
    serverMajor,
    walSenderTimeoutMs: server.walSenderTimeoutMs,
    currentLsn: parseLsn(row!.lsn),
    confirmedFlushLsn: prepared.confirmedFlushLsn,
    publications,
  };
}

async function checkServerAndSlot(
  control: Sql,
  server: ServerFacts,
  place: ErrorPlace & { readonly slot: string },
): Promise<SlotFacts | undefined> {
  // Before the slot is looked at: an old server lacks the columns.
  refuse(serverMistake(server, { slot: false, sender: false }), place);
  const slot = await readSlot(control, place.slot, majorOf(server.versionNumber));
  const [row] = await control`SELECT current_database()::text AS name`;
  if (slot !== undefined) refuse(slotMistake(slot, row!.name), place);
  refuse(serverMistake(server, { slot: slot === undefined, sender: !slot?.active }), place);
  return slot;
}

async function checkTables(control: Sql, namespaces: readonly string[], place: ErrorPlace): Promise<NamespaceTables[]> {
  const facts = await readTables(
    control,
    namespaces.flatMap((namespace) => [`${namespace}_processes`, `${namespace}_events`]),
  );
  const checked = (table: string, namespace: string): TableFacts => {
    const found = facts.get(table);
    refuse(tableMistake(table, found), { ...place, namespace });
    return found!;
  };
  return namespaces.map((namespace) => {
    const processes = checked(`${namespace}_processes`, namespace);
    const events = checked(`${namespace}_events`, namespace);
    refuse(eventsIdentityMistake(events), { ...place, namespace });
    return { namespace, processes, events };
  });
}

function refuse(mistake: Mistake | undefined, place: ErrorPlace): void {
  if (mistake === undefined) return;
  throw new SetupError(`Cannot prepare slot: ${mistake.detail}`, {
    place: { ...place, ...(mistake.table === undefined ? {} : { table: mistake.table }) },
    advice: mistake.advice,
  });
}

async function warnOfAbandonedSlots(control: Sql, request: SetupRequest): Promise<void> {
  for (const { slot, retainedWalBytes } of await findAbandonedSlots(control, request.isConfiguredSlot)) {
    request.onAbandonedSlot(slot);
    request.log.warn(
      { abandonedSlot: slot, retainedWalBytes, advice: dropSql(slot) },
      'replication slot is not configured, nobody reads it, and it holds WAL; drop it when it is no longer needed',
    );
  }
}
