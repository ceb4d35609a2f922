/** Standing by for a slot on real servers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { type SlotHolder, waitUntilFree } from '../../../src/postgres/availability/slot-holder.ts';
import { connectReplication, startCopyBoth } from '../../../src/postgres/client/connect.ts';
import { type PostgresMajor, type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { openSetupFixture } from '../../support/postgres/setup-fixture.ts';
import { waitFor } from '../../support/process/wait.ts';

describe.each([14, 18] as const)('waitUntilFree on PostgreSQL %d', (major: PostgresMajor) => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await startPostgres({ major });
  }, 120_000);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  });

  test('returns at once for a slot without a holder, and for one that does not exist', async () => {
    await using fixture = await openSetupFixture(server);
    const holders: SlotHolder[] = [];
    const options = {
      slot: 'cdc_slot',
      signal: new AbortController().signal,
      onHolder: (one: SlotHolder) => holders.push(one),
    };
    await waitUntilFree(fixture.control, options);
    await fixture.admin`SELECT pg_create_logical_replication_slot('cdc_slot', 'pgoutput')`;
    await waitUntilFree(fixture.control, options);
    expect(holders).toEqual([]);
  });

  test('does not wait for a slot that a process of another database holds: the preparation names that database', async () => {
    await using fixture = await openSetupFixture(server);
    await using other = await openSetupFixture(server);
    await fixture.admin`CREATE PUBLICATION any_publication`;
    await fixture.admin`SELECT pg_create_logical_replication_slot('shared', 'pgoutput')`;
    const replication = connectReplication(fixture.endpoint, { applicationName: 'holder' });
    const command = `START_REPLICATION SLOT shared LOGICAL 0/0 (proto_version '1', publication_names 'any_publication')`;
    (await startCopyBoth(replication, command)).resume();
    try {
      const onHolder = () => {
        throw new Error('It waits');
      };
      await waitUntilFree(other.control, { slot: 'shared', signal: new AbortController().signal, onHolder });
      await expect(other.prepare('shared', [])).rejects.toMatchObject({
        code: 'slot_database',
        message: expect.stringContaining(`slot "shared" belongs to database "${fixture.database}"`),
      });
    } finally {
      await replication.end({ timeout: 0 });
      const isFree = async () => (await fixture.admin`SELECT FROM pg_replication_slots WHERE active`).length === 0;
      await waitFor('the slot to be free', isFree);
    }
  });

  test('names the holder whenever it looks, and returns within two seconds of the release', async () => {
    await using fixture = await openSetupFixture(server);
    await fixture.admin`CREATE PUBLICATION any_publication`;
    await fixture.admin`SELECT pg_create_logical_replication_slot('cdc_slot', 'pgoutput')`;
    const hold = async (applicationName: string) => {
      const replication = connectReplication(fixture.endpoint, { applicationName });
      const command = `START_REPLICATION SLOT cdc_slot LOGICAL 0/0 (proto_version '1', publication_names 'any_publication')`;
      const stream = await startCopyBoth(replication, command);
      stream.resume();
      const [row] = await fixture.admin`SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'cdc_slot'`;
      return { pid: row!.active_pid as number, release: () => replication.end({ timeout: 0 }) };
    };
    const isFree = async () => (await fixture.admin`SELECT FROM pg_replication_slots WHERE active`).length === 0;

    const holders: SlotHolder[] = [];
    const one = await hold('first holder');
    const stop = new AbortController();
    const aborted = waitUntilFree(fixture.control, {
      slot: 'cdc_slot',
      signal: stop.signal,
      onHolder: () => stop.abort(),
    });
    expect(await aborted.catch((error: Error) => error.name)).toBe('AbortError');

    const waiting = waitUntilFree(fixture.control, {
      slot: 'cdc_slot',
      signal: new AbortController().signal,
      onHolder: (holder) => {
        if (holders.at(-1)?.pid !== holder.pid) holders.push(holder);
      },
    });
    await waitFor('the first holder', () => holders.length === 1);
    const askedAt = async () => {
      const [row] = await fixture.admin`
        SELECT query_start::text AS at FROM pg_stat_activity
        WHERE application_name = 'cdc-notifier control' AND datname = current_database()`;
      return row!.at as string;
    };
    for (let asked = 0; asked < 2; asked++) {
      const before = await askedAt();
      await waitFor('another question', async () => (await askedAt()) !== before);
    }
    await one.release();
    await waitFor('the slot free', isFree, { intervalMs: 1 });
    const two = await hold('second holder');
    await waitFor('the second holder', () => holders.length === 2);
    await two.release();
    await waitFor('the slot free', isFree, { intervalMs: 5 });
    const releasedMs = performance.now();
    await waiting;
    expect(performance.now() - releasedMs).toBeLessThan(2_000);
    expect(holders).toMatchObject([
      { pid: one.pid, applicationName: 'first holder' },
      { pid: two.pid, applicationName: 'second holder' },
    ]);
  });
});
