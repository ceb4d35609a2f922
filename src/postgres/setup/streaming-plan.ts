/**
 * Which publications a session can stream from where the slot stands, and what a publication that the server cannot
 * load means. Pure decisions; the whole story is in config/guide/cutover.md, "How a namespace joins a slot with a backlog".
 *
 * Up to PostgreSQL 17 a change that was written before a publication existed cannot be decoded with that publication:
 * the server raises 42704 for the whole slot. So a publication younger than the slot's position is left out until the
 * stream has reached the place where it was created. Rows before that place are not owed; every row behind it is.
 */
import type { Lsn } from '../../lsn.ts';

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

/** What to stream now, and what later. */
export interface StreamingPlan {
  /** Names to stream now */
  readonly streamed: readonly string[];
  /** Left out until then, in the order of the WAL; the session ends at the first of these and another one begins */
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
  boundaries.sort((one, other) => (one.lsn < other.lsn ? -1 : 1));
  return { streamed, boundaries };
}

/** What is known of a publication that the server could not load while it decoded a change. */
export interface MissingPublication {
  /** LSN of the change that was being decoded, where the server tells it */
  readonly changeLsn: Lsn | undefined;
  /** Smallest LSN at which the publication is known to have existed; undefined when nothing is known */
  readonly existedAtLsn: Lsn | undefined;
}

/**
 * `not-yet-created`: the change is older than anything we know of the publication, nothing is owed. That also holds for
 * a transaction that was open while the publication was created: it commits later, but the server decodes its first
 * changes with the catalogs as they were. `dropped`: the publication existed before the change, so somebody dropped it,
 * and what was written until it was made again is lost to this stream.
 */
export function judgeMissingPublication({
  changeLsn,
  existedAtLsn,
}: MissingPublication): 'not-yet-created' | 'dropped' {
  if (existedAtLsn === undefined) return 'not-yet-created';
  return changeLsn !== undefined && changeLsn < existedAtLsn ? 'not-yet-created' : 'dropped';
}
