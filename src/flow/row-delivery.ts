import type { Logger } from 'pino';
import { ByteWriter } from '../bytes/writer.ts';
import { convertChange, type RecordKind } from '../conversion/convert.ts';
import { neededColumns } from '../conversion/needed-columns.ts';
import { encodeParkedRow } from '../conversion/parking-record.ts';
import {
  isTable,
  renamedRelation,
  resolveRelation,
  type SourceRelation,
  type StatusLabels,
} from '../conversion/relation.ts';
import { InvalidRowError, NotifierError, SourceError } from '../errors.ts';
import { formatLsn, type Lsn } from '../lsn.ts';
import type { TupleRole } from '../postgres/replication/large-row.ts';
import type { BeginMessage, RelationMessage, RowMessage } from '../postgres/replication/pgoutput.ts';
import { parseTableName } from '../progressor/tables.ts';
import { decideInvalidRow } from './invalid-row-policy.ts';
import type { Progress } from './progress.ts';
import type { Outlet, Route, Sinks } from './sinks.ts';

/** Options of RowDelivery. */
export interface RowDeliveryOptions {
  readonly databaseRef: string;
  readonly slot: string;
  /** Of the slot */
  readonly namespaces: ReadonlySet<string>;
  /** Names of their tables in schema public, by OID, when the session began */
  readonly tables: ReadonlyMap<number, string>;
  readonly sinks: Sinks;
  readonly progress: Progress;
  /** Unconfigured relations that have been logged, as schema.table; kept by the slot from session to session */
  readonly warnedRelations: Set<string>;
  /** Kept up to date while the stream runs */
  readonly statusLabels: StatusLabels;
  readonly log: Logger;
}

/** The position of a row: its transaction, and its own LSN. */
export interface RowPlace {
  readonly begin: BeginMessage;
  readonly lsn: Lsn;
}

/** A relation of a configured namespace, and where its rows go. */
interface RoutedRelation {
  readonly message: RelationMessage;
  readonly route: Route;
  /** Kind of the records that its rows give */
  readonly kind: RecordKind;
  /** Or why none of its rows can be converted, in a namespace that parks them */
  readonly relation: SourceRelation | InvalidRowError;
}

/**
 * Row changes to records in the queues of their partitions. A row that cannot become a record ends the stream or goes to
 * the parking topic of its namespace (invalid-row-policy.ts); none is skipped unnoticed.
 */
export class RowDelivery {
  readonly #options: RowDeliveryOptions;
  /** By relation id; undefined = not configured */
  readonly #relations = new Map<number, RoutedRelation | undefined>();
  #draft = { key: new ByteWriter(), value: new ByteWriter() };
  /**
   * True while a transaction is only tried: rows are converted and compared with the limits of their topics, and nothing is
   * queued. See FlowMemory.refusedCommitLsn.
   */
  isRehearsing = false;

  constructor(options: RowDeliveryOptions) {
    this.#options = options;
  }

  /**
   * Applies a Relation message: the format of the following rows of this relation.
   * @throws InvalidRowError when its rows cannot be converted, unless the namespace parks them
   */
  describe(message: RelationMessage): void {
    const relation = this.#resolve(message);
    if (relation === undefined) {
      this.#warnAboutRelation(`${message.schema}.${message.name}`);
      this.#relations.set(message.relationId, undefined);
      return;
    }
    // A relation that was resolved, or failed to be, has such a name.
    const table = parseTableName(this.#options.tables.get(message.relationId) ?? message.name)!;
    const route = this.#options.sinks.route(table.namespace);
    if (relation instanceof InvalidRowError && route.parking === undefined) throw relation;
    const kind = table.kind === 'events' ? 'event' : 'lifecycle';
    this.#relations.set(message.relationId, { message, relation, route, kind });
  }

  /** Which values of a large row to keep: those that its record may be made of. */
  neededColumns(tuple: TupleRole): readonly number[] {
    const relation = this.#relations.get(tuple.relationId)?.relation;
    return relation === undefined || relation instanceof InvalidRowError ? [] : neededColumns(relation, tuple);
  }

  /**
   * Converts a row and queues its record, if it gives one.
   * @throws InvalidRowError when it cannot be converted or delivered and is not parked, or the parking topic refuses it
   */
  deliver(message: RowMessage, place: RowPlace | undefined): void {
    const routed = this.#relations.get(message.relationId);
    if (routed === undefined) {
      if (this.#relations.has(message.relationId)) return;
      throw new SourceError('Cannot read a row: no Relation message came before it', { code: 'relation_unknown' });
    }
    if (place === undefined) {
      throw new SourceError('Cannot read a row: it came outside a transaction', { code: 'row_outside_transaction' });
    }
    const { relation, route, kind } = routed;
    if (!this.isRehearsing) route.counts.received[kind]++;
    try {
      if (relation instanceof InvalidRowError) {
        if (kind === 'event' && message.tag !== 'insert') return; // gives no record, whatever its columns are
        throw relation;
      }
      if (convertChange(relation, message, place.begin.commitTimeMicros, this.#draft) === undefined) return;
      this.#queue(route.records[kind]);
      if (!this.isRehearsing) route.counts.converted[kind]++;
    } catch (error) {
      this.#settle(routed, message, place, error);
    }
  }

  /** Lets go of the memory that a large row took while it became a record. */
  release(): void {
    this.#draft = { key: new ByteWriter(), value: new ByteWriter() };
  }

  #resolve(message: RelationMessage): SourceRelation | InvalidRowError | undefined {
    // The relation id of pgoutput is the OID of the table, which stays when the table is renamed.
    const table = this.#options.tables.get(message.relationId);
    if (table !== undefined && !isTable(message, table)) return renamedRelation(message, table);
    try {
      return resolveRelation(message, this.#options.namespaces, this.#options.statusLabels);
    } catch (error) {
      if (error instanceof InvalidRowError) return error;
      throw error;
    }
  }

  #queue({ queues, topic, tally }: Outlet): void {
    const { key, value } = this.#draft;
    if (this.isRehearsing) queues.check(topic, key, value);
    else queues.append(topic, key, value, { ordinal: this.#options.progress.nextOrdinal(), tally });
  }

  #settle(routed: RoutedRelation, message: RowMessage, place: RowPlace, error: unknown): void {
    const { namespace, onMissingOldTuple, parking } = routed.route;
    if (error instanceof NotifierError) error.locate({ namespace, table: routed.message.name });
    if (!(error instanceof InvalidRowError)) throw error;
    switch (decideInvalidRow(error, { onMissingOldTuple, canPark: parking !== undefined })) {
      case 'skip':
        this.#noteSkipped(routed, place, error);
        break;
      case 'park':
        this.#park(routed, message, place, error);
        break;
      case 'fail':
        throw error;
    }
  }

  #park(routed: RoutedRelation, change: RowMessage, place: RowPlace, error: InvalidRowError): void {
    const { databaseRef, slot, log } = this.#options;
    const { message: relation, route } = routed;
    const outlet = route.parking![routed.kind];
    const { namespace } = route;
    const reason = error.message;
    encodeParkedRow({ databaseRef, slot, namespace, relation, change, ...place, reason }, this.#draft);
    try {
      this.#queue(outlet);
    } catch (refusal) {
      // The operator needs both causes: why the row is invalid, and why it cannot be parked.
      if (refusal instanceof NotifierError) refusal.locate({ namespace, table: relation.name, key: error.place.key });
      if (refusal instanceof Error) refusal.cause ??= error;
      throw refusal;
    }
    if (this.isRehearsing) return;
    error.locate({ lsn: formatLsn(place.lsn) });
    log.warn(
      { event: 'row_parked', error, parkingTopic: outlet.topic.name },
      'a row that cannot be delivered goes to the parking topic',
    );
  }

  #noteSkipped({ route }: RoutedRelation, { lsn }: RowPlace, error: InvalidRowError): void {
    if (this.isRehearsing) return;
    const skippedRowCount = ++route.counts.skipped.lifecycle;
    const { namespace, table, key } = error.place;
    this.#options.log.warn(
      { event: 'row_skipped', namespace, table, key, lsn: formatLsn(lsn), skippedRowCount },
      'skipped an update without its old tuple (on_missing_old_tuple: skip)',
    );
  }

  #warnAboutRelation(name: string): void {
    const { warnedRelations, log } = this.#options;
    if (warnedRelations.has(name)) return;
    warnedRelations.add(name);
    log.warn(
      { event: 'relation_ignored', relation: name },
      'the service ignores rows of a relation that is not configured',
    );
  }
}
