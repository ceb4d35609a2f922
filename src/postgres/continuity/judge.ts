/**
 * Whether a stream goes on where it stopped. Start-up makes what is missing, and that would hide a gap: so what was known
 * of the slot is compared with what is there now, before anything is made. All of it is pure.
 *
 * What is known comes from the process, which remembers exactly what it confirmed, or from the slot's ledger on the
 * server. Some things cannot be known by any of the two:
 * - A process that crashed left no last word. A slot that stands farther than its ledger was moved by that process, or was
 *   dropped and made anew since: nothing on the server tells the one from the other.
 * - What Kafka holds and a new primary lacks is known to the process that delivered it, and not to one that starts later
 *   with the ledger of the new primary.
 * - Without the right to write a ledger, and on a server that never had it, a new process knows nothing.
 */
import { LossError, type NotifierError, SourceError } from '../../errors.ts';
import { formatLsn, type Lsn, laterLsn } from '../../lsn.ts';
import { isInvalidated, type SlotFacts } from '../catalog/slots.ts';
import { quoteIdentifier } from '../client/quote.ts';
import { describeEntries, type PublicationEntries } from '../setup/publication-plan.ts';
import { ALTERED_OID, type LeftPublication, type SlotLedger } from './ledger.ts';
import { sharedUpTo, type TimelineSwitch } from './timeline.ts';

/** What is compared. */
export interface ContinuityFacts {
  /** What this process remembers of its last session; exact, whatever `closed` says. Undefined before the first */
  readonly known: SlotLedger | undefined;
  /** What the server has */
  readonly ledger: SlotLedger | undefined;
  /** This role may not write ledgers, so that neither this process nor others of its kind have left one */
  readonly isLedgerRefused: boolean;
  readonly server: {
    readonly systemIdentifier: string;
    readonly timeline: number;
    readonly currentLsn: Lsn;
    /** Of its timeline; needed where an older timeline is known */
    readonly history: readonly TimelineSwitch[];
  };
  readonly slot: SlotFacts | undefined;
  /** Of the configuration */
  readonly namespaces: readonly string[];
  /** Those that exist, by name */
  readonly publications: ReadonlyMap<string, PublicationOrigin>;
}

/** Which publication it is that has this name now. */
export interface PublicationOrigin {
  readonly oid: number;
  /** Undefined for one that a person made */
  readonly createdAtLsn: Lsn | undefined;
  readonly entries: PublicationEntries;
  /** By what it does not publish all changes of its namespace (PublicationPlan) */
  readonly omissions: readonly string[];
}

/** Changes that cannot be streamed any more, for one reason or for several at once. */
export interface Loss {
  /**
   * Where the loss begins. It names the loss when it is accepted, and so it is the same at every attempt; for another loss
   * at a place that was accepted already it is the next byte, which no commit ends at
   */
  readonly fromLsn: Lsn;
  /** Undefined where the end cannot be known */
  readonly toLsn: Lsn | undefined;
  /** What has happened; each completes `Cannot go on behind ...:` */
  readonly details: readonly string[];
  /** The slot is there, and must not be streamed from: whoever accepts the loss wants it made anew */
  readonly needsNewSlot: boolean;
  /** The server was set back before what was delivered, which its WAL will pass */
  readonly isSetBack?: boolean | undefined;
  /** Namespaces whose publications were altered, which a person can undo without a trace */
  readonly altered: readonly string[];
}

/**
 * - `first`: nothing is known of this slot
 * - `goes-on`: it stands where it was left, or nobody can tell that it does not
 * - `loss`: it does not
 * - `wrong-server`: the server is on an older timeline than the one that was followed: a former primary
 */
export type Continuity =
  | { readonly verdict: 'first' }
  | {
      readonly verdict: 'goes-on';
      /** Up to here it was confirmed, and the server still has the WAL of it */
      readonly confirmedLsn: Lsn;
      /** The server was promoted since */
      readonly timelineChanged: { readonly from: number; readonly to: number } | undefined;
      /** Somebody moved the slot from here, and without ledgers nobody can say who */
      readonly movedFromLsn: Lsn | undefined;
    }
  | { readonly verdict: 'loss'; readonly loss: Loss }
  | { readonly verdict: 'wrong-server'; readonly knownTimeline: number };

/**
 * What holds of the two. Another instance that has taken the slot since goes before our memory, when it went on from where
 * we had stopped, or from before that: it has seen to the rest.
 */
export function lastWord({ known, ledger }: Pick<ContinuityFacts, 'known' | 'ledger'>): SlotLedger | undefined {
  if (known === undefined || ledger === undefined) return known ?? ledger;
  const othersWrote =
    ledger.revision > known.revision || (ledger.revision === known.revision && ledger.instance !== known.instance);
  const goesOn = ledger.systemIdentifier === known.systemIdentifier && ledger.fromLsn <= known.confirmedLsn;
  return othersWrote && goesOn ? ledger : known;
}

/** Judges all of it together, so that one acceptance covers what one event has done. */
export function judgeContinuity(facts: ContinuityFacts): Continuity {
  const { known, server, slot } = facts;
  const word = lastWord(facts);
  if (word === undefined) {
    const unusable = unusableLosses(slot, server.currentLsn, 0n);
    return unusable.length === 0 ? { verdict: 'first' } : { verdict: 'loss', loss: joinLosses(unusable, []) };
  }
  if (word.systemIdentifier !== server.systemIdentifier) {
    // Positions of two servers cannot be compared: nothing more can be said.
    const detail = `the server is another one, with system identifier ${server.systemIdentifier} in place of ${word.systemIdentifier}`;
    const needsNewSlot = unusableLosses(slot, server.currentLsn, 0n).length > 0;
    const finding = { fromLsn: word.confirmedLsn, toLsn: undefined, detail, needsNewSlot };
    return { verdict: 'loss', loss: joinLosses([finding], [word]) };
  }
  const words = known === undefined || known === word ? [word] : [known, word];
  const newest = Math.max(...words.map(({ timeline }) => timeline));
  if (newest > server.timeline) return { verdict: 'wrong-server', knownTimeline: newest };

  const last = sharedWord(word, server);
  const moved = movedLoss(last, { slot, isExact: word === known || word.closed });
  const isExplained = moved === undefined || !(word === known && facts.isLedgerRefused);
  const losses = [
    ...words.flatMap((one) => divergedLoss(one, server) ?? []),
    ...(slot === undefined ? [missingLoss(last, server.currentLsn)] : []),
    ...unusableLosses(slot, server.currentLsn, last.confirmedLsn),
    ...(moved !== undefined && isExplained ? [moved] : []),
    ...publicationLosses(facts, last),
  ];
  if (losses.length > 0) return { verdict: 'loss', loss: joinLosses(losses, words) };
  return {
    verdict: 'goes-on',
    confirmedLsn: min(last.confirmedLsn, server.currentLsn),
    timelineChanged:
      words[0]!.timeline === server.timeline ? undefined : { from: words[0]!.timeline, to: server.timeline },
    movedFromLsn: isExplained ? undefined : last.confirmedLsn,
  };
}

/** One reason of a loss. */
interface Finding {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn | undefined;
  readonly detail: string;
  readonly needsNewSlot?: boolean;
  readonly isSetBack?: boolean;
  /** Namespace whose publication was altered */
  readonly altered?: string;
}

/** @param words what is known by each: a place at which all of them have a loss accepted already has another one now */
function joinLosses(findings: readonly Finding[], words: readonly SlotLedger[]): Loss {
  const beginning = findings.map(({ fromLsn }) => fromLsn).reduce(min);
  const isTaken = words.length > 0 && words.every(({ acceptedLsn }) => acceptedLsn === beginning);
  const ends = findings.map(({ toLsn }) => toLsn);
  return {
    fromLsn: isTaken ? beginning + 1n : beginning,
    toLsn: ends.reduce((one, other) => (one === undefined || other === undefined ? undefined : laterLsn(one, other))),
    details: [...new Set(findings.map(({ detail }) => detail))],
    needsNewSlot: findings.some(({ needsNewSlot }) => needsNewSlot),
    ...(findings.some(({ isSetBack }) => isSetBack) ? { isSetBack: true } : {}),
    altered: findings.flatMap(({ altered }) => altered ?? []),
  };
}

/**
 * The server's WAL does not hold what was delivered: another branch of it, or an older copy of the server. Confirmed may
 * be more than that, up to where the WAL once ended: of what held no record nothing is missing.
 */
function divergedLoss(word: SlotLedger, server: ContinuityFacts['server']): Finding | undefined {
  const { deliveredLsn } = word;
  const delivered = formatLsn(deliveredLsn);
  const consequence = `before ${delivered}, up to which it was delivered: Kafka holds changes that the database has lost`;
  if (word.timeline === server.timeline) {
    const isPassed = deliveredLsn <= server.currentLsn;
    if (isPassed && word.isSetBack !== true) return undefined;
    const end = isPassed ? 'its WAL ended' : `its WAL ends at ${formatLsn(server.currentLsn)},`;
    const detail = `the server was set back: ${end} ${consequence}`;
    // Its end moves on with every attempt, and could not be accepted.
    return { fromLsn: deliveredLsn, toLsn: laterLsn(deliveredLsn, server.currentLsn), detail, isSetBack: true };
  }
  const { lsn, isAncestor } = sharedUpTo(server.history, word.timeline);
  if (isAncestor && deliveredLsn <= lsn) return undefined;
  const detail = isAncestor
    ? `the server was promoted: its timeline ${server.timeline} left timeline ${word.timeline} at ${formatLsn(lsn)}, ${consequence}`
    : `the server was promoted, and its timeline ${server.timeline} never was a part of timeline ${word.timeline}, which was delivered up to ${delivered}`;
  return { fromLsn: min(lsn, deliveredLsn), toLsn: deliveredLsn, detail };
}

/** The word as far as it is about WAL that the server has: what it writes behind the fork is nothing that was confirmed. */
function sharedWord(word: SlotLedger, server: ContinuityFacts['server']): SlotLedger {
  if (word.timeline === server.timeline) return word;
  return { ...word, confirmedLsn: min(word.confirmedLsn, sharedUpTo(server.history, word.timeline).lsn) };
}

function missingLoss(last: SlotLedger, currentLsn: Lsn): Finding {
  const detail = 'the replication slot does not exist any more';
  return { fromLsn: last.confirmedLsn, toLsn: laterLsn(currentLsn, last.confirmedLsn), detail };
}

/** A slot without its WAL, and one that stands where the WAL has not come yet: it would leave out what is written until then. */
function unusableLosses(slot: SlotFacts | undefined, currentLsn: Lsn, confirmedLsn: Lsn): Finding[] {
  if (slot === undefined) return [];
  const position = slot.confirmedFlushLsn ?? 0n;
  if (isInvalidated(slot)) {
    const reason = slot.invalidationReason === undefined ? '' : ` (${slot.invalidationReason})`;
    const fromLsn = laterLsn(position, confirmedLsn);
    const detail = `the server has invalidated the slot${reason}, and has removed what was to be streamed`;
    return [{ fromLsn, toLsn: laterLsn(currentLsn, fromLsn), detail, needsNewSlot: true }];
  }
  if (position <= currentLsn) return [];
  const detail = `the slot stands at ${formatLsn(position)}, behind the end of the server's WAL: the server was set back, and its slot was not`;
  return [{ fromLsn: currentLsn, toLsn: position, detail, needsNewSlot: true }];
}

/** Nobody who streams moves a slot without leaving a word, and here is a last word that does not know of it. */
function movedLoss(
  last: SlotLedger,
  { slot, isExact }: { readonly slot: SlotFacts | undefined; readonly isExact: boolean },
): Finding | undefined {
  const position = slot?.confirmedFlushLsn;
  if (position === undefined || !isExact || position <= last.confirmedLsn) return undefined;
  return {
    fromLsn: last.confirmedLsn,
    toLsn: position,
    detail: `the slot stands at ${formatLsn(position)}, where nobody is known to have brought it: it was moved, or dropped and made anew`,
  };
}

function publicationLosses(facts: ContinuityFacts, last: SlotLedger): Finding[] {
  const { server, slot, namespaces, publications } = facts;
  const position = laterLsn(slot?.confirmedFlushLsn ?? 0n, last.confirmedLsn);
  const findings: Finding[] = [];
  for (const name of namespaces) {
    const oid = last.publicationOids.get(name);
    const present = publications.get(name);
    const publication = `publication ${quoteIdentifier(name)}`;
    const alterations =
      present === undefined
        ? []
        : [...present.omissions, ...describeEntries(present.entries, last.entryOids.get(name))];
    if (oid === undefined) {
      const left = leftPublication(name, { facts, last });
      if (left === undefined) continue;
      if (left.oid !== ALTERED_OID && (left.oid !== present?.oid || left.lsn >= position)) continue;
      const detail = `the slot was streamed without namespace ${quoteIdentifier(name)}, although its publication was not dropped`;
      findings.push({ fromLsn: left.lsn, toLsn: position, detail });
    } else if (oid === ALTERED_OID || (present?.oid === oid && alterations.length > 0)) {
      const how = alterations.length === 0 ? '' : ` (${alterations.join('; ')})`;
      const detail = `${publication} was altered while it was in use${how}, and some of what it left out may lie before`;
      findings.push({ fromLsn: position, toLsn: laterLsn(server.currentLsn, position), detail, altered: name });
    } else if (present?.oid !== oid) {
      const createdAtLsn = present?.createdAtLsn;
      // The server raises an error for any change that it decodes while the publication is missing: there was none.
      if (createdAtLsn !== undefined && createdAtLsn <= position) continue;
      const detail = `${publication} was dropped${present === undefined ? '' : ' and made anew'}`;
      findings.push({ fromLsn: position, toLsn: laterLsn(createdAtLsn ?? server.currentLsn, position), detail });
    }
  }
  return findings;
}

/** Where a namespace was left that the last word does not stream; one of an older version says nothing of it. */
function leftPublication(
  name: string,
  { facts: { known, server }, last }: { readonly facts: ContinuityFacts; readonly last: SlotLedger },
): LeftPublication | undefined {
  const oid = known?.publicationOids.get(name);
  if (last.left.has(name) || known === undefined || oid === undefined) return last.left.get(name);
  return { oid, lsn: sharedWord(known, server).confirmedLsn };
}

function min(one: Lsn, other: Lsn): Lsn {
  return other > one ? one : other;
}

/** Which stream an error is about. */
export interface StreamName {
  /** db_ref of the configuration */
  readonly databaseRef: string;
  readonly slot: string;
}

/** The error that a stream stands still with until its loss is accepted. */
export function lossError(
  { fromLsn, toLsn, details }: Pick<Loss, 'fromLsn' | 'toLsn' | 'details'>,
  { databaseRef, slot }: StreamName,
): LossError {
  const from = formatLsn(fromLsn);
  const range = toLsn === undefined ? `from ${from} on` : `from ${from} to ${formatLsn(toLsn)}`;
  return new LossError(`Cannot go on behind ${from}: ${details.join('; ')}`, {
    place: { database: databaseRef, slot, lsn: from },
    advice:
      `Changes ${range} cannot be streamed: compare the tables with the topics. To go on without them, set ` +
      `slots.${databaseRef}.${slot}.accept_loss_after: ${from} in the configuration and restart the service`,
  });
}

/** A publication that the stream was using is gone: rows were written that nobody will ever send. */
export function droppedPublicationError(
  publications: readonly string[],
  { confirmedLsn, ...stream }: StreamName & { readonly confirmedLsn: Lsn },
): LossError {
  const names = publications.map(quoteIdentifier).join(', ');
  const details = [`publication ${names} was dropped while it was in use`];
  return lossError({ fromLsn: confirmedLsn, toLsn: undefined, details }, stream);
}

/** Nothing is lost yet, and would be if this server were followed. */
export function wrongServerError(knownTimeline: number, timeline: number): NotifierError {
  return new SourceError(
    `Cannot follow the server: it is on timeline ${timeline}, and timeline ${knownTimeline} was followed before, so that it is a former primary`,
    {
      advice:
        'Stop this server, or see that host or hosts of the database lead to the new primary. If this is the right one, because it was restored from a backup, restart the service',
    },
  );
}
