/**
 * The slot ledger: what the service stores about a slot on the server, for the time when the slot is gone or has been
 * replaced. It is JSON in the comment of an empty publication that is named after the slot. It outlives restarts of the
 * service, the slot and the namespaces' publications, and a failover, because standbys replicate catalogs. The comment of a
 * namespace's publication would not do: another role may own that one, and dropping the publication removes it.
 */
import { createHash } from 'node:crypto';
import postgres, { type Sql } from 'postgres';
import { MalformedError, SetupError } from '../../errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../../lsn.ts';
import { SQL_STATE, sqlStateOf } from '../client/errors.ts';
import { quoteIdentifier, quoteLiteral } from '../client/quote.ts';
import { runTransaction } from '../client/transaction.ts';

const NAME_START = 'cdc-notifier:';
/** PostgreSQL cuts identifiers at this length (NAMEDATALEN - 1). */
const MAX_NAME_BYTES = 63;
const HASH_DIGITS = 8;
/** Writers of ledgers wait only for each other; far below any wal_sender_timeout, as the slot is held meanwhile. */
const LOCK_TIMEOUT_MS = 500;
/** First key of the advisory lock of all writers: the ASCII codes of `cdcn`. */
const LOCK_CLASS = 0x6364636e;

/** A namespace that a slot was streamed with before, and is not any more. */
export interface LeftPublication {
  /** OID of its publication; a publication with another OID starts over, and nothing from before is owed to it */
  readonly oid: number;
  /** The slot was streamed with it up to here */
  readonly lsn: Lsn;
}

/** The state of a slot when an instance of the service last wrote it. transitions.ts says when, and what comes next. */
export interface SlotLedger {
  /** Of the server whose WAL the positions below are in */
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** Id of the process that wrote it, chosen at random when the process started */
  readonly instance: string;
  /** Grows by one whenever an instance takes the slot: a revision above its own tells a process that others streamed */
  readonly revision: number;
  /** Every change after it was streamed by some instance, each of which continued where another had stopped */
  readonly fromLsn: Lsn;
  /** Everything before it was confirmed, including WAL without a record */
  readonly confirmedLsn: Lsn;
  /** End of the last commit of which Kafka holds a record: the server that it came from must have it */
  readonly deliveredLsn: Lsn;
  /** Nothing was confirmed after `confirmedLsn`; false while an instance streams, and after a crash */
  readonly closed: boolean;
  /**
   * Confirmed when the publications were last seen as they must be: what an alteration left out lies after it. Ledgers of
   * older versions do not say
   */
  readonly watchedLsn?: Lsn | undefined;
  /** The server's WAL was found to end before `deliveredLsn`, which it passes soon, and that loss is not accepted yet */
  readonly isSetBack?: boolean | undefined;
  /** OID of the publication of each namespace that was streamed, by name; see `ALTERED_OID` */
  readonly publicationOids: ReadonlyMap<string, number>;
  /** Entries of their tables in them, by name (`PublicationEntries`); ledgers of older versions have none */
  readonly entryOids: ReadonlyMap<string, readonly number[]>;
  /** Namespaces that were streamed before an instance without them took the slot, by name */
  readonly left: ReadonlyMap<string, LeftPublication>;
  /** Ids of the Kafka clusters that it was delivered to, by Kafka client; ledgers of older versions have none */
  readonly clusterIds: ReadonlyMap<string, string>;
  /** Configurations that took the slot, oldest first (`configurationId`); ledgers of older versions have none */
  readonly configurations: readonly string[];
  /** Start of the last loss that was accepted: a setting accepts one loss, and not the next one at the same LSN */
  readonly acceptedLsn: Lsn | undefined;
}

/** In place of a publication's OID: it was found altered, and the loss of what it left out is not accepted yet. */
export const ALTERED_OID = 0;

/** Name of the publication whose comment is the slot ledger. */
export function ledgerName(slot: string): string {
  const name = `${NAME_START}${slot}`;
  if (Buffer.byteLength(name) <= MAX_NAME_BYTES) return name;
  // Slot names consist of lower case letters, digits and underscores, so that this cuts no character in two.
  const hash = createHash('sha256').update(slot).digest('hex').slice(0, HASH_DIGITS);
  return `${name.slice(0, MAX_NAME_BYTES - HASH_DIGITS - 1)}~${hash}`;
}

/** The text of the comment: one line of JSON. */
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
    watched: ledger.watchedLsn === undefined ? undefined : formatLsn(ledger.watchedLsn),
    setBack: ledger.isSetBack === true ? true : undefined,
    publications: Object.fromEntries(ledger.publicationOids),
    entries: ledger.entryOids.size === 0 ? undefined : Object.fromEntries(ledger.entryOids),
    left: Object.fromEntries([...ledger.left].map(([name, { oid, lsn }]) => [name, { oid, lsn: formatLsn(lsn) }])),
    clusters: ledger.clusterIds.size === 0 ? undefined : Object.fromEntries(ledger.clusterIds),
    configurations: ledger.configurations.length === 0 ? undefined : ledger.configurations,
    accepted: ledger.acceptedLsn === undefined ? undefined : formatLsn(ledger.acceptedLsn),
  });
}

/**
 * Parses what `encodeLedger` of this or an older version wrote; unknown keys are ignored.
 * @throws MalformedError for anything else
 */
export function parseLedger(text: string): SlotLedger {
  const fields = parseObject(text);
  const field = <T>(name: string, isValid: (value: unknown) => value is T): T => {
    const value = fields[name];
    if (isValid(value)) return value;
    throw new MalformedError('slot ledger', 0, `"${name}" is missing or invalid`);
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
    // An older version, without this key, may have delivered all that it confirmed.
    deliveredLsn: fields.delivered === undefined ? confirmedLsn : parseLsn(field('delivered', isText)),
    closed: field('closed', (value) => typeof value === 'boolean'),
    ...(fields.watched === undefined ? {} : { watchedLsn: parseLsn(field('watched', isText)) }),
    ...(fields.setBack === undefined ? {} : { isSetBack: field('setBack', (value) => typeof value === 'boolean') }),
    publicationOids: new Map(Object.entries(field('publications', isOids))),
    entryOids: new Map(fields.entries === undefined ? [] : Object.entries(field('entries', isEntries))),
    left: new Map(Object.entries(left).map(([name, { oid, lsn }]) => [name, { oid, lsn: parseLsn(lsn) }])),
    clusterIds: new Map(fields.clusters === undefined ? [] : Object.entries(field('clusters', isTexts))),
    configurations: fields.configurations === undefined ? [] : field('configurations', isConfigurations),
    acceptedLsn: fields.accepted === undefined ? undefined : parseLsn(field('accepted', isText)),
  };
}

function parseObject(text: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Not passed on as the cause: the engine's error quotes the text.
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

function isTexts(value: unknown): value is Record<string, string> {
  return isObject(value) && Object.values(value).every(isText);
}

function isConfigurations(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => isText(one) && /^[0-9a-f]{8}$/.test(one));
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
 * Reads the stored ledger of a slot; undefined when there is none, and when its publication was only prepared
 * (`ledgerGrantSql`). A ledger that the role may not write never counts as `closed`: other processes with the role may have
 * streamed since, and could not write it either.
 * @throws SetupError when the comment is no ledger: its contents are unknown then, and only an operator may drop it
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
      `Cannot prepare slot: the comment of publication ${quoteIdentifier(name)} is not a slot ledger`,
      {
        code: 'ledger_unreadable',
        place: { slot },
        advice: `Only this service may write it: restore the comment. If that is not possible, compare the tables with the topics, then run: COMMENT ON PUBLICATION ${quoteIdentifier(name)} IS NULL;`,
        cause: error,
      },
    );
  }
}

/** A ledger to write. */
export interface LedgerEntry {
  readonly slot: string;
  readonly ledger: SlotLedger;
  /** The ledger that was stored before the writer took the slot; undefined = none. Only it, or the writer's own, is replaced */
  readonly replaces: SlotLedger | undefined;
  /** Of a session that streams: a server whose WAL ends before what it has confirmed was set back meanwhile */
  readonly isOfSession?: boolean;
}

/** A server that was restored to an earlier state keeps the ledger that came with it: that one was confirmed before the restore. */
function setBackCheck({ confirmedLsn }: SlotLedger): string {
  return (
    `IF pg_current_wal_insert_lsn() < ${quoteLiteral(formatLsn(confirmedLsn))}::pg_lsn THEN ` +
    `RAISE EXCEPTION USING ERRCODE = '${SQL_STATE.serializationFailure}', MESSAGE = 'the server was set back'; END IF; `
  );
}

/** The statement that writes the slot ledger, and creates its publication when there is none; on one line. */
export function ledgerStatement({ slot, ledger, replaces, isOfSession = false }: LedgerEntry): string {
  const name = quoteLiteral(ledgerName(slot));
  const replaceable = [...(replaces === undefined ? [] : [replaces]), ledger]
    .map(identity)
    .map(quoteLiteral)
    .join(', ');
  const body =
    'DECLARE stored text; BEGIN ' +
    `PERFORM pg_advisory_xact_lock(${LOCK_CLASS}, hashtext(${name})); ` +
    `SELECT obj_description(oid, 'pg_publication') INTO stored FROM pg_publication WHERE pubname = ${name}; ` +
    `IF NOT FOUND THEN EXECUTE format('CREATE PUBLICATION %I WITH (publish = '''')', ${name}); END IF; ` +
    `IF stored IS NOT NULL AND stored::json->>'instance' || '/' || (stored::json->>'revision') NOT IN (${replaceable}) THEN ` +
    `RAISE EXCEPTION USING ERRCODE = '${SQL_STATE.serializationFailure}', MESSAGE = 'ledger was written by another instance'; ` +
    'END IF; ' +
    (isOfSession ? setBackCheck(ledger) : '') +
    `EXECUTE format('COMMENT ON PUBLICATION %I IS %L', ${name}, ${quoteLiteral(encodeLedger(ledger))}); END`;
  return `DO ${quoteLiteral(body)}`;
}

/** The server did not write the ledger: the role lacks the right (`ledgerGrantSql`), or an event trigger refuses, and so on. */
export interface LedgerRefusal {
  readonly cause: Error;
}

/**
 * `superseded`: another instance has written meanwhile, or the server was set back, and the stored ledger stays: a late one of
 * ours must not hide it.
 */
export type LedgerOutcome = 'written' | 'superseded' | LedgerRefusal;

/** True when the server refused to write the ledger. */
export function isRefusal(outcome: LedgerOutcome): outcome is LedgerRefusal {
  return typeof outcome === 'object';
}

/**
 * Writes the slot ledger, and creates its publication when there is none.
 *
 * It does not wait for synchronous standbys: an absent standby must not stop the slot, and a standby that is promoted without
 * the last ledger has the one before.
 * @throws what the driver raises when the connection is lost
 */
export async function writeLedger(control: Sql, entry: LedgerEntry): Promise<LedgerOutcome> {
  try {
    await runTransaction(control, [
      `SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`,
      'SET LOCAL synchronous_commit = local',
      ledgerStatement(entry),
    ]);
    return 'written';
  } catch (error) {
    if (sqlStateOf(error) === SQL_STATE.serializationFailure) return 'superseded';
    if (error instanceof postgres.PostgresError && error.severity === 'ERROR') return { cause: error };
    throw error;
  }
}

/** Identifies one time that an instance took the slot. */
function identity({ instance, revision }: SlotLedger): string {
  return `${instance}/${revision}`;
}

/** What a superuser runs so that a role without CREATE on the database can write the slot ledger. */
export function ledgerGrantSql(slot: string, role: string): string {
  const name = quoteIdentifier(ledgerName(slot));
  return `CREATE PUBLICATION ${name} WITH (publish = ''); ALTER PUBLICATION ${name} OWNER TO ${quoteIdentifier(role)};`;
}
