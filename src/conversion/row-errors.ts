/** Errors of rows that cannot become a record: what is wrong, with the namespace, the table and the record key. */
import { InvalidRowError, MalformedError, MissingOldTupleError } from '../errors.ts';
import type { ReplicaIdentity } from '../postgres/replication/pgoutput.ts';
import type { ProcessesRelation, SourceRelation } from './relation.ts';

const IDENTITY_NAMES: Record<ReplicaIdentity, string> = { d: 'DEFAULT', n: 'NOTHING', f: 'FULL', i: 'USING INDEX' };

/** For an update of processes without the values that it replaced. `key` is the record key, where it is known. */
export function missingOldTuple(relation: ProcessesRelation, key: string | undefined): MissingOldTupleError {
  const { namespace, table } = relation;
  const identity = IDENTITY_NAMES[relation.replicaIdentity];
  return new MissingOldTupleError(
    `Cannot convert a row of table "${table}": the update was sent without the values it replaced ` +
      `(replica identity ${identity} when it was written), so it does not show whether the status changed`,
    {
      place: { namespace, table, key },
      advice:
        `Set on_missing_old_tuple: skip for namespace "${namespace}" to continue without the status changes ` +
        'that such updates may have made; it does not affect updates that were written with replica identity FULL, or with an index over process_id and status',
    },
  );
}

/** Adds table and key to an error of a column or the payload; returns every other error as it is. */
export function describeFailure(error: unknown, relation: SourceRelation, key: string | undefined): unknown {
  if (error instanceof MissingOldTupleError) return error;
  const { namespace, table } = relation;
  const start = `Cannot convert a row of table "${table}"`;
  const place = { namespace, table, key };
  if (error instanceof MalformedError) {
    const details = { code: 'payload_malformed', place, cause: error };
    return new InvalidRowError(`${start}: column "payload": ${error.message}`, details);
  }
  if (error instanceof InvalidRowError) {
    return new InvalidRowError(`${start}: ${error.message}`, { code: error.code, advice: error.advice, place });
  }
  return error;
}
