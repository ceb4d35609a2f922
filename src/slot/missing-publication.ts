/**
 * Publications in the memory of a slot, and what to do when the server could not load one for a change. Either the change
 * is older than the publication: then a copy of the slot shows from where it can be streamed. Or the publication was
 * dropped.
 */
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import { formatLsn, type Lsn } from '../lsn.ts';
import { readPublicationOids } from '../postgres/catalog/publications.ts';
import { contextOf, lsnInContext, SQL_STATE, sqlStateOf } from '../postgres/client/errors.ts';
import { quoteIdentifier } from '../postgres/client/quote.ts';
import { warnOfAcceptedLoss } from '../postgres/continuity/check.ts';
import { droppedPublicationError, lossError } from '../postgres/continuity/loss.ts';
import type { PreparedPublication } from '../postgres/setup/ensure-publication.ts';
import { findBoundary } from '../postgres/setup/publication-start.ts';
import { judgeMissingPublication } from '../postgres/setup/streaming-plan.ts';
import type { SlotMemory } from './memory.ts';

/**
 * True for the error of a decoding server that cannot find a publication. It has a context, which the same SQLSTATE of
 * START_REPLICATION for a slot that does not exist has not.
 */
export function isPublicationMissing(error: unknown): boolean {
  return sqlStateOf(error) === SQL_STATE.undefinedObject && contextOf(error) !== undefined;
}

/** Options of a search. */
export interface PublicationSearchOptions {
  readonly databaseRef: string;
  readonly slot: string;
  /** Of the slot at this moment; everything received is acknowledged */
  readonly confirmedLsn: Lsn;
  /** Names of those that the server streamed with */
  readonly streamed: readonly string[];
  /** All of the slot, as they were prepared */
  readonly publications: readonly PreparedPublication[];
  /** Of the settings: continue without the loss that begins here */
  readonly acceptLossAfterLsn: Lsn | undefined;
  readonly memory: SlotMemory;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/**
 * Remembers from where each younger publication can be streamed, for the next session.
 * @param error what the server raised: SQLSTATE 42704
 * @throws LossError when none is younger: a publication was dropped; and when one can be streamed only from an LSN after its
 * mark, unless that loss is accepted
 */
export async function findPublicationStarts(
  control: Sql,
  error: unknown,
  options: PublicationSearchOptions,
): Promise<void> {
  const { databaseRef, slot, confirmedLsn, streamed, memory, log, signal } = options;
  const changeLsn = lsnInContext(contextOf(error));
  let isFound = false;
  for (const name of streamed) {
    const existedAtLsn = memory.publicationExistedAt.get(name);
    if (judgeMissingPublication({ changeLsn, existedAtLsn }) === 'dropped') continue;
    const request = { databaseRef, slot, publication: name, confirmedFlushLsn: confirmedLsn, log, signal };
    const lsn = await findBoundary(control, request);
    if (lsn <= confirmedLsn) continue;
    judgeSkippedRows(name, lsn, options);
    memory.probedBoundaries.set(name, lsn);
    isFound = true;
    log.info(
      { event: 'publication_younger', publication: name, lsn: formatLsn(lsn) },
      'the publication is younger than the backlog; the slot streams with it from this LSN on',
    );
  }
  if (isFound) return;
  const oids = await readPublicationOids(control, streamed);
  const dropped = options.publications.filter(({ name, oid }) => oids.get(name) !== oid).map(({ name }) => name);
  // A publication that exists again, unchanged, has been missing all the same.
  throw droppedPublicationError(dropped.length > 0 ? dropped : streamed, { confirmedLsn, databaseRef, slot });
}

/**
 * Every row after the mark of a publication is owed. Those of transactions that were open when it was created, and that the
 * server cannot decode with it, are not delivered: the service waits for such transactions before it writes a mark.
 */
function judgeSkippedRows(name: string, boundaryLsn: Lsn, options: PublicationSearchOptions): void {
  const { databaseRef, slot, publications, acceptLossAfterLsn, log } = options;
  const markLsn = publications.find((one) => one.name === name)?.createdAtLsn;
  if (markLsn === undefined || boundaryLsn <= markLsn) return;
  const detail =
    `publication ${quoteIdentifier(name)} was created while transactions were open, which the server cannot stream with it, ` +
    `although its mark is at ${formatLsn(markLsn)}`;
  const loss = { fromLsn: markLsn, toLsn: boundaryLsn, details: [detail] };
  if (acceptLossAfterLsn !== markLsn) throw lossError(loss, { databaseRef, slot });
  warnOfAcceptedLoss(loss, [], log);
}
