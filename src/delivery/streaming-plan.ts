/**
 * Which publications a session can stream from where the slot stands, and what a publication that the server cannot
 * load means. Pure decisions; README, "Adding a namespace", tells the whole story.
 *
 * Up to PostgreSQL 17 a change that was written before a publication existed cannot be decoded with that publication:
 * the server raises 42704 for the whole slot. So a publication younger than the slot's position is left out until the
 * stream has reached the place where it was created. Rows before that place are not owed; every row behind it is.
 */
import type { Lsn } from '../postgres/lsn.ts';

/** A publication of the slot as the catalogs know it. */
export interface KnownPublication {
  readonly name: string;
  /** LSN of the marker that was written in the transaction that created it; undefined when a person made it */
  readonly createdAtLsn: Lsn | undefined;
}

/**
 * Where a publication that is left out can be taken in. `marker`: at the end of the transaction that carries the
 * publication's marker; `lsn`: before the first transaction that commits at or behind `lsn`.
 */
export interface Boundary {
  readonly kind: 'marker' | 'lsn';
  readonly publication: string;
  /** For `marker` the LSN of the marker itself */
  readonly lsn: Lsn;
}

export interface StreamingPlan {
  /** Names to stream now */
  readonly streamed: readonly string[];
  /** Left out until then; the session ends at the first of these and another one begins */
  readonly boundaries: readonly Boundary[];
}

/**
 * @param confirmedFlushLsn where the slot stands
 * @param probedBoundaries found with a copy of the slot, by name, for publications without a marker ahead
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
  return { streamed, boundaries };
}

/** What is known of a publication that the server could not load while it decoded a change. */
export interface MissingPublication {
  readonly createdAtLsn: Lsn | undefined;
  /** LSN of the change that was being decoded, where the server tells it */
  readonly changeLsn: Lsn | undefined;
  /** LSN at which this process first saw the publication work on this slot; undefined when it never did */
  readonly firstLoadedLsn: Lsn | undefined;
}

/**
 * `not-yet-created`: the change is older than the publication, nothing is owed. `dropped`: the publication worked before,
 * so somebody dropped it, and what was written until it was made again is lost to this stream.
 */
export function judgeMissingPublication(missing: MissingPublication): 'not-yet-created' | 'dropped' {
  const { createdAtLsn, changeLsn, firstLoadedLsn } = missing;
  if (firstLoadedLsn === undefined) return 'not-yet-created';
  // A transaction that was open while the publication was created is decoded with the catalogs as it saw them: it may
  // come behind one that already had the publication.
  const isOverlap =
    createdAtLsn !== undefined && changeLsn !== undefined && changeLsn < createdAtLsn && firstLoadedLsn >= createdAtLsn;
  return isOverlap ? 'not-yet-created' : 'dropped';
}
