/**
 * Compares a slot with what was known of it, before anything of it is made or mended. What follows is decided by
 * `continuity.ts`; here are the reading, the error, and the acceptance.
 */

import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import type { DatabaseEndpoint, SlotSettings } from '../../config/config.ts';
import { formatLsn, type Lsn, laterLsn, parseLsn } from '../../lsn.ts';
import type { SlotFacts } from '../catalog/slots.ts';
import { parseCreationComment } from '../replication/publication-marker.ts';
import type { ServerFacts, TableFacts } from '../setup/preconditions.ts';
import { describeOmissions, entriesOf, type PublicationFacts, tablesOf } from '../setup/publication-plan.ts';
import {
  type Continuity,
  judgeContinuity,
  type Loss,
  lossError,
  type PublicationOrigin,
  wrongServerError,
} from './judge.ts';
import { type SlotLedger, writeLedger } from './ledger.ts';
import { readTimelineHistory } from './timeline.ts';
import { type LedgerContext, ledgerOfLoss } from './transitions.ts';

/** Which slot, and what is known of it. */
export interface ContinuityRequest {
  /** db_ref of the configuration */
  readonly databaseRef: string;
  /** The server that the control connection leads to, for commands that need a replication connection */
  readonly endpoint: DatabaseEndpoint;
  readonly slot: string;
  readonly settings: SlotSettings;
  readonly namespaces: readonly string[];
  /** Id of this process in ledgers */
  readonly instance: string;
  /** What the last session of this process left: its `PreparedSlot.ledger`, with what it has confirmed since */
  readonly known: SlotLedger | undefined;
  /** The last attempt to write the ledger was refused */
  readonly isLedgerRefused: boolean;
  /** Binds database and slot already */
  readonly log: Logger;
}

/** What is there, as far as it is compared. */
export interface Findings {
  readonly server: ServerFacts;
  readonly existing: SlotFacts | undefined;
  readonly foundLedger: SlotLedger | undefined;
  readonly found: ReadonlyMap<string, PublicationFacts>;
  /** Of the namespaces, those that exist, by name */
  readonly tables: ReadonlyMap<string, TableFacts>;
}

/**
 * Compares what was known with what is there.
 * @throws LossError unless the settings accept the loss
 */
export async function checkContinuity(
  control: Sql,
  request: ContinuityRequest,
  findings: Findings,
): Promise<Continuity> {
  const { server, existing, foundLedger, found } = findings;
  const { known, slot, databaseRef, namespaces, isLedgerRefused, log } = request;
  const { systemIdentifier } = server;
  const timeline = server.timeline!;
  const isBehind = [known, foundLedger].some((word) => word !== undefined && word.timeline < timeline);
  const continuity = judgeContinuity({
    known,
    ledger: foundLedger,
    isLedgerRefused,
    server: {
      systemIdentifier,
      timeline,
      currentLsn: await readCurrentLsn(control),
      history: isBehind ? await readTimelineHistory(request.endpoint, { timeline, slot }) : [],
    },
    slot: existing,
    namespaces,
    publications: new Map([...found].map(([name, publication]) => [name, originOf(publication, findings)])),
  });
  switch (continuity.verdict) {
    case 'first':
      break;
    case 'wrong-server':
      throw wrongServerError(continuity.knownTimeline, timeline).locate({ database: databaseRef, slot });
    case 'loss':
      await stopOrAccept(control, request, { loss: continuity.loss, findings });
      break;
    case 'goes-on':
      if (continuity.timelineChanged !== undefined) {
        log.info(continuity.timelineChanged, 'the server was promoted since, the slot goes on from where it stood');
      }
      if (continuity.movedFromLsn !== undefined) {
        log.warn(
          { ourLsn: formatLsn(continuity.movedFromLsn), slotLsn: formatLsn(existing!.confirmedFlushLsn!) },
          'the slot was moved or made anew by somebody else, and without a ledger nobody can say which: what was committed in between was not delivered by this process',
        );
      }
  }
  return continuity;
}

function originOf(publication: PublicationFacts, { server, tables }: Findings): PublicationOrigin {
  const namespaceTables = tablesOf(publication.name, tables);
  return {
    oid: publication.oid,
    createdAtLsn: parseCreationComment(publication.comment, server.systemIdentifier),
    entries: entriesOf(publication, tables),
    // A table that does not exist has nothing to leave out, and is asked for later.
    omissions: namespaceTables === undefined ? [] : describeOmissions(publication, namespaceTables),
  };
}

async function stopOrAccept(
  control: Sql,
  request: ContinuityRequest,
  { loss, findings }: { readonly loss: Loss; readonly findings: Findings },
): Promise<void> {
  const { slot, settings, log } = request;
  const error = lossError(loss, request);
  if (settings.acceptLossAfterLsn !== loss.fromLsn) {
    const ledger = ledgerOfLoss(loss, ledgerContext(request, findings));
    if (ledger !== undefined) {
      await writeLedger(control, { slot, ledger, replaces: findings.foundLedger }).catch((cause: unknown) =>
        log.warn({ error: cause }, 'the ledger of the slot could not be written'),
      );
    }
    throw error;
  }
}

/**
 * Says what is lost, as was accepted. To be called when slot and publications are as they will be: until then the end of the
 * loss moves on.
 * @param beginningsLsn where the slot, and each publication, that was made anew begins
 */
export function warnOfAcceptedLoss(
  { fromLsn, toLsn, details }: Loss,
  beginningsLsn: readonly Lsn[],
  log: Logger,
): void {
  const endLsn = toLsn && beginningsLsn.reduce(laterLsn, toLsn);
  log.warn(
    { details, fromLsn: formatLsn(fromLsn), toLsn: endLsn === undefined ? undefined : formatLsn(endLsn) },
    'the stream goes on without changes that are lost, as accept_loss_after says',
  );
}

/** Who writes the ledger, over what. */
export function ledgerContext(
  { known, instance }: Pick<ContinuityRequest, 'known' | 'instance'>,
  { server, foundLedger }: Pick<Findings, 'server' | 'foundLedger'>,
): LedgerContext {
  // No standby gets here.
  return { known, foundLedger, systemIdentifier: server.systemIdentifier, timeline: server.timeline!, instance };
}

/** Where the server's WAL ends, not only where it is written to. */
export async function readCurrentLsn(control: Sql): Promise<Lsn> {
  const [row] = await control`SELECT pg_current_wal_insert_lsn()::text AS lsn`;
  return parseLsn(row!.lsn);
}
