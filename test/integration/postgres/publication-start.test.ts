/** Where a slot can be streamed with a publication that is younger than it, found on real servers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import type { Sql } from 'postgres';
import { textSecret } from '../../../src/config/secret.ts';
import { SetupError } from '../../../src/errors.ts';
import { formatLsn, type Lsn, parseLsn } from '../../../src/lsn.ts';
import { connectControl, connectReplication, startCopyBoth } from '../../../src/postgres/client/connect.ts';
import { sqlStateOf } from '../../../src/postgres/client/errors.ts';
import { publicationNames } from '../../../src/postgres/client/quote.ts';
import { findBoundary } from '../../../src/postgres/setup/publication-start.ts';
import { isPublicationMissing } from '../../../src/slot/missing-publication.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';

const SLOT = 'slot_boundary';
const NEW = 'new/"NS"';

describe.each([14, 17, 18] as const)('findBoundary on PostgreSQL %d', (major) => {
  let server: PostgresServer;
  let admin: Sql;
  let control: Sql;
  let confirmed: Lsn;

  beforeAll(async () => {
    server = await startPostgres({ major, settings: { max_replication_slots: '4' } });
  }, 120_000);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  });

  async function openScene(database: string): Promise<AsyncDisposable> {
    await server.createDatabase(database);
    admin = server.sql(database, { max: 4 });
    const password = textSecret(server.password);
    control = connectControl(
      { ref: 'main', host: server.host, port: server.port, database, username: 'postgres', password, tls: undefined },
      { applicationName: 'cdc-notifier control' },
    );
    await admin`CREATE TABLE old (i int PRIMARY KEY)`;
    await admin`CREATE TABLE young (i int PRIMARY KEY)`;
    await admin`CREATE PUBLICATION old FOR TABLE old`;
    await admin`SELECT pg_create_logical_replication_slot(${SLOT}, 'pgoutput')`;
    confirmed = await confirmedFlushLsn();
    return {
      async [Symbol.asyncDispose]() {
        await control.end({ timeout: 0 });
        await waitFor('slot free', async () => {
          const slots = await admin`SELECT FROM pg_replication_slots WHERE active`;
          return slots.length === 0;
        });
        await admin`SELECT pg_drop_replication_slot(${SLOT})`;
        await admin.end({ timeout: 0 });
      },
    };
  }

  async function confirmedFlushLsn(): Promise<Lsn> {
    const [row] = await admin`SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = ${SLOT}`;
    return parseLsn(row!.confirmed_flush_lsn);
  }

  const find = () =>
    findBoundary(control, {
      slot: SLOT,
      publication: NEW,
      confirmedFlushLsn: confirmed,
      log: recordingLogger().logger,
      signal: new AbortController().signal,
    });

  /** Integers inserted by the transactions that a stream from `lsn` on receives, as text, in their order. */
  async function insertedFrom(lsn: Lsn, publications: readonly string[]): Promise<number[]> {
    const session = await admin.reserve();
    try {
      await session`SELECT pg_copy_logical_replication_slot(${SLOT}, 'peeked', true)`;
      if (lsn > confirmed) await session`SELECT pg_replication_slot_advance('peeked', ${formatLsn(lsn)}::pg_lsn)`;
      const rows = await session`
        SELECT data FROM pg_logical_slot_peek_binary_changes('peeked', NULL, NULL, 'proto_version', '1',
          'publication_names', ${publicationNames(publications)})`;
      await session`SELECT pg_drop_replication_slot('peeked')`;
      // Insert: 'I', Int32 relation, 'N', Int16 columns, 't', Int32 length, text.
      return rows.filter((row) => row.data[0] === 0x49).map((row) => Number(row.data.subarray(13).toString()));
    } finally {
      session.release();
    }
  }

  const createNew = () => admin.unsafe(`CREATE PUBLICATION "new/""NS""" FOR TABLE young`);
  const fill = async (table: string, from: number, count: number) => {
    for (let i = from; i < from + count; i += 1) await admin`INSERT INTO ${admin(table)} VALUES (${i})`;
  };

  test('is the end of what was written before the publication: everything after it can be streamed, nothing less', async () => {
    await using _ = await openScene('plain');
    await fill('old', 1, 40);
    await fill('young', 100, 3);
    await createNew();
    await fill('young', 200, 3);
    await fill('old', 50, 40);

    const boundary = await find();
    if (major === 18) {
      expect(boundary).toBe(confirmed);
    } else {
      expect(boundary > confirmed).toBe(true);
      // One step earlier, the last transaction from before the publication would be in the way.
      const error = await insertedFrom(boundary - 8n, ['old', NEW]).catch((raised) => raised);
      expect([sqlStateOf(error), isPublicationMissing(error)]).toEqual(['42704', true]);
    }
    const inserted = await insertedFrom(boundary, ['old', NEW]);
    expect(inserted.filter((i) => i >= 100)).toEqual([200, 201, 202]);
    expect(await confirmedFlushLsn()).toBe(confirmed);
    expect((await admin`SELECT FROM pg_replication_slots`).length).toBe(1);
  });

  test('is the confirmed position when nothing older is left, or nothing at all', async () => {
    await using _ = await openScene('nothing');
    await createNew();
    expect(await find()).toBe(confirmed);
    const [row] = await admin`SELECT end_lsn FROM pg_replication_slot_advance(${SLOT}, pg_current_wal_lsn())`;
    confirmed = parseLsn(row!.end_lsn);
    await fill('young', 1, 2);
    await fill('old', 1, 2);
    expect(await find()).toBe(confirmed);
  });

  test('is after a transaction that was open while the publication was created, and before the next', async () => {
    await using _ = await openScene('straddler');
    const straddler = await admin.reserve();
    await straddler`BEGIN`;
    await straddler`INSERT INTO old VALUES (1)`;
    await createNew();
    await straddler`COMMIT`;
    straddler.release();
    await fill('young', 100, 2);
    expect((await insertedFrom(await find(), ['old', NEW])).filter((i) => i >= 100)).toEqual([100, 101]);
  });

  test('is found while the slot is being streamed from, and from transactions that the publication does not hold', async () => {
    await using _ = await openScene('active');
    const replication = connectReplication(
      {
        ref: 'main',
        host: server.host,
        port: server.port,
        database: 'active',
        username: 'postgres',
        password: undefined,
        tls: undefined,
      },
      { applicationName: 'reader' },
    );
    try {
      const stream = await startCopyBoth(
        replication,
        `START_REPLICATION SLOT ${SLOT} LOGICAL 0/0 (proto_version '1', publication_names 'old')`,
      );
      stream.resume();
      // PostgreSQL 14 also streams transactions without any change of a table; they say nothing about publications.
      await admin`CREATE TABLE other (i int PRIMARY KEY)`;
      await fill('other', 1, 5);
      await createNew();
      await admin`CREATE TABLE another (i int PRIMARY KEY)`;
      await fill('young', 100, 2);
      expect(await insertedFrom(await find(), [NEW])).toEqual([100, 101]);
    } finally {
      await replication.end({ timeout: 0 });
    }
  });

  test('needs a free slot and says so', async () => {
    await using _ = await openScene('full');
    await fill('old', 1, 1);
    for (const slot of ['a', 'b', 'c']) await admin`SELECT pg_create_physical_replication_slot(${slot})`;
    const error = (await find().catch((reason) => reason)) as SetupError;
    for (const slot of ['a', 'b', 'c']) await admin`SELECT pg_drop_replication_slot(${slot})`;
    expect(error).toBeInstanceOf(SetupError);
    expect(error.message).toBe(
      'Cannot find the LSN from which the slot can be streamed with this publication: all 4 replication slots of the server are in use, and a temporary one is needed',
    );
  });
});
