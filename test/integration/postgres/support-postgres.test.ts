/** The servers that other tests rely on: every major version, and a standby that takes over. */
import { describe, expect, test } from 'bun:test';
import { existsSync } from 'node:fs';
import { canListen } from '../../support/network/ports.ts';
import { startPostgres } from '../../support/postgres/server.ts';
import { startStandby } from '../../support/postgres/standby.ts';
import { waitFor } from '../../support/process/wait.ts';

test.each([14, 15, 16, 17, 18] as const)('PostgreSQL %d decodes, and leaves no file or process', async (major) => {
  const server = await startPostgres({ major });
  try {
    const sql = server.sql('postgres', { max: 1 });
    const [version] = await sql`SELECT current_setting('server_version_num')::int / 10000 AS major`;
    expect(version?.major).toBe(major);
    await sql`SELECT pg_create_logical_replication_slot('s', 'pgoutput')`;
    await sql.end();
  } finally {
    await server[Symbol.asyncDispose]();
  }
  expect(existsSync(server.dataDirectory)).toBe(false);
  expect(await canListen(server.port)).toBe(true);
});

describe.each([14, 18] as const)('a standby of PostgreSQL %d', (major) => {
  test('is made while the primary writes, follows it, and takes over', async () => {
    await using primary = await startPostgres({ major });
    await using sql = closing(primary.sql('postgres', { max: 2 }));
    await sql.client`CREATE TABLE t (i bigserial PRIMARY KEY, filler text)`;
    const insert = () => sql.client`INSERT INTO t (filler) SELECT repeat('x', 500) FROM generate_series(1, 200)`;
    let writing = true;
    const writer = (async () => {
      while (writing) await insert();
    })();
    await using standby = await startStandby(primary);
    writing = false;
    await writer;
    await insert();
    await standby.catchUp();
    const count = 'SELECT count(*)::int AS rows, sum(i)::text AS sum FROM t';
    const written = [...(await sql.client.unsafe(count))];
    await using reader = closing(standby.sql('postgres', { max: 1 }));
    expect([...(await reader.client.unsafe(count))]).toEqual(written);
    expect((await reader.client`SELECT pg_is_in_recovery() AS standby`)[0]?.standby).toBe(true);

    await primary.stop('immediate');
    await standby.promote();
    await reader.client`INSERT INTO t (filler) VALUES ('of the new primary')`;
    const [state] =
      await reader.client`SELECT pg_is_in_recovery() AS standby, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) AS timeline`;
    expect({ ...state }).toEqual({ standby: false, timeline: '00000002' });
  }, 120_000);
});

describe.each([17, 18] as const)('a standby of PostgreSQL %d with slot synchronisation', (major) => {
  test('has the failover slots of its primary after a promotion, and no others', async () => {
    await using primary = await startPostgres({ major });
    await primary.createDatabase('app');
    await using sql = closing(primary.sql('app', { max: 1 }));
    await sql.client`CREATE TABLE t (i int PRIMARY KEY)`;
    await sql.client`CREATE PUBLICATION p FOR TABLE t`;
    await sql.client`SELECT pg_create_logical_replication_slot('plain', 'pgoutput')`;
    await using standby = await startStandby(primary);
    await sql.client`SELECT pg_create_logical_replication_slot('kept', 'pgoutput', failover => true)`;
    const [advanced] = await sql.client`SELECT end_lsn::text AS lsn FROM
      pg_replication_slot_advance('kept', pg_current_wal_lsn())`;
    await standby.waitForSyncedSlot('kept', advanced?.lsn);
    await sql.client`INSERT INTO t VALUES (1)`;
    await standby.catchUp();
    await primary.stop('immediate');
    await standby.promote();
    await using promoted = closing(standby.sql('app', { max: 1 }));
    const slots = await promoted.client`SELECT slot_name, failover, synced FROM pg_replication_slots`;
    expect(slots.map((slot) => ({ ...slot }))).toEqual([{ slot_name: 'kept', failover: true, synced: true }]);
    await promoted.client`INSERT INTO t VALUES (2)`;
    const changes = await waitFor(
      'changes of both primaries',
      () =>
        promoted.client`SELECT FROM pg_logical_slot_peek_binary_changes('kept', NULL, NULL,
        'proto_version', '1', 'publication_names', 'p') WHERE get_byte(data, 0) = ascii('I')`,
    );
    expect(changes.length).toBe(2);
  }, 180_000);
});

function closing<T extends { end(): Promise<void> }>(client: T): AsyncDisposable & { readonly client: T } {
  return { client, [Symbol.asyncDispose]: () => client.end() };
}
