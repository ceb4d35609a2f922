/** Which columns of a large row its record can be made of; the values of all others are dropped while the row arrives. */
import type { TupleRole } from '../postgres/replication/large-row.ts';
import type { SourceRelation } from './relation.ts';

/** Positions of the columns that `convertChange` may read of such a tuple. */
export function neededColumns(relation: SourceRelation, { operation, version }: TupleRole): readonly number[] {
  if (relation.kind === 'events') {
    if (operation !== 'insert') return [];
    return [relation.processId, relation.eventId, relation.timestamp, relation.metadata, relation.payload];
  }
  switch (operation) {
    case 'insert':
      return [relation.processId, relation.status];
    case 'delete':
      return [relation.processId];
    case 'update':
      // The old detail as well: it is the new one where that is an unchanged TOAST value, which comes after it.
      return version === 'old' && relation.replicaIdentity !== 'f'
        ? [relation.processId, relation.status]
        : [relation.processId, relation.status, relation.detail];
  }
}
