/** Transactions larger than the memory that the program may use: the compiled program on real servers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import type { TransactionSql } from 'postgres';
import { type Lsn, parseLsn } from '../../../src/lsn.ts';
import { encodePayload, int, str } from '../../support/codecs/etf.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { peakRssBytes } from '../../support/process/process-usage.ts';
import { waitFor } from '../../support/process/wait.ts';
import { migrateNamespace, tablesOf } from '../../support/progressor/tables.ts';
import { startBinary } from '../../support/service/binary.ts';
import { serviceConfig } from '../../support/service/in-process.ts';
import { openStreamFixture, type StreamFixture } from '../../support/service/stream-fixture.ts';

const NAMESPACE = 'default/default';
const MIB = 1024 * 1024;
const PEAK_BOUND_BYTES = 250 * 1000 * 1000;
/** What four times the rows may cost in addition: tolerance for garbage, a third of what the rows themselves would take */
const GROWTH_BOUND_BYTES = 40 * MIB;
/** Enough for several garbage collections, as in the large run */
const SMALL_ROW_COUNT = 250_000;
const LARGE_ROW_COUNT = 1_000_000;
const PROCESS_COUNT = 200_000;
const ROWS_OF_A_PROCESS = 1_000;
const WAIT = { timeoutMs: 100_000, intervalMs: 100 };

let postgres: PostgresServer;
let kafka: KafkaServer;
let fixture: StreamFixture;
beforeAll(async () => {
  [postgres, kafka] = await Promise.all([
    startPostgres({ settings: { max_wal_size: '4GB' } }),
    startKafka({ compilation: 'full' }),
  ]);
  fixture = await openStreamFixture({ postgres, kafka, slots: { one: [NAMESPACE] }, generation: 'old' });
  // Before the slot exists: they have no records.
  await fixture.sql`
    INSERT INTO ${fixture.sql(tablesOf(NAMESPACE).processes)} (process_id, status, metadata)
    SELECT 'process-' || i, 'running', '{"created": "long ago"}' FROM generate_series(1, ${PROCESS_COUNT}::int) i`;
}, 120_000);
afterAll(async () => {
  await fixture?.[Symbol.asyncDispose]();
  await Promise.all([postgres?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
}, 30_000);

/** Measurements of one run of the program over a backlog. */
interface Run {
  readonly peakBytes: number;
  /** Records of the backlog in each topic */
  readonly events: number;
  readonly lifecycle: number;
}

const topicNames = (): string[] => {
  const { eventsink_topic, lifecycle_topic } = fixture.topics(NAMESPACE);
  return [eventsink_topic, lifecycle_topic];
};

/** Commits one transaction; returns an LSN at or before its Commit. */
async function commitLarge(statements: (tx: TransactionSql) => Promise<unknown>): Promise<Lsn> {
  const lsn = await fixture.sql.begin(async (tx) => {
    await statements(tx);
    const [row] = await tx`SELECT pg_current_wal_insert_lsn()::text AS lsn`;
    return row!.lsn as string;
  });
  return parseLsn(lsn);
}

/** Inserts so many events in one transaction, over as many processes as their numbers need. */
function writeEvents(prefix: string, count: number): Promise<Lsn> {
  const payload = encodePayload({ arr: [str('step'), int(1)] });
  return commitLarge(
    (tx) => tx`
      INSERT INTO ${tx(tablesOf(NAMESPACE).events)} (process_id, task_id, event_id, payload)
      SELECT ${prefix}::text || i / ${ROWS_OF_A_PROCESS}::int, 1, i % ${ROWS_OF_A_PROCESS}::int, ${payload}
      FROM generate_series(0, ${count}::int - 1) i`,
  );
}

/** Starts the program on what `write` commits and waits until `expectedRecords` are confirmed. */
async function run(write: () => Promise<Lsn>, expectedRecords: number): Promise<Run> {
  const beforeCommitLsn = await write();
  const topics = topicNames();
  const counts = () => kafka.countRecords(topics);
  const [eventsBefore = 0, lifecycleBefore = 0] = await counts();
  await using program = await startBinary(serviceConfig(fixture.serviceOptions()));
  const goal = await fixture.currentLsn();
  let samples = 0;
  await waitFor(
    'all that was written, confirmed',
    async () => {
      const confirmed = await fixture.confirmedLsn('one');
      const [events = 0, lifecycle = 0] = await counts();
      // In this order: the LSN was read before the counts.
      if (events + lifecycle - eventsBefore - lifecycleBefore < expectedRecords) {
        samples++;
        expect(confirmed).toBeLessThanOrEqual(beforeCommitLsn);
      }
      return confirmed >= goal;
    },
    WAIT,
  );
  if (expectedRecords > 0) expect(samples).toBeGreaterThan(0);
  const peakBytes = peakRssBytes(program.pid)!;
  expect(await program.stop()).toBe(0);
  expect(program.lines.filter(({ level }) => level !== 'info')).toEqual([]);
  const [eventsAfter = 0, lifecycleAfter = 0] = await counts();
  return { peakBytes, events: eventsAfter - eventsBefore, lifecycle: lifecycleAfter - lifecycleBefore };
}

describe('one transaction', () => {
  let small: Run;
  beforeAll(async () => {
    // The slot must exist before the backlog.
    const service = fixture.start();
    await fixture.confirmed('one');
    await service.stop();
    small = await run(() => writeEvents('small-', SMALL_ROW_COUNT), SMALL_ROW_COUNT);
    expect(small).toMatchObject({ events: SMALL_ROW_COUNT, lifecycle: 0 });
  }, 60_000);

  test('of 1,000,000 events needs no more memory than one of 250,000 and is confirmed only as a whole', async () => {
    const large = await run(() => writeEvents('large-', LARGE_ROW_COUNT), LARGE_ROW_COUNT);
    expect(large).toMatchObject({ events: LARGE_ROW_COUNT, lifecycle: 0 });
    expect(large.peakBytes).toBeLessThan(PEAK_BOUND_BYTES);
    expect(large.peakBytes - small.peakBytes).toBeLessThan(GROWTH_BOUND_BYTES);
  }, 120_000);

  test("that updates 200,000 processes (progressor's migration) produces no record and retains neither memory nor WAL", async () => {
    const migration = await run(async () => {
      await migrateNamespace(fixture.sql, NAMESPACE);
      return fixture.currentLsn();
    }, 0);
    expect(migration).toMatchObject({ events: 0, lifecycle: 0 });
    expect(migration.peakBytes).toBeLessThan(PEAK_BOUND_BYTES);
    expect(migration.peakBytes - small.peakBytes).toBeLessThan(GROWTH_BOUND_BYTES);
    const [row] = await fixture.sql`
      SELECT count(*)::int AS count FROM ${fixture.sql(tablesOf(NAMESPACE).processes)} WHERE status_changed_at = created_at`;
    expect(row?.count).toBe(PROCESS_COUNT);
  }, 60_000);
});
