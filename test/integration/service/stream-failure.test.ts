/** What stops a slot on purpose: rows that cannot be converted, publications that are gone. Real servers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { formatLsn, type Lsn, parseLsn } from '../../../src/lsn.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import type { LoggedError } from '../../support/service/in-process.ts';
import type { LogLine } from '../../support/service/recording-logger.ts';
import {
  type Emitted,
  event,
  inOrder,
  insertEvent,
  insertProcess,
  lifecycle,
  openStreamScene,
  type StreamScene,
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

/** Where the first change of a kind stands in what a slot still holds. */
async function lsnOfChange(scene: StreamScene, slotName: string, kind: 'I' | 'U'): Promise<Lsn> {
  const [row] = await scene.sql`
    SELECT lsn::text FROM pg_logical_slot_peek_binary_changes(${scene.slot(slotName)}, NULL, NULL,
      'proto_version', '1', 'publication_names', ${SICK}) WHERE get_byte(data, 0) = ${kind.charCodeAt(0)} LIMIT 1`;
  return parseLsn(row!.lsn);
}

/** Settings that accept the loss which the slot has stopped at. */
function accepting(scene: StreamScene, slotName: string, error: LoggedError): Readonly<Record<string, unknown>> {
  return { slots: { [scene.database]: { [scene.slot(slotName)]: { accept_loss_after: error.place?.lsn } } } };
}

/** Resolves when nobody streams from the slot, which it then can be advanced by hand. */
async function advancePast(scene: StreamScene, slotName: string, lsn: Lsn): Promise<void> {
  await waitFor('the slot to be advanced', async () => {
    const [row] = await scene.sql`SELECT active FROM pg_replication_slots WHERE slot_name = ${scene.slot(slotName)}`;
    if (row!.active) return false;
    return scene.sql`SELECT pg_replication_slot_advance(${scene.slot(slotName)}, ${formatLsn(lsn)}::pg_lsn)`.then(
      () => true,
      () => false, // taken up again in between
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
  const openScene = () => openStreamScene({ postgres, kafka, slots: { one: [SICK], two: [SOUND] } });

  const POISONS = [
    { what: 'a payload that is no term', row: { payload: Buffer.of(131, 255) }, reason: 'payload' },
    { what: 'a format_version that is text', row: { metadata: '{"format_version": "1"}' }, reason: 'format_version' },
    { what: 'a time without end', row: { timestamp: 'infinity' }, reason: 'timestamp' },
  ] as const;
  test.each(POISONS)(
    '($what) stops its slot alone, with table, key, LSN and reason, until it is passed',
    async ({ row, reason }) => {
      await using scene = await openScene();
      const first = scene.start();
      await scene.confirmed('one');
      await scene.confirmed('two');
      await first.stop();

      // All in the backlog of one start: what stands before the poison is read together with it.
      const expected: Emitted[] = [];
      const soundAt = await scene.commit((tx) => insertProcess(tx, SOUND, 'p'));
      const goodAt = await scene.commit((tx) => insertProcess(tx, SICK, 'p'));
      expected.push(lifecycle(SOUND, 'p', 'created', soundAt), lifecycle(SICK, 'p', 'created', goodAt));
      const good = await scene.currentLsn();
      await scene.commit((tx) => insertEvent(tx, SICK, 'p', 1, row));
      const poisonEnd = await scene.currentLsn();
      const behindAt = await scene.commit((tx) => insertEvent(tx, SICK, 'p', 2));

      const service = scene.start();
      const error = await service.waitForFailure(scene.slot('one'), 3);
      expect(error.message).toContain(reason);
      expect(error.place).toMatchObject({
        database: scene.database,
        slot: scene.slot('one'),
        namespace: SICK,
        table: tablesOf(SICK).events,
        key: `${SICK} p`,
      });
      const lsn = parseLsn(String(error.place?.lsn));
      expect(lsn >= good && lsn < poisonEnd).toBe(true);
      // What came before it is delivered and confirmed, so that nothing but the row is lost when it is passed.
      expect(await scene.confirmedLsn('one')).toBeGreaterThanOrEqual(good);
      expect(await scene.confirmedLsn('one')).toBeLessThan(poisonEnd);
      expect(await scene.emitted()).toEqual(inOrder(expected));
      expected.push(lifecycle(SOUND, 'q', 'created', await scene.commit((tx) => insertProcess(tx, SOUND, 'q'))));
      await scene.confirmed('two');
      expect(service.failures(scene.slot('two'))).toEqual([]);

      // Whoever passes it by hand has to say so: the slot could as well have been made anew.
      await advancePast(scene, 'one', poisonEnd);
      const loss = await waitFor('the loss', () =>
        service.failures(scene.slot('one')).find(({ name }) => name === 'LossError'),
      );
      expect(loss.message).toContain('it was moved, or dropped and made anew');
      const passed = `from ${loss.place?.lsn} to ${formatLsn(poisonEnd)}`;
      expect([parseLsn(String(loss.place?.lsn)) >= good, loss.advice]).toEqual([true, expect.stringContaining(passed)]);
      await service.stop();
      scene.start({ settings: accepting(scene, 'one', loss) });
      await scene.confirmed('one');
      expected.push(event(SICK, 'p', { eventId: 2, createdAt: behindAt }));
      expect(await scene.emitted()).toEqual(inOrder(expected));
    },
    60_000,
  );

  test('from before the replica identity was FULL stops its slot with the setting that passes it, or is counted and skipped', async () => {
    await using scene = await openScene();
    const { sql } = scene;
    await sql`CREATE PUBLICATION ${sql(SICK)} FOR TABLE ${sql(tablesOf(SICK).processes)}, ${sql(tablesOf(SICK).events)}`;
    await sql`SELECT pg_create_logical_replication_slot(${scene.slot('one')}, 'pgoutput')`;
    const createdAt = await scene.commit((tx) => insertProcess(tx, SICK, 'p'));
    const expected = [lifecycle(SICK, 'p', 'created', createdAt)];
    await scene.commit((tx) => setStatus(tx, SICK, 'p', 'error', 'lost'));
    const updateLsn = await lsnOfChange(scene, 'one', 'U');
    await scene.commit((tx) => setStatus(tx, SICK, 'p', 'running'));
    const eventAt = await scene.commit((tx) => insertEvent(tx, SICK, 'p', 1));

    const stopping = scene.start();
    const error = await stopping.waitForFailure(scene.slot('one'), 2);
    expect(error.advice).toContain('on_missing_old_tuple: skip');
    expect(error.place).toMatchObject({
      slot: scene.slot('one'),
      namespace: SICK,
      table: tablesOf(SICK).processes,
      key: `${SICK} p`,
      lsn: formatLsn(updateLsn),
    });
    const soundAt = await scene.commit((tx) => insertProcess(tx, SOUND, 'p'));
    await scene.confirmed('two');
    expect(stopping.failures(scene.slot('two'))).toEqual([]);
    expect(await scene.emitted()).toEqual([...expected, lifecycle(SOUND, 'p', 'created', soundAt)]);
    expect(await scene.confirmedLsn('one')).toBeLessThanOrEqual(updateLsn);
    await stopping.stop();

    const skipping = scene.start({ onMissingOldTuple: 'skip' });
    await scene.confirmed('one');
    const failedAt = await scene.commit((tx) => setStatus(tx, SICK, 'p', 'error', 'kept'));
    await scene.confirmed('one');
    expect(await scene.emitted(SICK)).toEqual(
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

  /** Drops the publication, writes to its namespace, and checks that the slot does not go on. */
  async function dropAndExpectStop(scene: StreamScene, slotName: string): Promise<void> {
    const { sql } = scene;
    const service = scene.start();
    for (const name of ['main', 'other']) {
      const isStart = (line: LogLine) => line.msg === 'replication started' && line.slot === scene.slot(name);
      await service.waitForLog(`the start of ${name}`, isStart);
    }
    const loaded: Emitted[] = [];
    if (slotName === 'loaded') {
      loaded.push(lifecycle(SICK, 'p', 'created', await scene.commit((tx) => insertProcess(tx, SICK, 'p'))));
      await scene.confirmed('main');
    }
    await sql`DROP PUBLICATION ${sql(SICK)}`;
    const dropped = await scene.currentLsn();
    await scene.commit((tx) => insertProcess(tx, SICK, 'q'));
    const lost = await scene.currentLsn();
    const otherAt = await scene.commit((tx) => insertProcess(tx, 'other', 'p'));
    await scene.confirmed('other');
    for (const count of [1, 2]) {
      const error = await service.waitForFailure(scene.slot('main'), count);
      expect(error.message).toContain(`publication "${SICK}" was dropped`);
      const lsn = parseLsn(String(error.place?.lsn));
      expect(lsn <= dropped + 1024n).toBe(true);
      expect(error).toMatchObject({ name: 'LossError', place: { slot: scene.slot('main') } });
    }
    expect(await scene.confirmedLsn('main')).toBeLessThan(lost);
    expect(service.failures(scene.slot('other'))).toEqual([]);
    const arrived = [...loaded, lifecycle('other', 'p', 'created', otherAt)];
    expect(await scene.emitted()).toEqual(inOrder(arrived));

    // It is remembered by a process that never saw the publication, and whether or not there is one again.
    await service.stop();
    await sql`CREATE PUBLICATION ${sql(SICK)} FOR TABLE ${sql(tablesOf(SICK).processes)}, ${sql(tablesOf(SICK).events)}`;
    const restarted = scene.start();
    const error = await restarted.waitForFailure(scene.slot('main'), 2);
    expect(error.message).toContain(`publication "${SICK}" was dropped and made anew`);
    expect(await scene.confirmedLsn('main')).toBeLessThan(lost);
    await restarted.stop();

    scene.start({ settings: accepting(scene, 'main', error) });
    await waitFor('the slot to go on', async () => (await scene.confirmedLsn('main')) > lost);
    arrived.push(lifecycle(SICK, 'r', 'created', await scene.commit((tx) => insertProcess(tx, SICK, 'r'))));
    await scene.confirmed('main');
    expect(await scene.emitted()).toEqual(inOrder(arrived));
  }

  for (const state of ['loaded', 'fresh'] as const) {
    const which = state === 'loaded' ? 'that has brought rows' : 'that has not brought a row yet';
    test(`and ${which} stops its slot at that LSN, also when it is made anew, until the loss is accepted`, async () => {
      await using scene = await openStreamScene({
        postgres,
        kafka,
        slots: { main: [SOUND, SICK], other: ['other'] },
      });
      await dropAndExpectStop(scene, state);
    }, 60_000);
  }
});
