/**
 * The slot ledger as a state machine: which ledger is written next. Pure. Four names for ledgers:
 *
 * - stored: the one on the server; undefined = none
 * - remembered: what this process knows from its last session, exact up to the last confirmed LSN; undefined before the first
 * - effective: the one of the two that holds (`effectiveLedger`)
 * - next: the one to be written
 *
 * A closed ledger says that nothing was confirmed after its `confirmedLsn`. An open one is inexact: an instance streams, or
 * has crashed. "Set back" is a server that was restored to a state before what was delivered.
 *
 * | event                                  | stored                     | next                                               |
 * | -------------------------------------- | -------------------------- | -------------------------------------------------- |
 * | start, nothing known                   | none                       | revision 1, all positions = the slot's; open       |
 * | start, the stream continues            | any                        | revision + 1, confirmed = later of effective and slot; open |
 * | start, a loss is accepted              | any                        | revision + 1, confirmed = the slot's, accepted = start of the loss; open |
 * | keep, every minute                     | of this start              | confirmed and delivered as of now; open            |
 * | close: the session has ended           | of this start              | confirmed and delivered as of now; closed          |
 * | crash                                  | any                        | nothing                                            |
 * | loss with an unusable slot or an altered publication | shows it     | nothing                                            |
 * |                                        | does not show it           | as claim                                           |
 * | loss: the server was set back          | marked set back            | nothing                                            |
 * |                                        | not marked                 | effective, revision + 1, confirmed = start of the loss, marked set back; closed |
 * | any other loss                         | = remembered, closed       | nothing                                            |
 * |                                        | any other                  | remembered, if it is effective; closed             |
 * | loss: the server is another one        | none, or of that server    | nothing: it is not about this stream               |
 * |                                        | kept by pg_upgrade         | remembered, if it is effective; closed             |
 * | claim: a loss is accepted, its slot will be replaced | any          | revision + 1, confirmed = start of the loss; closed |
 *
 * `start` and `claim` happen in `setup`, `keep` and `close` in slot/ledger-keeper.ts, `loss` in `check.ts`. The ledger of
 * `start` is written once the slot is held and before anything is confirmed. For a slot that was just created, and for a
 * namespace that is new to its slot, it is also written at once: rows are owed although nothing is streamed yet. Nothing is
 * confirmed by that, so a closed ledger stays closed. The server checks which ledger may be replaced (`writeLedger`).
 */
import { earlierLsn, type Lsn, laterLsn } from '../../lsn.ts';
import { withConfiguration } from './configuration-order.ts';
import { type Continuity, effectiveLedger } from './judge.ts';
import { ALTERED_OID, type SlotLedger } from './ledger.ts';
import type { Loss } from './loss.ts';

/** The ledgers before an event, and the server and process at it. */
export interface LedgerContext {
  readonly remembered: SlotLedger | undefined;
  readonly stored: SlotLedger | undefined;
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** Of this process */
  readonly instance: string;
  /** Of this process: `configurationId` */
  readonly configuration: string;
}

/** The ledger of an instance that starts to stream from this position. */
export function nextOnStart(
  continuity: Continuity,
  { remembered, stored, systemIdentifier, timeline, instance, configuration }: LedgerContext,
  start: {
    readonly confirmedFlushLsn: Lsn;
    readonly publicationOids: ReadonlyMap<string, number>;
    readonly entryOids: ReadonlyMap<string, readonly number[]>;
  },
): SlotLedger {
  const effective = effectiveLedger({ remembered, stored });
  const last = effective?.systemIdentifier === systemIdentifier ? effective : undefined;
  const { confirmedFlushLsn: position, publicationOids, entryOids } = start;
  const continues = continuity.verdict === 'continues';
  // A server that crashed falls back to the position that it had saved; what was confirmed before stays delivered.
  const confirmedLsn = continues ? laterLsn(continuity.confirmedLsn, position) : position;
  // An instance that crashed may have delivered all that it confirmed after its last ledger.
  const isPassed = last === undefined || last.confirmedLsn < position;
  const deliveredLsn = isPassed || (!continues && last.deliveredLsn > position) ? position : last.deliveredLsn;
  const formerly = [...(last?.publicationOids ?? [])].map(([name, oid]) => [name, { oid, lsn: confirmedLsn }] as const);
  return {
    systemIdentifier,
    timeline,
    instance,
    revision: (stored?.revision ?? 0) + 1,
    fromLsn: last !== undefined && last.fromLsn < position ? last.fromLsn : position,
    confirmedLsn,
    deliveredLsn,
    watchedLsn: position,
    closed: false,
    publicationOids,
    entryOids,
    left: new Map([...(last?.left ?? []), ...formerly].filter(([name]) => !publicationOids.has(name))),
    clusterIds: last?.clusterIds ?? new Map(),
    // What was stored last has the order, also on another server.
    configurations: withConfiguration((stored ?? remembered)?.configurations ?? [], configuration),
    acceptedLsn: continuity.verdict === 'loss' ? continuity.loss.fromLsn : last?.acceptedLsn,
  };
}

/**
 * The ledger that shows a loss, so that the next process, with the loss accepted, finds it under the same LSN. Undefined
 * when the stored one shows it already, or is about another server.
 */
export function nextOnLoss(loss: Loss, context: LedgerContext): SlotLedger | undefined {
  const { remembered, stored, systemIdentifier } = context;
  const effective = effectiveLedger({ remembered, stored });
  const isElsewhere = effective !== undefined && effective.systemIdentifier !== systemIdentifier;
  // pg_upgrade gives the server another identifier and keeps the ledger; the ledger of any other server is not ours to write.
  if (isElsewhere && stored?.systemIdentifier !== effective.systemIdentifier) return undefined;
  // The slot will be dropped, or the WAL will pass it, or an operator undoes the alteration: then only the ledger shows it.
  if (!isElsewhere && (loss.needsNewSlot || loss.altered.length > 0)) {
    const isShown =
      stored?.closed &&
      stored.confirmedLsn <= loss.fromLsn &&
      loss.altered.every((name) => stored.publicationOids.get(name) === ALTERED_OID);
    return isShown ? undefined : nextOnClaim(loss, context);
  }
  if (!isElsewhere && loss.isSetBack && effective !== undefined) {
    if (stored?.isSetBack) return undefined;
    const revision = Math.max(remembered?.revision ?? 0, stored?.revision ?? 0) + 1;
    // Nothing of the WAL that the server writes now was confirmed after the beginning of the loss.
    const confirmedLsn = earlierLsn(effective.confirmedLsn, loss.fromLsn);
    return { ...effective, instance: context.instance, revision, confirmedLsn, closed: true, isSetBack: true };
  }
  if (remembered === undefined || effective !== remembered) return undefined;
  const isShown =
    stored?.instance === remembered.instance && stored.closed && stored.confirmedLsn === remembered.confirmedLsn;
  return isShown ? undefined : { ...remembered, closed: true };
}

/** The loss as this instance's ledger: a process that has read an older ledger then does not replace the slot again. */
export function nextOnClaim(
  { fromLsn, altered }: Loss,
  { remembered, stored, systemIdentifier, timeline, instance }: LedgerContext,
): SlotLedger {
  const effective = effectiveLedger({ remembered, stored });
  const { publicationOids = new Map<string, number>() } = effective ?? {};
  return {
    ...(effective ?? {
      systemIdentifier,
      timeline,
      deliveredLsn: fromLsn,
      entryOids: new Map(),
      left: new Map(),
      clusterIds: new Map(),
      configurations: [],
      acceptedLsn: undefined,
    }),
    instance,
    revision: Math.max(remembered?.revision ?? 0, stored?.revision ?? 0) + 1,
    fromLsn: effective !== undefined && effective.fromLsn < fromLsn ? effective.fromLsn : fromLsn,
    confirmedLsn: fromLsn,
    closed: true,
    publicationOids: new Map([...publicationOids, ...altered.map((name) => [name, ALTERED_OID] as const)]),
  };
}
