/**
 * Readers of the columns of a tuple: by position, as offsets into the chunk that the row arrived in, without a copy.
 * Their errors name the column; `describeFailure` adds the table and the record key.
 */
import { InvalidRowError } from '../errors.ts';
import { isBinary, NULL, OMITTED, type Tuple } from '../postgres/replication/pgoutput.ts';
import type { FormatVersionReader } from './format-version.ts';
import { formatTimestamp } from './timestamp.ts';

/** First byte of binary jsonb. */
const JSONB_VERSION = 1;

/** Columns after a tuple's column count are left over from earlier rows: to be called before any column is read. */
export function checkColumnCount(tuple: Tuple, columnCount: number): void {
  if (tuple.columnCount !== columnCount) {
    throw new InvalidRowError(`the row has ${tuple.columnCount} columns, its relation ${columnCount}`, {
      code: 'column_count',
    });
  }
}

/** Throws InvalidRowError when a column is NULL, or a TOASTed value that was not sent, or too large to be kept. */
export function requireValue(tuple: Tuple, column: number, name: string): void {
  const length = tuple.lengths[column]!;
  if (length >= 0) return;
  if (length === OMITTED) throw valueTooLarge(tuple.starts[column]!, name);
  throw length === NULL
    ? new InvalidRowError(`column "${name}" is NULL`, { code: 'column_null' })
    : new InvalidRowError(`column "${name}" was not sent: it is an unchanged TOAST value, and no old row has it`, {
        code: 'unchanged_toast',
      });
}

function valueTooLarge(bytes: number, name: string): InvalidRowError {
  return new InvalidRowError(`column "${name}" has ${bytes} bytes, which makes the row larger than max_row_bytes`, {
    code: 'row_above_limit',
    advice:
      'Raise max_row_bytes, and the memory limit of the process to sixteen times as much, and then the max.message.bytes of ' +
      'the topic; or set on_invalid: park for the namespace, which parks the row without this value',
  });
}

/** Throws InvalidRowError unless a column has a value in binary format. */
export function requireBinary(tuple: Tuple, column: number, name: string): void {
  requireValue(tuple, column, name);
  if (!isBinary(tuple, column)) {
    throw new InvalidRowError(`column "${name}" is in text format instead of binary`, { code: 'column_text_format' });
  }
}

/** The bytes of a column that has a value, sharing memory. */
export function valueBytes(tuple: Tuple, column: number): Buffer {
  const start = tuple.starts[column]!;
  return tuple.bytes.subarray(start, start + tuple.lengths[column]!);
}

/** True when a column has exactly these bytes. */
export function isValue(tuple: Tuple, column: number, value: Buffer): boolean {
  const length = tuple.lengths[column]!;
  if (length !== value.length) return false;
  const start = tuple.starts[column]!;
  for (let index = 0; index < length; index++) {
    if (tuple.bytes[start + index] !== value[index]) return false;
  }
  return true;
}

/** True when a column has a value in both tuples, and the same bytes. */
export function isSameValue(left: Tuple, right: Tuple, column: number): boolean {
  const length = left.lengths[column]!;
  if (length < 0 || length !== right.lengths[column]) return false;
  const leftStart = left.starts[column]!;
  const rightStart = right.starts[column]!;
  for (let index = 0; index < length; index++) {
    if (left.bytes[leftStart + index] !== right.bytes[rightStart + index]) return false;
  }
  return true;
}

/** event_id: an int2, int4 or int8. */
export function readEventId(tuple: Tuple, column: number): bigint {
  requireBinary(tuple, column, 'event_id');
  const start = tuple.starts[column]!;
  switch (tuple.lengths[column]) {
    case 2:
      return BigInt(tuple.bytes.readInt16BE(start));
    case 4:
      return BigInt(tuple.bytes.readInt32BE(start));
    case 8:
      return tuple.bytes.readBigInt64BE(start);
    default:
      throw new InvalidRowError(`column "event_id" has ${tuple.lengths[column]} bytes instead of 2, 4 or 8`, {
        code: 'event_id_size',
      });
  }
}

/** RFC 3339 text of the event's timestamp; of the commit time of its transaction when it is NULL. */
export function readTimestamp(tuple: Tuple, column: number, commitTimeMicros: bigint): Buffer {
  if (tuple.lengths[column] === NULL) return formatTimestamp(commitTimeMicros);
  requireBinary(tuple, column, 'timestamp');
  if (tuple.lengths[column] !== 8) {
    throw new InvalidRowError(`column "timestamp" has ${tuple.lengths[column]} bytes instead of 8`, {
      code: 'timestamp_size',
    });
  }
  return formatTimestamp(tuple.bytes.readBigInt64BE(tuple.starts[column]!));
}

/** format_version of the metadata, whose binary form is a version byte and JSON text; undefined without one. */
export function readFormatVersion(tuple: Tuple, column: number, reader: FormatVersionReader): number | undefined {
  if (tuple.lengths[column] === NULL) return undefined;
  requireBinary(tuple, column, 'metadata');
  const start = tuple.starts[column]!;
  const length = tuple.lengths[column]!;
  if (length === 0 || tuple.bytes[start] !== JSONB_VERSION) {
    throw new InvalidRowError('column "metadata" is not in version 1 of binary jsonb', { code: 'metadata_format' });
  }
  return reader.read(tuple.bytes, start + 1, start + length);
}
