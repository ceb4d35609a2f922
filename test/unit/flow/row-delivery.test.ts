/** What happens to rows: delivered, skipped, parked, or stopping the slot. */
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
  EVENTS,
  endOf,
  event,
  events,
  eventsRelation,
  FlowFixture,
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

  test('an invalid row fails the slot with table, key and LSN after everything before it is delivered and confirmed', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(
      ...events(0x200n, 'p1'),
      ...wire.transaction([eventsRelation(), event('p2'), invalidEvent, event('p3')], { commitLsn: 0x300n }),
    );
    expect([fixture.keys, fixture.sinks.flushedRecordCount]).toEqual([['invoice p1', 'invoice p2'], 2]);
    expect(fixture.ending).toBeUndefined();
    await fixture.acknowledge(2);
    expect(fixture.ending).toBeUndefined();
    await fixture.acknowledge();
    expect(fixture.error(InvalidRowError).place).toEqual({
      database: 'db',
      slot: 'slot',
      namespace: 'invoice',
      table: 'invoice_events',
      key: 'invoice bad',
      lsn: '0/300',
    });
    expect(fixture.progress.flushed).toBe(endOf(0x200n));
  });

  test('a failure of Kafka during the delivery of the rows before an invalid one ends the session', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...wire.transaction([eventsRelation(), event('p1'), invalidEvent], { commitLsn: 0x300n }));
    fixture.flow.fail(new SourceError('Lost', { code: 'x' }));
    await fixture.acknowledge();
    expect(fixture.error(SourceError).message).toBe('Lost');
  });

  test('an update without its old tuple stops the slot by default', async () => {
    const fixture = new FlowFixture();
    const frames = [processesRelation('d'), wire.update(PROCESSES, undefined, processRow('p1', 'error'))];
    await fixture.receive(...wire.transaction(frames, { commitLsn: 0x300n }));
    const error = fixture.error(MissingOldTupleError);
    expect(error.place).toMatchObject({ table: 'invoice_processes', key: 'invoice p1', lsn: '0/300' });
    expect(error.advice).toContain('on_missing_old_tuple');
  });

  test('an update without its old tuple is skipped, counted and logged with its LSN when that is configured', async () => {
    const fixture = new FlowFixture();
    fixture.sinks.onMissingOldTuple = 'skip';
    const update = (id: string) => wire.update(PROCESSES, undefined, processRow(id, 'error'));
    await fixture.receive(
      ...wire.transaction([processesRelation('d'), update('p1')], { commitLsn: 0x300n }),
      ...wire.transaction([update('p2'), eventsRelation(), event('p3')], { commitLsn: 0x400n }),
    );
    expect([fixture.ending, fixture.keys, fixture.sinks.counts.skipped.lifecycle]).toEqual([
      undefined,
      ['invoice p3'],
      2,
    ]);
    const common = { level: 'warn', namespace: 'invoice', table: 'invoice_processes' };
    expect(fixture.log.lines).toEqual([
      expect.objectContaining({ ...common, key: 'invoice p1', lsn: '0/300', skippedRowCount: 1 }),
      expect.objectContaining({ ...common, key: 'invoice p2', lsn: '0/400', skippedRowCount: 2 }),
    ]);
    await fixture.acknowledge();
    expect(fixture.progress.flushed).toBe(endOf(0x400n));
  });

  test('skipping applies only to a missing old tuple', async () => {
    const fixture = new FlowFixture();
    fixture.sinks.onMissingOldTuple = 'skip';
    await fixture.receive(...wire.transaction([eventsRelation(), invalidEvent], { commitLsn: 0x300n }));
    expect(fixture.error(InvalidRowError).place.key).toBe('invoice bad');
  });

  test('a record too large for its topic is an invalid row of its table', async () => {
    const fixture = new FlowFixture();
    fixture.sinks.refusal = new InvalidRowError('Cannot produce', {
      code: 'x',
      place: { topic: 't', key: 'invoice p1' },
    });
    await fixture.receive(...events(0x300n, 'p1'));
    expect(fixture.error(InvalidRowError).place).toMatchObject({
      topic: 't',
      key: 'invoice p1',
      namespace: 'invoice',
      table: 'invoice_events',
      lsn: '0/300',
    });
  });

  test('a table without a needed column is an error of its slot', async () => {
    const fixture = new FlowFixture();
    const columns = wire.EVENTS_COLUMNS.filter(({ name }) => name !== 'payload');
    // Servers send a Relation with LSN 0, which is not its position.
    const relation = wire.xlogData(wire.relation({ relationId: EVENTS, name: 'invoice_events', columns }), 0n);
    await fixture.receive(events(0x300n)[0]!, relation);
    const error = fixture.error(InvalidRowError);
    expect(error.message).toContain('payload');
    expect(error.place.lsn).not.toBe('0/0');
  });

  test('a row of a relation that was never described is an error', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...wire.transaction([event('p1')], { commitLsn: 0x300n }));
    expect(fixture.error(SourceError).place).toMatchObject({ slot: 'slot', lsn: '0/300' });
  });

  test('a row outside of a transaction is an error', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...events(0x200n, 'p1'), wire.xlogData(event('p2'), 0x300n));
    await fixture.acknowledge();
    expect([fixture.error(SourceError).place.lsn, fixture.keys]).toEqual(['0/300', ['invoice p1']]);
  });

  test('bytes that are not a frame are an error', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(Buffer.from('?'));
    expect(fixture.error(MalformedError).offset).toBe(MESSAGE_HEADER_BYTES);
  });
});

describe('RowDelivery: parking', () => {
  const invalidEvent = event('bad', { payload: Buffer.from([131, 0]) });

  function parkingBench(): FlowFixture {
    const fixture = new FlowFixture();
    fixture.sinks.isParking = true;
    return fixture;
  }

  test('an invalid row goes to the parking topic with place and reason, and the stream continues in order', async () => {
    const fixture = parkingBench();
    const frames = [eventsRelation(), event('p1'), invalidEvent, event('p2')];
    await fixture.receive(...wire.transaction(frames, { commitLsn: 0x300n }));
    expect(fixture.ending).toBeUndefined();
    expect(fixture.sinks.records.map(({ kind, key, ordinal }) => [kind, key, ordinal])).toEqual([
      ['event', 'invoice p1', 1],
      ['parked', 'invoice bad', 2],
      ['event', 'invoice p2', 3],
    ]);
    expect(fixture.sinks.parked).toEqual([
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
    const { received, converted } = fixture.sinks.counts;
    expect([received, converted]).toEqual([
      { event: 3, lifecycle: 0 },
      { event: 2, lifecycle: 0 },
    ]);
  });

  test('a parked row is confirmed only when it is acknowledged', async () => {
    const fixture = parkingBench();
    await fixture.receive(...wire.transaction([eventsRelation(), invalidEvent], { commitLsn: 0x300n }));
    await fixture.acknowledge(1);
    expect(fixture.progress.flushed).toBeLessThan(endOf(0x300n));
    await fixture.acknowledge();
    expect(fixture.progress.flushed).toBe(endOf(0x300n));
  });

  test('each parked row is logged with its place and without its values', async () => {
    const fixture = parkingBench();
    const secret = event('bad', { payload: Buffer.from('\x83\x00secret', 'latin1') });
    await fixture.receive(...wire.transaction([eventsRelation(), secret], { commitLsn: 0x300n }));
    const place = { namespace: 'invoice', table: 'invoice_events', key: 'invoice bad', lsn: '0/300' };
    expect(fixture.log.lines).toEqual([
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
    expect(JSON.stringify(fixture.log.lines)).not.toContain('secret');
  });

  test('a record too large for its topic is parked', async () => {
    const fixture = parkingBench();
    fixture.sinks.refusal = new RecordTooLargeError('Cannot produce');
    await fixture.receive(...events(0x300n, 'p1'));
    expect([fixture.ending, fixture.sinks.records.map(({ kind }) => kind)]).toEqual([undefined, ['parked']]);
  });

  test('a row too large for the parking topic as well stops the slot with both reasons', async () => {
    const fixture = parkingBench();
    fixture.sinks.refusal = new RecordTooLargeError('Cannot produce', { place: { topic: 'parking' } });
    fixture.sinks.refusesParked = true;
    await fixture.receive(...wire.transaction([eventsRelation(), invalidEvent], { commitLsn: 0x300n }));
    const error = fixture.error(RecordTooLargeError);
    expect(error.place).toMatchObject({ topic: 'parking', key: 'invoice bad', namespace: 'invoice', lsn: '0/300' });
    expect(error.cause).toBeInstanceOf(InvalidRowError);
  });

  test('an update without its old tuple is parked unless skipping is configured', async () => {
    const fixture = parkingBench();
    const update = wire.update(PROCESSES, undefined, processRow('p1', 'error'));
    await fixture.receive(...wire.transaction([processesRelation('d'), update], { commitLsn: 0x300n }));
    expect(fixture.sinks.parked).toHaveLength(1);
    fixture.sinks.onMissingOldTuple = 'skip';
    await fixture.receive(...wire.transaction([processesRelation('d'), update], { commitLsn: 0x400n }));
    expect([fixture.sinks.parked.length, fixture.sinks.counts.skipped.lifecycle]).toEqual([1, 1]);
  });

  test('rows of a table without a needed column are parked one by one, but not those without a record', async () => {
    const fixture = parkingBench();
    const columns = wire.EVENTS_COLUMNS.filter(({ name }) => name !== 'payload');
    const relation = wire.relation({ relationId: EVENTS, name: 'invoice_events', columns });
    const row = ['p1', wire.int8(1n), wire.int2(1), wire.timestamptz(0n), null];
    const frames = [relation, wire.insert(EVENTS, row), wire.remove(EVENTS, { kind: 'K', columns: row })];
    await fixture.receive(...wire.transaction(frames, { commitLsn: 0x300n }));
    expect([fixture.ending, fixture.sinks.parked]).toEqual([
      undefined,
      [expect.objectContaining({ operation: 'insert', reason: expect.stringContaining('payload') })],
    ]);
  });
});

describe('RowDelivery: a transaction that was refused', () => {
  const invalidEvent = event('bad', { payload: Buffer.from([131, 0]) });
  const refused = wire.transaction([eventsRelation(), event('p1'), invalidEvent], { commitLsn: 0x300n });

  test('is remembered by its commit LSN and only checked when it is read again', async () => {
    const fixture = new FlowFixture();
    await fixture.receive(...refused);
    await fixture.acknowledge();
    expect([fixture.memory.refusedCommitLsn, fixture.keys]).toEqual([0x300n, ['invoice p1']]);

    const next = new FlowFixture({ memory: fixture.memory });
    await next.receive(...events(0x200n, 'p0'), ...refused);
    await next.acknowledge();
    next.error(InvalidRowError);
    expect(next.keys).toEqual(['invoice p0']);
    expect(next.progress.flushed).toBe(endOf(0x200n));
  });

  test('is checked against the limits of the topics as well', async () => {
    const fixture = new FlowFixture();
    fixture.memory.refusedCommitLsn = 0x300n;
    fixture.sinks.refusal = new RecordTooLargeError('Cannot produce');
    await fixture.receive(...events(0x300n, 'p1'));
    fixture.error(RecordTooLargeError);
  });

  test('ends the session unconfirmed when all its rows are valid now, so that the next session delivers it', async () => {
    const fixture = new FlowFixture();
    fixture.memory.refusedCommitLsn = 0x300n;
    await fixture.receive(...events(0x200n, 'p0'), ...events(0x300n, 'p1'), ...events(0x400n, 'p2'));
    await fixture.acknowledge();
    expect([fixture.ending, fixture.keys, fixture.memory.refusedCommitLsn]).toEqual([
      'corrected transaction',
      ['invoice p0'],
      undefined,
    ]);
    expect(fixture.progress.flushed).toBe(endOf(0x200n));
  });
});
