/**
 * What the service remembers of a slot on the server itself, for the time when the slot is gone or is another one: a text
 * of JSON, as the comment of an empty publication that is named after the slot. It outlives restarts of the service, the
 * slot and the namespaces' publications, and a failover, because standbys replicate catalogs. Not the comment of a
 * namespace's publication: another role may own that one, and it goes when the publication is dropped.
 */
import { createHash } from 'node:crypto';
import type { Sql } from 'postgres';
import { MalformedError, SetupError } from '../../errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../../lsn.ts';
import { dropSql } from '../catalog/slots.ts';
import { quoteIdentifier, quoteLiteral } from '../client/quote.ts';
import { SQL_STATE, sqlStateOf } from '../client/sql-state.ts';
import { runTransaction } from '../client/transaction.ts';

const NAME_START = 'cdc-notifier:';
/** PostgreSQL cuts identifiers at this length (NAMEDATALEN - 1). */
const MAX_NAME_BYTES = 63;
const HASH_DIGITS = 8;
/** Writers of ledgers wait for each other, and for nobody else; far below any wal_sender_timeout, as the slot is held. */
const LOCK_TIMEOUT_MS = 500;
/** First key of the advisory lock of all writers: the ASCII codes of `cdcn` */
const LOCK_CLASS = 0x6364636e;

/** A namespace that a slot is not streamed with any more. */
export interface LeftPublication {
  /** Of its publication; one with another is a new beginning, to which nothing from before is owed */
  readonly oid: number;
  /** Up to here it was streamed */
  readonly lsn: Lsn;
}

/** What was true of a slot when one instance of the service last wrote it down. */
export interface SlotLedger {
  /** Of the server whose WAL the positions below are in */
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** The process that wrote it, by an id that it made up when it started */
  readonly instance: string;
  /** Grows by one whenever an instance takes the slot: who finds a higher one than its own knows that others streamed */
  readonly revision: number;
  /** From here on every change was streamed by some instance, each of which went on where another had stopped */
  readonly fromLsn: Lsn;
  /** Everything up to here was confirmed, also what held nothing for us */
  readonly confirmedLsn: Lsn;
  /** End of the last commit of which Kafka holds a record: what a server must have, to be the one that it came from */
  readonly deliveredLsn: Lsn;
  /** Nothing was confirmed behind `confirmedLsn`; false while somebody streams, and after a crash */
  readonly closed: boolean;
  /** The server's WAL was found to end before `deliveredLsn`, and nobody has accepted that yet; it ends behind it soon */
  readonly isSetBack?: boolean | undefined;
  /** OID of the publication of each namespace that was streamed, by name; see `ALTERED_OID` */
  readonly publicationOids: ReadonlyMap<string, number>;
  /** Entries of their tables in them, by name (`PublicationEntries`); an older version of the service kept none */
  readonly entryOids: ReadonlyMap<string, readonly number[]>;
  /** Namespaces that were streamed before, by name, until an instance without them took the slot */
  readonly left: ReadonlyMap<string, LeftPublication>;
  /** Beginning of the last loss that was accepted; a setting accepts one loss, and not the next one at the same place */
  readonly acceptedLsn: Lsn | undefined;
}

/** In place of a publication's OID: it was found altered, and nobody has accepted yet what it left out meanwhile. */
export const ALTERED_OID = 0;

/** Name of the publication whose comment is the slot's ledger. */
export function ledgerName(slot: string): string {
  const name = `${NAME_START}${slot}`;
  if (Buffer.byteLength(name) <= MAX_NAME_BYTES) return name;
  // Slot names consist of lower case letters, digits and underscores, so that this cuts no character in two.
  const hash = createHash('sha256').update(slot).digest('hex').slice(0, HASH_DIGITS);
  return `${name.slice(0, MAX_NAME_BYTES - HASH_DIGITS - 1)}~${hash}`;
}

/** The comment's text: one line of JSON. */
export function encodeLedger(ledger: SlotLedger): string {
  return JSON.stringify({
    system: ledger.systemIdentifier,
    timeline: ledger.timeline,
    instance: ledger.instance,
    revision: ledger.revision,
    from: formatLsn(ledger.fromLsn),
    confirmed: formatLsn(ledger.confirmedLsn),
    delivered: formatLsn(ledger.deliveredLsn),
    closed: ledger.closed,
    setBack: ledger.isSetBack === true ? true : undefined,
    publications: Object.fromEntries(ledger.publicationOids),
    entries: ledger.entryOids.size === 0 ? undefined : Object.fromEntries(ledger.entryOids),
    left: Object.fromEntries([...ledger.left].map(([name, { oid, lsn }]) => [name, { oid, lsn: formatLsn(lsn) }])),
    accepted: ledger.acceptedLsn === undefined ? undefined : formatLsn(ledger.acceptedLsn),
  });
}

/**
 * Reads what `encodeLedger` wrote, or an older version of it; keys that it does not know are left out.
 * @throws MalformedError for anything else
 */
export function parseLedger(text: string): SlotLedger {
  const fields = parseObject(text);
  const field = <T>(name: string, isValid: (value: unknown) => value is T): T => {
    const value = fields[name];
    if (isValid(value)) return value;
    throw new MalformedError('slot ledger', 0, `"${name}" is missing or is not what it must be`);
  };
  const confirmedLsn = parseLsn(field('confirmed', isText));
  const left = fields.left === undefined ? {} : field('left', isLeft);
  return {
    systemIdentifier: field('system', isText),
    timeline: field('timeline', isCount),
    instance: field('instance', isText),
    revision: field('revision', isCount),
    fromLsn: parseLsn(field('from', isText)),
    confirmedLsn,
    // Who did not keep it apart may have delivered all that it confirmed.
    deliveredLsn: fields.delivered === undefined ? confirmedLsn : parseLsn(field('delivered', isText)),
    closed: field('closed', (value) => typeof value === 'boolean'),
    ...(fields.setBack === undefined ? {} : { isSetBack: field('setBack', (value) => typeof value === 'boolean') }),
    publicationOids: new Map(Object.entries(field('publications', isOids))),
    entryOids: new Map(fields.entries === undefined ? [] : Object.entries(field('entries', isEntries))),
    left: new Map(Object.entries(left).map(([name, { oid, lsn }]) => [name, { oid, lsn: parseLsn(lsn) }])),
    acceptedLsn: fields.accepted === undefined ? undefined : parseLsn(field('accepted', isText)),
  };
}

function parseObject(text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The engine's error quotes the text.
  }
  if (isObject(value)) return value;
  throw new MalformedError('slot ledger', 0, 'it is not a JSON object');
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isOids(value: unknown): value is Record<string, number> {
  return isObject(value) && Object.values(value).every(isCount);
}

function isEntries(value: unknown): value is Record<string, readonly number[]> {
  return isObject(value) && Object.values(value).every((oids) => Array.isArray(oids) && oids.every(isCount));
}

function isLeft(value: unknown): value is Record<string, { readonly oid: number; readonly lsn: string }> {
  return (
    isObject(value) && Object.values(value).every((left) => isObject(left) && isCount(left.oid) && isText(left.lsn))
  );
}

/**
 * Reads the slot's ledger; undefined when there is none, also when its publication was only made ready (`ledgerGrantSql`).
 * One that the role may not write is never `closed`: others of its kind may have streamed since, and could not say so.
 * @throws SetupError when the comment is no ledger: what it said is not known then, and only a person may drop it
 */
export async function readLedger(control: Sql, slot: string): Promise<SlotLedger | undefined> {
  const name = ledgerName(slot);
  const [row] = await control<{ comment: string | null; writable: boolean }[]>`
    SELECT obj_description(oid, 'pg_publication') AS comment, pg_has_role(pubowner, 'USAGE') AS writable
    FROM pg_publication WHERE pubname = ${name}`;
  if (row === undefined || row.comment === null) return undefined;
  try {
    const ledger = parseLedger(row.comment);
    return row.writable ? ledger : { ...ledger, closed: false };
  } catch (error) {
    throw new SetupError(
      `Cannot prepare slot: the comment of publication ${quoteIdentifier(name)}, by which the service remembers its slot, cannot be read`,
      {
        place: { slot },
        advice: `Nobody but this service may write it. If it cannot be brought back, compare tables and topics, then run: COMMENT ON PUBLICATION ${quoteIdentifier(name)} IS NULL;`,
        cause: error,
      },
    );
  }
}

/** Which ledger to write, over which. */
export interface LedgerEntry {
  readonly slot: string;
  readonly ledger: SlotLedger;
  /** What the writer found before it took the slot; undefined = none. Only this, or its own word, is written over */
  readonly replaces: SlotLedger | undefined;
}

/**
 * Writes the slot's ledger, and makes its publication when there is none.
 *
 * - `refused`: the role has not the right to, see `ledgerGrantSql`
 * - `superseded`: another instance has written meanwhile, and its word stands: a late one of ours must not hide it
 *
 * It does not wait for synchronous standbys: a slot must not stand still because one of them is away, and a standby that
 * was promoted without the last word goes by the one before.
 * @throws whatever driver and server raise beside lack of rights
 */
export async function writeLedger(
  control: Sql,
  { slot, ledger, replaces }: LedgerEntry,
): Promise<'written' | 'refused' | 'superseded'> {
  const name = quoteLiteral(ledgerName(slot));
  const writable = [...(replaces === undefined ? [] : [replaces]), ledger].map(identity).map(quoteLiteral).join(', ');
  const body =
    'DECLARE known text; BEGIN ' +
    `PERFORM pg_advisory_xact_lock(${LOCK_CLASS}, hashtext(${name})); ` +
    `SELECT obj_description(oid, 'pg_publication') INTO known FROM pg_publication WHERE pubname = ${name}; ` +
    `IF NOT FOUND THEN EXECUTE format('CREATE PUBLICATION %I WITH (publish = '''')', ${name}); END IF; ` +
    `IF known IS NOT NULL AND known::json->>'instance' || '/' || (known::json->>'revision') NOT IN (${writable}) THEN ` +
    `RAISE EXCEPTION USING ERRCODE = '${SQL_STATE.serializationFailure}', MESSAGE = 'ledger was written by another instance'; ` +
    'END IF; ' +
    `EXECUTE format('COMMENT ON PUBLICATION %I IS %L', ${name}, ${quoteLiteral(encodeLedger(ledger))}); END`;
  try {
    await runTransaction(control, [
      // Each statement must see what was committed while it waited for the lock.
      'SET TRANSACTION ISOLATION LEVEL READ COMMITTED',
      `SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`,
      'SET LOCAL synchronous_commit = local',
      `DO ${quoteLiteral(body)}`,
    ]);
    return 'written';
  } catch (error) {
    if (sqlStateOf(error) === SQL_STATE.insufficientPrivilege) return 'refused';
    if (sqlStateOf(error) === SQL_STATE.serializationFailure) return 'superseded';
    throw error;
  }
}

/** Tells one taking of the slot from every other. */
function identity({ instance, revision }: SlotLedger): string {
  return `${instance}/${revision}`;
}

/** What a superuser runs so that a role without CREATE on the database can keep the slot's ledger. */
export function ledgerGrantSql(slot: string, role: string): string {
  const name = quoteIdentifier(ledgerName(slot));
  return `CREATE PUBLICATION ${name} WITH (publish = ''); ALTER PUBLICATION ${name} OWNER TO ${quoteIdentifier(role)};`;
}

/** Removes a slot for good, together with what is remembered of it. The next start begins anew, at that moment. */
export function dropSlotSql(slot: string): string {
  return `${dropSql(slot)} DROP PUBLICATION IF EXISTS ${quoteIdentifier(ledgerName(slot))};`;
}
