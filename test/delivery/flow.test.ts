/** Decisions of a running stream, on frames built byte by byte, a hand-made connection and hand-made sinks. */
import { afterEach, beforeEach, describe, expect, jest, test } from 'bun:test';
import type postgres from 'postgres';
import { Flow, type FlowOptions } from '../../src/delivery/flow.ts';
import { Progress } from '../../src/delivery/progress.ts';
import type { Route, Sinks } from '../../src/delivery/sinks.ts';
import { createSlotMemory, type SlotMemory } from '../../src/delivery/slot-memory.ts';
import type { Boundary } from '../../src/delivery/streaming-plan.ts';
import {
  InvalidRowError,
  MalformedError,
  MissingOldTupleError,
  type NotifierError,
  SourceError,
} from '../../src/errors.ts';
import { MARKER_PREFIX } from '../../src/postgres/publication.ts';
import type { ReplicationStream } from '../../src/postgres/replication-stream.ts';
import type { RecordKind } from '../../src/progressor/convert.ts';
import { encodePayload, str } from '../support/etf.ts';
import * as wire from '../support/pgoutput.ts';
import { recordingLogger } from '../support/recording-logger.ts';

const EVENTS = 16_401;
const PROCESSES = 16_402;
const OTHER = 16_403;
/** Where every slot of this file stands at first */
const CONFIRMED = 0x100n;
const STATUS_INTERVAL_MS = 3_000;
const ANSWER_TIMEOUT_MS = 18_000;
const MIB = 1024 * 1024;

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

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

/** The connection, as far as a flow knows it. */
class FakeStream {
  readonly statuses: Status[] = [];
  isPaused = true;
  isFinished = false;

  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
  }
  writeStatus(bytes: Buffer): void {
    this.statuses.push(readStatus(bytes));
  }
  finish(): void {
    this.isFinished = true;
  }
}

interface FakeRecord {
  readonly namespace: string;
  readonly kind: RecordKind;
  readonly key: string;
  readonly ordinal: number;
}

/** The sinks, as far as a flow knows them: what is appended counts as unacknowledged until the test says otherwise. */
class FakeSinks {
  readonly records: FakeRecord[] = [];
  flushCount = 0;
  /** Records that had been appended when the sinks were last flushed */
  flushedRecordCount = 0;
  bufferedBytes = 0;
  lowestUnacknowledged = Number.POSITIVE_INFINITY;
  onMissingOldTuple: Route['onMissingOldTuple'] = 'stop';
  /** What `append` raises */
  refusal: Error | undefined;

  route(namespace: string): Route {
    return { namespace, onMissingOldTuple: this.onMissingOldTuple } as Route;
  }
  append(route: Route, kind: RecordKind, record: { key: { view(): Buffer }; ordinal: number }): void {
    const { ordinal } = record;
    if (this.refusal !== undefined) throw this.refusal;
    this.records.push({ namespace: route.namespace, kind, key: record.key.view().toString(), ordinal });
    this.lowestUnacknowledged = Math.min(this.lowestUnacknowledged, ordinal);
  }
  flush(): void {
    this.flushCount++;
    this.flushedRecordCount = this.records.length;
  }
}

class Bench {
  readonly stream = new FakeStream();
  readonly sinks = new FakeSinks();
  readonly memory: SlotMemory = createSlotMemory();
  readonly log = recordingLogger();
  readonly progress = new Progress(CONFIRMED);
  readonly flow: Flow;
  /** How the flow ended: undefined while it runs, `reached` at a boundary, else the error */
  ending: unknown;

  constructor(options: Partial<FlowOptions> & { readonly boundaries?: readonly Boundary[] } = {}) {
    this.flow = new Flow({
      databaseRef: 'db',
      slot: 'slot',
      namespaces: new Set(['invoice', 'a_b']),
      plan: { streamed: ['invoice', 'a_b'], boundaries: options.boundaries ?? [] },
      timings: { statusIntervalMs: STATUS_INTERVAL_MS, answerTimeoutMs: ANSWER_TIMEOUT_MS },
      progress: this.progress,
      memory: this.memory,
      log: this.log.logger,
      ...options,
    });
    this.flow.outcome.then(
      () => {
        this.ending = 'reached';
      },
      (error: unknown) => {
        this.ending = error;
      },
    );
    this.flow.start(this.stream as unknown as ReplicationStream, this.sinks as unknown as Sinks);
  }

  /** Gives chunks as one read of the socket would, and lets the flow work them off. */
  async receive(...chunks: readonly Buffer[]): Promise<void> {
    for (const chunk of chunks) this.flow.onChunk(chunk);
    await settle();
  }

  /** Kafka acknowledges everything below an ordinal, by default everything. */
  async acknowledge(below = Number.POSITIVE_INFINITY): Promise<void> {
    this.sinks.lowestUnacknowledged = below;
    this.flow.onAcknowledged();
    await settle();
  }

  /** Statuses since the last look */
  newStatuses(): Status[] {
    return this.stream.statuses.splice(0);
  }

  error<T extends NotifierError>(kind: abstract new (...args: never[]) => T): T {
    expect(this.ending).toBeInstanceOf(kind);
    return this.ending as T;
  }

  get keys(): string[] {
    return this.sinks.records.map(({ key }) => key);
  }
}

/** Lets everything that waits for nothing but promises happen. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
}

function eventsRelation(namespace = 'invoice', relationId = EVENTS): Buffer {
  return wire.relation({ relationId, name: `${namespace}_events`, columns: wire.EVENTS_COLUMNS });
}

function processesRelation(replicaIdentity: 'd' | 'f' = 'f'): Buffer {
  return wire.relation({
    relationId: PROCESSES,
    name: 'invoice_processes',
    replicaIdentity,
    columns: wire.PROCESSES_COLUMNS,
  });
}

function event(processId: string, options: { relationId?: number; payload?: Buffer } = {}): Buffer {
  const { relationId = EVENTS, payload = encodePayload(str('x')) } = options;
  return wire.insert(relationId, [processId, wire.int8(1n), wire.int2(1), wire.timestamptz(0n), null, payload]);
}

function processRow(processId: string, status: string): wire.ColumnValue[] {
  return [processId, status, null, null, wire.timestamptz(0n), null, null, status, wire.timestamptz(0n)];
}

/** A transaction of events: its Commit begins at `commitLsn` and ends 0x30 behind it. */
function events(commitLsn: bigint, ...processIds: string[]): Buffer[] {
  return wire.transaction([eventsRelation(), ...processIds.map((id) => event(id))], { commitLsn });
}

const endOf = (commitLsn: bigint): bigint => commitLsn + 0x30n;

describe('Flow: records', () => {
  test('begins to read only when it is ready', () => {
    expect(new Bench().stream.isPaused).toBe(false);
  });

  test('numbers the records in WAL order and sends them before their Commit has come', async () => {
    const bench = new Bench();
    const frames = wire.transaction(
      [
        eventsRelation(),
        processesRelation(),
        wire.insert(PROCESSES, processRow('p1', 'running')),
        wire.update(PROCESSES, { kind: 'O', columns: processRow('p1', 'running') }, processRow('p1', 'running')),
        event('p1'),
      ],
      { commitLsn: 0x200n },
    );
    await bench.receive(...frames.slice(0, -1));
    expect(bench.sinks.records).toEqual([
      { namespace: 'invoice', kind: 'lifecycle', key: 'invoice p1', ordinal: 1 },
      { namespace: 'invoice', kind: 'event', key: 'invoice p1', ordinal: 2 },
    ]);
    expect(bench.sinks.flushedRecordCount).toBe(2);
  });

  test('flushes once for all chunks of one read', async () => {
    const bench = new Bench();
    await bench.receive(...events(0x200n, 'p1', 'p2'), ...events(0x300n, 'p3'));
    expect([bench.keys.length, bench.sinks.flushCount]).toEqual([3, 1]);
    await bench.receive(...events(0x400n, 'p4'));
    expect(bench.sinks.flushCount).toBe(2);
  });

  test('takes several frames that the driver has merged into one chunk', async () => {
    const bench = new Bench();
    await bench.receive(Buffer.concat([...events(0x200n, 'p1'), wire.keepalive(0x400n), ...events(0x500n, 'p2')]));
    expect(bench.keys).toEqual(['invoice p1', 'invoice p2']);
    expect(bench.progress.written).toBe(endOf(0x500n));
  });

  test('reads columns by the last Relation of a table, also one that came in mid-transaction', async () => {
    const bench = new Bench();
    const swapped = wire.relation({
      relationId: EVENTS,
      name: 'invoice_events',
      columns: [...wire.EVENTS_COLUMNS].reverse(),
    });
    const row = [encodePayload(str('x')), null, wire.timestamptz(0n), wire.int2(1), wire.int8(1n), 'p2'];
    await bench.receive(
      ...wire.transaction([eventsRelation(), event('p1'), swapped, wire.insert(EVENTS, row)], { commitLsn: 0x200n }),
    );
    expect(bench.keys).toEqual(['invoice p1', 'invoice p2']);
  });

  test('ignores what makes no record: Truncate, Type, Origin, foreign logical messages', async () => {
    const bench = new Bench();
    const foreign = { transactional: true, lsn: 0x1f0n, prefix: 'somebody', content: Buffer.from('invoice') };
    await bench.receive(
      ...wire.transaction(
        [
          wire.origin(0x200n, 'elsewhere'),
          wire.type(wire.PROCESS_STATUS_OID, 'public', 'process_status'),
          eventsRelation(),
          wire.truncate([EVENTS]),
          wire.logicalMessage(foreign),
          wire.logicalMessage({ ...foreign, transactional: false }),
        ],
        { commitLsn: 0x200n },
      ),
    );
    expect([bench.keys, bench.ending, bench.progress.flushed]).toEqual([[], undefined, endOf(0x200n)]);
  });

  test('warns of a relation that is not configured once for the life of the slot, and ignores its rows', async () => {
    const bench = new Bench();
    const relation = wire.relation({ relationId: OTHER, name: 'other_events', columns: wire.EVENTS_COLUMNS });
    const frames = wire.transaction([relation, event('p1', { relationId: OTHER }), relation], { commitLsn: 0x200n });
    await bench.receive(...frames);
    const warning = expect.objectContaining({ level: 'warn', relation: 'public.other_events' });
    expect(bench.log.lines).toEqual([warning]);
    const next = new Bench({ memory: bench.memory });
    await next.receive(...frames);
    expect(next.log.lines).toEqual([]);
    expect([bench.keys, next.keys, next.ending]).toEqual([[], [], undefined]);
  });
});

describe('Flow: statuses', () => {
  test('says where it stands when it begins', () => {
    expect(new Bench().newStatuses()).toEqual([{ written: CONFIRMED, flushed: CONFIRMED, asks: false }]);
  });

  test("confirms a commit's end LSN, at once when Kafka has acknowledged and not before (L1)", async () => {
    const bench = new Bench();
    await bench.receive(...events(0x200n, 'p1', 'p2'));
    bench.newStatuses();
    await bench.acknowledge(2);
    expect(bench.newStatuses()).toEqual([]);
    await bench.acknowledge();
    expect(bench.newStatuses()).toEqual([{ written: endOf(0x200n), flushed: endOf(0x200n), asks: false }]);
  });

  test('tells received and acknowledged apart, and confirms up to the first commit that is not acknowledged (L2)', async () => {
    const bench = new Bench();
    await bench.receive(...events(0x200n, 'p1'), ...events(0x300n, 'p2'), ...events(0x400n, 'p3'));
    bench.newStatuses();
    await bench.acknowledge(3);
    expect(bench.newStatuses()).toEqual([{ written: endOf(0x400n), flushed: endOf(0x300n), asks: false }]);
  });

  test('counts the rows of an open transaction as received (L2)', async () => {
    const bench = new Bench();
    bench.newStatuses();
    await bench.receive(...events(0x200n, 'p1').slice(0, -1));
    jest.advanceTimersByTime(STATUS_INTERVAL_MS);
    expect(bench.newStatuses()).toMatchObject([{ written: 0x200n, flushed: CONFIRMED }]);
  });

  test('confirms a transaction without records as soon as it is received', async () => {
    const bench = new Bench();
    bench.newStatuses();
    await bench.receive(...wire.transaction([], { commitLsn: 0x200n }));
    expect(bench.newStatuses()).toEqual([{ written: endOf(0x200n), flushed: endOf(0x200n), asks: false }]);
  });

  test('confirms a keepalive when nothing is open, queued or in flight (L3)', async () => {
    const bench = new Bench();
    bench.newStatuses();
    await bench.receive(wire.keepalive(0x500n));
    expect(bench.newStatuses()).toEqual([{ written: 0x500n, flushed: 0x500n, asks: false }]);
  });

  test('does not confirm a keepalive inside a transaction, nor one with records in flight before it (L3)', async () => {
    const bench = new Bench();
    const frames = events(0x600n, 'p1');
    await bench.receive(frames[0]!, frames[1]!, frames[2]!, wire.keepalive(0x500n));
    await bench.acknowledge();
    expect(bench.progress.flushed).toBe(CONFIRMED);
    await bench.receive(frames[3]!, ...events(0x700n, 'p2'), wire.keepalive(0x800n));
    expect(bench.progress.flushed).toBe(endOf(0x600n));
    await bench.acknowledge();
    expect(bench.stream.statuses.at(-1)).toEqual({ written: 0x800n, flushed: 0x800n, asks: false });
  });

  test('answers a request at once when a number has moved, otherwise after 100 ms, once for many (L4)', async () => {
    const bench = new Bench();
    const frames = events(0x200n, 'p1');
    await bench.receive(...frames);
    bench.newStatuses();
    await bench.receive(wire.keepalive(0x400n, { replyRequested: true }));
    expect(bench.newStatuses()).toEqual([{ written: 0x400n, flushed: CONFIRMED, asks: false }]);
    for (let count = 0; count < 1000; count++) bench.flow.onChunk(wire.keepalive(0x400n, { replyRequested: true }));
    await settle();
    expect(bench.newStatuses()).toEqual([]);
    jest.advanceTimersByTime(100);
    expect(bench.newStatuses()).toEqual([{ written: 0x400n, flushed: CONFIRMED, asks: false }]);
    jest.advanceTimersByTime(1000);
    expect(bench.newStatuses()).toEqual([]);
  });

  test('sends a status at every interval, also while the socket is paused and nothing is acknowledged (L5)', async () => {
    const bench = new Bench();
    await bench.receive(...events(0x200n, 'p1'));
    bench.sinks.bufferedBytes = 4 * MIB;
    await bench.receive(...events(0x300n, 'p2'));
    expect(bench.stream.isPaused).toBe(true);
    bench.newStatuses();
    jest.advanceTimersByTime(10 * STATUS_INTERVAL_MS);
    const statuses = bench.newStatuses();
    expect(statuses).toHaveLength(10);
    expect(new Set(statuses.map(({ flushed, asks }) => `${flushed} ${asks}`))).toEqual(new Set([`${CONFIRMED} false`]));
    expect(bench.ending).toBeUndefined();
  });

  test('asks after an interval of silence, and takes an unanswered question for a dead connection (L6)', async () => {
    const bench = new Bench();
    bench.newStatuses();
    jest.advanceTimersByTime(STATUS_INTERVAL_MS);
    expect(bench.newStatuses()).toEqual([{ written: CONFIRMED, flushed: CONFIRMED, asks: true }]);
    jest.advanceTimersByTime(ANSWER_TIMEOUT_MS - 100);
    expect(bench.newStatuses().filter(({ asks }) => asks)).toEqual([]); // one question is enough
    await settle();
    expect(bench.ending).toBeUndefined();
    jest.advanceTimersByTime(100);
    await settle();
    const error = bench.error(SourceError);
    expect(error.place).toMatchObject({ database: 'db', slot: 'slot' });
    expect(error.advice).toBeString();
  });

  test('an answer, or anything else that comes in, is a sign of life (L6)', async () => {
    const bench = new Bench();
    for (let round = 0; round < 20; round++) {
      jest.advanceTimersByTime(STATUS_INTERVAL_MS);
      expect(bench.newStatuses().some(({ asks }) => asks)).toBe(true);
      jest.advanceTimersByTime(ANSWER_TIMEOUT_MS - 200);
      await bench.receive(wire.keepalive(CONFIRMED));
    }
    expect(bench.ending).toBeUndefined();
  });

  test('its own pause is no silence of the server, nor is the time right after it (L6)', async () => {
    const bench = new Bench();
    bench.sinks.bufferedBytes = 5 * MIB;
    await bench.receive(...events(0x200n, 'p1'));
    jest.advanceTimersByTime(5 * ANSWER_TIMEOUT_MS);
    bench.sinks.bufferedBytes = 0;
    await bench.acknowledge();
    bench.newStatuses();
    jest.advanceTimersByTime(STATUS_INTERVAL_MS - 100);
    await settle();
    expect([bench.newStatuses().filter(({ asks }) => asks), bench.ending]).toEqual([[], undefined]);
  });
});

describe('Flow: bounds', () => {
  test('pauses the socket at 1 MiB that are not acknowledged, and reads again from half of it down', async () => {
    const bench = new Bench();
    bench.sinks.bufferedBytes = MIB - 1;
    await bench.receive(...events(0x200n, 'p1'));
    expect(bench.stream.isPaused).toBe(false);
    bench.sinks.bufferedBytes = MIB;
    await bench.receive(...events(0x300n, 'p2'));
    expect(bench.stream.isPaused).toBe(true);
    bench.sinks.bufferedBytes = MIB / 2 + 1;
    await bench.acknowledge(2);
    expect(bench.stream.isPaused).toBe(true);
    bench.sinks.bufferedBytes = MIB / 2;
    await bench.acknowledge(2);
    expect(bench.stream.isPaused).toBe(false);
  });

  test('works off what the driver had read before the pause', async () => {
    const bench = new Bench();
    bench.sinks.bufferedBytes = 9 * MIB;
    await bench.receive(...events(0x200n, 'p1'));
    await bench.receive(...events(0x300n, 'p2'));
    expect([bench.keys, bench.stream.isPaused]).toEqual([['invoice p1', 'invoice p2'], true]);
  });
});

describe('Flow: the end', () => {
  test('drain takes no more, and resolves when all that was taken is acknowledged; statuses go on meanwhile', async () => {
    const bench = new Bench();
    const open = events(0x300n, 'p2');
    await bench.receive(...events(0x200n, 'p1'), ...open.slice(0, -1));
    let drained = false;
    void bench.flow.drain().then(() => {
      drained = true;
    });
    await bench.receive(open.at(-1)!, ...events(0x400n, 'p3'));
    expect([bench.keys, bench.stream.isPaused, drained]).toEqual([['invoice p1', 'invoice p2'], true, false]);
    bench.newStatuses();
    jest.advanceTimersByTime(STATUS_INTERVAL_MS);
    expect(bench.newStatuses()).toHaveLength(1);
    await bench.acknowledge(2);
    expect(drained).toBe(false);
    await bench.acknowledge();
    expect(drained).toBe(true);
    // The second transaction was open: it comes again, whole.
    expect(bench.stream.statuses.at(-1)).toMatchObject({ flushed: endOf(0x200n) });
    expect(bench.stream.isPaused).toBe(true);
  });

  test('drain resolves at once when nothing is in flight', async () => {
    const bench = new Bench();
    await bench.flow.drain();
    expect(bench.sinks.flushCount).toBe(1);
  });

  test('finish sends the last status, then CopyDone, and nothing after it', async () => {
    const bench = new Bench();
    await bench.receive(...events(0x200n, 'p1'));
    await bench.acknowledge();
    bench.newStatuses();
    bench.flow.finish();
    expect(bench.newStatuses()).toEqual([{ written: endOf(0x200n), flushed: endOf(0x200n), asks: false }]);
    expect(bench.stream.isFinished).toBe(true);
    jest.advanceTimersByTime(10 * ANSWER_TIMEOUT_MS);
    await bench.receive(...events(0x300n, 'p2'));
    expect([bench.newStatuses(), bench.keys, bench.ending]).toEqual([[], ['invoice p1'], undefined]);
  });

  test('fail ends it once, with the place of its slot added to what the error knows', async () => {
    const bench = new Bench();
    bench.flow.fail(new SourceError('Lost', { place: { topic: 't' } }));
    bench.flow.fail(new SourceError('Lost again'));
    await settle();
    expect(bench.error(SourceError)).toMatchObject({
      message: 'Lost',
      place: { database: 'db', slot: 'slot', topic: 't' },
    });
    await bench.receive(...events(0x200n, 'p1'));
    bench.newStatuses();
    jest.advanceTimersByTime(10 * ANSWER_TIMEOUT_MS);
    expect([bench.keys, bench.newStatuses()]).toEqual([[], []]);
  });
});

describe('Flow: boundaries', () => {
  const marker = (content: string, options: { transactional?: boolean } = {}) =>
    wire.logicalMessage({
      transactional: options.transactional ?? true,
      lsn: 0x2f0n,
      prefix: MARKER_PREFIX,
      content: Buffer.from(content),
    });

  test("the Commit of a marker's transaction ends the session, once all before it is acknowledged", async () => {
    const bench = new Bench({ boundaries: [{ kind: 'marker', publication: 'later', lsn: 0x2f0n }] });
    const frames = wire.transaction([marker('later'), eventsRelation(), event('p2')], { commitLsn: 0x300n });
    await bench.receive(...events(0x200n, 'p1'), ...frames, ...events(0x400n, 'p3'));
    expect([bench.keys, bench.ending]).toEqual([['invoice p1', 'invoice p2'], undefined]);
    await bench.acknowledge(2);
    expect(bench.ending).toBeUndefined();
    await bench.acknowledge();
    expect([bench.ending, bench.progress.flushed]).toEqual(['reached', endOf(0x300n)]);
  });

  test.each([
    ['of a publication that is streamed', 'invoice', {}],
    ['outside of a transaction', 'later', { transactional: false }],
  ])('a marker %s ends nothing', async (_, content, options) => {
    const bench = new Bench({ boundaries: [{ kind: 'marker', publication: 'later', lsn: 0x2f0n }] });
    await bench.receive(
      ...wire.transaction([marker(content, options)], { commitLsn: 0x300n }),
      ...events(0x400n, 'p1'),
    );
    expect([bench.keys, bench.ending]).toEqual([['invoice p1'], undefined]);
  });

  test.each([0x400n, 0x410n])(
    'an LSN boundary ends the session before the transaction that commits at %p',
    async (commitLsn) => {
      const bench = new Bench({ boundaries: [{ kind: 'lsn', publication: 'later', lsn: 0x400n }] });
      await bench.receive(...events(0x300n, 'p1'), ...events(commitLsn, 'p2'));
      expect([bench.keys, bench.ending]).toEqual([['invoice p1'], undefined]);
      await bench.acknowledge();
      expect([bench.ending, bench.progress.flushed]).toEqual(['reached', 0x400n]);
    },
  );

  test('frames behind a boundary are left alone, also in the same chunk', async () => {
    const bench = new Bench({ boundaries: [{ kind: 'marker', publication: 'later', lsn: 0x2f0n }] });
    const frames = wire.transaction([marker('later')], { commitLsn: 0x300n });
    await bench.receive(Buffer.concat([...frames, wire.keepalive(0x380n), ...events(0x400n, 'p1')]));
    expect([bench.ending, bench.keys, bench.progress.flushed]).toEqual(['reached', [], endOf(0x300n)]);
  });

  test('an LSN boundary is reached by a keepalive too, so that an idle server does not hold a publication back', async () => {
    const bench = new Bench({ boundaries: [{ kind: 'lsn', publication: 'later', lsn: 0x400n }] });
    await bench.receive(wire.keepalive(0x3ffn));
    expect(bench.ending).toBeUndefined();
    await bench.receive(wire.keepalive(0x400n));
    expect([bench.ending, bench.progress.flushed]).toEqual(['reached', 0x400n]);
  });
});

describe('Flow: rows that cannot be read', () => {
  const invalidEvent = event('bad', { payload: Buffer.from([131, 0]) });

  test('an invalid row fails the slot with table, key and LSN, after all before it is delivered and confirmed', async () => {
    const bench = new Bench();
    await bench.receive(
      ...events(0x200n, 'p1'),
      ...wire.transaction([eventsRelation(), event('p2'), invalidEvent, event('p3')], { commitLsn: 0x300n }),
    );
    expect([bench.keys, bench.sinks.flushedRecordCount]).toEqual([['invoice p1', 'invoice p2'], 2]);
    expect(bench.ending).toBeUndefined();
    await bench.acknowledge(2);
    expect(bench.ending).toBeUndefined();
    await bench.acknowledge();
    expect(bench.error(InvalidRowError).place).toEqual({
      database: 'db',
      slot: 'slot',
      namespace: 'invoice',
      table: 'invoice_events',
      key: 'invoice bad',
      lsn: '0/300',
    });
    expect(bench.progress.flushed).toBe(endOf(0x200n));
  });

  test('Kafka failing while the rows before an invalid one are delivered is what ends the session', async () => {
    const bench = new Bench();
    await bench.receive(...wire.transaction([eventsRelation(), event('p1'), invalidEvent], { commitLsn: 0x300n }));
    bench.flow.fail(new SourceError('Lost'));
    await bench.acknowledge();
    expect(bench.error(SourceError).message).toBe('Lost');
  });

  test('an update without its old tuple stops the slot by default', async () => {
    const bench = new Bench();
    const frames = [processesRelation('d'), wire.update(PROCESSES, undefined, processRow('p1', 'error'))];
    await bench.receive(...wire.transaction(frames, { commitLsn: 0x300n }));
    const error = bench.error(MissingOldTupleError);
    expect(error.place).toMatchObject({ table: 'invoice_processes', key: 'invoice p1', lsn: '0/300' });
    expect(error.advice).toContain('on_missing_old_tuple');
  });

  test('an update without its old tuple is skipped where that is configured: counted, and logged with its LSN', async () => {
    const bench = new Bench();
    bench.sinks.onMissingOldTuple = 'skip';
    const update = (id: string) => wire.update(PROCESSES, undefined, processRow(id, 'error'));
    await bench.receive(
      ...wire.transaction([processesRelation('d'), update('p1')], { commitLsn: 0x300n }),
      ...wire.transaction([update('p2'), eventsRelation(), event('p3')], { commitLsn: 0x400n }),
    );
    expect([bench.ending, bench.keys, bench.memory.skippedRowCount]).toEqual([undefined, ['invoice p3'], 2]);
    const common = { level: 'warn', namespace: 'invoice', table: 'invoice_processes' };
    expect(bench.log.lines).toEqual([
      expect.objectContaining({ ...common, key: 'invoice p1', lsn: '0/300', skippedRowCount: 1 }),
      expect.objectContaining({ ...common, key: 'invoice p2', lsn: '0/400', skippedRowCount: 2 }),
    ]);
    await bench.acknowledge();
    expect(bench.progress.flushed).toBe(endOf(0x400n));
  });

  test('skipping excuses nothing but the missing old tuple', async () => {
    const bench = new Bench();
    bench.sinks.onMissingOldTuple = 'skip';
    await bench.receive(...wire.transaction([eventsRelation(), invalidEvent], { commitLsn: 0x300n }));
    expect(bench.error(InvalidRowError).place.key).toBe('invoice bad');
  });

  test('a record that a topic cannot take is an invalid row of its table', async () => {
    const bench = new Bench();
    bench.sinks.refusal = new InvalidRowError('Cannot produce', { place: { topic: 't', key: 'invoice p1' } });
    await bench.receive(...events(0x300n, 'p1'));
    expect(bench.error(InvalidRowError).place).toMatchObject({
      topic: 't',
      key: 'invoice p1',
      namespace: 'invoice',
      table: 'invoice_events',
      lsn: '0/300',
    });
  });

  test('a table without a column that is needed is an error of its slot', async () => {
    const bench = new Bench();
    const columns = wire.EVENTS_COLUMNS.filter(({ name }) => name !== 'payload');
    // As servers send it, a Relation carries LSN 0, which names no place.
    const relation = wire.xlogData(wire.relation({ relationId: EVENTS, name: 'invoice_events', columns }), 0n);
    await bench.receive(events(0x300n)[0]!, relation);
    const error = bench.error(InvalidRowError);
    expect(error.message).toContain('payload');
    expect(error.place.lsn).not.toBe('0/0');
  });

  test('a row of a relation that was never described is an error, not a row of nobody', async () => {
    const bench = new Bench();
    await bench.receive(...wire.transaction([event('p1')], { commitLsn: 0x300n }));
    expect(bench.error(SourceError).place).toMatchObject({ slot: 'slot', lsn: '0/300' });
  });

  test('a row outside of a transaction is an error', async () => {
    const bench = new Bench();
    await bench.receive(...events(0x200n, 'p1'), wire.xlogData(event('p2'), 0x300n));
    await bench.acknowledge();
    expect([bench.error(SourceError).place.lsn, bench.keys]).toEqual(['0/300', ['invoice p1']]);
  });

  test('bytes that are no frame are an error', async () => {
    const bench = new Bench();
    await bench.receive(Buffer.from('?'));
    expect(bench.error(MalformedError).offset).toBe(0);
  });
});

describe('Flow: publications that the server cannot load', () => {
  const notice = (name: string, where = 'associated LSN 0/300'): postgres.Notice => ({
    code: '55000',
    severity: 'WARNING',
    message: `skipped loading publication "${name}"`,
    where,
  });

  test('one that never worked is not there yet: its rows are not owed', async () => {
    const bench = new Bench();
    bench.flow.onNotice(notice('a_b'));
    await settle();
    expect([bench.ending, bench.log.lines]).toEqual([undefined, []]);
  });

  test('one that worked before was dropped: nothing behind it is confirmed', async () => {
    const bench = new Bench();
    await bench.receive(...wire.transaction([], { commitLsn: 0x200n }));
    bench.memory.publicationExistedAt.set('a_b', 0x300n);
    bench.flow.onNotice(notice('a_b'));
    await settle();
    expect(bench.error(SourceError).place).toMatchObject({ namespace: 'a_b', slot: 'slot', lsn: '0/230' });
    await bench.receive(...events(0x400n, 'p1'));
    expect([bench.keys, bench.progress.flushed]).toEqual([[], endOf(0x200n)]);
  });

  test('a change from before it is known to have existed is not owed', async () => {
    const bench = new Bench();
    bench.memory.publicationExistedAt.set('a_b', 0x301n);
    bench.flow.onNotice(notice('a_b'));
    await settle();
    expect(bench.ending).toBeUndefined();
  });

  test('of names that contain each other the longer one is meant', async () => {
    const names = ['a', 'a_b'];
    const bench = new Bench({ plan: { streamed: names, boundaries: [] } });
    bench.memory.publicationExistedAt.set('a', 0x100n);
    bench.flow.onNotice(notice('a_b'));
    await settle();
    expect(bench.ending).toBeUndefined();
  });

  test('any other notice is logged by its code, without its text', () => {
    const bench = new Bench();
    bench.flow.onNotice({ code: '01000', severity: 'WARNING', message: 'secret' });
    expect(bench.log.lines).toEqual([expect.objectContaining({ level: 'info', code: '01000', severity: 'WARNING' })]);
    expect(JSON.stringify(bench.log.lines)).not.toContain('secret');
  });
});
