/** What becomes of rows: queued, skipped, parked, or the end of the stream. */
import { afterEach, beforeEach, describe, expect, jest, test } from 'bun:test';
import {
  InvalidRowError,
  MalformedError,
  MissingOldTupleError,
  RecordTooLargeError,
  SourceError,
} from '../../../src/errors.ts';
import { MESSAGE_HEADER_BYTES } from '../../../src/postgres/replication/backend-messages.ts';
import * as wire from '../../support/codecs/pgoutput.ts';
import {
  Bench,
  EVENTS,
  endOf,
  event,
  events,
  eventsRelation,
  PROCESSES,
  processesRelation,
  processRow,
} from '../../support/service/flow-fixture.ts';

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

describe('RowDelivery: rows that cannot be read', () => {
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
    expect([bench.ending, bench.keys, bench.sinks.counts.skipped.lifecycle]).toEqual([undefined, ['invoice p3'], 2]);
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
    expect(bench.error(MalformedError).offset).toBe(MESSAGE_HEADER_BYTES);
  });
});

describe('RowDelivery: parking', () => {
  const invalidEvent = event('bad', { payload: Buffer.from([131, 0]) });

  function parkingBench(): Bench {
    const bench = new Bench();
    bench.sinks.isParking = true;
    return bench;
  }

  test('an invalid row goes to the parking topic with its place and reason, and the stream goes on in order', async () => {
    const bench = parkingBench();
    const frames = [eventsRelation(), event('p1'), invalidEvent, event('p2')];
    await bench.receive(...wire.transaction(frames, { commitLsn: 0x300n }));
    expect(bench.ending).toBeUndefined();
    expect(bench.sinks.records.map(({ kind, key, ordinal }) => [kind, key, ordinal])).toEqual([
      ['event', 'invoice p1', 1],
      ['parked', 'invoice bad', 2],
      ['event', 'invoice p2', 3],
    ]);
    expect(bench.sinks.parked).toEqual([
      expect.objectContaining({
        database: 'db',
        slot: 'slot',
        namespace: 'invoice',
        table: 'invoice_events',
        operation: 'insert',
        lsn: '0/300',
        reason: expect.stringContaining('ETF'),
      }),
    ]);
    const { received, converted } = bench.sinks.counts;
    expect([received, converted]).toEqual([
      { event: 3, lifecycle: 0 },
      { event: 2, lifecycle: 0 },
    ]);
  });

  test('a parked row is confirmed only when it is acknowledged', async () => {
    const bench = parkingBench();
    await bench.receive(...wire.transaction([eventsRelation(), invalidEvent], { commitLsn: 0x300n }));
    await bench.acknowledge(1);
    expect(bench.progress.flushed).toBeLessThan(endOf(0x300n));
    await bench.acknowledge();
    expect(bench.progress.flushed).toBe(endOf(0x300n));
  });

  test('each one is logged with its place, and without what was in it', async () => {
    const bench = parkingBench();
    const secret = event('bad', { payload: Buffer.from('\x83\x00secret', 'latin1') });
    await bench.receive(...wire.transaction([eventsRelation(), secret], { commitLsn: 0x300n }));
    const place = { namespace: 'invoice', table: 'invoice_events', key: 'invoice bad', lsn: '0/300' };
    expect(bench.log.lines).toEqual([
      expect.objectContaining({
        level: 'warn',
        parkingTopic: 'invoice parked',
        error: {
          name: 'InvalidRowError',
          code: 'payload_malformed',
          message: expect.any(String),
          cause: expect.anything(),
          place,
        },
      }),
    ]);
    expect(JSON.stringify(bench.log.lines)).not.toContain('secret');
  });

  test('a record that its topic cannot take is parked', async () => {
    const bench = parkingBench();
    bench.sinks.refusal = new RecordTooLargeError('Cannot produce');
    await bench.receive(...events(0x300n, 'p1'));
    expect([bench.ending, bench.sinks.records.map(({ kind }) => kind)]).toEqual([undefined, ['parked']]);
  });

  test('one that the parking topic cannot take either stops the slot, with both reasons', async () => {
    const bench = parkingBench();
    bench.sinks.refusal = new RecordTooLargeError('Cannot produce', { place: { topic: 'parking' } });
    bench.sinks.refusesParked = true;
    await bench.receive(...wire.transaction([eventsRelation(), invalidEvent], { commitLsn: 0x300n }));
    const error = bench.error(RecordTooLargeError);
    expect(error.place).toMatchObject({ topic: 'parking', key: 'invoice bad', namespace: 'invoice', lsn: '0/300' });
    expect(error.cause).toBeInstanceOf(InvalidRowError);
  });

  test('an update without its old tuple is parked, unless it is to be skipped', async () => {
    const bench = parkingBench();
    const update = wire.update(PROCESSES, undefined, processRow('p1', 'error'));
    await bench.receive(...wire.transaction([processesRelation('d'), update], { commitLsn: 0x300n }));
    expect(bench.sinks.parked).toHaveLength(1);
    bench.sinks.onMissingOldTuple = 'skip';
    await bench.receive(...wire.transaction([processesRelation('d'), update], { commitLsn: 0x400n }));
    expect([bench.sinks.parked.length, bench.sinks.counts.skipped.lifecycle]).toEqual([1, 1]);
  });

  test('rows of a table without a column that is needed are parked one by one, but not those that would tell nothing', async () => {
    const bench = parkingBench();
    const columns = wire.EVENTS_COLUMNS.filter(({ name }) => name !== 'payload');
    const relation = wire.relation({ relationId: EVENTS, name: 'invoice_events', columns });
    const row = ['p1', wire.int8(1n), wire.int2(1), wire.timestamptz(0n), null];
    const frames = [relation, wire.insert(EVENTS, row), wire.remove(EVENTS, { kind: 'K', columns: row })];
    await bench.receive(...wire.transaction(frames, { commitLsn: 0x300n }));
    expect([bench.ending, bench.sinks.parked]).toEqual([
      undefined,
      [expect.objectContaining({ operation: 'insert', reason: expect.stringContaining('payload') })],
    ]);
  });
});

describe('RowDelivery: a transaction that was refused', () => {
  const invalidEvent = event('bad', { payload: Buffer.from([131, 0]) });
  const refused = wire.transaction([eventsRelation(), event('p1'), invalidEvent], { commitLsn: 0x300n });

  test('is remembered by its commit LSN, and only tried when it comes again', async () => {
    const bench = new Bench();
    await bench.receive(...refused);
    await bench.acknowledge();
    expect([bench.memory.refusedCommitLsn, bench.keys]).toEqual([0x300n, ['invoice p1']]);

    const next = new Bench({ memory: bench.memory });
    await next.receive(...events(0x200n, 'p0'), ...refused);
    await next.acknowledge();
    next.error(InvalidRowError);
    expect(next.keys).toEqual(['invoice p0']);
    expect(next.progress.flushed).toBe(endOf(0x200n));
  });

  test('is tried against the limits of the topics too', async () => {
    const bench = new Bench();
    bench.memory.refusedCommitLsn = 0x300n;
    bench.sinks.refusal = new RecordTooLargeError('Cannot produce');
    await bench.receive(...events(0x300n, 'p1'));
    bench.error(RecordTooLargeError);
  });

  test('ends the session unconfirmed when all of it is good now, so that the next one sends it', async () => {
    const bench = new Bench();
    bench.memory.refusedCommitLsn = 0x300n;
    await bench.receive(...events(0x200n, 'p0'), ...events(0x300n, 'p1'), ...events(0x400n, 'p2'));
    await bench.acknowledge();
    expect([bench.ending, bench.keys, bench.memory.refusedCommitLsn]).toEqual([
      'mended transaction',
      ['invoice p0'],
      undefined,
    ]);
    expect(bench.progress.flushed).toBe(endOf(0x200n));
  });
});
