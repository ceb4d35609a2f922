/**
 * Whether a stream continues where it stopped. Start-up creates whatever is missing. On its own that would hide data loss: a
 * dropped slot would simply be recreated. So what was known of the slot is compared with what exists, before anything is
 * created. Pure.
 *
 * What is known comes from the process, which remembers exactly what it confirmed, or from the slot ledger on the server.
 * Neither shows everything:
 * - A process that crashed left an open ledger. A slot at a later position than this ledger was advanced by that process, or
 *   dropped and recreated since: nothing on the server tells one from the other, unless a promotion lies in between.
 * - What Kafka holds and a new primary lacks is known to the process that delivered it, but not to one that starts later with
 *   the ledger of the new primary.
 * - Without the right to write a ledger, and on a server that never had one, a new process knows nothing.
 */
import { earlierLsn, formatLsn, type Lsn, laterLsn } from '../../lsn.ts';
import type { PublicationEntries } from '../catalog/publications.ts';
import { isInvalidated, type SlotFacts } from '../catalog/slots.ts';
import { quoteIdentifier } from '../client/quote.ts';
import { describeEntries } from '../hazards/publication-hazards.ts';
import { ALTERED_OID, type LeftPublication, type SlotLedger } from './ledger.ts';
import type { Loss } from './loss.ts';
import { sharedUpTo, type TimelineSwitch } from './timeline.ts';

/** What is compared. */
export interface ContinuityFacts {
  /** What this process knows from its last session; exact even if it is not `closed`. Undefined before the first */
  readonly remembered: SlotLedger | undefined;
  /** The ledger on the server */
  readonly stored: SlotLedger | undefined;
  /** The role may not write ledgers, so that neither this process nor others with the role have left one */
  readonly isLedgerRefused: boolean;
  readonly server: {
    readonly systemIdentifier: string;
    readonly timeline: number;
    readonly currentLsn: Lsn;
    /** Of its timeline; needed when a ledger has an older timeline */
    readonly history: readonly TimelineSwitch[];
  };
  readonly slot: SlotFacts | undefined;
  /** Of the configuration */
  readonly namespaces: readonly string[];
  /** Those that exist, by name */
  readonly publications: ReadonlyMap<string, PublicationOrigin>;
}

/** The identity and contents of the publication that has a name now. */
export interface PublicationOrigin {
  readonly oid: number;
  /** Undefined for one that an operator created */
  readonly createdAtLsn: Lsn | undefined;
  readonly entries: PublicationEntries;
  /** What it leaves out of its namespace's changes (`describeOmissions`) */
  readonly omissions: readonly string[];
}

/**
 * - `first`: nothing is known of this slot
 * - `continues`: it is where it was left, or nothing shows that it is not
 * - `loss`: it is not
 * - `wrong-server`: the server is on an older timeline than the one that was followed: a former primary
 */
export type Continuity =
  | { readonly verdict: 'first' }
  | {
      readonly verdict: 'continues';
      /** Everything before it was confirmed, and the server still has the WAL of it */
      readonly confirmedLsn: Lsn;
      /** The server was promoted since */
      readonly timelineChanged: { readonly from: number; readonly to: number } | undefined;
      /** The slot was moved from here, and without ledgers nothing shows by which process */
      readonly movedFromLsn: Lsn | undefined;
    }
  | { readonly verdict: 'loss'; readonly loss: Loss }
  | { readonly verdict: 'wrong-server'; readonly knownTimeline: number };

/**
 * The ledger that holds. The stored one of another instance overrides what this process remembers when that instance started
 * where this process had stopped, or before: it has streamed the rest.
 */
export function effectiveLedger({
  remembered,
  stored,
}: Pick<ContinuityFacts, 'remembered' | 'stored'>): SlotLedger | undefined {
  if (remembered === undefined || stored === undefined) return remembered ?? stored;
  const isNewer =
    stored.revision > remembered.revision ||
    (stored.revision === remembered.revision && stored.instance !== remembered.instance);
  const continues =
    stored.systemIdentifier === remembered.systemIdentifier && stored.fromLsn <= remembered.confirmedLsn;
  return isNewer && continues ? stored : remembered;
}

/** Judges everything together, so that one acceptance covers all that one event caused. */
export function judgeContinuity(facts: ContinuityFacts): Continuity {
  const { remembered, server, slot } = facts;
  const effective = effectiveLedger(facts);
  if (effective === undefined) {
    const unusable = unusableLosses(slot, server.currentLsn, 0n);
    return unusable.length === 0 ? { verdict: 'first' } : { verdict: 'loss', loss: joinReasons(unusable, []) };
  }
  if (effective.systemIdentifier !== server.systemIdentifier) {
    return { verdict: 'loss', loss: joinReasons([replacedServerLoss(effective, facts)], [effective]) };
  }
  const ledgers: readonly [SlotLedger, ...SlotLedger[]] =
    remembered === undefined || remembered === effective ? [effective] : [remembered, effective];
  const newest = Math.max(...ledgers.map(({ timeline }) => timeline));
  if (newest > server.timeline) return { verdict: 'wrong-server', knownTimeline: newest };

  const shared = sharedLedger(effective, server);
  const isExact = effective === remembered || effective.closed;
  const publications = publicationLosses(facts, shared);
  const moved = movedLoss(shared, { slot, isExact }) ?? recreatedLoss(effective, { slot, server });
  const isExplained = moved === undefined || !(effective === remembered && facts.isLedgerRefused);
  const reasons = [
    ...ledgers.flatMap((ledger) => divergedLoss(ledger, facts) ?? []),
    ...(slot === undefined ? [missingLoss(shared, server.currentLsn)] : []),
    ...unusableLosses(slot, server.currentLsn, shared.confirmedLsn),
    ...(moved !== undefined && isExplained && !publications.some((loss) => includes(loss, moved)) ? [moved] : []),
    ...publications,
  ];
  if (reasons.length > 0) return { verdict: 'loss', loss: joinReasons(reasons, ledgers) };
  const [{ timeline }] = ledgers;
  return {
    verdict: 'continues',
    confirmedLsn: earlierLsn(shared.confirmedLsn, server.currentLsn),
    timelineChanged: timeline === server.timeline ? undefined : { from: timeline, to: server.timeline },
    movedFromLsn: isExplained ? undefined : shared.confirmedLsn,
  };
}

/** One reason for a loss. */
interface LossReason {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn | undefined;
  readonly detail: string;
  readonly needsNewSlot?: boolean;
  readonly isSetBack?: boolean;
  /** Namespace whose publication was altered */
  readonly altered?: string;
}

/** @param ledgers when all of them have a loss at the same LSN accepted already, this is another loss there */
function joinReasons(reasons: readonly LossReason[], ledgers: readonly SlotLedger[]): Loss {
  const start = reasons.map(({ fromLsn }) => fromLsn).reduce(earlierLsn);
  const isTaken = ledgers.length > 0 && ledgers.every(({ acceptedLsn }) => acceptedLsn === start);
  const ends = reasons.map(({ toLsn }) => toLsn);
  return {
    fromLsn: isTaken ? start + 1n : start,
    toLsn: ends.reduce((one, other) => (one === undefined || other === undefined ? undefined : laterLsn(one, other))),
    details: [...new Set(reasons.map(({ detail }) => detail))],
    needsNewSlot: reasons.some(({ needsNewSlot }) => needsNewSlot),
    ...(reasons.some(({ isSetBack }) => isSetBack) ? { isSetBack: true } : {}),
    altered: reasons.flatMap(({ altered }) => altered ?? []),
  };
}

/** Positions of two servers cannot be compared: nothing more can be said about the loss. */
function replacedServerLoss(effective: SlotLedger, { server, slot }: ContinuityFacts): LossReason {
  return {
    fromLsn: effective.confirmedLsn,
    toLsn: undefined,
    detail: `the server is another one, with system identifier ${server.systemIdentifier} in place of ${effective.systemIdentifier}`,
    needsNewSlot: unusableLosses(slot, server.currentLsn, 0n).length > 0,
  };
}

/**
 * The server's WAL does not hold what was delivered: it is another branch of it, or an older copy of the server. The
 * confirmed position may be later than that, up to where the WAL once ended: WAL without a record may be missing.
 */
function divergedLoss(ledger: SlotLedger, { server, stored }: ContinuityFacts): LossReason | undefined {
  const { deliveredLsn } = ledger;
  const delivered = formatLsn(deliveredLsn);
  const consequence = `before ${delivered}, up to which changes were delivered: Kafka holds changes that the database has lost`;
  if (ledger.timeline === server.timeline) {
    const isPassed = deliveredLsn <= server.currentLsn;
    if (isPassed && ledger.isSetBack !== true) return undefined;
    const end = isPassed ? 'its WAL ended' : `its WAL ends at ${formatLsn(server.currentLsn)},`;
    const detail = `the server was restored to an earlier state: ${end} ${consequence}`;
    // The server writes its WAL again from where it was set back to, which is not known: the ledger that came with it was
    // confirmed before that. The WAL's end is no beginning: it moves on with every attempt, and could not be accepted.
    const fromLsn = earlierLsn(deliveredLsn, stored?.confirmedLsn ?? deliveredLsn);
    return { fromLsn, toLsn: laterLsn(deliveredLsn, server.currentLsn), detail, isSetBack: true };
  }
  const { lsn, isAncestor } = sharedUpTo(server.history, ledger.timeline);
  if (isAncestor && deliveredLsn <= lsn) return undefined;
  const detail = isAncestor
    ? `the server was promoted: its timeline ${server.timeline} left timeline ${ledger.timeline} at ${formatLsn(lsn)}, ${consequence}`
    : `the server was promoted: its timeline ${server.timeline} does not descend from timeline ${ledger.timeline}, which was delivered up to ${delivered}`;
  return { fromLsn: earlierLsn(lsn, deliveredLsn), toLsn: deliveredLsn, detail };
}

/** The ledger for the WAL that the server has: what the server writes after the fork was never confirmed. */
function sharedLedger(ledger: SlotLedger, server: ContinuityFacts['server']): SlotLedger {
  if (ledger.timeline === server.timeline) return ledger;
  const { lsn } = sharedUpTo(server.history, ledger.timeline);
  return { ...ledger, confirmedLsn: earlierLsn(ledger.confirmedLsn, lsn) };
}

function missingLoss({ confirmedLsn }: SlotLedger, currentLsn: Lsn): LossReason {
  const detail = 'the replication slot does not exist any more';
  return { fromLsn: confirmedLsn, toLsn: laterLsn(currentLsn, confirmedLsn), detail };
}

/** A slot without its WAL, and one at a position that the WAL has not reached: it would skip what is written until then. */
function unusableLosses(slot: SlotFacts | undefined, currentLsn: Lsn, confirmedLsn: Lsn): LossReason[] {
  if (slot === undefined) return [];
  const position = slot.confirmedFlushLsn ?? 0n;
  if (isInvalidated(slot)) {
    const reason = slot.invalidationReason === undefined ? '' : ` (${slot.invalidationReason})`;
    const fromLsn = laterLsn(position, confirmedLsn);
    const detail = `the server has invalidated the slot${reason}, and has removed what was to be streamed`;
    return [{ fromLsn, toLsn: laterLsn(currentLsn, fromLsn), detail, needsNewSlot: true }];
  }
  if (position <= currentLsn) return [];
  const detail =
    `the slot is at ${formatLsn(position)}, past the end of the server's WAL (${formatLsn(currentLsn)}): ` +
    'the server was restored to an earlier state, its slot was not';
  return [{ fromLsn: currentLsn, toLsn: position, detail, needsNewSlot: true }];
}

/** A process that streams leaves a ledger for what it confirmed; this exact ledger does not show that the slot moved. */
function movedLoss(
  { confirmedLsn }: SlotLedger,
  { slot, isExact }: { readonly slot: SlotFacts | undefined; readonly isExact: boolean },
): LossReason | undefined {
  const position = slot?.confirmedFlushLsn;
  if (position === undefined || !isExact || position <= confirmedLsn) return undefined;
  const detail =
    `the slot is at ${formatLsn(position)}, but this service last confirmed ${formatLsn(confirmedLsn)}: ` +
    'it was advanced by another program, or dropped and recreated';
  return { fromLsn: confirmedLsn, toLsn: position, detail };
}

/**
 * The slot stands on WAL that the server wrote after its promotion. A process that streams this timeline writes a ledger of
 * it before it confirms anything, so none has: the slot was created on this server, as Patroni does, or advanced.
 */
function recreatedLoss(
  ledger: SlotLedger,
  { slot, server }: Pick<ContinuityFacts, 'slot' | 'server'>,
): LossReason | undefined {
  if (ledger.timeline === server.timeline) return undefined;
  const { lsn: forkLsn } = sharedUpTo(server.history, ledger.timeline);
  const position = slot?.confirmedFlushLsn;
  if (position === undefined || position <= forkLsn) return undefined;
  const detail =
    `the slot is at ${formatLsn(position)}, on WAL that the server wrote after its promotion at ${formatLsn(forkLsn)}, and this ` +
    `service has not streamed timeline ${server.timeline} yet: the slot was recreated on the promoted server, or advanced by another program`;
  return { fromLsn: earlierLsn(ledger.confirmedLsn, forkLsn), toLsn: position, detail };
}

/** The ledger that shows an alteration may begin before the slot's position, which then is no news. */
function includes(outer: LossReason, inner: LossReason): boolean {
  const { fromLsn, toLsn } = outer;
  return fromLsn <= inner.fromLsn && toLsn !== undefined && inner.toLsn !== undefined && toLsn >= inner.toLsn;
}

function publicationLosses(facts: ContinuityFacts, shared: SlotLedger): LossReason[] {
  const { slot, namespaces } = facts;
  const position = laterLsn(slot?.confirmedFlushLsn ?? 0n, shared.confirmedLsn);
  return namespaces.flatMap((name) => {
    const oid = shared.publicationOids.get(name);
    const context = { facts, shared, position };
    return (oid === undefined ? leftLoss(name, context) : publicationLoss(name, oid, context)) ?? [];
  });
}

/** What the publications of one attempt are judged by. */
interface PublicationContext {
  readonly facts: ContinuityFacts;
  readonly shared: SlotLedger;
  /** Where the slot, or what is known of it, is */
  readonly position: Lsn;
}

/** The loss of a namespace that the slot was streamed with: its publication was altered, dropped or recreated. */
function publicationLoss(
  name: string,
  oid: number,
  { facts: { server, publications }, shared, position }: PublicationContext,
): LossReason | undefined {
  const present = publications.get(name);
  const publication = `publication ${quoteIdentifier(name)}`;
  const alterations =
    present === undefined
      ? []
      : [...present.omissions, ...describeEntries(present.entries, shared.entryOids.get(name))];
  if (oid === ALTERED_OID || (present?.oid === oid && alterations.length > 0)) {
    const how = alterations.length === 0 ? '' : ` (${alterations.join('; ')})`;
    const detail = `${publication} was altered while it was in use${how}, and some of what it left out may lie before`;
    // The stream went on, and confirmed, between the last look at the publication and the one that found it altered.
    const fromLsn = earlierLsn(position, shared.watchedLsn ?? shared.confirmedLsn);
    return { fromLsn, toLsn: laterLsn(server.currentLsn, position), detail, altered: name };
  }
  if (present?.oid === oid) return undefined;
  const createdAtLsn = present?.createdAtLsn;
  // The server raises an error for any change that it decodes while the publication is missing: there was none.
  if (createdAtLsn !== undefined && createdAtLsn <= position) return undefined;
  const detail = `${publication} was dropped${present === undefined ? '' : ' and recreated'}`;
  return { fromLsn: position, toLsn: laterLsn(createdAtLsn ?? server.currentLsn, position), detail };
}

/** The loss of a namespace that the slot was streamed without for a while. */
function leftLoss(name: string, context: PublicationContext): LossReason | undefined {
  const { facts, position } = context;
  const left = leftPublication(name, context);
  if (left === undefined) return undefined;
  const isSame = left.oid === facts.publications.get(name)?.oid;
  if (left.oid !== ALTERED_OID && (!isSame || left.lsn >= position)) return undefined;
  const detail = `the slot was streamed without namespace ${quoteIdentifier(name)}, although its publication was not dropped`;
  return { fromLsn: left.lsn, toLsn: position, detail };
}

/** Where the slot left a namespace that the effective ledger does not stream; ledgers of older versions do not say. */
function leftPublication(
  name: string,
  { facts: { remembered, server }, shared }: PublicationContext,
): LeftPublication | undefined {
  const oid = remembered?.publicationOids.get(name);
  if (shared.left.has(name) || remembered === undefined || oid === undefined) return shared.left.get(name);
  return { oid, lsn: sharedLedger(remembered, server).confirmedLsn };
}
