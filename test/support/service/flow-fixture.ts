/**
 * The fixture of tests of `Flow`, which need no server: frames built byte by byte, a fake connection and fake sinks.
 */
import { expect } from 'bun:test';
import type postgres from 'postgres';
import type { RecordKind } from '../../../src/conversion/convert.ts';
import type { NotifierError } from '../../../src/errors.ts';
import { Flow, type FlowOptions } from '../../../src/flow/flow.ts';
import { Progress } from '../../../src/flow/progress.ts';
import type { Route, Sinks } from '../../../src/flow/sinks.ts';
import type { ProducerListener } from '../../../src/kafka/produce/producer.ts';
import { type ReportedPositions, StatusUpdates } from '../../../src/postgres/replication/status-updates.ts';
import type { ReplicationHandlers, ReplicationStream } from '../../../src/postgres/replication/stream.ts';
import type { Boundary } from '../../../src/postgres/setup/streaming-plan.ts';
import { createSlotMemory, type SlotMemory } from '../../../src/slot/memory.ts';
import { SlotStatus } from '../../../src/status/slot-status.ts';
import { encodePayload, str } from '../codecs/etf.ts';
import * as wire from '../codecs/pgoutput.ts';
import { recordingLogger } from './recording-logger.ts';

/** Relation id of the events table. */
export const EVENTS = 16_401;
/** Relation id of the processes table. */
export const PROCESSES = 16_402;
/** Relation id of any other table. */
export const OTHER = 16_403;
/** The confirmed LSN at the start. */
export const CONFIRMED = 0x100n;
/** Interval of statuses */
export const STATUS_INTERVAL_MS = 3_000;
/** Maximum silence of the server */
export const ANSWER_TIMEOUT_MS = 18_000;

/** A standby status update, read by hand: 'r', u64 written, u64 flushed, u64 applied, i64 clock, u8 reply requested. */
interface Status {
  readonly written: bigint;
  readonly flushed: bigint;
  readonly asks: boolean;
}

function readStatus(bytes: Buffer): Status {
  expect([bytes.length, bytes.toString('latin1', 0, 1)]).toEqual([34, 'r']);
  expect(bytes.readBigUInt64BE(17)).toBe(bytes.readBigUInt64BE(9)); // applied is what was flushed
  return { written: bytes.readBigUInt64BE(1), flushed: bytes.readBigUInt64BE(9), asks: bytes[33] === 1 };
}

/** The part of a connection that a flow uses, with real status updates. */
class FakeStream {
  readonly sent: Status[] = [];
  readonly statuses: StatusUpdates;
  readonly closed: Promise<Error | undefined>;
  /** Ends the connection as the server does */
  readonly end: (error: Error | undefined) => void;
  handlers: ReplicationHandlers | undefined;
  isPaused = true;

  readonly restsMs: number[] = [];
  lastReadBytes = 0;
  isHandingOver = false;

  constructor(positions: ReportedPositions) {
    const ended = Promise.withResolvers<Error | undefined>();
    this.closed = ended.promise;
    this.end = ended.resolve;
    this.statuses = new StatusUpdates({
      positions,
      timings: { statusIntervalMs: STATUS_INTERVAL_MS, answerTimeoutMs: ANSWER_TIMEOUT_MS },
      write: (status) => void this.sent.push(readStatus(status)),
      isPaused: () => this.isPaused,
      isAtWork: async () => false,
      onDead: ended.resolve,
    });
  }

  start(handlers: ReplicationHandlers): void {
    this.handlers = handlers;
    this.statuses.start();
    this.resume();
  }
  bring(chunk: Buffer): void {
    this.statuses.noteInbound();
    this.handlers!.onChunk(chunk);
  }
  pause(): void {
    this.isPaused = true;
  }
  rest(durationMs: number): void {
    this.restsMs.push(durationMs);
  }
  resume(): void {
    this.isPaused = false;
  }
}

type Bytes = { view(): Buffer };

interface FakeRecord {
  readonly namespace: string;
  readonly kind: RecordKind | 'parked';
  readonly key: string;
  readonly ordinal: number;
}

/** The part of the sinks that a flow uses; records are unacknowledged until the test acknowledges them. */
class FakeSinks {
  readonly records: FakeRecord[] = [];
  flushCount = 0;
  /** Number of records at the last flush */
  flushedRecordCount = 0;
  bufferedBytes = 0;
  lowestUnacknowledged = Number.POSITIVE_INFINITY;
  onMissingOldTuple: Route['onMissingOldTuple'] = 'stop';
  isParking = false;
  /** The parking records, decoded */
  readonly parked: object[] = [];
  readonly counts = new SlotStatus({ database: 'db', slot: 'slot', namespaces: ['invoice'] }).namespaces.get(
    'invoice',
  )!;
  inFlightSinceMs: number | undefined;
  areBrokersReachable = true;
  /** What `append` and `check` throw for records, and for parked ones if `refusesParked` */
  refusal: Error | undefined;
  refusesParked = false;
  listener: ProducerListener | undefined;

  start(listener: ProducerListener): void {
    this.listener = listener;
  }

  route(namespace: string): Route {
    const outlet = (kind: FakeRecord['kind']) => ({
      queues: {
        append: (_topic: unknown, key: Bytes, value: Bytes, { ordinal }: { ordinal: number }) =>
          this.#append({ namespace, kind, key: key.view().toString(), ordinal }, value),
        check: () => this.#refuse(kind),
      },
      topic: { name: `${namespace} ${kind}` },
    });
    const parking = this.isParking ? { event: outlet('parked'), lifecycle: outlet('parked') } : undefined;
    return {
      namespace,
      onMissingOldTuple: this.onMissingOldTuple,
      counts: this.counts,
      records: { event: outlet('event'), lifecycle: outlet('lifecycle') },
      parking,
    } as unknown as Route;
  }
  #refuse(kind: FakeRecord['kind']): void {
    if (this.refusal !== undefined && (kind !== 'parked' || this.refusesParked)) throw this.refusal;
  }
  #append(record: FakeRecord, value: Bytes): void {
    this.#refuse(record.kind);
    this.records.push(record);
    if (record.kind === 'parked') this.parked.push(JSON.parse(value.view().toString()));
    this.lowestUnacknowledged = Math.min(this.lowestUnacknowledged, record.ordinal);
  }
  flush(): void {
    this.flushCount++;
    this.flushedRecordCount = this.records.length;
  }
}

/** A flow with a fake connection and fake sinks. */
export class FlowFixture {
  readonly sinks = new FakeSinks();
  readonly memory: SlotMemory = createSlotMemory();
  readonly status = new SlotStatus({ database: 'db', slot: 'slot', namespaces: ['invoice'] });
  readonly log = recordingLogger();
  readonly progress = new Progress(CONFIRMED);
  readonly stream = new FakeStream(this.progress);
  readonly flow: Flow;
  /** How the flow ended: undefined while it runs, the reason of a renewal, or the error of a failure */
  ending: unknown;

  constructor(options: Partial<FlowOptions> & { readonly boundaries?: readonly Boundary[] } = {}) {
    this.flow = new Flow({
      replication: this.stream as unknown as ReplicationStream,
      sinks: this.sinks as unknown as Sinks,
      databaseRef: 'db',
      slot: 'slot',
      namespaces: new Set(['invoice', 'a_b']),
      tables: new Map(),
      plan: { streamed: ['invoice', 'a_b'], boundaries: options.boundaries ?? [] },
      inFlightBudgetBytes: 1024 * 1024,
      maxRowBytes: 2 * 1024 * 1024,
      shutdownTimeoutMs: 20_000,
      progress: this.progress,
      currentLsn: CONFIRMED,
      memory: this.memory,
      status: this.status,
      log: this.log.logger,
      ...options,
    });
    void this.flow.ended.then((end) => {
      this.ending = end.kind === 'renew' ? end.reason : end.error;
    });
  }

  /** Passes frames to the flow, each in a chunk of its own. */
  async receive(...frames: readonly Buffer[]): Promise<void> {
    for (const frame of frames) this.stream.bring(wire.copyData(frame));
    await settle();
  }

  /** Passes frames to the flow in one chunk. */
  async receiveAtOnce(...frames: readonly Buffer[]): Promise<void> {
    this.stream.bring(wire.copyData(...frames));
    await settle();
  }

  /** Acknowledges all records below an ordinal, by default all. */
  async acknowledge(below = Number.POSITIVE_INFINITY): Promise<void> {
    this.sinks.lowestUnacknowledged = below;
    this.sinks.listener!.onAcknowledged();
    await settle();
  }

  /** Statuses since the last call */
  newStatuses(): Status[] {
    return this.stream.sent.splice(0);
  }

  /** Brings a notice of the server. */
  async notify(notice: postgres.Notice): Promise<void> {
    this.stream.handlers!.onNotice(notice);
    await settle();
  }

  error<T extends NotifierError>(kind: abstract new (...args: never[]) => T): T {
    expect(this.ending).toBeInstanceOf(kind);
    return this.ending as T;
  }

  get keys(): string[] {
    return this.sinks.records.map(({ key }) => key);
  }
}

/** Runs everything that waits only for promises. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
}

/** The Relation message of an events table. */
export function eventsRelation(namespace = 'invoice', relationId = EVENTS): Buffer {
  return wire.relation({ relationId, name: `${namespace}_events`, columns: wire.EVENTS_COLUMNS });
}

/** The Relation message of `invoice_processes`. */
export function processesRelation(replicaIdentity: 'd' | 'f' = 'f'): Buffer {
  return wire.relation({
    relationId: PROCESSES,
    name: 'invoice_processes',
    replicaIdentity,
    columns: wire.PROCESSES_COLUMNS,
  });
}

/** The insert of an event. */
export function event(processId: string, options: { relationId?: number; payload?: Buffer } = {}): Buffer {
  const { relationId = EVENTS, payload = encodePayload(str('x')) } = options;
  return wire.insert(relationId, [processId, wire.int8(1n), wire.int2(1), wire.timestamptz(0n), null, payload]);
}

/** A row of `invoice_processes`. */
export function processRow(processId: string, status: string): wire.ColumnValue[] {
  return [processId, status, null, null, wire.timestamptz(0n), null, null, status, wire.timestamptz(0n)];
}

/** A transaction of events; its Commit starts at `commitLsn` and ends 0x30 after it. */
export function events(commitLsn: bigint, ...processIds: string[]): Buffer[] {
  return wire.transaction([eventsRelation(), ...processIds.map((id) => event(id))], { commitLsn });
}

/** The end LSN of the transaction whose Commit starts there. */
export const endOf = (commitLsn: bigint): bigint => commitLsn + 0x30n;
