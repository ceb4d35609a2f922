import { type InvalidRowError, MissingOldTupleError } from '../errors.ts';

/** The settings of a namespace that decide about its invalid rows. */
export interface InvalidRowSettings {
  /** Setting on_missing_old_tuple */
  readonly onMissingOldTuple: 'stop' | 'skip';
  /** Setting on_invalid is `park`, so the namespace has a parking topic */
  readonly canPark: boolean;
}

/**
 * - `fail`: the stream ends with the error, and the slot needs an operator
 * - `park`: the row goes to the parking topic
 * - `skip`: the row is counted and logged, and gives no record
 */
export type InvalidRowAction = 'fail' | 'park' | 'skip';

/** What happens with a row that cannot become a record. */
export function decideInvalidRow(error: InvalidRowError, settings: InvalidRowSettings): InvalidRowAction {
  if (error instanceof MissingOldTupleError && settings.onMissingOldTuple === 'skip') return 'skip';
  return settings.canPark ? 'park' : 'fail';
}
