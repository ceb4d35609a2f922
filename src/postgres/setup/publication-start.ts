/**
 * The LSN from which a slot can be streamed with a publication that is younger than the slot.
 *
 * Up to PostgreSQL 17 decoding fails with 42704 at the first change that was written before the publication existed. A
 * publication that the service created holds its LSN in a mark; for one that an operator created, temporary copies of the
 * slot are decoded from different positions until the LSN is found.
 */
import { randomBytes } from 'node:crypto';
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import { SetupError } from '../../errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../../lsn.ts';
import { probeName } from '../catalog/slots.ts';
import { SQL_STATE, sqlStateOf } from '../client/errors.ts';
import { publicationNames } from '../client/quote.ts';
import { asSessionUser } from '../client/session-user.ts';
import { noFreeSlot } from './preconditions.ts';

/** WAL records begin at multiples of this, so a boundary does too. */
const WAL_ALIGNMENT_BYTES = 8n;
/** First stride forward from the confirmed position; strides grow, so that the failing transactions nearest to it are found. */
const FIRST_STRIDE_BYTES = 8n * 1024n;
const STRIDE_GROWTH = 4n;

/** Options of `findBoundary`. */
export interface BoundaryRequest {
  /** db_ref of the configuration, for errors */
  readonly databaseRef?: string | undefined;
  readonly slot: string;
  readonly publication: string;
  readonly confirmedFlushLsn: Lsn;
  readonly log: Logger;
  /** Checked between probes */
  readonly signal: AbortSignal;
}

/**
 * Finds the first LSN p, at or after the confirmed one, such that decoding works with this publication when the slot is
 * confirmed up to p: every transaction whose commit begins before p must be streamed without the publication, and those
 * after it can be streamed with it. Each probe reads the slot's WAL up to its position.
 * @throws SetupError when no slot is free for the copies
 */
export async function findBoundary(control: Sql, request: BoundaryRequest): Promise<Lsn> {
  const { publication, log, signal } = request;
  const [row] = await control`SELECT pg_current_wal_lsn()::text AS lsn`;
  const end = parseLsn(row!.lsn);
  let probeCount = 0;
  const works = async (lsn: Lsn): Promise<boolean> => {
    signal.throwIfAborted();
    probeCount += 1;
    return asSessionUser(control, () => probe(control, request, lsn));
  };
  const boundary = await firstThatWorks({ from: request.confirmedFlushLsn, to: end }, works);
  log.info(
    { event: 'publication_start_found', namespace: publication, lsn: formatLsn(boundary), probeCount },
    'found the LSN from which the slot can be streamed with this publication',
  );
  return boundary;
}

/**
 * The first position in `from`..`to` at which `works` turns true; `to` is assumed to work. Goes forward in growing strides,
 * then halves the last one: where it turns more than once, the turn nearest to `from` is the likely result.
 */
export async function firstThatWorks(
  range: { readonly from: Lsn; readonly to: Lsn },
  works: (lsn: Lsn) => Promise<boolean>,
): Promise<Lsn> {
  if (range.from >= range.to || (await works(range.from))) return range.from;
  let failing = range.from;
  let working = range.to;
  for (let stride = FIRST_STRIDE_BYTES; failing + stride < range.to; stride *= STRIDE_GROWTH) {
    const candidate = align(failing + stride);
    if (candidate >= range.to) break;
    if (await works(candidate)) {
      working = candidate;
      break;
    }
    failing = candidate;
  }
  while (working - failing > WAL_ALIGNMENT_BYTES) {
    const half = align(failing + (working - failing) / 2n);
    // An unaligned start can round down to itself.
    const middle = half > failing ? half : half + WAL_ALIGNMENT_BYTES;
    if (await works(middle)) working = middle;
    else failing = middle;
  }
  return working;
}

function align(lsn: Lsn): Lsn {
  return lsn - (lsn % WAL_ALIGNMENT_BYTES);
}

/** True when the transactions from `lsn` on can be decoded with the publication, judged by the first change of a table. */
async function probe(control: Sql, request: BoundaryRequest, lsn: Lsn): Promise<boolean> {
  const copy = probeName(randomBytes(8).toString('hex'));
  const [row] = await copySlot(control, request, copy);
  try {
    if (lsn > parseLsn(row!.confirmed)) {
      await control`SELECT pg_replication_slot_advance(${copy}, ${formatLsn(lsn)}::pg_lsn)`;
    }
    return await decodes(control, copy, request.publication);
  } finally {
    // After an error the slot is gone already: the server drops temporary slots whenever a statement fails.
    await control`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = ${copy}`;
  }
}

async function copySlot(control: Sql, request: BoundaryRequest, copy: string) {
  try {
    await control`SELECT pg_copy_logical_replication_slot(${request.slot}, ${copy}, true)`;
  } catch (error) {
    if (sqlStateOf(error) !== SQL_STATE.configurationLimitExceeded) throw error;
    const [setting] = await control`SELECT current_setting('max_replication_slots')::int4 AS slots`;
    const { code, detail, advice } = noFreeSlot(setting!.slots);
    throw new SetupError(
      `Cannot find the LSN from which the slot can be streamed with this publication: ${detail}, and a temporary one is needed`,
      {
        code,
        place: { database: request.databaseRef, slot: request.slot, namespace: request.publication },
        advice,
        cause: error,
      },
    );
  }
  return control`SELECT confirmed_flush_lsn::text AS confirmed FROM pg_replication_slots WHERE slot_name = ${copy}`;
}

async function decodes(control: Sql, copy: string, publication: string): Promise<boolean> {
  // The server looks the publication up at the first change of any table. PostgreSQL 14 also returns Begin and Commit of
  // transactions without a change, which prove nothing: then ask for more messages, and finally for all.
  for (const count of [1, 1000, null]) {
    try {
      const [row] = await control`
        SELECT count(*)::int8 AS message_count,
          coalesce(bool_or(chr(get_byte(data, 0)) NOT IN ('B', 'C', 'O')), false) AS has_change
        FROM pg_logical_slot_peek_binary_changes(${copy}, NULL, ${count}::int4,
          'proto_version', '1', 'publication_names', ${publicationNames([publication])})`;
      if (row!.has_change || (count !== null && Number(row!.message_count) < count)) return true;
    } catch (error) {
      if (sqlStateOf(error) === SQL_STATE.undefinedObject) return false;
      throw error;
    }
  }
  return true;
}
