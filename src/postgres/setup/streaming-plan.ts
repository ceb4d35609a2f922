/**
 * Which publications a session can stream from the slot's position on, and what it means that the server cannot load one.
 * Pure; config/guide/cutover.md, "How a namespace joins a slot with a backlog", has the whole story.
 *
 * Up to PostgreSQL 17 a change that was written before a publication existed cannot be decoded with that publication: the
 * server raises 42704 for the whole slot. So a publication younger than the slot's position is left out until the stream has
 * reached the LSN where the publication was created. Rows before that LSN are not owed; every later row is.
 */
import type { Lsn } from '../../lsn.ts';

/** A publication of the slot as the catalogs describe it. */
export interface KnownPublication {
  readonly name: string;
  /** LSN of the marker in the transaction that created it; undefined when an operator created it */
  readonly createdAtLsn: Lsn | undefined;
}

/**
 * The point from which a publication that is left out can be streamed. `marker`: the end of the transaction that carries the
 * publication's marker; `lsn`: before the first transaction that commits at or after `lsn`.
 */
export interface Boundary {
  readonly kind: 'marker' | 'lsn';
  readonly publication: string;
  /** For `marker` the LSN of the marker itself */
  readonly lsn: Lsn;
}

/** What to stream now, and what later. */
export interface StreamingPlan {
  /** Names of the publications to stream now */
  readonly streamed: readonly string[];
  /** Those left out, in the order of the WAL: the session ends at the first boundary, and another one begins */
  readonly boundaries: readonly Boundary[];
}

/**
 * @param confirmedFlushLsn position of the slot
 * @param probedBoundaries LSNs that `findBoundary` found, by name, for publications without a marker after that position
 */
export function planStreaming(
  publications: readonly KnownPublication[],
  confirmedFlushLsn: Lsn,
  probedBoundaries: ReadonlyMap<string, Lsn>,
): StreamingPlan {
  const streamed: string[] = [];
  const boundaries: Boundary[] = [];
  for (const { name, createdAtLsn } of publications) {
    const probed = probedBoundaries.get(name);
    if (createdAtLsn !== undefined && createdAtLsn > confirmedFlushLsn) {
      boundaries.push({ kind: 'marker', publication: name, lsn: createdAtLsn });
    } else if (probed !== undefined && probed > confirmedFlushLsn) {
      boundaries.push({ kind: 'lsn', publication: name, lsn: probed });
    } else {
      streamed.push(name);
    }
  }
  boundaries.sort((one, other) => (one.lsn < other.lsn ? -1 : 1));
  return { streamed, boundaries };
}

/** What is known of a publication that the server could not load while it decoded a change. */
export interface MissingPublication {
  /** LSN of the change that was being decoded, where the server reports it */
  readonly changeLsn: Lsn | undefined;
  /** Smallest LSN at which the publication is known to have existed; undefined when nothing is known */
  readonly existedAtLsn: Lsn | undefined;
}

/**
 * - `not-yet-created`: the change is older than all that is known of the publication, nothing is owed. This includes a
 *   transaction that was open while the publication was created: it commits later, but the server decodes its first changes
 *   with the catalogs as they were.
 * - `dropped`: the publication existed before the change and was dropped; what was written until it was recreated is lost
 *   to this stream.
 */
export function judgeMissingPublication({
  changeLsn,
  existedAtLsn,
}: MissingPublication): 'not-yet-created' | 'dropped' {
  if (existedAtLsn === undefined) return 'not-yet-created';
  return changeLsn !== undefined && changeLsn < existedAtLsn ? 'not-yet-created' : 'dropped';
}
