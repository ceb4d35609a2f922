/** What stops a slot until an operator acts: rows that cannot be converted, dropped publications. Real servers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { formatLsn, type Lsn, parseLsn } from '../../../src/lsn.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import type { LoggedError } from '../../support/service/in-process.ts';
import {
  type Emitted,
  event,
  inOrder,
  insertEvent,
  insertProcess,
  lifecycle,
  openStreamFixture,
  type StreamFixture,
  setStatus,
} from '../../support/service/stream-fixture.ts';

const SICK = 'sick';
const SOUND = 'sound';

let kafka: KafkaServer;
beforeAll(async () => {
  kafka = await startKafka();
}, 120_000);
afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
});

/** The LSN of the first insert or update that a slot has not confirmed. */
async function lsnOfChange(fixture: StreamFixture, slotName: string, kind: 'I' | 'U'): Promise<Lsn> {
  const [row] = await fixture.sql`
    SELECT lsn::text FROM pg_logical_slot_peek_binary_changes(${fixture.slot(slotName)}, NULL, NULL,
      'proto_version', '1', 'publication_names', ${SICK}) WHERE get_byte(data, 0) = ${kind.charCodeAt(0)} LIMIT 1`;
  return parseLsn(row!.lsn);
}

/** Settings that accept the loss in this error of a slot. */
function accepting(fixture: StreamFixture, slotName: string, error: LoggedError): Readonly<Record<string, unknown>> {
  return { slots: { [fixture.database]: { [fixture.slot(slotName)]: { accept_loss_after: error.place?.lsn } } } };
}

/** Advances a slot by hand, between two attempts of the service to stream from it. */
async function advancePast(fixture: StreamFixture, slotName: string, lsn: Lsn): Promise<void> {
  await waitFor('the slot to be advanced', async () => {
    const [row] =
      await fixture.sql`SELECT active FROM pg_replication_slots WHERE slot_name = ${fixture.slot(slotName)}`;
    if (row!.active) return false;
    return fixture.sql`SELECT pg_replication_slot_advance(${fixture.slot(slotName)}, ${formatLsn(lsn)}::pg_lsn)`.then(
      () => true,
      () => false, // active again
    );
  });
}

describe('a row that cannot be converted', () => {
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres({ settings: { track_commit_timestamp: 'on' } });
  }, 120_000);
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
  });
  const openFixture = () => openStreamFixture({ postgres, kafka, slots: { one: [SICK], two: [SOUND] } });

  const POISONS = [
    { what: 'a payload that is no term', row: { payload: Buffer.of(131, 255) }, reason: 'payload' },
    { what: 'a format_version that is text', row: { metadata: '{"format_version": "1"}' }, reason: 'format_version' },
    { what: 'a time without end', row: { timestamp: 'infinity' }, reason: 'timestamp' },
  ] as const;
  test.each(POISONS)(
    '($what) stops only its slot, with table, key, LSN and reason, until it is skipped',
    async ({ row, reason }) => {
      await using fixture = await openFixture();
      const first = fixture.start();
      await fixture.confirmed('one');
      await fixture.confirmed('two');
      await first.stop();

      // All in the backlog of one start: the rows before the invalid one are read together with it.
      const expected: Emitted[] = [];
      const soundAt = await fixture.commit((tx) => insertProcess(tx, SOUND, 'p'));
      const goodAt = await fixture.commit((tx) => insertProcess(tx, SICK, 'p'));
      expected.push(lifecycle(SOUND, 'p', 'created', soundAt), lifecycle(SICK, 'p', 'created', goodAt));
      const good = await fixture.currentLsn();
      await fixture.commit((tx) => insertEvent(tx, SICK, 'p', 1, row));
      const poisonEnd = await fixture.currentLsn();
      const behindAt = await fixture.commit((tx) => insertEvent(tx, SICK, 'p', 2));

      const service = fixture.start();
      const error = await service.waitForFailure(fixture.slot('one'), 3);
      expect(error.message).toContain(reason);
      expect(error.place).toMatchObject({
        database: fixture.database,
        slot: fixture.slot('one'),
        namespace: SICK,
        table: tablesOf(SICK).events,
        key: `${SICK} p`,
      });
      const lsn = parseLsn(String(error.place?.lsn));
      expect(lsn >= good && lsn < poisonEnd).toBe(true);
      // Everything before it is delivered and confirmed: skipping it loses only this row.
      expect(await fixture.confirmedLsn('one')).toBeGreaterThanOrEqual(good);
      expect(await fixture.confirmedLsn('one')).toBeLessThan(poisonEnd);
      expect(await fixture.emitted()).toEqual(inOrder(expected));
      expected.push(lifecycle(SOUND, 'q', 'created', await fixture.commit((tx) => insertProcess(tx, SOUND, 'q'))));
      await fixture.confirmed('two');
      expect(service.failures(fixture.slot('two'))).toEqual([]);

      // An operator who advances the slot must accept that: the slot might as well have been dropped and created again.
      await advancePast(fixture, 'one', poisonEnd);
      const loss = await waitFor('the loss', () =>
        service.failures(fixture.slot('one')).find(({ name }) => name === 'LossError'),
      );
      expect(loss.message).toContain('it was advanced by another program, or dropped and recreated');
      const passed = `from ${loss.place?.lsn} to ${formatLsn(poisonEnd)}`;
      expect([parseLsn(String(loss.place?.lsn)) >= good, loss.advice]).toEqual([true, expect.stringContaining(passed)]);
      await service.stop();
      fixture.start({ settings: accepting(fixture, 'one', loss) });
      await fixture.confirmed('one');
      expected.push(event(SICK, 'p', { eventId: 2, createdAt: behindAt }));
      expect(await fixture.emitted()).toEqual(inOrder(expected));
    },
    60_000,
  );

  test('from before replica identity FULL stops its slot and names the setting that skips it, which counts and skips it', async () => {
    await using fixture = await openFixture();
    const { sql } = fixture;
    await sql`CREATE PUBLICATION ${sql(SICK)} FOR TABLE ${sql(tablesOf(SICK).processes)}, ${sql(tablesOf(SICK).events)}`;
    await sql`SELECT pg_create_logical_replication_slot(${fixture.slot('one')}, 'pgoutput')`;
    const createdAt = await fixture.commit((tx) => insertProcess(tx, SICK, 'p'));
    const expected = [lifecycle(SICK, 'p', 'created', createdAt)];
    await fixture.commit((tx) => setStatus(tx, SICK, 'p', 'error', 'lost'));
    const updateLsn = await lsnOfChange(fixture, 'one', 'U');
    await fixture.commit((tx) => setStatus(tx, SICK, 'p', 'running'));
    const eventAt = await fixture.commit((tx) => insertEvent(tx, SICK, 'p', 1));

    const stopping = fixture.start();
    const error = await stopping.waitForFailure(fixture.slot('one'), 2);
    expect(error.advice).toContain('on_missing_old_tuple: skip');
    expect(error.place).toMatchObject({
      slot: fixture.slot('one'),
      namespace: SICK,
      table: tablesOf(SICK).processes,
      key: `${SICK} p`,
      lsn: formatLsn(updateLsn),
    });
    const soundAt = await fixture.commit((tx) => insertProcess(tx, SOUND, 'p'));
    await fixture.confirmed('two');
    expect(stopping.failures(fixture.slot('two'))).toEqual([]);
    expect(await fixture.emitted()).toEqual([...expected, lifecycle(SOUND, 'p', 'created', soundAt)]);
    expect(await fixture.confirmedLsn('one')).toBeLessThanOrEqual(updateLsn);
    await stopping.stop();

    const skipping = fixture.start({ onMissingOldTuple: 'skip' });
    await fixture.confirmed('one');
    const failedAt = await fixture.commit((tx) => setStatus(tx, SICK, 'p', 'error', 'kept'));
    await fixture.confirmed('one');
    expect(await fixture.emitted(SICK)).toEqual(
      inOrder([
        ...expected,
        event(SICK, 'p', { eventId: 1, createdAt: eventAt }),
        lifecycle(SICK, 'p', 'failed: kept', failedAt),
      ]),
    );
    const skips = skipping.log.filter((line) => 'skippedRowCount' in line);
    expect(skips).toMatchObject([
      { level: 'warn', skippedRowCount: 1, lsn: formatLsn(updateLsn), key: `${SICK} p`, namespace: SICK },
      { level: 'warn', skippedRowCount: 2, key: `${SICK} p`, namespace: SICK },
    ]);
    expect(skipping.failures()).toEqual([]);
  }, 60_000);
});

describe.each([14, 17, 18] as const)('a publication that is dropped on PostgreSQL %d', (major) => {
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres({ major, settings: { track_commit_timestamp: 'on' } });
  }, 120_000);
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
  });

  /** Drops the publication, writes to its namespace, and checks that the slot stops. */
  async function dropAndExpectStop(fixture: StreamFixture, slotName: string): Promise<void> {
    const { sql } = fixture;
    const service = fixture.start();
    await service.waitForStart(fixture.slot('main'), fixture.slot('other'));
    const loaded: Emitted[] = [];
    if (slotName === 'loaded') {
      loaded.push(lifecycle(SICK, 'p', 'created', await fixture.commit((tx) => insertProcess(tx, SICK, 'p'))));
      await fixture.confirmed('main');
    }
    await sql`DROP PUBLICATION ${sql(SICK)}`;
    const dropped = await fixture.currentLsn();
    await fixture.commit((tx) => insertProcess(tx, SICK, 'q'));
    const lost = await fixture.currentLsn();
    const otherAt = await fixture.commit((tx) => insertProcess(tx, 'other', 'p'));
    await fixture.confirmed('other');
    for (const count of [1, 2]) {
      const error = await service.waitForFailure(fixture.slot('main'), count);
      expect(error.message).toContain(`publication "${SICK}" was dropped`);
      const lsn = parseLsn(String(error.place?.lsn));
      expect(lsn <= dropped + 1024n).toBe(true);
      expect(error).toMatchObject({ name: 'LossError', place: { slot: fixture.slot('main') } });
    }
    expect(await fixture.confirmedLsn('main')).toBeLessThan(lost);
    expect(service.failures(fixture.slot('other'))).toEqual([]);
    const arrived = [...loaded, lifecycle('other', 'p', 'created', otherAt)];
    expect(await fixture.emitted()).toEqual(inOrder(arrived));

    // A process that never saw the publication reports the same, also when the publication exists again.
    await service.stop();
    await sql`CREATE PUBLICATION ${sql(SICK)} FOR TABLE ${sql(tablesOf(SICK).processes)}, ${sql(tablesOf(SICK).events)}`;
    const restarted = fixture.start();
    const error = await restarted.waitForFailure(fixture.slot('main'), 2);
    expect(error.message).toContain(`publication "${SICK}" was dropped and recreated`);
    expect(await fixture.confirmedLsn('main')).toBeLessThan(lost);
    await restarted.stop();

    fixture.start({ settings: accepting(fixture, 'main', error) });
    await waitFor('the slot to go on', async () => (await fixture.confirmedLsn('main')) > lost);
    arrived.push(lifecycle(SICK, 'r', 'created', await fixture.commit((tx) => insertProcess(tx, SICK, 'r'))));
    await fixture.confirmed('main');
    expect(await fixture.emitted()).toEqual(inOrder(arrived));
  }

  for (const state of ['loaded', 'fresh'] as const) {
    const which = state === 'loaded' ? 'after it delivered rows' : 'before it delivered a row';
    test(`${which} stops its slot at that LSN, also when it is created again, until the loss is accepted`, async () => {
      await using fixture = await openStreamFixture({
        postgres,
        kafka,
        slots: { main: [SOUND, SICK], other: ['other'] },
      });
      await dropAndExpectStop(fixture, state);
    }, 60_000);
  }
});
