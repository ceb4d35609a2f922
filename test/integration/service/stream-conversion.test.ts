/** The record of each change of progressor's tables, through the whole service. Real servers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { formatLsn } from '../../../src/lsn.ts';
import { encodePayload, int, str, type Value } from '../../support/codecs/etf.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { migrateNamespace, tablesOf } from '../../support/progressor/tables.ts';
import {
  event,
  inOrder,
  insertEvent,
  insertProcess,
  lifecycle,
  openStreamFixture,
  setStatus,
} from '../../support/service/stream-fixture.ts';

const NS = `default/"Счёт"_1`;
const STATUSES = ['init', 'running', 'error'] as const;

let kafka: KafkaServer;
beforeAll(async () => {
  kafka = await startKafka();
}, 120_000);
afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
});

/** Resolves in the next second of the clock, so that a time from now differs from one before. */
async function nextSecond(): Promise<void> {
  const second = Math.floor(Date.now() / 1000);
  await waitFor('the next second', () => Math.floor(Date.now() / 1000) > second);
}

describe.each([14, 18] as const)('the stream of PostgreSQL %d', (major) => {
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres({ major, settings: { track_commit_timestamp: 'on' } });
  }, 120_000);
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
  });

  const openFixture = (generation?: 'old' | 'new') =>
    openStreamFixture({ postgres, kafka, slots: { main: [NS] }, generation });

  test('delivers created, failed, working and removed with the commit time, and nothing for other changes of a process', async () => {
    await using fixture = await openFixture();
    const { sql } = fixture;
    const service = fixture.start();
    await fixture.confirmed('main');
    await service.stop();

    // Written while the service is down and read a second later: a time from the service's clock would differ.
    const expected = [];
    for (const from of STATUSES) {
      for (const to of STATUSES) {
        const id = `${from} to ${to}`;
        const created = await fixture.commit((tx) => insertProcess(tx, NS, id, { status: from, detail: 'reason' }));
        const changed = await fixture.commit((tx) => setStatus(tx, NS, id, to, `${to} reason`));
        expected.push(lifecycle(NS, id, 'created', created));
        if (to === 'error' && from !== 'error') expected.push(lifecycle(NS, id, 'failed: error reason', changed));
        if (to === 'running' && from === 'error') expected.push(lifecycle(NS, id, 'working', changed));
      }
    }
    const { processes, events } = tablesOf(NS);
    const walk = await fixture.commit((tx) => insertProcess(tx, NS, 'walk'));
    expected.push(lifecycle(NS, 'walk', 'created', walk));
    for (const change of ['failed: unknown', 'working', 'failed: unknown', 'working'] as const) {
      const at = await fixture.commit((tx) =>
        setStatus(tx, NS, 'walk', change === 'working' ? 'running' : 'error', null),
      );
      expected.push(lifecycle(NS, 'walk', change, at));
    }
    const renamed = await fixture.commit((tx) => insertProcess(tx, NS, 'old key'));
    expected.push(lifecycle(NS, 'old key', 'created', renamed));
    await sql`UPDATE ${sql(processes)} SET process_id = 'new key' WHERE process_id = 'old key'`;
    const removed = await fixture.commit((tx) => tx`DELETE FROM ${tx(processes)} WHERE process_id = 'new key'`);
    expected.push(lifecycle(NS, 'new key', 'removed', removed));
    const whole = await fixture.commit(async (tx) => {
      await insertProcess(tx, NS, 'all at once', { status: 'init' });
      await setStatus(tx, NS, 'all at once', 'error', 'ошибка\n"quoted"');
      await setStatus(tx, NS, 'all at once', 'running');
      await tx`DELETE FROM ${tx(processes)} WHERE process_id = 'all at once'`;
    });
    for (const change of ['created', 'failed: ошибка\n"quoted"', 'working', 'removed']) {
      expected.push(lifecycle(NS, 'all at once', change, whole));
    }
    // Logical messages with our prefix, forged, and with another one.
    for (const transactional of [true, false]) {
      await sql`SELECT pg_logical_emit_message(${transactional}, 'cdc-notifier', ${NS}::text)`;
      await sql`SELECT pg_logical_emit_message(${transactional}, 'another', 'text')`;
    }
    await sql`TRUNCATE ${sql(events)}`;
    await nextSecond();

    fixture.start();
    await fixture.confirmed('main');
    expect(await fixture.emitted()).toEqual(inOrder(expected));
  }, 60_000);

  test('delivers each event with payload, format_version and time, also when they are NULL or large', async () => {
    await using fixture = await openFixture();
    const { sql } = fixture;
    fixture.start();
    await fixture.confirmed('main');
    const created = await fixture.commit((tx) => insertProcess(tx, NS, 'p'));
    const large: Value = { bin: Buffer.from(Array.from({ length: 300_000 }, (_, index) => (index * index) >> 3)) };
    const nested: Value = {
      obj: [
        [str('ключ'), { arr: [int(2n ** 63n - 1n), { flt: -0 }, { b: true }] }],
        [int(1), { nl: {} }],
      ],
    };
    const raw: Value = { str: Buffer.of(0, 255, 254, 128) };
    const rows = [
      { data: nested, timestamp: '2016-03-22 06:12:27.999999+00', shown: '2016-03-22T06:12:27Z' },
      {
        data: large,
        timestamp: '1999-12-31 23:59:59.5+00',
        shown: '1999-12-31T23:59:59Z',
        metadata: '{"format_version": 7}',
      },
      {
        data: raw,
        timestamp: '0001-01-01 00:00:00+00',
        shown: '0001-01-01T00:00:00Z',
        metadata: '{"format_version": null}',
      },
      { data: nested, timestamp: '9999-12-31 23:59:59.999999+00', shown: '9999-12-31T23:59:59Z', metadata: '[1]' },
      {
        data: raw,
        timestamp: '2016-03-22 06:12:27+03',
        shown: '2016-03-22T03:12:27Z',
        metadata: '{"a": {"format_version": 9}}',
      },
      { data: raw, metadata: '{"x": 1, "format_version": -2147483648}' },
    ];
    const expected = [];
    for (const [index, { data, shown, ...row }] of rows.entries()) {
      const payload = encodePayload(data, { compressed: index % 2 === 1 });
      const at = await fixture.commit((tx) => insertEvent(tx, NS, 'p', index + 1, { ...row, payload }));
      const formatVersion = [undefined, 7, undefined, undefined, undefined, -2147483648][index];
      expected.push(event(NS, 'p', { eventId: index + 1, createdAt: shown ?? at, data, formatVersion }));
    }
    const { events } = tablesOf(NS);
    await sql`UPDATE ${sql(events)} SET metadata = '{"format_version": 8}', event_id = event_id + 100`;
    await sql`DELETE FROM ${sql(events)} WHERE event_id = 101`;
    await sql`TRUNCATE ${sql(events)}`;
    await fixture.confirmed('main');
    expect(await fixture.emitted()).toEqual(inOrder([...expected, lifecycle(NS, 'p', 'created', created)]));
  }, 60_000);

  test('takes the reason of a failure from the old row when a TOASTed detail is unchanged', async () => {
    await using fixture = await openFixture();
    const { sql } = fixture;
    const { processes } = tablesOf(NS);
    await sql`ALTER TABLE ${sql(processes)} ALTER COLUMN detail SET STORAGE EXTERNAL`;
    fixture.start();
    await fixture.confirmed('main');
    const detail = 'ж0'.repeat(50_000);
    const created = await fixture.commit((tx) => insertProcess(tx, NS, 'p', { detail }));
    const failed = await fixture.commit((tx) => setStatus(tx, NS, 'p', 'error'));
    const repaired = await fixture.commit((tx) => setStatus(tx, NS, 'p', 'running'));
    const again = await fixture.commit((tx) => setStatus(tx, NS, 'p', 'error', 'short'));
    await fixture.confirmed('main');
    expect(await fixture.emitted()).toEqual([
      lifecycle(NS, 'p', 'created', created),
      lifecycle(NS, 'p', `failed: ${detail}`, failed),
      lifecycle(NS, 'p', 'working', repaired),
      lifecycle(NS, 'p', 'failed: short', again),
    ]);
  }, 60_000);

  test('delivers the same bytes when it reads the same WAL again', async () => {
    await using fixture = await openFixture();
    const { sql } = fixture;
    const service = fixture.start();
    await fixture.confirmed('main');
    await service.stop();
    await sql`SELECT pg_copy_logical_replication_slot(${fixture.slot('main')}, ${fixture.slot('copy')})`;
    for (const id of ['a', 'b', 'c']) {
      await fixture.commit(async (tx) => {
        await insertProcess(tx, NS, id);
        for (const eventId of [1, 2, 3]) await insertEvent(tx, NS, id, eventId);
        await setStatus(tx, NS, id, 'error');
      });
    }
    const first = fixture.start();
    await fixture.confirmed('main');
    await first.stop();
    const once = await fixture.records();
    await nextSecond();

    fixture.start({ slots: { copy: [NS] } });
    await fixture.confirmed('copy');
    const twice = await fixture.records();

    const text = (records: typeof once) => records.map((r) => [r.topic, r.partition, r.key, r.value].join('|')).sort();
    expect(once).toHaveLength(15);
    expect(text(twice)).toEqual(text([...once, ...once]));
  }, 60_000);

  test('delivers interleaved, aborted, partly rolled back and prepared transactions as committed', async () => {
    await using fixture = await openFixture();
    const { sql } = fixture;
    const service = fixture.start();
    await fixture.confirmed('main');
    const xid = async (tx: Pick<typeof sql, 'unsafe'>) =>
      (await tx.unsafe('SELECT pg_current_xact_id()::text AS xid'))[0]!.xid;
    const one = await sql.reserve();
    const two = await sql.reserve();
    const prepared = await sql.reserve();
    const doomed = await sql.reserve();
    const sessions = [one, two, prepared, doomed];
    try {
      for (const session of sessions) await session`BEGIN`;
      await insertProcess(one, NS, 'one');
      await insertProcess(two, NS, 'two');
      await insertProcess(prepared, NS, 'prepared');
      await insertProcess(doomed, NS, 'doomed');
      await insertEvent(one, NS, 'one', 1);
      await insertEvent(two, NS, 'two', 1);
      await two`SAVEPOINT undone`;
      await insertEvent(two, NS, 'two', 2);
      await setStatus(two, NS, 'two', 'error', 'undone');
      await two`ROLLBACK TO SAVEPOINT undone`;
      await two`SAVEPOINT kept`;
      await insertEvent(two, NS, 'two', 3);
      await two`RELEASE SAVEPOINT kept`;
      const xids = { one: await xid(one), two: await xid(two), prepared: await xid(prepared) };
      await prepared`PREPARE TRANSACTION 'kept_transaction'`;
      await doomed`PREPARE TRANSACTION 'rolled_back_transaction'`;
      await two`COMMIT`;
      await doomed`BEGIN`;
      await insertProcess(doomed, NS, 'aborted');
      await doomed`ROLLBACK`;
      const twoAt = await fixture.commitTime(xids.two);
      const expectedFirst = [
        event(NS, 'two', { eventId: 1, createdAt: twoAt }),
        event(NS, 'two', { eventId: 3, createdAt: twoAt }),
        lifecycle(NS, 'two', 'created', twoAt),
      ];
      await fixture.confirmed('main');
      // Confirmed after the rows of transactions that are still open; these arrive complete nevertheless.
      expect(await fixture.emitted()).toEqual(inOrder(expectedFirst));
      await service.stop();
      fixture.start();
      await fixture.confirmed('main');

      await nextSecond();
      await sql`COMMIT PREPARED 'kept_transaction'`;
      await sql`ROLLBACK PREPARED 'rolled_back_transaction'`;
      await insertEvent(one, NS, 'one', 2);
      await one`COMMIT`;
      const oneAt = await fixture.commitTime(xids.one);
      const preparedAt = await fixture.commitTime(xids.prepared);
      expect(preparedAt).not.toBe(twoAt);
      await fixture.confirmed('main');
      expect(await fixture.emitted()).toEqual(
        inOrder([
          ...expectedFirst,
          event(NS, 'one', { eventId: 1, createdAt: oneAt }),
          event(NS, 'one', { eventId: 2, createdAt: oneAt }),
          lifecycle(NS, 'one', 'created', oneAt),
          lifecycle(NS, 'prepared', 'created', preparedAt),
        ]),
      );
    } finally {
      for (const session of sessions) session.release();
    }
  }, 60_000);

  test('follows tables that change while it streams: added and moved columns, a migration that updates every row', async () => {
    await using fixture = await openFixture('old');
    const { sql } = fixture;
    const { processes, events } = tablesOf(NS);
    const service = fixture.start();
    await fixture.confirmed('main');
    const oldAt = await fixture.commit(async (tx) => {
      await tx`INSERT INTO ${tx(processes)} (process_id, status) SELECT 'p' || i, 'running' FROM generate_series(1, 3) i`;
      await insertEvent(tx, NS, 'p1', 1);
    });
    await migrateNamespace(sql, NS);
    const initAt = await fixture.commit((tx) => insertProcess(tx, NS, 'p4', { status: 'init' }));
    const failedAt = await fixture.commit((tx) => setStatus(tx, NS, 'p4', 'error', 'before the move'));
    const movedAt = await fixture.commit(async (tx) => {
      await setStatus(tx, NS, 'p1', 'error', 'in the old place');
      // No column keeps its position, and the columns there now have other types.
      await tx`ALTER TABLE ${tx(processes)} DROP COLUMN detail, DROP COLUMN metadata, ADD COLUMN note BIGINT DEFAULT 5`;
      await tx`ALTER TABLE ${tx(processes)} ADD COLUMN detail TEXT`;
      await tx`ALTER TABLE ${tx(events)} DROP COLUMN metadata, DROP COLUMN "timestamp", ADD COLUMN extra TEXT DEFAULT 'x'`;
      await tx`ALTER TABLE ${tx(events)} ADD COLUMN "timestamp" TIMESTAMPTZ, ADD COLUMN metadata JSONB`;
      await setStatus(tx, NS, 'p2', 'error', 'in the new place');
      await insertEvent(tx, NS, 'p1', 2, { metadata: '{"format_version": 3}' });
    });
    const wideAt = await fixture.commit(async (tx) => {
      await tx`ALTER TABLE ${tx(events)} ALTER COLUMN event_id TYPE BIGINT`;
      await insertEvent(tx, NS, 'p1', 3);
      await setStatus(tx, NS, 'p3', 'error');
    });
    await fixture.confirmed('main');

    expect(await fixture.emitted()).toEqual(
      inOrder([
        ...['p1', 'p2', 'p3'].map((id) => lifecycle(NS, id, 'created', oldAt)),
        event(NS, 'p1', { eventId: 1, createdAt: oldAt }),
        lifecycle(NS, 'p4', 'created', initAt),
        lifecycle(NS, 'p4', 'failed: before the move', failedAt),
        lifecycle(NS, 'p1', 'failed: in the old place', movedAt),
        lifecycle(NS, 'p2', 'failed: in the new place', movedAt),
        event(NS, 'p1', { eventId: 2, createdAt: movedAt, formatVersion: 3 }),
        event(NS, 'p1', { eventId: 3, createdAt: wideAt }),
        lifecycle(NS, 'p3', 'failed: unknown', wideAt),
      ]),
    );
    expect(service.failures()).toEqual([]);
  }, 60_000);

  test('ignores the rows of a relation that is not configured, with one warning', async () => {
    await using fixture = await openFixture();
    const { sql } = fixture;
    const service = fixture.start();
    await fixture.confirmed('main');
    await sql`CREATE TABLE foreign_events (process_id TEXT PRIMARY KEY, payload BYTEA)`;
    await sql`ALTER PUBLICATION ${sql(NS)} ADD TABLE foreign_events, ${sql(tablesOf(NS).tasks)}`;
    const at = await fixture.commit(async (tx) => {
      await tx`INSERT INTO foreign_events VALUES ('p', ''), ('q', '')`;
      await insertProcess(tx, NS, 'p');
    });
    await sql`UPDATE foreign_events SET payload = NULL WHERE process_id = 'q'`;
    await sql`ALTER TABLE foreign_events ADD COLUMN more TEXT`; // described again
    await sql`DELETE FROM foreign_events`;
    await sql`TRUNCATE foreign_events`;
    await fixture.confirmed('main');
    expect(await fixture.emitted()).toEqual([lifecycle(NS, 'p', 'created', at)]);
    const warnings = service.log.filter((line) => line.level === 'warn');
    expect(warnings).toMatchObject([{ relation: 'public.foreign_events', slot: fixture.slot('main') }]);
    expect(service.failures()).toEqual([]);
  }, 60_000);

  test('confirms exactly what it has delivered: a graceful restart repeats no record', async () => {
    await using fixture = await openFixture();
    const expected = [];
    for (const id of ['a', 'b', 'c']) {
      const service = fixture.start();
      await fixture.confirmed('main');
      expected.push(lifecycle(NS, id, 'created', await fixture.commit((tx) => insertProcess(tx, NS, id))));
      await service.waitForStart(fixture.slot('main'));
      await fixture.confirmed('main');
      await service.stop();
      const stopped = service.log.find((line) => line.msg === 'replication stopped');
      expect(stopped?.confirmedLsn).toBe(formatLsn(await fixture.confirmedLsn('main')));
    }
    expect(await fixture.emitted()).toEqual(expected);
  }, 60_000);
});
