/**
 * Start-up of one slot on the PostgreSQL side: checks, publications, slot. One attempt; the caller repeats it. Everything
 * that can be refused is refused before anything is created.
 */
import type { Sql } from 'postgres';
import type { PublishSettings } from '../../config/config.ts';
import { type ErrorPlace, SetupError, SlotInUseError } from '../../errors.ts';
import type { Lsn } from '../../lsn.ts';
import { readPublicationOids, readPublishing } from '../catalog/publications.ts';
import { majorOf, readCurrentLsn, readServer, type ServerFacts } from '../catalog/server.ts';
import { findAbandonedSlots, readSlot, type SlotFacts } from '../catalog/slots.ts';
import {
  hasStatusIndex,
  type NamespaceTables,
  processesTable,
  type TableFacts,
  tableNames,
  tablesOf,
} from '../catalog/tables.ts';
import {
  type ContinuityRequest,
  checkContinuity,
  ledgerContext,
  type SlotSnapshot,
  warnOfAcceptedLoss,
} from '../continuity/check.ts';
import { type Continuity, effectiveLedger } from '../continuity/judge.ts';
import { ledgerName, readLedger, type SlotLedger, writeLedger } from '../continuity/ledger.ts';
import type { Loss } from '../continuity/loss.ts';
import { readOtherReaders } from '../continuity/other-readers.ts';
import { nextOnClaim, nextOnStart } from '../continuity/transitions.ts';
import { findTableHazards, type TableHazard } from '../hazards/table-hazards.ts';
import { tryWalsender } from '../replication/try-walsender.ts';
import { refuseChanged, type SlotClaim } from './claim-slot.ts';
import { createSlot, dropSlot, planSlot, setSlotFailover } from './create-slot.ts';
import { ensurePublication, type PreparedPublication } from './ensure-publication.ts';
import { hazardAdvice } from './hazard-advice.ts';
import {
  encodingMistake,
  eventsIdentityMistake,
  failoverMistake,
  mistakeError,
  POOLER_MISTAKE,
  refuse,
  replicationMistake,
  STANDBY_MISTAKE,
  serverMistake,
  slotMistake,
  tableMistake,
} from './preconditions.ts';
import { columnListMistake, statusIndexMistake } from './replica-identity.ts';
import {
  reportCreation,
  warnOfAbandonedSlot,
  warnOfFullIdentity,
  warnOfLeftNamespaces,
  warnOfPassedRows,
} from './slot-warnings.ts';

/** The slot to prepare, and its settings. */
export interface SetupRequest extends ContinuityRequest {
  /** By namespace: of the same namespaces, in the same order */
  readonly publishing: ReadonlyMap<string, PublishSettings>;
  /** True for a slot that the configuration names */
  readonly isConfiguredSlot: (slot: string) => boolean;
  /** Abandoned slots of which a warning is in the log already; those of this attempt are added */
  readonly warnedSlots: Set<string>;
  /** Called with the slot as it is found, before it is created or changed */
  readonly onSlotSeen: (slot: SlotFacts | undefined) => void;
  /** Asks whether everything could be delivered, before anything is created; returns the reason when it could not */
  readonly whyUndeliverable: () => Promise<Error | undefined>;
  /** Checked between steps; a step in progress ends with its connection */
  readonly signal: AbortSignal;
}

/** A slot that can be streamed from. */
export interface PreparedSlot extends SlotClaim {
  /** Identifies the cluster; another one at the same address has another */
  readonly systemIdentifier: string;
  readonly databaseOid: number;
  /** `server_version_num` */
  readonly serverVersionNumber: number;
  readonly timeline: number;
  /** Of this service, on the server */
  readonly role: string;
  /** Of the server, for this role; 0 = never */
  readonly walSenderTimeoutMs: number;
  /** End of the server's WAL once all of this existed */
  readonly currentLsn: Lsn;
  /** Streaming starts here */
  readonly confirmedFlushLsn: Lsn;
  /** In the order of the request's namespaces */
  readonly publications: readonly PreparedPublication[];
  /** Names of those that replace a known one: what was learned of the former ones is void */
  readonly renewedPublications: readonly string[];
  /** Namespaces that are not published yet are left out, as their records could not be delivered: it holds the slot */
  readonly isPartial: boolean;
}

/** A namespace whose tables can be published, and how. */
interface PublishedNamespace {
  readonly tables: NamespaceTables;
  readonly settings: PublishSettings;
}

/** One attempt, and what the steps before have found. */
interface Attempt {
  readonly request: SetupRequest;
  readonly place: ErrorPlace;
  readonly snapshot: SlotSnapshot;
  readonly continuity: Continuity;
  /** The existing slot, when it can be streamed from; undefined = a slot must be created */
  readonly usableSlot: SlotFacts | undefined;
}

/**
 * Checks everything that replication of this slot needs, creates or changes what it may, and says where streaming starts. To
 * be called when no process holds the slot. What was known of the slot is compared with what exists before anything is
 * created.
 *
 * @throws SetupError with cause and remedy where a precondition does not hold; LossError where changes are lost that the
 * settings do not accept; SlotInUseError where another process holds the slot; and what driver and server raise
 */
export async function prepareSlot(control: Sql, request: SetupRequest): Promise<PreparedSlot> {
  const place = { database: request.databaseRef, slot: request.slot };
  request.signal.throwIfAborted();
  const snapshot = await readSnapshot(control, request, { place, mayBeHeld: false });
  const continuity = await checkContinuity(control, request, snapshot);
  const namespaces = requireTables(snapshot, request, place);
  await warnOfAbandonedSlots(control, request);

  // Nothing is refused from here on except what has changed meanwhile.
  const mustReplace = continuity.verdict === 'loss' && continuity.loss.needsNewSlot;
  const usableSlot = mustReplace ? undefined : snapshot.slot;
  const attempt: Attempt = { request, place, snapshot, continuity, usableSlot };
  const prepared = mustCreate(attempt) ? await selectDeliverable(attempt, namespaces) : namespaces;
  request.signal.throwIfAborted();
  const publications = await ensurePublications(control, attempt, prepared);
  request.signal.throwIfAborted();
  const storedLedger = await ensureSlot(control, attempt);
  const confirmedFlushLsn = await verifySlot(control, attempt);
  const renewed = verifyPublications(publications, attempt);
  reportLosses(attempt, { publications, renewed, confirmedFlushLsn });
  const nextLedger = await startLedger(control, attempt, { storedLedger, confirmedFlushLsn, publications });
  const { server, timeline } = snapshot;
  return {
    systemIdentifier: server.systemIdentifier,
    databaseOid: server.databaseOid,
    serverVersionNumber: server.versionNumber,
    timeline,
    serverMajor: majorOf(server.versionNumber),
    role: server.role,
    walSenderTimeoutMs: server.walSenderTimeoutMs,
    currentLsn: await readCurrentLsn(control),
    confirmedFlushLsn,
    publications,
    renewedPublications: renewed.map(({ name }) => name),
    isPartial: prepared.length < namespaces.length,
    storedLedger,
    nextLedger,
  };
}

/**
 * Checks, without changing anything, what `prepareSlot` would refuse, while another process holds the slot.
 * @throws SetupError, and what driver and server raise
 */
export async function rehearseSlot(control: Sql, request: SetupRequest): Promise<void> {
  const place = { database: request.databaseRef, slot: request.slot };
  const snapshot = await readSnapshot(control, request, { place, mayBeHeld: true });
  requireTables(snapshot, request, place);
}

/** Reads what the attempt is judged by. @throws SetupError for an unfit server or slot, SlotInUseError for a held slot */
async function readSnapshot(
  control: Sql,
  request: SetupRequest,
  { place, mayBeHeld }: { readonly place: ErrorPlace; readonly mayBeHeld: boolean },
): Promise<SlotSnapshot> {
  const { slot: name, settings, namespaces } = request;
  const server = await readServer(control);
  // Before the slot is read: an old server lacks the columns.
  refuse(serverMistake(server, { slot: false, sender: false }), place);
  if (server.timeline === undefined) throw mistakeError(STANDBY_MISTAKE, place);
  if (settings.failover) refuse(failoverMistake(server, place), place);
  const serverMajor = majorOf(server.versionNumber);
  // Before the slot, which is created before its ledger: a slot that another process creates at this moment is not one that
  // a ledger knows and that is gone.
  const stored = await readLedger(control, name);
  const slot = await readSlot(control, name, serverMajor);
  if (slot !== undefined) refuse(slotMistake(slot, server.database), place);
  if (slot?.active && !mayBeHeld) throw slotInUseError(place);
  // The holder of the slot has a walsender, which its successor takes over.
  refuse(serverMistake(server, { slot: slot === undefined, sender: !slot?.active }), place);
  request.onSlotSeen(slot);
  const publishing = await readPublishing(control, namespaces, serverMajor);
  return { server, timeline: server.timeline, slot, stored, ...publishing };
}

/** An ordinary start finds all of it, and opens its walsender at once. */
function mustCreate({ request, snapshot, usableSlot }: Attempt): boolean {
  return usableSlot === undefined || request.namespaces.some((name) => !snapshot.publications.has(name));
}

/**
 * Before anything is created: publications and a slot that nothing streams from would hold WAL, and every row after the
 * creation of a publication is owed.
 * @returns the namespaces to prepare; while their records cannot be delivered, those that are published already, so that the
 * slot is held
 * @throws SetupError, and what keeps the records from delivery when there is nothing to hold
 */
async function selectDeliverable(
  { request, place, snapshot, continuity, usableSlot }: Attempt,
  namespaces: readonly PublishedNamespace[],
): Promise<readonly PublishedNamespace[]> {
  await requireWalsender(request, snapshot.server, place);
  const reason = await request.whyUndeliverable();
  if (reason === undefined) return namespaces;
  const published = namespaces.filter(({ tables }) => snapshot.publications.has(tables.namespace));
  if (usableSlot === undefined || continuity.verdict === 'loss' || published.length === 0) throw reason;
  return published;
}

/** A server that lets this role stream, without a pooler in between. @throws SetupError */
async function requireWalsender(
  { endpoint, slot }: SetupRequest,
  server: ServerFacts,
  place: ErrorPlace,
): Promise<void> {
  const refusal = await tryWalsender(endpoint, slot);
  if (refusal === undefined) return;
  const mistake = refusal.reason === 'pooler' ? POOLER_MISTAKE : replicationMistake(server);
  throw mistakeError(mistake, place, refusal.cause);
}

/** The tables of every namespace. @throws SetupError when a table is missing or cannot be published */
function requireTables(
  snapshot: SlotSnapshot,
  { publishing, log }: SetupRequest,
  slotPlace: ErrorPlace,
): PublishedNamespace[] {
  const { server, tables: facts } = snapshot;
  const hazards = hazardsOfPreparation(publishing, snapshot);
  return Array.from(publishing, ([namespace, settings]) => {
    const place = { ...slotPlace, namespace };
    refuse(encodingMistake(server, namespace), place);
    for (const table of tableNames([namespace])) refuse(tableMistake(table, facts.get(table)), place);
    const tables = tablesOf(namespace, facts)!; // neither is missing
    refuse(eventsIdentityMistake(tables.events), place);
    const hazard = hazards.find((one) => one.namespace === namespace);
    refuse(hazard && { ...hazard, advice: hazardAdvice(hazard), isHazard: true }, place);
    if (settings.publishColumns === 'needed') refuse(columnListMistake(server), place);
    if (settings.replicaIdentity === 'status_index') {
      refuse(statusIndexMistake(namespace, tables.processes), place);
      if (!hasStatusIndex(tables.processes)) warnOfFullIdentity(tables, log);
    }
    return { tables, settings };
  });
}

/**
 * What would hide rows, and what would make PostgreSQL refuse progressor's statements once the preparation has created a
 * publication or set a replica identity. What is refused already is no reason to stop: the watch of the stream warns of it.
 */
function hazardsOfPreparation(
  publishing: SetupRequest['publishing'],
  { publications, tables, others }: SlotSnapshot,
): TableHazard[] {
  const willBeFull = new Set(
    [...publishing]
      .filter(([, { replicaIdentity }]) => replicaIdentity === 'full')
      .map(([name]) => processesTable(name)),
  );
  const hasFullIdentity = ({ name, replicaIdentity }: TableFacts) => replicaIdentity === 'f' || willBeFull.has(name);
  const isAltered = ({ namespace, table }: TableHazard) => {
    const facts = tables.get(table)!;
    return hasFullIdentity(facts) && (!publications.has(namespace) || facts.replicaIdentity !== 'f');
  };
  return findTableHazards([...publishing.keys()], { publications, tables, others }, hasFullIdentity).filter(
    (hazard) => hazard.effect === 'hides_rows' || (hazard.effect === 'refuses_updates' && isAltered(hazard)),
  );
}

async function warnOfAbandonedSlots(control: Sql, request: SetupRequest): Promise<void> {
  const { isConfiguredSlot, warnedSlots } = request;
  const isKnown = (slot: string) => isConfiguredSlot(slot) || warnedSlots.has(slot);
  const abandoned = await findAbandonedSlots(control, isKnown);
  if (abandoned.length === 0) return;
  const names = abandoned.map(({ slot }) => ledgerName(slot));
  const ledgers = await readPublicationOids(control, names);
  for (const one of abandoned) {
    warnedSlots.add(one.slot);
    warnOfAbandonedSlot(one, ledgers.has(ledgerName(one.slot)), request.log);
  }
}

async function ensurePublications(
  control: Sql,
  { request, place, snapshot, usableSlot }: Attempt,
  namespaces: readonly PublishedNamespace[],
): Promise<PreparedPublication[]> {
  const { log, signal } = request;
  const slotExists = usableSlot !== undefined;
  const otherReaders = await readOtherReaders(control, request.isConfiguredSlot);
  const publications: PreparedPublication[] = [];
  for (const { tables, settings } of namespaces) {
    const context = { server: snapshot.server, settings, otherReaders, slotExists, place, log, signal };
    publications.push(await ensurePublication(control, tables, context));
  }
  return publications;
}

/** Creates, replaces or changes the slot where needed. @returns the ledger that is stored now */
async function ensureSlot(control: Sql, attempt: Attempt): Promise<SlotLedger | undefined> {
  const { request, place, snapshot, continuity } = attempt;
  const { slot, settings, endpoint, log } = request;
  const { server, stored } = snapshot;
  const mustReplace = continuity.verdict === 'loss' && continuity.loss.needsNewSlot;
  const plan = planSlot(slot, { existing: snapshot.slot, mustReplace, settings, role: server.role });
  let storedNow = stored;
  if (plan.drop !== undefined && continuity.verdict === 'loss') {
    // Several processes may have accepted the loss: one of them drops the slot, the others find a good one when they retry.
    storedNow = await claimLoss(control, continuity.loss, attempt);
    refuseChanged(!(await dropSlot(control, plan.drop)), place);
  }
  if (plan.create !== undefined) {
    await createSlot(control, plan.create, { place, maxReplicationSlots: server.maxReplicationSlots });
  }
  if (plan.setFailover !== undefined) {
    await setSlotFailover(endpoint, slot, plan.setFailover);
    log.info({ event: 'slot_failover_enabled' }, 'standbys keep a copy of the replication slot from now on');
  }
  return storedNow;
}

/** Writes down the loss before its slot is dropped. @returns the ledger that is stored then */
async function claimLoss(
  control: Sql,
  loss: Loss,
  { request, place, snapshot }: Attempt,
): Promise<SlotLedger | undefined> {
  const claim = nextOnClaim(loss, ledgerContext(request, snapshot));
  const outcome = await writeLedger(control, { slot: request.slot, ledger: claim, replaces: snapshot.stored });
  refuseChanged(outcome === 'superseded', place);
  return outcome === 'written' ? claim : snapshot.stored;
}

/** The position of the slot as it is now. @throws SetupError, SlotInUseError when it is not as it was compared or created */
async function verifySlot(control: Sql, attempt: Attempt): Promise<Lsn> {
  const { request, place, snapshot, continuity, usableSlot } = attempt;
  const slot = await readSlot(control, request.slot, majorOf(snapshot.server.versionNumber));
  if (slot?.active) throw slotInUseError(place);
  if (slot?.confirmedFlushLsn === undefined) {
    throw new SetupError('Cannot prepare slot: it was dropped or invalidated meanwhile', {
      code: 'slot_vanished',
      place,
      advice: 'Nothing to do: the service prepares it again, and judges what happened',
      mayPass: true,
    });
  }
  const { confirmedFlushLsn } = slot;
  if (usableSlot === undefined) {
    reportCreation(snapshot, { isFirst: continuity.verdict === 'first', confirmedFlushLsn }, request.log);
  } else {
    refuseChanged(usableSlot.confirmedFlushLsn !== confirmedFlushLsn, place);
  }
  return confirmedFlushLsn;
}

/**
 * Those of the publications that replace a known one.
 * @throws SlotInUseError when one that was compared has been replaced since
 */
function verifyPublications(
  publications: readonly PreparedPublication[],
  { request, place, snapshot }: Attempt,
): PreparedPublication[] {
  const effective = effectiveLedger({ remembered: request.remembered, stored: snapshot.stored });
  const isReplaced = publications.some(({ name, oid }) => {
    const compared = snapshot.publications.get(name);
    return effective?.publicationOids.has(name) && compared !== undefined && compared.oid !== oid;
  });
  refuseChanged(isReplaced, place);
  return publications.filter(({ name, oid }) => {
    const formerOid = effective?.publicationOids.get(name) ?? effective?.left.get(name)?.oid;
    return formerOid !== undefined && formerOid !== oid;
  });
}

function reportLosses(
  { request, snapshot, continuity, usableSlot }: Attempt,
  {
    publications,
    renewed,
    confirmedFlushLsn,
  }: {
    readonly publications: readonly PreparedPublication[];
    readonly renewed: readonly PreparedPublication[];
    readonly confirmedFlushLsn: Lsn;
  },
): void {
  const { remembered, log } = request;
  if (continuity.verdict === 'loss') {
    const startLsns = renewed.map(({ createdAtLsn }) => createdAtLsn).filter((lsn) => lsn !== undefined);
    warnOfAcceptedLoss(continuity.loss, usableSlot === undefined ? [...startLsns, confirmedFlushLsn] : startLsns, log);
  }
  const effective = effectiveLedger({ remembered, stored: snapshot.stored });
  if (usableSlot !== undefined && effective !== undefined) {
    warnOfPassedRows(publications, { effective, confirmedFlushLsn }, log);
  }
}

/** The ledger to write when the slot is taken; for a new slot, and for a namespace that is new to it, it is written at once. */
async function startLedger(
  control: Sql,
  { request, place, snapshot, continuity, usableSlot }: Attempt,
  {
    storedLedger,
    confirmedFlushLsn,
    publications,
  }: Pick<PreparedSlot, 'storedLedger' | 'confirmedFlushLsn' | 'publications'>,
): Promise<SlotLedger> {
  const { slot, remembered, log } = request;
  const next = nextOnStart(continuity, ledgerContext(request, { ...snapshot, stored: storedLedger }), {
    confirmedFlushLsn,
    publicationOids: new Map(publications.map(({ name, oid }) => [name, oid])),
    entryOids: new Map(publications.map(({ name, entryOids }) => [name, entryOids])),
  });
  warnOfLeftNamespaces(next, effectiveLedger({ remembered, stored: snapshot.stored }), log);
  const isNew = publications.some(
    ({ name, oid }) => !storedLedger?.publicationOids.has(name) && storedLedger?.left.get(name)?.oid !== oid,
  );
  if (usableSlot === undefined || isNew) {
    // Changes are owed from now on, even if Kafka lets no process take the slot for a long time, or the namespace leaves the
    // configuration before it is streamed. A role that may not write the ledger is reported when the slot is taken.
    const closed = usableSlot !== undefined && storedLedger?.closed === true;
    const outcome = await writeLedger(control, { slot, ledger: { ...next, closed }, replaces: storedLedger });
    refuseChanged(outcome === 'superseded', place);
  }
  return next;
}

function slotInUseError(place: ErrorPlace): SlotInUseError {
  return new SlotInUseError('Cannot prepare slot: another process holds it', {
    code: 'slot_in_use',
    place,
    advice: 'Nothing to do: the service waits until the slot is free',
  });
}
