/**
 * Publications that other programs may read as well: progressor's own cache uses the publication of the same name. What a
 * slot reads is not stored on the server, so every foreign slot of the database counts. Pure.
 */
import type { PublishSettings } from '../../config/config.ts';
import { createdAtLsn, type PublicationFacts, type PublishingFacts, publishedTable } from '../catalog/publications.ts';
import { hasStatusIndex, type NamespaceTables, tablesOf } from '../catalog/tables.ts';
import { quoteIdentifier } from '../client/quote.ts';
import type { MarkedDatabase } from '../replication/publication-marker.ts';
import { describeExcess } from './publication-hazards.ts';

/**
 * - `column_lists_withheld`: `publish_columns: needed` has no effect, as another program may need the other columns
 * - `column_lists_shared`: the publication has column lists, and another program may read it
 * - `publication_excess`: a publication of another program holds more than the tables of the namespace
 */
export type SharingHazardCode = 'column_lists_withheld' | 'column_lists_shared' | 'publication_excess';

/** A publication that more than one program may use. Nothing is lost by it here. */
export interface SharingHazard {
  readonly code: SharingHazardCode;
  readonly namespace: string;
  /** The service has created the publication */
  readonly isOurs: boolean;
  /** What is so, beginning with the publication */
  readonly detail: string;
}

/** @param otherReaders slots and walsenders of other programs in the database */
export function findSharingHazards(
  settings: ReadonlyMap<string, PublishSettings>,
  { publications, tables }: Pick<PublishingFacts, 'publications' | 'tables'>,
  { database, otherReaders }: { readonly database: MarkedDatabase; readonly otherReaders: readonly string[] },
): SharingHazard[] {
  return [...settings].flatMap(([namespace, { publishColumns }]) => {
    const publication = publications.get(namespace);
    const both = tablesOf(namespace, tables);
    if (publication === undefined || both === undefined || publication.forAllTables) return [];
    const isOurs = createdAtLsn(publication, database) !== undefined;
    const name = `publication ${quoteIdentifier(namespace)}`;
    const readers = otherReaders.join(', ');
    const lists = columnLists(publication, both);
    const excess = isOurs ? [] : describeExcess(publication, both);
    const hazards: SharingHazard[] = [];
    if (publishColumns === 'needed' && hasStatusIndex(both.processes) && lists.missing && !(isOurs && readers === '')) {
      const why = isOurs
        ? `other programs that may read it are in the database: ${readers}`
        : 'another program has created it';
      const detail = `${name} publishes all columns, although publish_columns is needed: ${why}`;
      hazards.push({ code: 'column_lists_withheld', namespace, isOurs, detail });
    }
    if (lists.present && readers !== '') {
      const detail = `${name} has column lists, and other programs that may read it, and then miss columns, are in the database: ${readers}`;
      hazards.push({ code: 'column_lists_shared', namespace, isOurs, detail });
    }
    if (excess.length > 0) {
      const detail = `${name} is of another program: ${excess.join('; ')}. The server sends their changes too, and the service drops them`;
      hazards.push({ code: 'publication_excess', namespace, isOurs, detail });
    }
    return hazards;
  });
}

function columnLists(publication: PublicationFacts, { processes, events }: NamespaceTables) {
  const entries = [processes, events]
    .filter(({ replicaIdentity }) => replicaIdentity !== 'f')
    .map((table) => publishedTable(publication, table));
  return {
    present: entries.some((entry) => entry?.columns != null),
    missing: entries.some((entry) => entry?.columns === null),
  };
}
