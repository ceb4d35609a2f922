/**
 * The errors of the service. Each says what happened, where, and what an operator can do about it. None of them carries a
 * payload, a row value other than the record key, or a secret.
 */

/** Where an error happened: every part that is known where the error is reported. */
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

/** What an error says beside its message. */
export interface ErrorDetails {
  /** Stable name of the cause in snake case, `wal_level`: texts change, codes do not */
  readonly code: string;
  readonly place?: ErrorPlace | undefined;
  /** What to do: a sentence, SQL to run, or a setting to change */
  readonly advice?: string | undefined;
  readonly cause?: unknown;
}

/** Base of all errors that this service raises on purpose. */
export class NotifierError extends Error {
  override readonly name: string = 'NotifierError';
  /** Stable name of the cause in snake case */
  readonly code: string;
  readonly advice: string | undefined;
  #place: ErrorPlace;

  constructor(message: string, details: ErrorDetails) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = details.code;
    this.advice = details.advice;
    this.#place = details.place ?? {};
  }

  get place(): ErrorPlace {
    return this.#place;
  }

  /** Adds the parts of the place that were unknown where the error was raised; the parts that it has stay. */
  locate(place: ErrorPlace): this {
    this.#place = { ...place, ...this.#place };
    return this;
  }
}

/** Bytes that do not follow their format: a bug here or at the sender, never something to skip. */
export class MalformedError extends NotifierError {
  override readonly name = 'MalformedError';
  /** Name of the format, as in `Cannot decode ETF: ...` */
  readonly format: string;
  /** Offset of the offending byte within the decoder's input */
  readonly offset: number;
  readonly detail: string;

  constructor(format: string, offset: number, detail: string) {
    super(`Cannot decode ${format}: ${detail} at offset ${offset}`, { code: 'malformed' });
    this.format = format;
    this.offset = offset;
    this.detail = detail;
  }
}

/** A row that cannot become a record. It stops its slot, or goes to the parking topic; it is never skipped silently. */
export class InvalidRowError extends NotifierError {
  override readonly name: string = 'InvalidRowError';
}

/** An update of a processes row without its old tuple: WAL written while the table's replica identity was not FULL. */
export class MissingOldTupleError extends InvalidRowError {
  override readonly name = 'MissingOldTupleError';

  constructor(message: string, details: Omit<ErrorDetails, 'code'> = {}) {
    super(message, { ...details, code: 'missing_old_tuple' });
  }
}

/** A row whose record is larger than its topic accepts. */
export class RecordTooLargeError extends InvalidRowError {
  override readonly name = 'RecordTooLargeError';

  constructor(message: string, details: Omit<ErrorDetails, 'code'> = {}) {
    super(message, { ...details, code: 'record_too_large' });
  }
}

/** A secret that cannot be read: its file or variable is missing, or is empty. */
export class SecretError extends NotifierError {
  override readonly name = 'SecretError';
  /** What is wrong, without the action: `file /run/secrets/pg cannot be read (ENOENT)` */
  readonly detail: string;

  constructor(detail: string) {
    super(`Cannot read secret: ${detail}`, {
      code: 'secret_unreadable',
      advice: 'Provide the file or variable named here, or correct the configuration',
    });
    this.detail = detail;
  }
}

/** A precondition on the PostgreSQL side that does not hold: a setting, privilege, table, publication or slot. */
export class SetupError extends NotifierError {
  override readonly name = 'SetupError';
  /** True for a cause that goes away by itself: a lock, an open transaction, a failover in progress */
  readonly mayPass: boolean;
  /** True for what others did to the tables, which every process meets */
  readonly isHazard: boolean;

  constructor(message: string, details: ErrorDetails & { readonly mayPass?: boolean; readonly isHazard?: boolean }) {
    super(message, details);
    this.mayPass = details.mayPass ?? false;
    this.isHazard = details.isHazard ?? false;
  }
}

/** The replication connection failed, or the server behaves in a way that ends replication. */
export class SourceError extends NotifierError {
  override readonly name: string = 'SourceError';
}

/** Another process streams from the slot, or changed it while this one prepared it: this one waits until it is free. */
export class SlotInUseError extends SourceError {
  override readonly name = 'SlotInUseError';
}

/**
 * Changes that can no longer be streamed: slot or publication are not what they were, or the server is another one. Only
 * an operator can decide what to do about them, so the stream waits until the configuration accepts exactly this loss.
 */
export class LossError extends NotifierError {
  override readonly name = 'LossError';

  constructor(message: string, details: Omit<ErrorDetails, 'code'> = {}) {
    super(message, { ...details, code: 'loss' });
  }
}

/** Kafka did not acknowledge a record, or a request to Kafka failed. */
export class SinkError extends NotifierError {
  override readonly name = 'SinkError';
  /** True when Kafka may accept the same bytes later without any change by an operator */
  readonly retriable: boolean;

  constructor(message: string, details: ErrorDetails & { readonly retriable: boolean }) {
    super(message, details);
    this.retriable = details.retriable;
  }
}
