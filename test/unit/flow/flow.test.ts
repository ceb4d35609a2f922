/** Decisions of a running stream: what it reads, reports to the server, and ends on. Rows: row-delivery.test.ts. */
import { afterEach, beforeEach, describe, expect, jest, test } from 'bun:test';
import postgres from 'postgres';
import { LossError, SourceError } from '../../../src/errors.ts';
import { MARKER_PREFIX } from '../../../src/postgres/replication/publication-marker.ts';
import { encodePayload, str } from '../../support/codecs/etf.ts';
import * as wire from '../../support/codecs/pgoutput.ts';
import {
  ANSWER_TIMEOUT_MS,
  CONFIRMED,
  EVENTS,
  endOf,
  event,
  events,
  eventsRelation,
  FlowFixture,
  OTHER,
  PROCESSES,
  processesRelation,
  processRow,
  STATUS_INTERVAL_MS,
  settle,
} from '../../support/service/flow-fixture.ts';

const MIB = 1024 * 1024;

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

describe('Flow: records', () => {
  test('reads only after it has started', () => {
    expect(new FlowFixture().stream.isPaused).toBe(false);
  });

  test('numbers the records in WAL order and sends them before their Commit arrives', async () => {
    const fixture = new FlowFixture();
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
    await fixture.receive(...frames.slice(0, -1));
    expect(fixture.sinks.records).toEqual([
      { namespace: 'invoice', kind: 'lifecycle', key: 'invoice p1', ordinal: 1 },
      { namespace: 'invoice', kind: 'event', key: 'invoice p1', ordinal: 2 },
    ]);
    expect(fixture.sinks.flushedRecordCount).toBe(2);
  });

  test('flushes once for all chunks of one read', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...events(0x200n, 'p1', 'p2'), ...events(0x300n, 'p3'));
    expect([fixture.keys.length, fixture.sinks.flushCount]).toEqual([3, 1]);
    await fixture.receive(...events(0x400n, 'p4'));
    expect(fixture.sinks.flushCount).toBe(2);
  });

  test('pauses after a small read of a backlog, by the clock of the server only', async () => {
    const fixture = new FlowFixture();
    const commitTimeMicros = 848_000_000_000_000n;
    const sent = (lateMicros: bigint) =>
      wire
        .transaction([eventsRelation(), event('p1')], { commitLsn: 0x200n, commitTimeMicros })
        .map((frame) => wire.sentAt(frame, commitTimeMicros + lateMicros));
    await fixture.receiveAtOnce(...sent(99_000n));
    expect(fixture.stream.restsMs).toEqual([]);
    await fixture.receiveAtOnce(...sent(100_000n));
    expect(fixture.stream.restsMs).toEqual([6]);
    await fixture.receiveAtOnce(wire.keepalive(0x400n));
    expect(fixture.stream.restsMs).toEqual([6]);
    fixture.stream.lastReadBytes = 64 * 1024;
    await fixture.receiveAtOnce(...sent(100_000n));
    expect(fixture.stream.restsMs).toEqual([6]);
  });

  test('flushes after the last chunk of a read, or when it stops reading', async () => {
    const fixture = new FlowFixture();
    fixture.stream.isHandingOver = true;
    await fixture.receive(...events(0x200n, 'p1'));
    expect(fixture.sinks.flushCount).toBe(0);
    fixture.stream.isHandingOver = false;
    await fixture.receive(...events(0x300n, 'p2'));
    expect([fixture.sinks.flushCount, fixture.sinks.flushedRecordCount]).toEqual([1, 2]);
  });

  test('processes all frames of one chunk', async () => {
    const fixture = new FlowFixture();
    await fixture.receiveAtOnce(...events(0x200n, 'p1'), wire.keepalive(0x400n), ...events(0x500n, 'p2'));
    expect(fixture.keys).toEqual(['invoice p1', 'invoice p2']);
    expect(fixture.progress.written).toBe(endOf(0x500n));
  });

  test('reads columns by the last Relation of a table, also one within a transaction', async () => {
    const fixture = new FlowFixture();
    const swapped = wire.relation({
      relationId: EVENTS,
      name: 'invoice_events',
      columns: [...wire.EVENTS_COLUMNS].reverse(),
    });
    const row = [encodePayload(str('x')), null, wire.timestamptz(0n), wire.int2(1), wire.int8(1n), 'p2'];
    await fixture.receive(
      ...wire.transaction([eventsRelation(), event('p1'), swapped, wire.insert(EVENTS, row)], { commitLsn: 0x200n }),
    );
    expect(fixture.keys).toEqual(['invoice p1', 'invoice p2']);
  });

  test('ignores messages without a record: Truncate, Type, Origin, foreign logical messages', async () => {
    const fixture = new FlowFixture();
    const foreign = { transactional: true, lsn: 0x1f0n, prefix: 'another', content: Buffer.from('invoice') };
    await fixture.receive(
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
    expect([fixture.keys, fixture.ending, fixture.progress.flushed]).toEqual([[], undefined, endOf(0x200n)]);
  });

  test('warns about a relation that is not configured once per slot, over all sessions, and ignores its rows', async () => {
    const fixture = new FlowFixture();
    const relation = wire.relation({ relationId: OTHER, name: 'other_events', columns: wire.EVENTS_COLUMNS });
    const frames = wire.transaction([relation, event('p1', { relationId: OTHER }), relation], { commitLsn: 0x200n });
    await fixture.receive(...frames);
    const warning = expect.objectContaining({ level: 'warn', relation: 'public.other_events' });
    expect(fixture.log.lines).toEqual([warning]);
    const next = new FlowFixture({ memory: fixture.memory });
    await next.receive(...frames);
    expect(next.log.lines).toEqual([]);
    expect([fixture.keys, next.keys, next.ending]).toEqual([[], [], undefined]);
  });
});

describe('Flow: statuses', () => {
  test('sends its confirmed LSN at the start, and no position before', () => {
    expect(new FlowFixture().newStatuses()).toEqual([
      { written: 0n, flushed: 0n, asks: false },
      { written: CONFIRMED, flushed: CONFIRMED, asks: false },
    ]);
  });

  test('confirms the end LSN of a commit as soon as Kafka has acknowledged it and not before (L1)', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...events(0x200n, 'p1', 'p2'));
    fixture.newStatuses();
    await fixture.acknowledge(2);
    expect(fixture.newStatuses()).toEqual([]);
    await fixture.acknowledge();
    expect(fixture.newStatuses()).toEqual([{ written: endOf(0x200n), flushed: endOf(0x200n), asks: false }]);
  });

  test('reports received and acknowledged LSNs separately, and confirms up to the first unacknowledged commit (L2)', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...events(0x200n, 'p1'), ...events(0x300n, 'p2'), ...events(0x400n, 'p3'));
    fixture.newStatuses();
    await fixture.acknowledge(3);
    expect(fixture.newStatuses()).toEqual([{ written: endOf(0x400n), flushed: endOf(0x300n), asks: false }]);
  });

  test('counts the rows of an open transaction as received (L2)', async () => {
    const fixture = new FlowFixture();
    fixture.newStatuses();
    await fixture.receive(...events(0x200n, 'p1').slice(0, -1));
    jest.advanceTimersByTime(STATUS_INTERVAL_MS);
    expect(fixture.newStatuses()).toMatchObject([{ written: 0x200n, flushed: CONFIRMED }]);
  });

  test('confirms a transaction without records when it is received', async () => {
    const fixture = new FlowFixture();
    fixture.newStatuses();
    await fixture.receive(...wire.transaction([], { commitLsn: 0x200n }));
    expect(fixture.newStatuses()).toEqual([{ written: endOf(0x200n), flushed: endOf(0x200n), asks: false }]);
  });

  test('confirms a keepalive when nothing is open, queued or in flight (L3)', async () => {
    const fixture = new FlowFixture();
    fixture.newStatuses();
    await fixture.receive(wire.keepalive(0x500n));
    expect(fixture.newStatuses()).toEqual([{ written: 0x500n, flushed: 0x500n, asks: false }]);
  });

  test('does not confirm a keepalive within a transaction or with records in flight before it (L3)', async () => {
    const fixture = new FlowFixture();
    const frames = events(0x600n, 'p1');
    await fixture.receive(frames[0]!, frames[1]!, frames[2]!, wire.keepalive(0x500n));
    await fixture.acknowledge();
    expect(fixture.progress.flushed).toBe(CONFIRMED);
    await fixture.receive(frames[3]!, ...events(0x700n, 'p2'), wire.keepalive(0x800n));
    expect(fixture.progress.flushed).toBe(endOf(0x600n));
    await fixture.acknowledge();
    expect(fixture.stream.sent.at(-1)).toEqual({ written: 0x800n, flushed: 0x800n, asks: false });
  });

  test('answers a reply request at once when an LSN has advanced, otherwise after 100 ms, once for several (L4)', async () => {
    const fixture = new FlowFixture();
    const frames = events(0x200n, 'p1');
    await fixture.receive(...frames);
    fixture.newStatuses();
    await fixture.receive(wire.keepalive(0x400n, { replyRequested: true }));
    expect(fixture.newStatuses()).toEqual([{ written: 0x400n, flushed: CONFIRMED, asks: false }]);
    const asking = wire.copyData(wire.keepalive(0x400n, { replyRequested: true }));
    for (let count = 0; count < 1000; count++) fixture.stream.bring(asking);
    await settle();
    expect(fixture.newStatuses()).toEqual([]);
    jest.advanceTimersByTime(100);
    expect(fixture.newStatuses()).toEqual([{ written: 0x400n, flushed: CONFIRMED, asks: false }]);
    jest.advanceTimersByTime(1000);
    expect(fixture.newStatuses()).toEqual([]);
  });

  test('sends a status at each interval, also while the socket is paused and nothing is acknowledged (L5)', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...events(0x200n, 'p1'));
    fixture.sinks.bufferedBytes = 4 * MIB;
    await fixture.receive(...events(0x300n, 'p2'));
    expect(fixture.stream.isPaused).toBe(true);
    fixture.newStatuses();
    jest.advanceTimersByTime(10 * STATUS_INTERVAL_MS);
    const statuses = fixture.newStatuses();
    expect(statuses).toHaveLength(10);
    expect(new Set(statuses.map(({ flushed, asks }) => `${flushed} ${asks}`))).toEqual(new Set([`${CONFIRMED} false`]));
    expect(fixture.ending).toBeUndefined();
  });

  test('requests a reply after an interval of silence, and fails without an answer (L6)', async () => {
    const fixture = new FlowFixture();
    fixture.newStatuses();
    jest.advanceTimersByTime(STATUS_INTERVAL_MS);
    expect(fixture.newStatuses()).toEqual([{ written: CONFIRMED, flushed: CONFIRMED, asks: true }]);
    jest.advanceTimersByTime(ANSWER_TIMEOUT_MS - 100);
    expect(fixture.newStatuses().filter(({ asks }) => asks)).toEqual([]); // one request is enough
    await settle();
    expect(fixture.ending).toBeUndefined();
    jest.advanceTimersByTime(100);
    await settle();
    const error = fixture.error(SourceError);
    expect(error.place).toMatchObject({ database: 'db', slot: 'slot' });
    expect(error.advice).toBeString();
  });

  test('accepts everything that arrives as a sign of life (L6)', async () => {
    const fixture = new FlowFixture();
    for (let round = 0; round < 20; round++) {
      jest.advanceTimersByTime(STATUS_INTERVAL_MS);
      expect(fixture.newStatuses().some(({ asks }) => asks)).toBe(true);
      jest.advanceTimersByTime(ANSWER_TIMEOUT_MS - 200);
      await fixture.receive(wire.keepalive(CONFIRMED));
    }
    expect(fixture.ending).toBeUndefined();
  });

  test('does not count its own pause, and the time right after it, as silence of the server (L6)', async () => {
    const fixture = new FlowFixture();
    fixture.sinks.bufferedBytes = 5 * MIB;
    await fixture.receive(...events(0x200n, 'p1'));
    jest.advanceTimersByTime(5 * ANSWER_TIMEOUT_MS);
    fixture.sinks.bufferedBytes = 0;
    await fixture.acknowledge();
    fixture.newStatuses();
    jest.advanceTimersByTime(STATUS_INTERVAL_MS - 100);
    await settle();
    expect([fixture.newStatuses().filter(({ asks }) => asks), fixture.ending]).toEqual([[], undefined]);
  });
});

describe('Flow: bounds', () => {
  test('pauses the socket at the in-flight budget and reads again below it', async () => {
    const fixture = new FlowFixture();
    fixture.sinks.bufferedBytes = MIB - 1;
    await fixture.receive(...events(0x200n, 'p1'));
    expect(fixture.stream.isPaused).toBe(false);
    fixture.sinks.bufferedBytes = MIB;
    await fixture.receive(...events(0x300n, 'p2'));
    expect(fixture.stream.isPaused).toBe(true);
    await fixture.acknowledge(2);
    expect(fixture.stream.isPaused).toBe(true);
    fixture.sinks.bufferedBytes = MIB - 1;
    await fixture.acknowledge(2);
    expect(fixture.stream.isPaused).toBe(false);
  });

  test('processes what the driver had read before the pause', async () => {
    const fixture = new FlowFixture();
    fixture.sinks.bufferedBytes = 9 * MIB;
    await fixture.receive(...events(0x200n, 'p1'));
    await fixture.receive(...events(0x300n, 'p2'));
    expect([fixture.keys, fixture.stream.isPaused]).toEqual([['invoice p1', 'invoice p2'], true]);
  });
});

describe('Flow: the end', () => {
  test('drain reads no more and resolves when everything read is acknowledged, with statuses meanwhile', async () => {
    const fixture = new FlowFixture();
    const open = events(0x300n, 'p2');
    await fixture.receive(...events(0x200n, 'p1'), ...open.slice(0, -1));
    let drained = false;
    void fixture.flow.drain().then(() => {
      drained = true;
    });
    await fixture.receive(open.at(-1)!, ...events(0x400n, 'p3'));
    expect([fixture.keys, fixture.stream.isPaused, drained]).toEqual([['invoice p1', 'invoice p2'], true, false]);
    fixture.newStatuses();
    jest.advanceTimersByTime(STATUS_INTERVAL_MS);
    expect(fixture.newStatuses()).toHaveLength(1);
    await fixture.acknowledge(2);
    expect(drained).toBe(false);
    await fixture.acknowledge();
    expect(drained).toBe(true);
    // The second transaction was open: the next session delivers it as a whole.
    expect(fixture.stream.sent.at(-1)).toMatchObject({ flushed: endOf(0x200n) });
    expect(fixture.stream.isPaused).toBe(true);
  });

  test('finishTransaction takes the open transaction to its end, and nothing after it', async () => {
    const fixture = new FlowFixture();
    const open = events(0x300n, 'p2');
    await fixture.receive(...events(0x200n, 'p1'), ...open.slice(0, -1));
    let finished = false;
    void fixture.flow.finishTransaction().then(() => {
      finished = true;
    });
    await settle();
    expect([finished, fixture.stream.isPaused]).toEqual([false, false]);
    await fixture.receive(open.at(-1)!, ...events(0x400n, 'p3'));
    expect([fixture.keys, finished, fixture.stream.isPaused]).toEqual([['invoice p1', 'invoice p2'], true, true]);
    await fixture.acknowledge();
    // The whole transaction is confirmed: the next session repeats none of it.
    expect(fixture.stream.sent.at(-1)).toMatchObject({ flushed: endOf(0x300n) });
  });

  test('finishTransaction resolves at once between two transactions', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...events(0x200n, 'p1'));
    await fixture.flow.finishTransaction();
    expect(fixture.keys).toEqual(['invoice p1']);
  });

  test('drain resolves at once when nothing is in flight', async () => {
    const fixture = new FlowFixture();
    await fixture.flow.drain();
    expect(fixture.sinks.flushCount).toBe(1);
  });

  test('a connection that ends, ends the flow with its error', async () => {
    const fixture = new FlowFixture();
    fixture.stream.end(new Error('reset'));
    await settle();
    expect(fixture.ending).toEqual(new Error('reset'));
    const closed = new FlowFixture();
    closed.stream.end(undefined);
    await settle();
    expect(closed.error(SourceError).code).toBe('replication_ended');
  });

  test('a publication that the server cannot find ends the flow when everything received is acknowledged', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...events(0x200n, 'p1'));
    const PostgresError = postgres.PostgresError as unknown as new (fields: object) => Error;
    const missing = new PostgresError({ code: '42704', message: 'x' });
    fixture.stream.end(missing);
    await settle();
    expect(fixture.ending).toBeUndefined();
    await fixture.acknowledge();
    expect(await fixture.flow.ended).toEqual({ kind: 'failed', error: missing, deliverFirst: true });
  });

  test('after a publication that the server cannot find, the flow waits for Kafka no longer than shutdown_timeout', async () => {
    jest.useRealTimers();
    const fixture = new FlowFixture({ shutdownTimeoutMs: 1 });
    await fixture.receive(...events(0x200n, 'p1'));
    const PostgresError = postgres.PostgresError as unknown as new (fields: object) => Error;
    const missing = new PostgresError({ code: '42704', message: 'x' });
    fixture.stream.end(missing);
    expect(await fixture.flow.ended).toMatchObject({
      error: { code: 'received_not_acknowledged', cause: missing },
      deliverFirst: false,
    });
    fixture.stream.statuses.stop();
  });

  test('fail ends the flow once and adds the slot to the place of the error', async () => {
    const fixture = new FlowFixture();
    fixture.flow.fail(new SourceError('Lost', { code: 'x', place: { topic: 't' } }));
    fixture.flow.fail(new SourceError('Lost again', { code: 'x' }));
    await settle();
    expect(fixture.error(SourceError)).toMatchObject({
      message: 'Lost',
      place: { database: 'db', slot: 'slot', topic: 't' },
    });
    await fixture.receive(...events(0x200n, 'p1'));
    expect(fixture.keys).toEqual([]);
  });
});

describe('Flow: boundaries', () => {
  const MARKED = { kind: 'marker', publication: 'later', lsn: 0x2f0n } as const;
  const marker = (content: string, options: { transactional?: boolean } = {}) =>
    wire.logicalMessage({
      transactional: options.transactional ?? true,
      lsn: 0x2f0n,
      prefix: MARKER_PREFIX,
      content: Buffer.from(content),
    });

  test("the Commit of a marker's transaction ends the session when everything before it is acknowledged", async () => {
    const fixture = new FlowFixture({ currentLsn: 0x500n, boundaries: [MARKED] });
    const frames = wire.transaction([marker('later'), eventsRelation(), event('p2')], { commitLsn: 0x300n });
    await fixture.receive(...events(0x200n, 'p1'), ...frames, ...events(0x400n, 'p3'));
    expect([fixture.keys, fixture.ending]).toEqual([['invoice p1', 'invoice p2'], undefined]);
    await fixture.acknowledge(2);
    expect(fixture.ending).toBeUndefined();
    await fixture.acknowledge();
    expect([fixture.ending, fixture.progress.flushed]).toEqual(['publication boundary', endOf(0x300n)]);
  });

  test.each([
    ['of a publication that is streamed', 'invoice', {}],
    ['outside of a transaction', 'later', { transactional: false }],
  ])('a marker %s ends nothing', async (_, content, options) => {
    const fixture = new FlowFixture({ currentLsn: 0x500n, boundaries: [MARKED] });
    await fixture.receive(
      ...wire.transaction([marker(content, options)], { commitLsn: 0x300n }),
      ...events(0x400n, 'p1'),
    );
    expect([fixture.keys, fixture.ending]).toEqual([['invoice p1'], undefined]);
  });

  test.each([0x400n, 0x410n])(
    'an LSN boundary ends the session before the transaction that commits at %p',
    async (commitLsn) => {
      const fixture = new FlowFixture({ boundaries: [{ kind: 'lsn', publication: 'later', lsn: 0x400n }] });
      await fixture.receive(...events(0x300n, 'p1'), ...events(commitLsn, 'p2'));
      expect([fixture.keys, fixture.ending]).toEqual([['invoice p1'], undefined]);
      await fixture.acknowledge();
      expect([fixture.ending, fixture.progress.flushed]).toEqual(['publication boundary', 0x400n]);
    },
  );

  test('frames after a boundary are not processed, also in the same chunk', async () => {
    const fixture = new FlowFixture({ currentLsn: 0x500n, boundaries: [MARKED] });
    const frames = wire.transaction([marker('later')], { commitLsn: 0x300n });
    await fixture.receiveAtOnce(...frames, wire.keepalive(0x380n), ...events(0x400n, 'p1'));
    expect([fixture.ending, fixture.keys, fixture.progress.flushed]).toEqual([
      'publication boundary',
      [],
      endOf(0x300n),
    ]);
  });

  test.each<[string, Buffer[]]>([
    ['a transaction', events(0x510n, 'p2')],
    ['a keepalive', [wire.keepalive(0x510n)]],
  ])(
    '%s after the end of the WAL, as it was at the start, ends a session whose marker has not come',
    async (_, frames) => {
      const fixture = new FlowFixture({ currentLsn: 0x500n, boundaries: [MARKED] });
      await fixture.receive(...events(0x300n, 'p1'), wire.keepalive(0x500n));
      await fixture.acknowledge();
      expect(fixture.ending).toBeUndefined();
      await fixture.receive(...frames);
      expect([fixture.keys, fixture.ending, fixture.progress.flushed]).toEqual([
        ['invoice p1'],
        'publication boundary',
        0x500n,
      ]);
    },
  );

  test('a keepalive reaches an LSN boundary, so that an idle server does not delay a publication', async () => {
    const fixture = new FlowFixture({ boundaries: [{ kind: 'lsn', publication: 'later', lsn: 0x400n }] });
    await fixture.receive(wire.keepalive(0x3ffn));
    expect(fixture.ending).toBeUndefined();
    await fixture.receive(wire.keepalive(0x400n));
    expect([fixture.ending, fixture.progress.flushed]).toEqual(['publication boundary', 0x400n]);
  });
});

describe('Flow: publications that the server cannot load', () => {
  const notice = (name: string, where = 'associated LSN 0/300'): postgres.Notice => ({
    code: '55000',
    severity: 'WARNING',
    message: `skipped loading publication "${name}"`,
    where,
  });

  test('one that never worked does not exist yet: its rows are not owed', async () => {
    const fixture = new FlowFixture();
    await fixture.notify(notice('a_b'));
    expect([fixture.ending, fixture.log.lines]).toEqual([undefined, []]);
  });

  test('one that worked before was dropped: nothing after it is confirmed', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...wire.transaction([], { commitLsn: 0x200n }));
    fixture.memory.publicationExistedAt.set('a_b', 0x300n);
    await fixture.notify(notice('a_b'));
    expect(fixture.error(LossError).place).toMatchObject({ namespace: 'a_b', slot: 'slot', lsn: '0/230' });
    await fixture.receive(...events(0x400n, 'p1'));
    expect([fixture.keys, fixture.progress.flushed]).toEqual([[], endOf(0x200n)]);
  });

  test('a change from before its known existence is not owed', async () => {
    const fixture = new FlowFixture();
    fixture.memory.publicationExistedAt.set('a_b', 0x301n);
    await fixture.notify(notice('a_b'));
    expect(fixture.ending).toBeUndefined();
  });

  test.each(['a_b_c', 'x a_b'])(
    'a notice about %s, whose name contains that of one, is about neither',
    async (other) => {
      const fixture = new FlowFixture();
      fixture.memory.publicationExistedAt.set('a_b', 0x100n);
      await fixture.notify(notice(other));
      expect(fixture.ending).toBeUndefined();
    },
  );

  test('a server that speaks Russian is understood', async () => {
    const fixture = new FlowFixture();
    fixture.memory.publicationExistedAt.set('a_b', 0x300n);
    await fixture.notify({ ...notice('a_b'), message: 'загрузка публикации «a_b» пропущена' });
    expect(fixture.error(LossError).place).toMatchObject({ namespace: 'a_b' });
  });

  test('of names that contain each other the longer one matches', async () => {
    const names = ['a', 'a_b'];
    const fixture = new FlowFixture({ plan: { streamed: names, boundaries: [] } });
    fixture.memory.publicationExistedAt.set('a', 0x100n);
    await fixture.notify(notice('a_b'));
    expect(fixture.ending).toBeUndefined();
  });

  test('any other notice is logged by its code, without its text', async () => {
    const fixture = new FlowFixture();
    await fixture.notify({ code: '01000', severity: 'WARNING', message: 'secret' });
    expect(fixture.log.lines).toEqual([expect.objectContaining({ level: 'info', code: '01000', severity: 'WARNING' })]);
    expect(JSON.stringify(fixture.log.lines)).not.toContain('secret');
  });
});

describe('Flow: a topic whose partition count changes', () => {
  const CHANGE = { topic: 'events', fromPartitions: 2, toPartitions: 3 };

  test('ends at once between transactions when everything is acknowledged', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...events(0x200n, 'p1'));
    fixture.sinks.listener!.onTopicChanged(CHANGE);
    await fixture.receive(...events(0x300n, 'p2'));
    expect([fixture.ending, fixture.keys]).toEqual([undefined, ['invoice p1']]);
    await fixture.acknowledge();
    expect([fixture.ending, fixture.progress.flushed]).toEqual(['changed topic', endOf(0x200n)]);
  });

  test('ends after the open transaction, which is not split', async () => {
    const fixture = new FlowFixture();
    const [begin, ...rest] = wire.transaction([eventsRelation(), event('p1')], { commitLsn: 0x300n });
    await fixture.receive(begin!);
    fixture.sinks.listener!.onTopicChanged(CHANGE);
    await fixture.receive(...rest, ...events(0x400n, 'p2'));
    expect(fixture.ending).toBeUndefined();
    await fixture.acknowledge();
    expect([fixture.ending, fixture.keys, fixture.progress.flushed]).toEqual([
      'changed topic',
      ['invoice p1'],
      endOf(0x300n),
    ]);
  });

  test.each([
    ['topic_deleted', 0],
    ['topic_partitions_changed', 3],
  ])('is logged as %s', (event, toPartitions) => {
    const fixture = new FlowFixture();
    fixture.sinks.listener!.onTopicChanged({ ...CHANGE, toPartitions });
    expect(fixture.log.lines.map((line) => [line.event, line.topic])).toEqual([[event, 'events']]);
  });
});

describe('Flow: its status', () => {
  test('is proven by a confirmation, not by received data', async () => {
    const fixture = new FlowFixture({ currentLsn: 0x100_000n });
    await fixture.receive(...events(0x200n, 'p1'));
    expect(fixture.status.isProven).toBe(false);
    await fixture.acknowledge();
    expect(fixture.status.isProven).toBe(true);
  });

  test('is proven by a keepalive at the end of the WAL with nothing in flight, not by an earlier one', async () => {
    const fixture = new FlowFixture({ currentLsn: 0x100_000n });
    await fixture.receive(wire.keepalive(0x200n));
    expect(fixture.status.isProven).toBe(false);
    await fixture.receive(...events(0x300n, 'p1'), wire.keepalive(0x100_000n));
    expect(fixture.status.isProven).toBe(false);
    await fixture.acknowledge();
    await fixture.receive(wire.keepalive(0x100_001n));
    expect(fixture.status.isProven).toBe(true);
  });

  test('reports the time of the oldest unconfirmed commit, also of one that is still being received', async () => {
    const fixture = new FlowFixture();
    expect(fixture.flow.oldestCommitTimeMs).toBeUndefined();
    const [begin, ...rest] = wire.transaction([eventsRelation(), event('p1')], {
      commitLsn: 0x300n,
      commitTimeMicros: 1_500_000n,
    });
    await fixture.receive(begin!);
    expect(fixture.flow.oldestCommitTimeMs).toBe(Date.UTC(2000, 0, 1) + 1500);
    await fixture.receive(...rest);
    expect(fixture.flow.oldestCommitTimeMs).toBe(Date.UTC(2000, 0, 1) + 1500);
    await fixture.acknowledge();
    expect(fixture.flow.oldestCommitTimeMs).toBeUndefined();
  });

  test('counts bytes and measures the time from commit to receipt', async () => {
    const fixture = new FlowFixture();
    const frames = events(0x300n, 'p1');
    await fixture.receive(...frames);
    expect(fixture.status.receivedBytes).toBe(wire.copyData(...frames).length);
    expect(fixture.status.commitReceive.counts.reduce((sum, count) => sum + count)).toBe(1);
  });
});

test('rows before the last keepalive count as progress, however long their transaction takes', async () => {
  const fixture = new FlowFixture();
  await fixture.receive(wire.keepalive(0x8000n));
  const frames = wire.transaction([eventsRelation(), event('p1'), event('p2'), event('p3')], { commitLsn: 0x4000n });
  for (const frame of frames.slice(0, -1)) {
    jest.advanceTimersByTime(10_000);
    await fixture.receive(frame);
  }
  expect(performance.now() - fixture.flow.lastProgressMs).toBeLessThan(1_000);
});
