/**
 * Row changes to records in the queues of their partitions. A row that cannot become a record ends the stream, or goes
 * to the parking topic of its namespace: nothing is passed over unseen.
 */
import type { Logger } from 'pino';
import { ByteWriter } from '../bytes/writer.ts';
import { convertChange, type RecordKind } from '../conversion/convert.ts';
import { encodeParkedRow } from '../conversion/parking-record.ts';
import { resolveRelation, type SourceRelation } from '../conversion/relation.ts';
import { InvalidRowError, MissingOldTupleError, NotifierError, SourceError } from '../errors.ts';
import { formatLsn, type Lsn } from '../lsn.ts';
import type { BeginMessage, RelationMessage, RowMessage } from '../postgres/replication/pgoutput.ts';
import { parseTableName } from '../progressor/tables.ts';
import type { Progress } from './progress.ts';
import type { Outlet, Route, Sinks } from './sinks.ts';

/** Where rows come from and whom they are counted by. */
export interface RowDeliveryOptions {
  readonly databaseRef: string;
  readonly slot: string;
  /** Of the slot */
  readonly namespaces: ReadonlySet<string>;
  readonly sinks: Sinks;
  readonly progress: Progress;
  /** Relations that were warned of already, as schema.table; kept by the slot from session to session */
  readonly warnedRelations: Set<string>;
  readonly log: Logger;
}

/** Where a row stands: its transaction and its own position in the WAL. */
export interface RowPlace {
  readonly begin: BeginMessage;
  readonly lsn: Lsn;
}

/** A relation of a configured namespace, and where its rows go. */
interface RoutedRelation {
  readonly message: RelationMessage;
  readonly route: Route;
  /** What its rows lead to, if anything */
  readonly kind: RecordKind;
  /** Or why none of its rows can be converted, where they are to be parked */
  readonly relation: SourceRelation | InvalidRowError;
}

/** See the head of this file. */
export class RowDelivery {
  readonly #options: RowDeliveryOptions;
  /** By relation id; undefined = one that nobody configured */
  readonly #relations = new Map<number, RoutedRelation | undefined>();
  readonly #draft = { key: new ByteWriter(), value: new ByteWriter() };
  /**
   * True while a transaction is only tried: rows are converted and held against the limits of their topics, and nothing
   * is queued. See SlotMemory.refusedCommitLsn.
   */
  isRehearsing = false;

  constructor(options: RowDeliveryOptions) {
    this.#options = options;
  }

  /** Takes up how the rows of a relation will look from now on. */
  describe(message: RelationMessage): void {
    const relation = this.#resolve(message);
    if (relation === undefined) {
      this.#warnOfRelation(`${message.schema}.${message.name}`);
      this.#relations.set(message.relationId, undefined);
      return;
    }
    // A relation that was resolved, or failed to be, has such a name.
    const table = parseTableName(message.name)!;
    const route = this.#options.sinks.route(table.namespace);
    if (relation instanceof InvalidRowError && route.parking === undefined) throw relation;
    const kind = table.kind === 'events' ? 'event' : 'lifecycle';
    this.#relations.set(message.relationId, { message, relation, route, kind });
  }

  /**
   * Makes of a row what is to be told of it, and queues that.
   * @throws InvalidRowError when it cannot be told and is not to be parked, or the parking topic does not take it
   */
  deliver(message: RowMessage, place: RowPlace | undefined): void {
    const routed = this.#relations.get(message.relationId);
    if (routed === undefined) {
      if (this.#relations.has(message.relationId)) return;
      throw new SourceError('Cannot read a row: its relation was not described before it');
    }
    if (place === undefined) throw new SourceError('Cannot read a row: it came outside of a transaction');
    const { relation, route, kind } = routed;
    if (!this.isRehearsing) route.counts.received[kind]++;
    try {
      if (relation instanceof InvalidRowError) {
        if (kind === 'event' && message.tag !== 'insert') return; // tells nothing, whatever its columns are
        throw relation;
      }
      if (convertChange(relation, message, place.begin.commitTimeMicros, this.#draft) === undefined) return;
      this.#queue(route.records[kind]);
      if (!this.isRehearsing) route.counts.converted[kind]++;
    } catch (error) {
      this.#settle(routed, message, place, error);
    }
  }

  #resolve(message: RelationMessage): SourceRelation | InvalidRowError | undefined {
    try {
      return resolveRelation(message, this.#options.namespaces);
    } catch (error) {
      if (error instanceof InvalidRowError) return error;
      throw error;
    }
  }

  #queue({ producer, topic, tally }: Outlet): void {
    const { key, value } = this.#draft;
    if (this.isRehearsing) producer.check(topic, key, value);
    else producer.append(topic, key, value, { ordinal: this.#options.progress.nextOrdinal(), tally });
  }

  /** Decides what becomes of a row that could not be queued. */
  #settle(routed: RoutedRelation, message: RowMessage, place: RowPlace, error: unknown): void {
    const { namespace, onMissingOldTuple, parking } = routed.route;
    if (error instanceof NotifierError) error.locate({ namespace, table: routed.message.name });
    if (error instanceof MissingOldTupleError && onMissingOldTuple === 'skip') this.#noteSkipped(routed, place, error);
    else if (error instanceof InvalidRowError && parking !== undefined) this.#park(routed, message, place, error);
    else throw error;
  }

  #park(routed: RoutedRelation, change: RowMessage, place: RowPlace, error: InvalidRowError): void {
    const { databaseRef, slot, log } = this.#options;
    const { message: relation, route } = routed;
    const outlet = route.parking![routed.kind];
    const { namespace } = route;
    const reason = causeOf(error);
    encodeParkedRow({ databaseRef, slot, namespace, relation, change, ...place, reason }, this.#draft);
    try {
      this.#queue(outlet);
    } catch (refusal) {
      // Both are to be known: why it is invalid, and why it cannot even be parked.
      if (refusal instanceof NotifierError) refusal.locate({ namespace, table: relation.name, key: error.place.key });
      if (refusal instanceof Error) refusal.cause ??= error;
      throw refusal;
    }
    if (this.isRehearsing) return;
    error.locate({ lsn: formatLsn(place.lsn) });
    log.warn({ error, parkingTopic: outlet.topic.name }, 'a row that cannot be delivered goes to the parking topic');
  }

  #noteSkipped({ route }: RoutedRelation, { lsn }: RowPlace, error: MissingOldTupleError): void {
    if (this.isRehearsing) return;
    const skippedRowCount = ++route.counts.skipped.lifecycle;
    const { namespace, table, key } = error.place;
    this.#options.log.warn(
      { namespace, table, key, lsn: formatLsn(lsn), skippedRowCount },
      'an update without its old tuple was skipped, as on_missing_old_tuple says',
    );
  }

  #warnOfRelation(name: string): void {
    const { warnedRelations, log } = this.#options;
    if (warnedRelations.has(name)) return;
    warnedRelations.add(name);
    log.warn({ relation: name }, 'rows of a relation that is not configured are ignored');
  }
}

/** The error in one line with what caused it, as the parking record tells it. */
function causeOf(error: InvalidRowError): string {
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}
