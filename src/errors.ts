/**
 * The errors of the service. Each says what happened, where, and what an operator can do about it.
 * None of them ever carries a payload, a row value other than the record key, or a secret.
 */

/** Where an error happened: every part that is known at the place where it is reported. */
export interface ErrorPlace {
  /** db_ref of the configuration */
  readonly database?: string | undefined;
  readonly slot?: string | undefined;
  readonly namespace?: string | undefined;
  /** Table as PostgreSQL names it, without quotes: `invoice_events` */
  readonly table?: string | undefined;
  /** LSN in PostgreSQL's text form, `16/B374D848` */
  readonly lsn?: string | undefined;
  /** Record key: namespace, a space, process id */
  readonly key?: string | undefined;
  readonly kafkaClient?: string | undefined;
  readonly topic?: string | undefined;
  readonly partition?: number | undefined;
}

/** What every error below can be given beside its message. */
export interface ErrorDetails {
  /** Stable name of this error in snake case, for alerts and searches: `wal_level`, `slot_in_use`. Texts may change, it does not */
  readonly code?: string | undefined;
  readonly place?: ErrorPlace | undefined;
  /** What to do: a sentence, SQL to run, or a setting to change */
  readonly advice?: string | undefined;
  readonly cause?: unknown;
}

/** Base of all errors that this service raises on purpose. */
export class NotifierError extends Error {
  override readonly name: string = 'NotifierError';
  /** See `ErrorDetails` */
  readonly code: string | undefined;
  readonly advice: string | undefined;
  #place: ErrorPlace;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = details.code;
    this.advice = details.advice;
    this.#place = details.place ?? {};
  }

  get place(): ErrorPlace {
    return this.#place;
  }

  /** Adds what the one who raised the error could not know; what it did know stays. */
  locate(place: ErrorPlace): this {
    this.#place = { ...place, ...this.#place };
    return this;
  }
}

/** Bytes that do not follow their format: our mistake or the sender's, never something to step over. */
export class MalformedError extends NotifierError {
  override readonly name = 'MalformedError';
  /** Name of the format, as in `Cannot decode ETF: ...` */
  readonly format: string;
  /** Offset of the offending byte within the bytes that were given to the decoder */
  readonly offset: number;
  readonly detail: string;

  constructor(format: string, offset: number, detail: string) {
    super(`Cannot decode ${format}: ${detail} at offset ${offset}`);
    this.format = format;
    this.offset = offset;
    this.detail = detail;
  }
}

/** A row that cannot become a record. It stops its slot and is never stepped over silently. */
export class InvalidRowError extends NotifierError {
  override readonly name: string = 'InvalidRowError';
}

/**
 * An update of a processes row that came without its old tuple, so that nobody can tell whether the status changed
 * (WAL written before the table's replica identity was FULL).
 */
export class MissingOldTupleError extends InvalidRowError {
  override readonly name = 'MissingOldTupleError';
}

/** A row whose record is larger than its topic takes. */
export class RecordTooLargeError extends InvalidRowError {
  override readonly name = 'RecordTooLargeError';
}

/** A precondition on the PostgreSQL side that does not hold (setting, privilege, table, publication, slot). */
export class SetupError extends NotifierError {
  override readonly name = 'SetupError';
  /** True for what others hold at present: a lock, an open transaction, a failover that is going on */
  readonly mayPass: boolean;

  constructor(message: string, details: ErrorDetails & { readonly mayPass?: boolean } = {}) {
    super(message, details);
    this.mayPass = details.mayPass ?? false;
  }
}

/** The replication connection failed, or the server behaves in a way that replication cannot go on. */
export class SourceError extends NotifierError {
  override readonly name = 'SourceError';
}

/**
 * Changes that can no longer be streamed: slot or publication are not what they were, or the server is another one. Only
 * a person can say what becomes of them, so the stream stands still until the configuration accepts exactly this loss.
 */
export class LossError extends NotifierError {
  override readonly name = 'LossError';
}

/** Kafka did not acknowledge a record, or cannot be asked to. */
export class SinkError extends NotifierError {
  override readonly name = 'SinkError';
  /** True when the same bytes may be accepted later without anybody's help */
  readonly retriable: boolean;

  constructor(message: string, details: ErrorDetails & { readonly retriable: boolean }) {
    super(message, details);
    this.retriable = details.retriable;
  }
}
