/**
 * Compares a slot with what was known of it, before anything is created or changed. `judge.ts` decides; here are the
 * reading, the error, and the acceptance of a loss.
 */
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import type { DatabaseEndpoint, SlotSettings } from '../../config/config.ts';
import { formatLsn, type Lsn, laterLsn } from '../../lsn.ts';
import { createdAtLsn, entriesOf, type PublicationFacts, type PublishingFacts } from '../catalog/publications.ts';
import { readCurrentLsn, type ServerFacts } from '../catalog/server.ts';
import type { SlotFacts } from '../catalog/slots.ts';
import { tablesOf } from '../catalog/tables.ts';
import { describeOmissions } from '../hazards/publication-hazards.ts';
import { type Continuity, judgeContinuity, type PublicationOrigin } from './judge.ts';
import { type SlotLedger, writeLedger } from './ledger.ts';
import { type Loss, lossError, wrongServerError } from './loss.ts';
import { readTimelineHistory } from './timeline.ts';
import { type LedgerContext, nextOnLoss } from './transitions.ts';

/** The slot to check, and what is known of it. */
export interface ContinuityRequest {
  /** db_ref of the configuration */
  readonly databaseRef: string;
  /** The server of the control connection, for commands that need a replication connection */
  readonly endpoint: DatabaseEndpoint;
  readonly slot: string;
  readonly settings: SlotSettings;
  readonly namespaces: readonly string[];
  /** Id of this process in ledgers */
  readonly instance: string;
  /** Of this process: `configurationId` */
  readonly configuration: string;
  /** What this process knows from its last session: its `PreparedSlot.nextLedger`, with what it has confirmed since */
  readonly remembered: SlotLedger | undefined;
  /** The server refused the last attempt to write the ledger */
  readonly isLedgerRefused: boolean;
  /** Binds database and slot already */
  readonly log: Logger;
}

/** The slot and everything that it depends on, as found on the server before anything is created or changed. */
export interface SlotSnapshot extends PublishingFacts {
  readonly server: ServerFacts;
  /** Of `server`: the snapshot of a standby is refused before */
  readonly timeline: number;
  /** Undefined = it does not exist */
  readonly slot: SlotFacts | undefined;
  readonly stored: SlotLedger | undefined;
}

/**
 * Compares what was known with what exists.
 * @throws LossError unless the settings accept the loss, SourceError when the server is a former primary
 */
export async function checkContinuity(
  control: Sql,
  request: ContinuityRequest,
  snapshot: SlotSnapshot,
): Promise<Continuity> {
  const { server, timeline, stored, publications } = snapshot;
  const { remembered, slot, databaseRef, namespaces, isLedgerRefused } = request;
  const isPromoted = [remembered, stored].some((ledger) => ledger !== undefined && ledger.timeline < timeline);
  const continuity = judgeContinuity({
    remembered,
    stored,
    isLedgerRefused,
    server: {
      systemIdentifier: server.systemIdentifier,
      timeline,
      currentLsn: await readCurrentLsn(control),
      history: isPromoted ? await readTimelineHistory(request.endpoint, { timeline, slot }) : [],
    },
    slot: snapshot.slot,
    namespaces,
    publications: new Map([...publications].map(([name, publication]) => [name, originOf(publication, snapshot)])),
  });
  if (continuity.verdict === 'wrong-server') {
    throw wrongServerError(continuity.knownTimeline, timeline).locate({ database: databaseRef, slot });
  }
  if (continuity.verdict === 'loss') await stopUnlessAccepted(control, request, { loss: continuity.loss, snapshot });
  if (continuity.verdict === 'continues') reportChanges(continuity, request, snapshot);
  return continuity;
}

function originOf(publication: PublicationFacts, { server, tables }: SlotSnapshot): PublicationOrigin {
  const namespaceTables = tablesOf(publication.name, tables);
  return {
    oid: publication.oid,
    createdAtLsn: createdAtLsn(publication, server),
    entries: entriesOf(publication, tables),
    // A publication leaves nothing out of a table that does not exist; the preparation refuses a missing table later.
    omissions: namespaceTables === undefined ? [] : describeOmissions(publication, namespaceTables),
  };
}

async function stopUnlessAccepted(
  control: Sql,
  request: ContinuityRequest,
  { loss, snapshot }: { readonly loss: Loss; readonly snapshot: SlotSnapshot },
): Promise<void> {
  const { slot, settings, log } = request;
  if (settings.acceptLossAfterLsn === loss.fromLsn) return;
  const next = nextOnLoss(loss, ledgerContext(request, snapshot));
  if (next !== undefined) {
    await writeLedger(control, { slot, ledger: next, replaces: snapshot.stored }).catch((error: unknown) =>
      log.warn({ event: 'ledger_write_failed', error }, 'cannot write the slot ledger'),
    );
  }
  throw lossError(loss, request);
}

function reportChanges(
  { timelineChanged, movedFromLsn }: Continuity & { readonly verdict: 'continues' },
  { log }: ContinuityRequest,
  { slot }: SlotSnapshot,
): void {
  if (timelineChanged !== undefined) {
    const message = 'the server was promoted, the slot continues at its position';
    const advice = slot?.failover ? formerPrimaryAdvice(slot.name) : undefined;
    const facts = { event: 'timeline_changed', ...timelineChanged, advice };
    if (advice === undefined) log.info(facts, message);
    else log.warn(facts, message);
  }
  if (movedFromLsn !== undefined && slot?.confirmedFlushLsn !== undefined) {
    log.warn(
      { event: 'slot_moved', ourLsn: formatLsn(movedFromLsn), slotLsn: formatLsn(slot.confirmedFlushLsn) },
      'the slot was advanced by another program or recreated, and without a ledger nothing shows which: this process did not deliver what was committed in between',
    );
  }
}

/** A slot that the former primary keeps goes on from its old position after a fail-back. */
function formerPrimaryAdvice(slot: string): string {
  return `On the former primary, before it may be promoted again: SELECT pg_drop_replication_slot('${slot}');`;
}

/**
 * Logs what is lost by an accepted loss. To be called when slot and publications are final: until then the end of the loss
 * moves on.
 * @param startLsns where the recreated slot and each recreated publication start
 */
export function warnOfAcceptedLoss(
  { fromLsn, toLsn, details }: Pick<Loss, 'fromLsn' | 'toLsn' | 'details'>,
  startLsns: readonly Lsn[],
  log: Logger,
): void {
  const endLsn = toLsn && startLsns.reduce(laterLsn, toLsn);
  log.warn(
    {
      event: 'loss_accepted',
      details,
      fromLsn: formatLsn(fromLsn),
      toLsn: endLsn === undefined ? undefined : formatLsn(endLsn),
    },
    'continuing without the lost changes, as accept_loss_after allows',
  );
}

/** What the next ledger is made from. */
export function ledgerContext(
  { remembered, instance, configuration }: Pick<ContinuityRequest, 'remembered' | 'instance' | 'configuration'>,
  { server, timeline, stored }: Pick<SlotSnapshot, 'server' | 'timeline' | 'stored'>,
): LedgerContext {
  return { remembered, stored, systemIdentifier: server.systemIdentifier, timeline, instance, configuration };
}
