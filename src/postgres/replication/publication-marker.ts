/**
 * The marks of a publication. The mark of its creation is written twice in the transaction that gives the publication its
 * tables: as a transactional message in the WAL, which ends a stream that leaves the publication out, and in the publication's
 * comment, with the LSN of that message and the database whose WAL holds it. A dump and restore carries the comment to another
 * database, where the LSN means nothing: hence system identifier and OID.
 *
 * A table that is set again has a new entry in the publication, as if it had been missing for a while. A change that leaves
 * nothing out says so in the comment, with the OIDs of the entries that follow each other in one transaction.
 *
 *     cdc-notifier: created at 0/16FC5A8 of system 7710967555485513451, database 16384; entries 16410,16411 follow 16399,16400
 *
 * Each half can stand alone. Comments of older versions have no database. `setup/publication-sql.ts` writes marks.
 */
import { type Lsn, parseLsn } from '../../lsn.ts';

/** Prefix of the message in the WAL; its content is the name of the publication. */
export const MARKER_PREFIX = 'cdc-notifier';

/** What every comment of the service begins with. */
export const COMMENT_START = 'cdc-notifier: ';

/** The database whose WAL holds a mark. */
export interface MarkedDatabase {
  readonly systemIdentifier: string;
  readonly databaseOid: number;
}

/** Entries of a publication that replaced others in the transaction that removed those. */
export interface EntrySuccession {
  readonly entryOids: readonly number[];
  readonly formerOids: readonly number[];
}

/** What the comment holds before and after the LSN of the message. */
export function creationCommentParts({ systemIdentifier, databaseOid }: MarkedDatabase): readonly [string, string] {
  return [`${COMMENT_START}created at `, ` of system ${systemIdentifier}, database ${databaseOid}`];
}

const COMMENT =
  /^cdc-notifier: (?:created at (?<lsn>[0-9A-F]+\/[0-9A-F]+) of system (?<system>[0-9]+)(?:, database (?<database>[0-9]+))?)?(?:; )?(?:entries (?<entries>[0-9,]+) follow (?<former>[0-9,]+))?$/;

/**
 * The LSN in the comment of a publication; undefined unless the comment is a mark of this database.
 * @param serverLsn end of the WAL when the comment was read: a mark after it is of another copy of the server
 */
export function parseCreationComment(
  comment: string | undefined,
  { systemIdentifier, databaseOid, serverLsn }: MarkedDatabase & { readonly serverLsn: Lsn },
): Lsn | undefined {
  const groups = COMMENT.exec(comment ?? '')?.groups;
  if (groups?.lsn === undefined || groups.system !== systemIdentifier) return undefined;
  if (groups.database !== undefined && groups.database !== String(databaseOid)) return undefined;
  const lsn = parseLsn(groups.lsn);
  return lsn <= serverLsn ? lsn : undefined;
}

/** The half of a comment about entries; undefined when there is none. */
export function parseSuccession(comment: string | undefined): EntrySuccession | undefined {
  const groups = COMMENT.exec(comment ?? '')?.groups;
  if (groups?.entries === undefined) return undefined;
  return { entryOids: oidsOf(groups.entries), formerOids: oidsOf(groups.former!) };
}

function oidsOf(list: string): number[] {
  return list.split(',').map(Number);
}
