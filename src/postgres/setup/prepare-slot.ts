/**
 * Start-up of one slot on the PostgreSQL side: checks, publications, slot. One attempt; whoever calls repeats it.
 * All that can be refused is refused before anything is created.
 */
import type { Sql } from 'postgres';
import type { PublishSettings, SlotSettings } from '../../config/config.ts';
import { type ErrorPlace, SetupError, SlotInUseError } from '../../errors.ts';
import { formatLsn, type Lsn } from '../../lsn.ts';
import {
  alterSlotFailover,
  createSlot,
  dropSlot,
  findAbandonedSlots,
  readSlot,
  type SlotFacts,
  slotMistake,
} from '../catalog/slots.ts';
import { quoteIdentifier } from '../client/quote.ts';
import {
  type ContinuityRequest,
  checkContinuity,
  ledgerContext,
  readCurrentLsn,
  warnOfAcceptedLoss,
} from '../continuity/check.ts';
import { lastWord } from '../continuity/judge.ts';
import { dropSlotSql, readLedger, type SlotLedger, writeLedger } from '../continuity/ledger.ts';
import { ledgerOfClaim, ledgerOfStart } from '../continuity/transitions.ts';
import { parseCreationComment } from '../replication/publication-marker.ts';
import { ensurePublication, type PreparedPublication } from './ensure-publication.ts';
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
import {
  type NamespaceTables,
  type PublicationFacts,
  readPublicationOids,
  readPublications,
  tableNames,
  tablesOf,
} from './publication-plan.ts';
import { columnListMistake, hasStatusIndex, statusIndexMistake, statusIndexSql } from './replica-identity.ts';

/** First version whose slots standbys can keep a copy of. */
const FAILOVER_MAJOR = 17;

/** Which slot to prepare, and for what. */
export interface SetupRequest extends ContinuityRequest {
  /** By namespace */
  readonly publishing: ReadonlyMap<string, PublishSettings>;
  /** True for a slot that is not to be warned of: the configuration names it, or it was warned of before */
  readonly isConfiguredSlot: (slot: string) => boolean;
  /** Called for each slot that was warned of */
  readonly onAbandonedSlot: (slot: string) => void;
  /** Called with the slot as it is found, before anything is made of it */
  readonly onSlotSeen: (slot: SlotFacts | undefined) => void;
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
  /** Ours */
  readonly role: string;
  /** Of the server, for our role; 0 = never */
  readonly walSenderTimeoutMs: number;
  /** Where the server's WAL ended when all of this was there */
  readonly currentLsn: Lsn;
  /** Where streaming starts */
  readonly confirmedFlushLsn: Lsn;
  /** In the order of the request's namespaces */
  readonly publications: readonly PreparedPublication[];
  /** Names of those that are others than were known: what was learned of the former ones holds no more */
  readonly renewedPublications: readonly string[];
  /** The ledger that is there now, for the next one to take its place */
  readonly foundLedger: SlotLedger | undefined;
  /** The ledger to write when the slot is taken (`claimSlot`), and what this process knows from now on */
  readonly ledger: SlotLedger;
}

/**
 * Checks everything that replication of this slot needs, creates or mends what it may, and says where streaming starts.
 * To be called when nobody is seen to have the slot. What was known of the slot is compared with what is there before
 * anything is made.
 *
 * @throws SetupError with cause and cure where a precondition does not hold; LossError where changes are lost that the
 * settings do not accept; SlotInUseError where another process has the slot; errors of the connection pass through
 */
export async function prepareSlot(control: Sql, request: SetupRequest): Promise<PreparedSlot> {
  const { slot, settings, namespaces, log, signal } = request;
  const place = { database: request.databaseRef, slot };
  signal.throwIfAborted();
  const server = await readServer(control);
  const serverMajor = majorOf(server.versionNumber);
  const existing = await checkServerAndSlot(control, server, { place, settings });
  request.onSlotSeen(existing);
  const foundLedger = await readLedger(control, slot);
  const found = await readPublications(control, namespaces, serverMajor);
  const tables = await readTables(control, tableNames(namespaces));
  const continuity = await checkContinuity(control, request, { server, existing, foundLedger, found, tables });
  const namespaceTables = checkTables(tables, request, server);
  await warnOfAbandonedSlots(control, request);

  signal.throwIfAborted();
  // A loss that is still there is accepted.
  const unusable = continuity.verdict === 'loss' && continuity.loss.needsNewSlot ? continuity.loss : undefined;
  const isUsable = existing !== undefined && unusable === undefined;
  const publications: PreparedPublication[] = [];
  for (const each of namespaceTables) {
    const settings = request.publishing.get(each.namespace)!;
    const context = { server, settings, slotExists: isUsable, place, log, signal };
    publications.push(await ensurePublication(control, each, context));
  }

  signal.throwIfAborted();
  let replaced = foundLedger;
  if (!isUsable) {
    if (existing !== undefined && unusable !== undefined) {
      // Several may have accepted the loss: one of them drops the slot, the others find a good one when they come again.
      const claim = ledgerOfClaim(unusable, ledgerContext(request, { server, foundLedger }));
      const outcome = await writeLedger(control, { slot, ledger: claim, replaces: foundLedger });
      refuseChanged(outcome === 'superseded', place);
      if (outcome === 'written') replaced = claim;
      refuseChanged(!(await dropSlot(control, existing)), place);
    }
    const { maxReplicationSlots } = server;
    await createSlot(control, slot, { place, maxReplicationSlots, failover: settings.failover });
  } else if (settings.failover && !existing.failover) {
    await alterSlotFailover(request.endpoint, slot);
    log.info('replication slot is kept on standbys from now on');
  }
  const prepared = await readSlot(control, slot, serverMajor);
  if (prepared?.active) throw slotInUseError(place);
  if (prepared?.confirmedFlushLsn === undefined || server.timeline === undefined) {
    throw new SetupError('Cannot prepare slot: it was dropped or invalidated meanwhile', { place, mayPass: true });
  }
  const { confirmedFlushLsn } = prepared;
  if (!isUsable) reportCreation(request, { server, isFirst: continuity.verdict === 'first', found, confirmedFlushLsn });
  const last = lastWord({ known: request.known, ledger: foundLedger });
  // What was compared must be what is streamed.
  refuseChanged(isUsable && existing.confirmedFlushLsn !== confirmedFlushLsn, place);
  refuseChanged(
    publications.some(
      ({ name, oid }) => last?.publicationOids.has(name) && found.has(name) && found.get(name)!.oid !== oid,
    ),
    place,
  );
  const publicationOids = new Map(publications.map(({ name, oid }) => [name, oid]));
  const renewed = publications.filter(({ name, oid }) => {
    const formerOid = last?.publicationOids.get(name) ?? last?.left.get(name)?.oid;
    return formerOid !== undefined && formerOid !== oid;
  });
  if (continuity.verdict === 'loss') {
    const beginningsLsn = renewed.map(({ createdAtLsn }) => createdAtLsn).filter((lsn) => lsn !== undefined);
    warnOfAcceptedLoss(continuity.loss, isUsable ? beginningsLsn : [...beginningsLsn, confirmedFlushLsn], log);
  }
  if (isUsable && last !== undefined) warnOfPassedRows(publications, { last, confirmedFlushLsn, log });
  const ledger = ledgerOfStart(continuity, ledgerContext(request, { server, foundLedger: replaced }), {
    confirmedFlushLsn,
    publicationOids,
    entryOids: new Map(publications.map(({ name, entryOids }) => [name, entryOids])),
  });
  warnOfLeftNamespaces(ledger, { last, log });
  // Its changes are owed from now on, also if Kafka lets nobody take it for a long time. Who may not write is told then.
  if (!isUsable)
    refuseChanged((await writeLedger(control, { slot, ledger, replaces: replaced })) === 'superseded', place);
  return {
    systemIdentifier: server.systemIdentifier,
    timeline: server.timeline,
    serverMajor,
    role: server.role,
    walSenderTimeoutMs: server.walSenderTimeoutMs,
    currentLsn: await readCurrentLsn(control),
    confirmedFlushLsn,
    publications,
    renewedPublications: renewed.map(({ name }) => name),
    foundLedger: replaced,
    ledger,
  };
}

/**
 * Takes the slot in the ledger. To be called when our walsender has the slot and nothing is confirmed yet: from then on
 * nobody else moves it, so that what was prepared is still true when it is true now.
 *
 * @returns `refused` when the role may not write the ledger
 * @throws SlotInUseError when the slot or a publication was changed, or taken by another instance, since it was prepared: the
 * session is to be begun again, and the change will be judged
 */
export async function claimSlot(
  control: Sql,
  {
    slot,
    databaseRef,
    prepared,
  }: { readonly slot: string; readonly databaseRef: string; readonly prepared: PreparedSlot },
): Promise<'written' | 'refused'> {
  const place = { database: databaseRef, slot };
  const { ledger, foundLedger, confirmedFlushLsn, publications, serverMajor } = prepared;
  const present = await readSlot(control, slot, serverMajor);
  refuseChanged(present?.confirmedFlushLsn !== confirmedFlushLsn, place);
  const oids = await readPublicationOids(
    control,
    publications.map(({ name }) => name),
  );
  refuseChanged(
    publications.some(({ name, oid }) => oids.get(name) !== oid),
    place,
  );
  const outcome = await writeLedger(control, { slot, ledger, replaces: foundLedger });
  if (outcome === 'superseded') refuseChanged(true, place);
  return outcome === 'refused' ? 'refused' : 'written';
}

function refuseChanged(isChanged: boolean, place: ErrorPlace): void {
  if (!isChanged) return;
  // Another instance most probably: the next attempt finds it, and stands by.
  throw new SlotInUseError(
    'Cannot use slot: somebody changed it, its ledger or its publications while it was prepared',
    {
      place,
      advice: 'Nothing is to be done: it is prepared again',
    },
  );
}

function slotInUseError(place: ErrorPlace): SlotInUseError {
  return new SlotInUseError('Cannot prepare slot: another process has it', { place });
}

/** A publication that the slot was not streamed with until now, and that is older than where the slot stands. */
function warnOfPassedRows(
  publications: readonly PreparedPublication[],
  {
    last,
    confirmedFlushLsn,
    log,
  }: { readonly last: SlotLedger; readonly confirmedFlushLsn: Lsn; readonly log: SetupRequest['log'] },
): void {
  for (const { name, oid, createdAtLsn } of publications) {
    if (last.left.get(name)?.oid === oid) continue;
    if (last.publicationOids.has(name) || createdAtLsn === undefined || createdAtLsn >= confirmedFlushLsn) continue;
    log.warn(
      { namespace: name, fromLsn: formatLsn(createdAtLsn), toLsn: formatLsn(confirmedFlushLsn) },
      'the slot was not streamed with this namespace until now, although its publication is older: what was written in between is not delivered by this slot',
    );
  }
}

/** Who leaves a namespace out for a while, or for good, has to know what follows. */
function warnOfLeftNamespaces(
  { left }: SlotLedger,
  { last, log }: { readonly last: SlotLedger | undefined; readonly log: SetupRequest['log'] },
): void {
  const names = [...left.keys()].filter((name) => last?.publicationOids.has(name));
  if (names.length === 0) return;
  // One that only moves is in use elsewhere, by this process or another.
  const advice = `For good, unless another slot streams them: DROP PUBLICATION ${names.map(quoteIdentifier).join(', ')};`;
  log.warn(
    { namespaces: names, advice },
    'the slot goes on without namespaces that it was streamed with: what is written meanwhile will be a loss when they come back',
  );
}

/** Nothing on the server tells a new slot from one that was lost together with its ledger: a person can. */
function reportCreation(
  { log }: SetupRequest,
  {
    server,
    isFirst,
    found,
    confirmedFlushLsn,
  }: {
    readonly server: ServerFacts;
    readonly isFirst: boolean;
    readonly found: ReadonlyMap<string, PublicationFacts>;
    readonly confirmedFlushLsn: Lsn;
  },
): void {
  const marked = [...found.values()].filter(({ comment }) => parseCreationComment(comment, server.systemIdentifier));
  // Where an accepted loss really ends.
  const lsn = formatLsn(confirmedFlushLsn);
  if (!isFirst || marked.length === 0) {
    log.info({ confirmedFlushLsn: lsn }, 'created replication slot');
    return;
  }
  log.warn(
    { confirmedFlushLsn: lsn, publications: marked.map(({ name }) => name) },
    'created replication slot although its publications were there before: if there was a slot before, what was written since its last confirmation is not delivered',
  );
}

async function checkServerAndSlot(
  control: Sql,
  server: ServerFacts,
  { place, settings }: { readonly place: ErrorPlace & { readonly slot: string }; readonly settings: SlotSettings },
): Promise<SlotFacts | undefined> {
  // Before the slot is looked at: an old server lacks the columns.
  refuse(serverMistake(server, { slot: false, sender: false }), place);
  const serverMajor = majorOf(server.versionNumber);
  if (settings.failover && serverMajor < FAILOVER_MAJOR) refuse(noFailoverSlots(server.version, place), place);
  const slot = await readSlot(control, place.slot, serverMajor);
  const [row] = await control`SELECT current_database()::text AS name`;
  if (slot !== undefined) refuse(slotMistake(slot, row!.name), place);
  if (slot?.active) throw slotInUseError(place);
  refuse(serverMistake(server, { slot: slot === undefined, sender: true }), place);
  return slot;
}

function noFailoverSlots(version: string, place: ErrorPlace): Mistake {
  return {
    detail: `PostgreSQL ${version} has no failover slots`,
    advice: `Remove slots.${place.database}.${place.slot}.failover from the configuration, or upgrade the server to PostgreSQL ${FAILOVER_MAJOR} or newer`,
  };
}

function checkTables(
  facts: ReadonlyMap<string, TableFacts>,
  { databaseRef, slot, namespaces, publishing, log }: SetupRequest,
  server: ServerFacts,
): NamespaceTables[] {
  const place = { database: databaseRef, slot };
  return namespaces.map((namespace) => {
    for (const table of tableNames([namespace])) {
      refuse(tableMistake(table, facts.get(table)), { ...place, namespace });
    }
    const tables = tablesOf(namespace, facts)!;
    refuse(eventsIdentityMistake(tables.events), { ...place, namespace });
    const { replicaIdentity, publishColumns } = publishing.get(namespace)!;
    if (publishColumns === 'needed') refuse(columnListMistake(server), { ...place, namespace });
    if (replicaIdentity === 'status_index') {
      refuse(statusIndexMistake(namespace, tables.processes), { ...place, namespace });
      if (!hasStatusIndex(tables.processes)) warnOfFullIdentity(tables, log);
    }
    return tables;
  });
}

/** Nothing is lost, and nothing is gained. */
function warnOfFullIdentity({ namespace, processes }: NamespaceTables, log: SetupRequest['log']): void {
  log.warn(
    { namespace, table: processes.name, advice: statusIndexSql(namespace, processes) },
    'replica identity of processes is FULL, although the configuration says status_index: every update still carries its old row',
  );
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
      { abandonedSlot: slot, retainedWalBytes, advice: dropSlotSql(slot) },
      'replication slot is not configured, nobody reads it, and it holds WAL; drop it when it is no longer needed',
    );
  }
}
