/** The slot ledger on real servers: which role may write it, which ledgers it replaces, and what comes back. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { SetupError } from '../../../src/errors.ts';
import { quoteIdentifier } from '../../../src/postgres/client/quote.ts';
import {
  ledgerGrantSql,
  ledgerName,
  readLedger,
  type SlotLedger,
  writeLedger,
} from '../../../src/postgres/continuity/ledger.ts';
import { dropSlotSql } from '../../../src/postgres/setup/create-slot.ts';
import { type PostgresMajor, type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { openSetupFixture } from '../../support/postgres/setup-fixture.ts';

const first: SlotLedger = {
  systemIdentifier: '7710967555485513451',
  timeline: 1,
  instance: 'one',
  revision: 1,
  fromLsn: 0x40n,
  confirmedLsn: 0x100n,
  deliveredLsn: 0xf0n,
  closed: false,
  publicationOids: new Map([
    [`O'Brien "the" \\ 1`, 16_412],
    ['счёт', 16_413],
    ['__proto__', 16_414],
  ]),
  entryOids: new Map(),
  left: new Map([['заказ', { oid: 16_415, lsn: 0x80n }]]),
  clusterIds: new Map(),
  configurations: [],
  acceptedLsn: 0x60n,
};
const second: SlotLedger = { ...first, instance: 'two', revision: 2, confirmedLsn: 0x200n };
const SLOTS = ['cdc_slot', 's'.repeat(63)];

describe.each([14, 17, 18] as const)('the ledger on PostgreSQL %d', (major: PostgresMajor) => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await startPostgres({ major });
  }, 120_000);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  });

  test.each(SLOTS)('comes back as it was written, for slot %s', async (slot) => {
    await using fixture = await openSetupFixture(server);
    const { admin, control } = fixture;
    expect(await readLedger(control, slot)).toBeUndefined();
    expect(await writeLedger(control, { slot, ledger: first, replaces: undefined })).toBe('written');
    expect(await readLedger(control, slot)).toEqual(first);
    const closed = { ...first, closed: true, confirmedLsn: 0x180n };
    expect(await writeLedger(control, { slot, ledger: closed, replaces: undefined })).toBe('written');
    expect(await readLedger(control, slot)).toEqual(closed);
    const publications = await admin`
      SELECT pubname, puballtables OR pubinsert OR pubupdate OR pubdelete OR pubtruncate AS publishes FROM pg_publication`;
    expect([...publications]).toEqual([{ pubname: ledgerName(slot), publishes: false }]);
  });

  test('a late ledger of a former holder does not hide the ledger of its successor', async () => {
    await using fixture = await openSetupFixture(server);
    const { control } = fixture;
    const slot = 'cdc_slot';
    await writeLedger(control, { slot, ledger: first, replaces: undefined });
    expect(await writeLedger(control, { slot, ledger: second, replaces: first })).toBe('written');
    const late = { ...first, confirmedLsn: 0x180n, closed: true };
    expect(await writeLedger(control, { slot, ledger: late, replaces: undefined })).toBe('superseded');
    expect(await writeLedger(control, { slot, ledger: late, replaces: first })).toBe('superseded');
    expect(await readLedger(control, slot)).toEqual(second);
    // The slot holder restores what an operator has dropped.
    await fixture.script(`DROP PUBLICATION ${quoteIdentifier(ledgerName(slot))}`);
    expect(await writeLedger(control, { slot, ledger: second, replaces: first })).toBe('written');
    expect(await readLedger(control, slot)).toEqual(second);
  });

  test('of several that take the slot at once only one is written, at any isolation level of the role', async () => {
    await using fixture = await openSetupFixture(server);
    const role = `taker ${fixture.database}`;
    await fixture.admin.unsafe(`
      CREATE ROLE ${quoteIdentifier(role)} LOGIN SUPERUSER;
      ALTER ROLE ${quoteIdentifier(role)} SET default_transaction_isolation = 'serializable'`);
    await writeLedger(fixture.control, { slot: 'cdc_slot', ledger: first, replaces: undefined });
    const outcomes = await Promise.all(
      Array.from({ length: 5 }, (_, index) =>
        writeLedger(fixture.connectAs(role), {
          slot: 'cdc_slot',
          ledger: { ...second, instance: `taker ${index}` },
          replaces: first,
        }),
      ),
    );
    expect(outcomes.sort()).toEqual([...Array(4).fill('superseded'), 'written']);
  });

  test('a role without the right is refused, and writes when a superuser has run the statements', async () => {
    await using fixture = await openSetupFixture(server);
    const role = `reader ${fixture.database}`;
    await fixture.admin.unsafe(`CREATE ROLE ${quoteIdentifier(role)} LOGIN REPLICATION`);
    const control = fixture.connectAs(role);
    const slot = 'cdc_slot';
    expect(await writeLedger(control, { slot, ledger: first, replaces: undefined })).toMatchObject({
      cause: { code: '42501' },
    });
    expect(await readLedger(control, slot)).toBeUndefined();
    await fixture.script(ledgerGrantSql(slot, role));
    expect(await readLedger(control, slot)).toBeUndefined();
    expect(await writeLedger(control, { slot, ledger: first, replaces: undefined })).toBe('written');
    const closed = { ...first, closed: true };
    expect(await writeLedger(control, { slot, ledger: closed, replaces: undefined })).toBe('written');
    expect(await readLedger(control, slot)).toEqual(closed);

    // One that it may not write any more can be out of date.
    await fixture.script(`ALTER PUBLICATION ${quoteIdentifier(ledgerName(slot))} OWNER TO postgres`);
    expect(await writeLedger(control, { slot, ledger: second, replaces: first })).toMatchObject({
      cause: { code: '42501' },
    });
    expect(await readLedger(control, slot)).toEqual({ ...closed, closed: false });
  });

  test('a comment that is no ledger stops the slot, with the statement that gives it up', async () => {
    await using fixture = await openSetupFixture(server);
    const { control } = fixture;
    await writeLedger(control, { slot: 'cdc_slot', ledger: first, replaces: undefined });
    await fixture.script(`COMMENT ON PUBLICATION ${quoteIdentifier(ledgerName('cdc_slot'))} IS 'a note of a person'`);
    const error = await readLedger(control, 'cdc_slot').catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(SetupError);
    const { advice } = error as SetupError;
    await fixture.script(advice!.slice(advice!.lastIndexOf(': ') + 2));
    expect(await readLedger(control, 'cdc_slot')).toBeUndefined();
    expect(await writeLedger(control, { slot: 'cdc_slot', ledger: first, replaces: undefined })).toBe('written');
  });

  test('is written while synchronous standbys are away', async () => {
    await using fixture = await openSetupFixture(server);
    const session = server.sql('postgres', { max: 1 });
    const configure = async (standbys: string) => {
      await session.unsafe(`ALTER SYSTEM SET synchronous_standby_names = '${standbys}'`);
      await session`SELECT pg_reload_conf()`;
      await session`SELECT pg_sleep(0)`;
    };
    try {
      await configure('nobody');
      expect(await writeLedger(fixture.control, { slot: 'cdc_slot', ledger: first, replaces: undefined })).toBe(
        'written',
      );
    } finally {
      await configure('');
      await session.end();
    }
  });

  test('goes with its slot when an operator drops both for good', async () => {
    await using fixture = await openSetupFixture(server);
    await fixture.admin`SELECT pg_create_logical_replication_slot('cdc_slot', 'pgoutput')`;
    await writeLedger(fixture.control, { slot: 'cdc_slot', ledger: first, replaces: undefined });
    await fixture.script(dropSlotSql('cdc_slot'));
    expect((await fixture.admin`SELECT FROM pg_publication`).length).toBe(0);
    expect((await fixture.admin`SELECT FROM pg_replication_slots WHERE slot_name = 'cdc_slot'`).length).toBe(0);
  });
});
