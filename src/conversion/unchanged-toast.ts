/**
 * Columns of an update whose value PostgreSQL stores out of line (TOAST): when the update leaves such a value unchanged, the
 * new tuple has a mark in its place (`UNCHANGED_TOAST`). The value itself is in the old row, which replica identity FULL
 * sends whole, TOASTed values included. An old key has the key columns only: a column that is not among them is NULL there,
 * whatever its value is.
 */
import { NULL, type Tuple, UNCHANGED_TOAST } from '../postgres/replication/pgoutput.ts';
import { requireValue, valueBytes } from './columns.ts';

/** Reason of a failure whose `detail` is NULL. */
const UNKNOWN_REASON = Buffer.from('unknown');

/** The tuple that holds a column's value: the old one when the new one has the mark. */
export function tupleWithValue(newTuple: Tuple, oldTuple: Tuple, column: number): Tuple {
  return newTuple.lengths[column] === UNCHANGED_TOAST ? oldTuple : newTuple;
}

/**
 * Reason of a failure: the `detail` of the new row, `unknown` when that is NULL. `oldRow` is the whole old row; undefined
 * when only its key was sent.
 * @throws InvalidRowError when `detail` is an unchanged TOAST value and there is no old row to read it from
 */
export function readFailureReason(newTuple: Tuple, oldRow: Tuple | undefined, detail: number): Buffer {
  const tuple = oldRow === undefined ? newTuple : tupleWithValue(newTuple, oldRow, detail);
  if (tuple.lengths[detail] === NULL) return UNKNOWN_REASON;
  requireValue(tuple, detail, 'detail');
  return valueBytes(tuple, detail);
}
