/** Decisions of a running stream: what it takes, tells the server, and ends on. Rows: row-delivery.test.ts. */
import { afterEach, beforeEach, describe, expect, jest, test } from 'bun:test';
import type postgres from 'postgres';
import { LossError, SourceError } from '../../../src/errors.ts';
import { MARKER_PREFIX } from '../../../src/postgres/replication/publication-marker.ts';
import { encodePayload, str } from '../../support/codecs/etf.ts';
import * as wire from '../../support/codecs/pgoutput.ts';
import {
  ANSWER_TIMEOUT_MS,
  Bench,
  CONFIRMED,
  EVENTS,
  endOf,
  event,
  events,
  eventsRelation,
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

  test('rests behind a small read out of a backlog, by the clock of the server alone', async () => {
    const bench = new Bench();
    const commitTimeMicros = 848_000_000_000_000n;
    const sent = (lateMicros: bigint) =>
      wire
        .transaction([eventsRelation(), event('p1')], { commitLsn: 0x200n, commitTimeMicros })
        .map((frame) => wire.sentAt(frame, commitTimeMicros + lateMicros));
    await bench.receiveAtOnce(...sent(99_000n));
    expect(bench.stream.restsMs).toEqual([]);
    await bench.receiveAtOnce(...sent(100_000n));
    expect(bench.stream.restsMs).toEqual([6]);
    await bench.receiveAtOnce(wire.keepalive(0x400n));
    expect(bench.stream.restsMs).toEqual([6]);
    bench.stream.lastReadBytes = 64 * 1024;
    await bench.receiveAtOnce(...sent(100_000n));
    expect(bench.stream.restsMs).toEqual([6]);
  });

  test('flushes when the last chunk of a read is worked off, or no more is taken', async () => {
    const bench = new Bench();
    bench.stream.isHandingOver = true;
    await bench.receive(...events(0x200n, 'p1'));
    expect(bench.sinks.flushCount).toBe(0);
    bench.stream.isHandingOver = false;
    await bench.receive(...events(0x300n, 'p2'));
    expect([bench.sinks.flushCount, bench.sinks.flushedRecordCount]).toEqual([1, 2]);
  });

  test('takes all frames of one chunk', async () => {
    const bench = new Bench();
    await bench.receiveAtOnce(...events(0x200n, 'p1'), wire.keepalive(0x400n), ...events(0x500n, 'p2'));
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
    const asking = wire.copyData(wire.keepalive(0x400n, { replyRequested: true }));
    for (let count = 0; count < 1000; count++) bench.flow.onChunk(asking);
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
  test('pauses the socket at as many unacknowledged bytes as it may have, and reads again below that', async () => {
    const bench = new Bench();
    bench.sinks.bufferedBytes = MIB - 1;
    await bench.receive(...events(0x200n, 'p1'));
    expect(bench.stream.isPaused).toBe(false);
    bench.sinks.bufferedBytes = MIB;
    await bench.receive(...events(0x300n, 'p2'));
    expect(bench.stream.isPaused).toBe(true);
    await bench.acknowledge(2);
    expect(bench.stream.isPaused).toBe(true);
    bench.sinks.bufferedBytes = MIB - 1;
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
    expect([bench.ending, bench.progress.flushed]).toEqual(['publication boundary', endOf(0x300n)]);
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
      expect([bench.ending, bench.progress.flushed]).toEqual(['publication boundary', 0x400n]);
    },
  );

  test('frames behind a boundary are left alone, also in the same chunk', async () => {
    const bench = new Bench({ boundaries: [{ kind: 'marker', publication: 'later', lsn: 0x2f0n }] });
    const frames = wire.transaction([marker('later')], { commitLsn: 0x300n });
    await bench.receiveAtOnce(...frames, wire.keepalive(0x380n), ...events(0x400n, 'p1'));
    expect([bench.ending, bench.keys, bench.progress.flushed]).toEqual(['publication boundary', [], endOf(0x300n)]);
  });

  test('an LSN boundary is reached by a keepalive too, so that an idle server does not hold a publication back', async () => {
    const bench = new Bench({ boundaries: [{ kind: 'lsn', publication: 'later', lsn: 0x400n }] });
    await bench.receive(wire.keepalive(0x3ffn));
    expect(bench.ending).toBeUndefined();
    await bench.receive(wire.keepalive(0x400n));
    expect([bench.ending, bench.progress.flushed]).toEqual(['publication boundary', 0x400n]);
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
    expect(bench.error(LossError).place).toMatchObject({ namespace: 'a_b', slot: 'slot', lsn: '0/230' });
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

describe('Flow: a session that another one follows', () => {
  test('ends at once between transactions, when all is acknowledged', async () => {
    const bench = new Bench();
    await bench.receive(...events(0x200n, 'p1'));
    bench.flow.endAtCommit('changed topic');
    await bench.receive(...events(0x300n, 'p2'));
    expect([bench.ending, bench.keys]).toEqual([undefined, ['invoice p1']]);
    await bench.acknowledge();
    expect([bench.ending, bench.progress.flushed]).toEqual(['changed topic', endOf(0x200n)]);
  });

  test('ends with the open transaction, so that none is cut in two', async () => {
    const bench = new Bench();
    const [begin, ...rest] = wire.transaction([eventsRelation(), event('p1')], { commitLsn: 0x300n });
    await bench.receive(begin!);
    bench.flow.endAtCommit('changed topic');
    await bench.receive(...rest, ...events(0x400n, 'p2'));
    expect(bench.ending).toBeUndefined();
    await bench.acknowledge();
    expect([bench.ending, bench.keys, bench.progress.flushed]).toEqual([
      'changed topic',
      ['invoice p1'],
      endOf(0x300n),
    ]);
  });
});

describe('Flow: what it says of itself', () => {
  test('is proven by a confirmation, not by what comes in', async () => {
    const bench = new Bench({ currentLsn: 0x100_000n });
    await bench.receive(...events(0x200n, 'p1'));
    expect(bench.status.isProven).toBe(false);
    await bench.acknowledge();
    expect(bench.status.isProven).toBe(true);
  });

  test('is proven by a keepalive from the end of the WAL with nothing in flight, but by none from before it', async () => {
    const bench = new Bench({ currentLsn: 0x100_000n });
    await bench.receive(wire.keepalive(0x200n));
    expect(bench.status.isProven).toBe(false);
    await bench.receive(...events(0x300n, 'p1'), wire.keepalive(0x100_000n));
    expect(bench.status.isProven).toBe(false);
    await bench.acknowledge();
    await bench.receive(wire.keepalive(0x100_001n));
    expect(bench.status.isProven).toBe(true);
  });

  test('tells the time of the oldest commit that is not confirmed, also of one that is still being received', async () => {
    const bench = new Bench();
    expect(bench.flow.oldestCommitTimeMs).toBeUndefined();
    const [begin, ...rest] = wire.transaction([eventsRelation(), event('p1')], {
      commitLsn: 0x300n,
      commitTimeMicros: 1_500_000n,
    });
    await bench.receive(begin!);
    expect(bench.flow.oldestCommitTimeMs).toBe(Date.UTC(2000, 0, 1) + 1500);
    await bench.receive(...rest);
    expect(bench.flow.oldestCommitTimeMs).toBe(Date.UTC(2000, 0, 1) + 1500);
    await bench.acknowledge();
    expect(bench.flow.oldestCommitTimeMs).toBeUndefined();
  });

  test('counts bytes and measures how long after its commit a transaction came in', async () => {
    const bench = new Bench();
    const frames = events(0x300n, 'p1');
    await bench.receive(...frames);
    expect(bench.status.receivedBytes).toBe(wire.copyData(...frames).length);
    expect(bench.status.commitReceive.counts.reduce((sum, count) => sum + count)).toBe(1);
  });
});

test('a transaction whose rows lie before the last keepalive is movement, however long it takes', async () => {
  const bench = new Bench();
  await bench.receive(wire.keepalive(0x8000n));
  const frames = wire.transaction([eventsRelation(), event('p1'), event('p2'), event('p3')], { commitLsn: 0x4000n });
  for (const frame of frames.slice(0, -1)) {
    jest.advanceTimersByTime(10_000);
    await bench.receive(frame);
  }
  expect(performance.now() - bench.flow.standsSinceMs).toBeLessThan(1_000);
});
