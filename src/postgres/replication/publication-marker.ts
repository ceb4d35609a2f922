/**
 * The mark of a publication's creation. It is written twice in the transaction that gives the publication its tables: as a
 * transactional message in the WAL, which ends a stream that leaves the publication out, and as the publication's comment,
 * which holds the LSN of that message and the system identifier of the server. A dump and restore carries the comment to
 * another server, where the LSN means nothing: hence the identifier. `setup/publication-sql.ts` writes both.
 */
import { type Lsn, parseLsn } from '../../lsn.ts';

/** Prefix of the message in the WAL; its content is the name of the publication. */
export const MARKER_PREFIX = 'cdc-notifier';

/** What the comment holds before and after the LSN of the message. */
export function creationCommentParts(systemIdentifier: string): readonly [string, string] {
  return ['cdc-notifier: created at ', ` of system ${systemIdentifier}`];
}

const COMMENT = /^cdc-notifier: created at (?<lsn>[0-9A-F]+\/[0-9A-F]+) of system (?<system>[0-9]+)$/;

/** The LSN in the comment of a publication; undefined unless the comment is a mark of this system. */
export function parseCreationComment(comment: string | undefined, systemIdentifier: string): Lsn | undefined {
  const groups = COMMENT.exec(comment ?? '')?.groups;
  return groups?.system === systemIdentifier ? parseLsn(groups.lsn!) : undefined;
}
