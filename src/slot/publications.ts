/**
 * What to do when the server could not load a publication for a change. Either the change is older than the publication:
 * then the place where the publication begins is looked for, with a copy of the slot. Or somebody dropped it.
 */

import { lsnInContext } from '../flow/flow.ts';
import { formatLsn } from '../lsn.ts';
import { readPublicationOids } from '../postgres/catalog/publications.ts';
import { droppedPublicationError } from '../postgres/continuity/loss.ts';
import { findBoundary } from '../postgres/setup/publication-start.ts';
import { judgeMissingPublication } from '../postgres/setup/streaming-plan.ts';
import type { Session } from './session.ts';

/**
 * Notes from where on each younger publication can be streamed, for the next session.
 * @throws LossError when none is younger: what failed was dropped
 */
export async function takeInYoungerPublications(session: Session, error: unknown): Promise<void> {
  const { options, control, plan, progress, stopSignal: signal } = session;
  const { memory, log, stream } = options;
  const confirmedLsn = progress.flushed;
  const where = error instanceof Error && 'where' in error ? String(error.where) : undefined;
  const changeLsn = lsnInContext(where);
  let found = false;
  for (const name of plan.streamed) {
    const existedAtLsn = memory.publicationExistedAt.get(name);
    if (judgeMissingPublication({ changeLsn, existedAtLsn }) === 'dropped') continue;
    const lsn = await findBoundary(control, {
      databaseRef: stream.databaseRef,
      slot: stream.slot,
      publication: name,
      confirmedFlushLsn: confirmedLsn,
      log,
      signal,
    });
    if (lsn <= confirmedLsn) continue;
    memory.probedBoundaries.set(name, lsn);
    found = true;
    log.info(
      { publication: name, lsn: formatLsn(lsn) },
      'the publication is younger than the backlog, it is taken in later',
    );
  }
  if (found) return;
  const oids = await readPublicationOids(control, plan.streamed);
  const dropped = session.prepared.publications
    .filter(({ name, oid }) => oids.get(name) !== oid)
    .map(({ name }) => name);
  // One that is there again, as it was, has been missing all the same.
  throw droppedPublicationError(dropped.length > 0 ? dropped : plan.streamed, {
    confirmedLsn,
    databaseRef: stream.databaseRef,
    slot: stream.slot,
  });
}
