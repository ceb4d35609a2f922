/** Streams that cannot continue where they stopped, on real servers: each stops, says what is lost, and continues once that is accepted. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import type { Sql } from 'postgres';
import { LossError, SetupError, SlotInUseError, SourceError } from '../../../src/errors.ts';
import { judgeFailure } from '../../../src/failure-policy.ts';
import { formatLsn, type Lsn, parseLsn } from '../../../src/lsn.ts';
import { readPublishing } from '../../../src/postgres/catalog/publications.ts';
import { connectReplication, startCopyBoth } from '../../../src/postgres/client/connect.ts';
import { readLedger, type SlotLedger, writeLedger } from '../../../src/postgres/continuity/ledger.ts';
import { describePublicationHazards } from '../../../src/postgres/hazards/publication-hazards.ts';
import { claimSlot } from '../../../src/postgres/setup/claim-slot.ts';
import { dropSlotSql } from '../../../src/postgres/setup/create-slot.ts';
import { type PostgresMajor, type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { createTables, openSetupFixture, type SetupFixture } from '../../support/postgres/setup-fixture.ts';
import { startStandby } from '../../support/postgres/standby.ts';
import { waitFor } from '../../support/process/wait.ts';

const SLOT = 'cdc_slot';

async function raised<T extends Error>(kind: new (...args: never[]) => T, attempt: Promise<unknown>): Promise<T> {
  const error = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(kind);
  return error as T;
}

/** Where the loss begins, by the setting that its advice gives. */
function offeredLsn(error: LossError): Lsn {
  const [, offered] = /slots\.main\.cdc_slot\.accept_loss_after: (\S+) /.exec(error.advice!)!;
  expect(error.place.lsn).toBe(offered);
  return parseLsn(offered!);
}

async function slotExists(fixture: SetupFixture): Promise<boolean> {
  return (await fixture.admin`SELECT FROM pg_replication_slots WHERE slot_name = ${SLOT}`).length > 0;
}

function warnings(fixture: SetupFixture): readonly string[] {
  return fixture.log.filter(({ level }) => level === 'warn').map(({ msg }) => msg);
}

/** A slot that was streamed by one instance, which stopped in good order; later on something was written. */
async function streamed(fixture: SetupFixture, namespaces: readonly string[] = ['ns']): Promise<SlotLedger> {
  for (const namespace of namespaces) await createTables(fixture.admin, namespace);
  const ledger = await fixture.stream(SLOT, namespaces);
  // Its publications were seen unaltered to the end.
  const remembered = { ...ledger, watchedLsn: ledger.confirmedLsn };
  expect(
    await writeLedger(fixture.control, { slot: SLOT, ledger: { ...remembered, closed: true }, replaces: undefined }),
  ).toBe('written');
  await fixture.admin`INSERT INTO ns_processes VALUES ('after', 'running', NULL)`;
  return remembered;
}

/** Recreates the slot at the end of the WAL. */
async function remakeSlot(fixture: SetupFixture): Promise<void> {
  await fixture.admin`SELECT pg_drop_replication_slot(${SLOT})`;
  await fixture.admin`SELECT pg_create_logical_replication_slot(${SLOT}, 'pgoutput')`;
}

/** Writes and checkpoints until the server has removed WAL that the slot needs. */
async function loseSlot(fixture: SetupFixture): Promise<void> {
  await waitFor('slot lost', async () => {
    await fixture.admin`SELECT pg_switch_wal()`;
    await fixture.admin`INSERT INTO ns_processes VALUES (gen_random_uuid()::text, 'running', NULL)`;
    await fixture.admin`CHECKPOINT`;
    const [row] = await fixture.admin`SELECT wal_status FROM pg_replication_slots WHERE slot_name = ${SLOT}`;
    return row!.wal_status === 'lost';
  });
}

/** A server that keeps hardly any WAL for slots. */
function startSmallServer(major: PostgresMajor): Promise<PostgresServer> {
  const settings = { max_slot_wal_keep_size: '1MB', min_wal_size: '32MB', max_wal_size: '32MB' };
  return startPostgres({ major, settings });
}

/** Text of three statements of the preparation: before the judgement, between it and the claim, after the claim. */
const LEDGER_QUERY = 'AS writable';
const ABANDONED_QUERY = 'NOT temporary AND NOT active';
const DROP_QUERY = 'pg_drop_replication_slot';

/** The hazards of publications as they are now. */
async function publicationHazards(
  control: Sql,
  {
    namespaces,
    serverMajor,
    entryOids,
  }: {
    readonly namespaces: readonly string[];
    readonly serverMajor: number;
    readonly entryOids?: ReadonlyMap<string, readonly number[]>;
  },
): Promise<readonly string[]> {
  return describePublicationHazards(namespaces, await readPublishing(control, namespaces, serverMajor), entryOids);
}

/** A connection on which the statement with this text waits until `meanwhile` has run. */
function heldAt(control: Sql, text: string, meanwhile: () => Promise<void>): Sql {
  return new Proxy(control, {
    apply: (target, _this, parameters) => {
      const run = (): unknown => Reflect.apply(target as (...args: unknown[]) => unknown, undefined, parameters);
      const [strings] = parameters;
      return Array.isArray(strings) && strings.join('').includes(text) ? meanwhile().then(run) : run();
    },
    get: (target, key) => {
      const value: unknown = Reflect.get(target, key);
      if (key !== 'unsafe') return value;
      return (...parameters: [string]) => {
        const run = (): unknown => Reflect.apply(value as (...args: unknown[]) => unknown, undefined, parameters);
        return parameters[0].includes(text) ? meanwhile().then(run) : run();
      };
    },
  });
}

describe.each([14, 17, 18] as const)('continuity on PostgreSQL %d', (major: PostgresMajor) => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await startPostgres({ major });
  }, 120_000);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  });

  test('continues within the process, in a new one, and after a peer', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    expect((await fixture.prepare(SLOT, ['ns'], { remembered })).nextLedger).toMatchObject({
      revision: 2,
      fromLsn: remembered.fromLsn,
    });
    const peer = await fixture.stream(SLOT, ['ns'], { instance: 'peer' });
    expect(peer).toMatchObject({ revision: 2, fromLsn: remembered.fromLsn, instance: 'peer' });
    expect(peer.confirmedLsn > remembered.confirmedLsn).toBe(true);
    const prepared = await fixture.prepare(SLOT, ['ns'], { remembered });
    expect(prepared.confirmedFlushLsn).toBe(peer.confirmedLsn);
    expect(prepared.nextLedger).toMatchObject({
      revision: 3,
      fromLsn: remembered.fromLsn,
      confirmedLsn: peer.confirmedLsn,
    });
    expect(warnings(fixture)).toEqual([]);
  });

  test('a slot that is gone is not recreated before the loss is accepted', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    await fixture.admin`SELECT pg_drop_replication_slot(${SLOT})`;

    const inNewProcess = await raised(LossError, fixture.prepare(SLOT, ['ns']));
    expect(inNewProcess.message).toBe(
      `Cannot continue after ${formatLsn(remembered.confirmedLsn)}: the replication slot does not exist any more`,
    );
    expect(inNewProcess.place).toMatchObject({ database: 'main', slot: SLOT });
    expect(offeredLsn(inNewProcess)).toBe(remembered.confirmedLsn);
    expect(await slotExists(fixture)).toBe(false);

    // What this process knows better is written down, so that the next one offers the same.
    const further = { ...remembered, confirmedLsn: remembered.confirmedLsn + 8n };
    const inProcess = await raised(LossError, fixture.prepare(SLOT, ['ns'], { remembered: further }));
    expect(offeredLsn(inProcess)).toBe(further.confirmedLsn);
    expect(await readLedger(fixture.control, SLOT)).toEqual({ ...further, closed: true });
    expect(offeredLsn(await raised(LossError, fixture.prepare(SLOT, ['ns'], { instance: 'next' })))).toBe(
      further.confirmedLsn,
    );

    const wrong = { settings: { acceptLossAfterLsn: remembered.confirmedLsn } };
    await raised(LossError, fixture.prepare(SLOT, ['ns'], wrong));
    expect(await slotExists(fixture)).toBe(false);
    expect(warnings(fixture)).toEqual([]);
    const accepted = { settings: { acceptLossAfterLsn: further.confirmedLsn } };
    const again = await fixture.stream(SLOT, ['ns'], accepted);
    expect(again.confirmedLsn > further.confirmedLsn).toBe(true);
    expect(warnings(fixture)).toEqual([expect.stringContaining('continuing without the lost changes')]);
    // The setting may stay: it accepts this loss alone.
    fixture.log.length = 0;
    await fixture.prepare(SLOT, ['ns'], { ...accepted, remembered: again });
    await fixture.admin`SELECT pg_drop_replication_slot(${SLOT})`;
    await raised(LossError, fixture.prepare(SLOT, ['ns'], { ...accepted, remembered: again }));
    expect(warnings(fixture)).toEqual([]);
  });

  test('a slot that was created and never taken is not recreated either', async () => {
    await using fixture = await openSetupFixture(server);
    await createTables(fixture.admin, 'ns');
    const { confirmedFlushLsn } = await fixture.prepare(SLOT, ['ns']);
    await fixture.admin`SELECT pg_drop_replication_slot(${SLOT})`;
    expect(offeredLsn(await raised(LossError, fixture.prepare(SLOT, ['ns'])))).toBe(confirmedFlushLsn);
  });

  test('a slot that was dropped and recreated is a loss', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    await remakeSlot(fixture);
    for (const options of [{}, { remembered }]) {
      const error = await raised(LossError, fixture.prepare(SLOT, ['ns'], options));
      expect(error.message).toContain('it was advanced by another program, or dropped and recreated');
      expect(offeredLsn(error)).toBe(remembered.confirmedLsn);
    }
    const crashed = { ...remembered, revision: 2, instance: 'crashed' };
    await writeLedger(fixture.control, { slot: SLOT, ledger: crashed, replaces: remembered });
    await fixture.prepare(SLOT, ['ns']);
    await fixture.prepare(SLOT, ['ns'], { remembered, settings: { acceptLossAfterLsn: remembered.confirmedLsn } });
  });

  test('a slot that another program moved is only a warning when no ledger can be written', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    await fixture.script(dropSlotSql(SLOT));
    await fixture.admin`SELECT pg_create_logical_replication_slot(${SLOT}, 'pgoutput')`;
    await raised(LossError, fixture.prepare(SLOT, ['ns'], { remembered }));
    await fixture.script('DROP PUBLICATION "cdc-notifier:cdc_slot"');
    await fixture.prepare(SLOT, ['ns'], { remembered, isLedgerRefused: true });
    expect(warnings(fixture)).toEqual([expect.stringContaining('without a ledger nothing shows')]);
  });

  test('a publication that was dropped or recreated is a loss, and is streamed again when that is accepted', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture, ['ns', 'other']);
    await fixture.script('DROP PUBLICATION ns');
    await fixture.admin`INSERT INTO ns_processes VALUES ('unpublished', 'running', NULL)`;

    const dropped = await raised(LossError, fixture.prepare(SLOT, ['ns', 'other'], { remembered }));
    expect(dropped.message).toContain('publication "ns" was dropped');
    expect(offeredLsn(dropped)).toBe(remembered.confirmedLsn);
    expect((await fixture.admin`SELECT FROM pg_publication WHERE pubname = 'ns'`).length).toBe(0);
    // A namespace that is not configured any more is no loss.
    await fixture.prepare(SLOT, ['other'], { remembered });

    const accepted = { remembered, settings: { acceptLossAfterLsn: remembered.confirmedLsn } };
    const prepared = await fixture.prepare(SLOT, ['ns', 'other'], accepted);
    expect(prepared.renewedPublications).toEqual(['ns']);
    const { createdAtLsn } = prepared.publications[0]!;
    expect(createdAtLsn! > prepared.confirmedFlushLsn).toBe(true);

    // The same for a process that meets the new one, in the ledger's words.
    const remade = await raised(LossError, fixture.prepare(SLOT, ['ns', 'other']));
    expect(remade.message).toContain('publication "ns" was dropped and recreated');
    expect(remade.advice).toContain(`from ${formatLsn(remembered.confirmedLsn)} to ${formatLsn(createdAtLsn!)}`);
    // A slot that was streamed past its beginning has lost nothing more.
    await fixture.admin`SELECT pg_replication_slot_advance(${SLOT}, pg_current_wal_lsn())`;
    const crashed = { ...remembered, instance: 'crashed', revision: 2 };
    await writeLedger(fixture.control, { slot: SLOT, ledger: crashed, replaces: remembered });
    expect((await fixture.prepare(SLOT, ['ns', 'other'])).renewedPublications).toEqual(['ns']);
  });

  test('a namespace that others did not stream is a loss when it comes back, unless it was removed for good', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture, ['ns', 'other']);
    const peer = await fixture.stream(SLOT, ['other'], { instance: 'peer' });
    expect(warnings(fixture)).toEqual([expect.stringContaining('continues without namespaces')]);
    expect(fixture.log).toContainEqual(
      expect.objectContaining({ namespaces: ['ns'], advice: expect.stringContaining('DROP PUBLICATION "ns";') }),
    );
    const [left] = (await readLedger(fixture.control, SLOT))!.left.values();
    // Later instances without it do not move the place.
    await fixture.admin`INSERT INTO ns_processes VALUES ('later', 'running', NULL)`;
    const next = await fixture.stream(SLOT, ['other'], { instance: 'next' });
    expect(next.left).toEqual(new Map([['ns', left!]]));
    expect(warnings(fixture).length).toBe(1);
    for (const options of [{ remembered }, {}]) {
      const error = await raised(LossError, fixture.prepare(SLOT, ['ns', 'other'], options));
      expect(error.message).toContain('the slot was streamed without namespace "ns"');
      expect(offeredLsn(error)).toBe(left!.lsn);
      expect(error.advice).toContain(`from ${formatLsn(remembered.confirmedLsn)} to ${formatLsn(next.confirmedLsn)}`);
    }
    expect(peer.confirmedLsn < next.confirmedLsn).toBe(true);

    const settings = { acceptLossAfterLsn: left!.lsn };
    const accepted = await fixture.prepare(SLOT, ['ns', 'other'], { settings });
    expect(accepted.nextLedger.left).toEqual(new Map());
    await fixture.script('DROP PUBLICATION ns');
    fixture.log.length = 0;
    const again = await fixture.prepare(SLOT, ['ns', 'other']);
    expect(again.renewedPublications).toEqual(['ns']);
    expect(warnings(fixture)).toEqual([]);
  });

  test('what changes between preparation and claim is not streamed', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    const claim = (prepared: Awaited<ReturnType<SetupFixture['prepare']>>) =>
      claimSlot(fixture.control, { slot: SLOT, databaseRef: 'main', prepared });

    const beforeMove = await fixture.prepare(SLOT, ['ns'], { remembered });
    await remakeSlot(fixture);
    await raised(SourceError, claim(beforeMove));
    await raised(LossError, fixture.prepare(SLOT, ['ns'], { remembered: beforeMove.nextLedger }));

    const accepted = { remembered, settings: { acceptLossAfterLsn: remembered.confirmedLsn } };
    const beforeDrop = await fixture.prepare(SLOT, ['ns'], accepted);
    await fixture.script('DROP PUBLICATION ns; CREATE PUBLICATION ns FOR TABLE ns_processes, ns_events');
    await raised(SourceError, claim(beforeDrop));
    await raised(LossError, fixture.prepare(SLOT, ['ns'], { remembered: beforeDrop.nextLedger }));

    const now = { remembered: { ...beforeDrop.nextLedger, publicationOids: new Map() } };
    const ours = await fixture.prepare(SLOT, ['ns'], now);
    const theirs = await fixture.prepare(SLOT, ['ns'], { ...now, instance: 'peer' });
    expect(await claim(theirs)).toBe('written');
    await raised(SourceError, claim(ours));
    expect(await readLedger(fixture.control, SLOT)).toEqual(theirs.nextLedger);
  });

  test('a slot that another process holds is waited for, and nothing is created', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    await createTables(fixture.admin, 'new');
    const replication = connectReplication(fixture.endpoint, { applicationName: 'peer' });
    try {
      const command = `START_REPLICATION SLOT ${SLOT} LOGICAL 0/0 (proto_version '1', publication_names 'ns')`;
      (await startCopyBoth(replication, command)).resume();
      await raised(SlotInUseError, fixture.prepare(SLOT, ['ns', 'new'], { remembered }));
      expect((await fixture.admin`SELECT FROM pg_publication WHERE pubname = 'new'`).length).toBe(0);
    } finally {
      await replication.end({ timeout: 0 });
    }
  });

  test('another system at the same address stops the stream', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    const elsewhere = { ...remembered, systemIdentifier: '1' };
    const error = await raised(LossError, fixture.prepare(SLOT, ['ns'], { remembered: elsewhere }));
    expect(error.message).toContain(`system identifier ${remembered.systemIdentifier} in place of 1`);
    expect(error.advice).toContain(`Changes from ${formatLsn(remembered.confirmedLsn)} on`);
    // The ledger of this server is not ours to write.
    expect((await readLedger(fixture.control, SLOT))?.systemIdentifier).toBe(remembered.systemIdentifier);
    const accepted = { remembered: elsewhere, settings: { acceptLossAfterLsn: remembered.confirmedLsn } };
    const { nextLedger, confirmedFlushLsn } = await fixture.prepare(SLOT, ['ns'], accepted);
    expect(nextLedger).toMatchObject({ systemIdentifier: remembered.systemIdentifier, fromLsn: confirmedFlushLsn });
  });

  test('after pg_upgrade, which brings the ledger along, a new process offers what the old one did', async () => {
    await using fixture = await openSetupFixture(server);
    const former = { ...(await streamed(fixture)), systemIdentifier: '1' };
    await fixture.script('DROP PUBLICATION "cdc-notifier:cdc_slot"');
    const older = { ...former, confirmedLsn: former.confirmedLsn - 0x100n };
    await writeLedger(fixture.control, { slot: SLOT, ledger: older, replaces: undefined });
    const running = await raised(LossError, fixture.prepare(SLOT, ['ns'], { remembered: former }));
    expect(offeredLsn(running)).toBe(former.confirmedLsn);
    const restarted = await raised(LossError, fixture.prepare(SLOT, ['ns'], { instance: 'next' }));
    expect(offeredLsn(restarted)).toBe(former.confirmedLsn);
    const settings = { acceptLossAfterLsn: former.confirmedLsn };
    await fixture.stream(SLOT, ['ns'], { instance: 'next', settings });
    await fixture.prepare(SLOT, ['ns'], { instance: 'after' });
  });

  test('a slot whose WAL was removed is replaced only when that is accepted', async () => {
    await using small = await startSmallServer(major);
    await using fixture = await openSetupFixture(small);
    const remembered = await streamed(fixture);
    await loseSlot(fixture);
    const error = await raised(LossError, fixture.prepare(SLOT, ['ns']));
    expect(error.message).toContain('the server has invalidated the slot');
    expect(offeredLsn(error)).toBe(remembered.confirmedLsn);
    // Also for a process that knows nothing.
    await fixture.script('DROP PUBLICATION "cdc-notifier:cdc_slot"');
    expect(offeredLsn(await raised(LossError, fixture.prepare(SLOT, ['ns'])))).toBe(remembered.confirmedLsn);
    const accepted = { settings: { acceptLossAfterLsn: remembered.confirmedLsn } };
    const { confirmedFlushLsn } = await fixture.prepare(SLOT, ['ns'], accepted);
    const [row] = await fixture.admin`SELECT wal_status FROM pg_replication_slots WHERE slot_name = ${SLOT}`;
    expect(row!.wal_status).toBe('reserved');
    // The end of the accepted loss.
    expect(fixture.log).toContainEqual(expect.objectContaining({ confirmedFlushLsn: formatLsn(confirmedFlushLsn) }));
  });

  test.each([
    ['before it has claimed the slot', ABANDONED_QUERY, 0],
    ['before it drops the slot', DROP_QUERY, 1],
  ])(
    'of two that accept the same loss the late one leaves the new slot alone, held %s',
    async (_, statement, drops) => {
      await using small = await startSmallServer(major);
      await using fixture = await openSetupFixture(small);
      const remembered = await streamed(fixture);
      await loseSlot(fixture);
      const settings = { acceptLossAfterLsn: remembered.confirmedLsn };
      let first: SlotLedger | undefined;
      let dropCount = 0;
      const counting = heldAt(fixture.connectAs('postgres'), DROP_QUERY, async () => {
        dropCount += 1;
      });
      const control = heldAt(counting, statement, async () => {
        first = await fixture.stream(SLOT, ['ns'], { instance: 'first', settings });
        await fixture.admin`INSERT INTO ns_processes VALUES ('owed', 'running', NULL)`;
      });
      await raised(SourceError, fixture.prepare(SLOT, ['ns'], { instance: 'late', control, settings }));
      expect(dropCount).toBe(drops);
      expect(first?.acceptedLsn).toBe(remembered.confirmedLsn);
      expect((await readLedger(fixture.control, SLOT))?.instance).toBe('first');

      const again = await fixture.prepare(SLOT, ['ns'], { instance: 'late', settings });
      expect(again.confirmedFlushLsn).toBe(first!.confirmedLsn);
      const owed = await fixture.admin`
      SELECT FROM pg_logical_slot_peek_binary_changes(${SLOT}, NULL, NULL, 'proto_version', '1', 'publication_names', 'ns')
      WHERE position('owed' IN encode(data, 'escape')) > 0`;
      expect(owed.length).toBe(1);
    },
  );

  test('of two that start for the first time at once neither fails: the late one waits for the slot', async () => {
    await using fixture = await openSetupFixture(server);
    await createTables(fixture.admin, 'ns');
    // The other one makes everything, and takes the slot, between the first one's judgement and what follows from it.
    const control = heldAt(fixture.connectAs('postgres'), ABANDONED_QUERY, async () => {
      await fixture.stream(SLOT, ['ns'], { instance: 'peer' });
    });
    const error = await raised(SourceError, fixture.prepare(SLOT, ['ns'], { control }));
    expect(judgeFailure(error)).toEqual({ action: 'wait_for_slot', reason: 'slot-in-use' });
  });

  test('a slot and a ledger that appear while a first start reads them are no loss', async () => {
    await using fixture = await openSetupFixture(server);
    await createTables(fixture.admin, 'ns');
    let peer: Promise<unknown> | undefined;
    const control = heldAt(fixture.connectAs('postgres'), LEDGER_QUERY, async () => {
      peer ??= fixture.stream(SLOT, ['ns'], { instance: 'peer' });
      await peer;
    });
    expect((await fixture.prepare(SLOT, ['ns'], { control })).storedLedger?.instance).toBe('peer');
  });

  test('of two that find the slot missing the late one starts over, after the first', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    await fixture.admin`SELECT pg_drop_replication_slot(${SLOT})`;
    const settings = { acceptLossAfterLsn: remembered.confirmedLsn };
    let first: SlotLedger | undefined;
    const control = heldAt(fixture.connectAs('postgres'), ABANDONED_QUERY, async () => {
      first = await fixture.stream(SLOT, ['ns'], { instance: 'first', settings });
    });
    await raised(SourceError, fixture.prepare(SLOT, ['ns'], { instance: 'late', control, settings }));
    const again = await fixture.prepare(SLOT, ['ns'], { instance: 'late', settings });
    expect(again.storedLedger?.instance).toBe('first');
    expect(again.confirmedFlushLsn).toBe(first!.confirmedLsn);
  });

  test('a crash between claim and creation leaves the loss as it was, and the slot missing', async () => {
    await using small = await startSmallServer(major);
    await using fixture = await openSetupFixture(small);
    const remembered = await streamed(fixture);
    await loseSlot(fixture);
    const settings = { acceptLossAfterLsn: remembered.confirmedLsn };
    const crash = heldAt(fixture.connectAs('postgres'), DROP_QUERY, async () => {
      throw new Error('crash');
    });
    await raised(Error, fixture.prepare(SLOT, ['ns'], { control: crash, settings }));
    await fixture.admin`SELECT pg_drop_replication_slot(${SLOT})`;
    const error = await raised(LossError, fixture.prepare(SLOT, ['ns'], { instance: 'next' }));
    expect(offeredLsn(error)).toBe(remembered.confirmedLsn);
    await fixture.prepare(SLOT, ['ns'], { instance: 'next', settings });
  });

  test.each([
    ['a table was taken out', 'ALTER PUBLICATION ns DROP TABLE ns_events', 'it does not hold public."ns_events"'],
    [
      'operations were taken out',
      `ALTER PUBLICATION ns SET (publish = 'insert')`,
      'it does not publish update, delete',
    ],
    [
      'a table was dropped and recreated',
      `DROP TABLE ns_events; CREATE TABLE ns_events (process_id text, event_id smallint, payload bytea,
         PRIMARY KEY (process_id, event_id))`,
      'it does not hold public."ns_events"',
    ],
  ])(
    'a publication that was altered while in use is a loss, also when it was corrected: %s',
    async (_, script, finding) => {
      await using fixture = await openSetupFixture(server);
      const remembered = await streamed(fixture);
      const request = { namespaces: ['ns'], serverMajor: major };
      expect(await publicationHazards(fixture.control, request)).toEqual([]);
      await fixture.script(script);
      expect(await publicationHazards(fixture.control, request)).toEqual([`publication "ns": ${finding}`]);

      const error = await raised(LossError, fixture.prepare(SLOT, ['ns'], { remembered }));
      expect(error.message).toContain(`publication "ns" was altered while it was in use (${finding})`);
      expect(offeredLsn(error)).toBe(remembered.confirmedLsn);
      expect(await publicationHazards(fixture.control, request)).not.toEqual([]);

      await fixture.script(`ALTER PUBLICATION ns SET TABLE ns_processes, ns_events;
      ALTER PUBLICATION ns SET (publish = 'insert, update, delete')`);
      for (const options of [{ remembered }, { instance: 'next' }]) {
        const corrected = await raised(LossError, fixture.prepare(SLOT, ['ns'], options));
        expect(offeredLsn(corrected)).toBe(remembered.confirmedLsn);
      }
      await fixture.script(script);
      const settings = { acceptLossAfterLsn: remembered.confirmedLsn };
      await fixture.stream(SLOT, ['ns'], { instance: 'next', settings });
      expect(await publicationHazards(fixture.control, request)).toEqual([]);
      await fixture.prepare(SLOT, ['ns'], { instance: 'after' });
    },
  );

  test('a publication that holds more than it must is no loss', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    await fixture.script('CREATE TABLE other (i int PRIMARY KEY); ALTER PUBLICATION ns ADD TABLE other');
    expect(await publicationHazards(fixture.control, { namespaces: ['ns'], serverMajor: major })).toEqual([]);
    await fixture.prepare(SLOT, ['ns'], { remembered });
    expect(warnings(fixture)).toEqual([expect.stringContaining('changed publication')]);
  });

  test('a table that was removed from its publication and added again unseen is a loss', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    await fixture.script('ALTER PUBLICATION ns DROP TABLE public.ns_events');
    await fixture.admin`INSERT INTO ns_events VALUES ('after', 1, 'x')`;
    await fixture.script('ALTER PUBLICATION ns ADD TABLE public.ns_events');
    const { entryOids } = remembered;
    expect(await publicationHazards(fixture.control, { namespaces: ['ns'], serverMajor: major, entryOids })).toEqual([
      'publication "ns": a table was removed from it and added again',
    ]);
    const error = await raised(LossError, fixture.prepare(SLOT, ['ns']));
    expect(error.message).toContain('a table was removed from it and added again');
    expect(offeredLsn(error)).toBe(remembered.confirmedLsn);
    await raised(LossError, fixture.prepare(SLOT, ['ns']));
    const accepted = { settings: { acceptLossAfterLsn: remembered.confirmedLsn } };
    const again = await fixture.stream(SLOT, ['ns'], accepted);
    await fixture.prepare(SLOT, ['ns'], { ...accepted, remembered: again });
  });

  test('a table that was renamed, so that its rows arrive under a name of no namespace, is a loss', async () => {
    await using fixture = await openSetupFixture(server);
    const { entryOids, confirmedLsn } = await streamed(fixture);
    await fixture.script('ALTER TABLE ns_events RENAME TO ns_events_2');
    expect(await publicationHazards(fixture.control, { namespaces: ['ns'], serverMajor: major, entryOids })).toEqual([
      'publication "ns": a table of it has another name or schema now',
    ]);
    await raised(LossError, fixture.prepare(SLOT, ['ns']));
    await fixture.script('ALTER TABLE ns_events_2 RENAME TO ns_events');
    const error = await raised(LossError, fixture.prepare(SLOT, ['ns']));
    expect(offeredLsn(error)).toBe(confirmedLsn);
    await fixture.prepare(SLOT, ['ns'], { settings: { acceptLossAfterLsn: confirmedLsn } });
  });

  test('a server that was set back stays a loss when its WAL has passed what was delivered', async () => {
    await using fixture = await openSetupFixture(server);
    const { confirmedLsn, ...rest } = await streamed(fixture);
    // What the server had before it was set back, and this process alone knows of.
    const ahead = { ...rest, confirmedLsn: confirmedLsn + 0x4000n, deliveredLsn: confirmedLsn + 0x4000n };
    await raised(LossError, fixture.prepare(SLOT, ['ns'], { remembered: ahead }));
    await fixture.admin`INSERT INTO ns_processes SELECT 'p' || i, 'running', NULL FROM generate_series(1, 1000) i`;
    for (const options of [{ remembered: ahead }, { instance: 'next' }]) {
      const error = await raised(LossError, fixture.prepare(SLOT, ['ns'], options));
      expect(error.message).toContain('the server was restored to an earlier state');
      // Of the ledger that came with the server: it was set back to a state after that.
      expect(offeredLsn(error)).toBe(confirmedLsn);
    }
    const settings = { acceptLossAfterLsn: confirmedLsn };
    await fixture.stream(SLOT, ['ns'], { instance: 'next', settings });
    await fixture.prepare(SLOT, ['ns'], { instance: 'after' });
  });

  test('a publication FOR TABLES IN SCHEMA leaves nothing out', async () => {
    // Older servers have none.
    if (major < 15) return;
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    await fixture.script('ALTER PUBLICATION ns SET TABLES IN SCHEMA public');
    expect(await publicationHazards(fixture.control, { namespaces: ['ns'], serverMajor: major })).toEqual([]);
    await fixture.prepare(SLOT, ['ns'], { remembered });
    const [held] = await fixture.admin`SELECT count(*)::int4 AS tables FROM pg_publication_rel`;
    expect(held!.tables).toBe(2);
  });

  test('publication hazards name what is missing, and nothing in tables that do not exist', async () => {
    await using fixture = await openSetupFixture(server);
    await streamed(fixture, ['ns', 'other']);
    const mistakes = () =>
      publicationHazards(fixture.control, { namespaces: ['ns', 'other', 'third'], serverMajor: major });
    await fixture.script('CREATE PUBLICATION third; ALTER TABLE ns_processes REPLICA IDENTITY DEFAULT');
    expect(await mistakes()).toEqual([
      'publication "ns": replica identity of the processes table is neither FULL nor an index over process_id and status',
    ]);
    await fixture.script('ALTER TABLE ns_processes REPLICA IDENTITY FULL; DROP PUBLICATION other');
    expect(await mistakes()).toEqual([]);
  });

  test('a setting that has accepted a loss does not accept the next one at the same place', async () => {
    await using fixture = await openSetupFixture(server);
    const remembered = await streamed(fixture);
    const settings = { acceptLossAfterLsn: remembered.confirmedLsn };
    const lose = () => fixture.script('ALTER PUBLICATION ns DROP TABLE ns_events');
    await lose();
    const prepared = await fixture.prepare(SLOT, ['ns'], { settings });
    await claimSlot(fixture.control, { slot: SLOT, databaseRef: 'main', prepared });
    await lose();
    for (const options of [{ remembered: prepared.nextLedger }, { instance: 'next' }]) {
      const error = await raised(LossError, fixture.prepare(SLOT, ['ns'], { ...options, settings }));
      expect(offeredLsn(error)).toBe(remembered.confirmedLsn + 1n);
    }
    const second = { acceptLossAfterLsn: remembered.confirmedLsn + 1n };
    await fixture.prepare(SLOT, ['ns'], { instance: 'next', settings: second });
  });

  test('failover slots are created, existing slots become failover slots, and old servers refuse the setting', async () => {
    await using fixture = await openSetupFixture(server);
    await createTables(fixture.admin, 'ns');
    const settings = { failover: true };
    if (major < 17) {
      const error = await raised(SetupError, fixture.prepare(SLOT, ['ns'], { settings }));
      expect(error.message).toContain('has no failover slots');
      expect(error.advice).toContain('slots.main.cdc_slot.failover');
      expect(await slotExists(fixture)).toBe(false);
      return;
    }
    const isFailover = async () =>
      (await fixture.admin`SELECT failover FROM pg_replication_slots WHERE slot_name = ${SLOT}`)[0]!.failover;
    await fixture.prepare(SLOT, ['ns']);
    expect(await isFailover()).toBe(false);
    await fixture.prepare(SLOT, ['ns'], { settings });
    expect(await isFailover()).toBe(true);
    // Without the setting it stays as it is.
    await fixture.prepare(SLOT, ['ns']);
    expect(await isFailover()).toBe(true);
    await fixture.script(dropSlotSql(SLOT));
    await fixture.prepare(SLOT, ['ns'], { settings });
    expect(await isFailover()).toBe(true);
  });
});

describe('continuity over a failover', () => {
  test.each([17, 18] as const)(
    'a slot that was kept on the standby continues there, on PostgreSQL %d',
    async (major) => {
      await using primary = await startPostgres({ major });
      await using fixture = await openSetupFixture(primary);
      // Synchronised by hand: the worker of the server takes a nap of up to 30 s between two attempts.
      await using standby = await startStandby(primary, { settings: { sync_replication_slots: 'off' } });
      await createTables(fixture.admin, 'ns');
      const settings = { failover: true };
      await using promoted = fixture.on(standby);
      let remembered = await fixture.stream(SLOT, ['ns'], { settings });
      // The standby keeps the slot for good when what it needs on the primary has moved on to what the standby has.
      await waitFor('the slot kept on the standby', async () => {
        await fixture.admin`SELECT pg_log_standby_snapshot()`;
        const [moved] = await fixture.admin`
          SELECT end_lsn::text AS lsn FROM pg_replication_slot_advance(${SLOT}, pg_current_wal_lsn())`;
        remembered = { ...remembered, confirmedLsn: parseLsn(moved!.lsn) };
        await standby.catchUp();
        await promoted.admin`SELECT pg_sync_replication_slots()`;
        const slots = await promoted.admin`
          SELECT FROM pg_replication_slots WHERE slot_name = ${SLOT} AND synced AND NOT temporary`;
        return slots.length > 0;
      });
      await standby.waitForSyncedSlot(SLOT, formatLsn(remembered.confirmedLsn));
      const tooEarly = await raised(SetupError, promoted.prepare(SLOT, ['ns'], { remembered, settings }));
      expect(tooEarly.message).toContain('is a standby');

      await primary.stop('immediate');
      await standby.promote();
      for (const options of [{ remembered }, {}]) {
        promoted.log.length = 0;
        const prepared = await promoted.prepare(SLOT, ['ns'], { settings, ...options });
        expect(prepared).toMatchObject({ timeline: 2, confirmedFlushLsn: remembered.confirmedLsn });
        expect(prepared.nextLedger).toMatchObject({ timeline: 2, fromLsn: remembered.fromLsn });
        expect(promoted.log).toContainEqual(expect.objectContaining({ from: 1, to: 2, level: 'warn' }));
      }

      // Confirmed is also what a keepalive said of WAL without a record, and that may be more than the standby had.
      const quiet = {
        ...remembered,
        confirmedLsn: remembered.confirmedLsn + 0x100_0000n,
        deliveredLsn: remembered.confirmedLsn,
      };
      const { nextLedger: shared } = await promoted.prepare(SLOT, ['ns'], { remembered: quiet, settings });
      expect(shared.deliveredLsn).toBe(remembered.confirmedLsn);
      expect(shared.confirmedLsn < quiet.confirmedLsn).toBe(true);

      // What was delivered and is not in the WAL of the new primary is named, for every process from now on.
      const further = { ...quiet, deliveredLsn: quiet.confirmedLsn };
      const diverged = await raised(LossError, promoted.prepare(SLOT, ['ns'], { remembered: further, settings }));
      expect(diverged.message).toContain('timeline 2 left timeline 1 at');
      const lsn = offeredLsn(diverged);
      expect(lsn >= remembered.confirmedLsn && lsn < further.confirmedLsn).toBe(true);
      expect(offeredLsn(await raised(LossError, promoted.prepare(SLOT, ['ns'], { settings })))).toBe(lsn);
      const accepted = { settings: { ...settings, acceptLossAfterLsn: lsn } };
      expect(await promoted.stream(SLOT, ['ns'], accepted)).toMatchObject({ timeline: 2 });
      await promoted.prepare(SLOT, ['ns'], { settings });

      // The former primary comes back.
      await primary.start();
      await using former = fixture.on(primary);
      const wrong = await raised(
        SourceError,
        former.prepare(SLOT, ['ns'], { remembered: { ...remembered, timeline: 2 }, settings }),
      );
      expect(wrong.message).toContain('it is on timeline 1, but this stream followed timeline 2 before');
    },
    180_000,
  );

  test.each([14, 18] as const)(
    'a slot that the new primary lacks is not recreated, on PostgreSQL %d',
    async (major) => {
      await using primary = await startPostgres({ major });
      await using fixture = await openSetupFixture(primary);
      await using standby = await startStandby(primary, { slotSync: false });
      await createTables(fixture.admin, 'ns');
      const remembered = await fixture.stream(SLOT, ['ns']);
      await standby.catchUp();
      await primary.stop('immediate');
      await standby.promote();
      await using promoted = fixture.on(standby);
      for (const options of [{ remembered }, {}]) {
        const error = await raised(LossError, promoted.prepare(SLOT, ['ns'], options));
        expect(error.message).toContain('the replication slot does not exist any more');
        expect(await slotExists(promoted)).toBe(false);
      }
      const accepted = await raised(LossError, promoted.prepare(SLOT, ['ns']));
      await promoted.stream(SLOT, ['ns'], { settings: { acceptLossAfterLsn: offeredLsn(accepted) } });
      expect(await slotExists(promoted)).toBe(true);
    },
    180_000,
  );
});
