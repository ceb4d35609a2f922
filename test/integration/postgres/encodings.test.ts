/** Databases that are not UTF-8: records carry the bytes that the database holds, as progressor wrote them. Real servers. */
import { describe, expect, test } from 'bun:test';
import { phash2 } from '../../../src/kafka/produce/partitioner.ts';
import { encodePayload, int } from '../../support/codecs/etf.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import { useKafka, usePostgres } from '../../support/service/file-servers.ts';
import { openStreamFixture, PARTITIONS, type StreamFixtureOptions } from '../../support/service/stream-fixture.ts';

const NS = 'orders';
const TIMEOUT_MS = 120_000;

const kafka = useKafka();

describe.each([14, 18] as const)('on PostgreSQL %d', (major) => {
  const postgres = usePostgres(major);
  const openFixture = (options: Partial<StreamFixtureOptions> = {}) =>
    openStreamFixture({ postgres: postgres(), kafka: kafka(), slots: { one: [NS] }, ...options });

  test.each([
    ['WIN1251', [0xf1, 0xf7, 0xb8, 0xf2]],
    ['LATIN1', [0xe9, 0x74, 0xe9]],
    ['SQL_ASCII', [0x61, 0xff, 0xfe]],
  ] as const)(
    'ids of a database with encoding %s are its own bytes in key and value, and select the partition',
    async (encoding, bytes) => {
      await using fixture = await openFixture({ encoding });
      const service = fixture.start();
      await fixture.confirmed('one');
      const id = Buffer.from(bytes);
      // A client without client_encoding, as progressor's is: the server stores the bytes that it gets.
      await fixture.sql.begin(async (tx) => {
        await tx.unsafe(`SET LOCAL client_encoding = 'SQL_ASCII'`);
        const text = `convert_from('\\x${id.toString('hex')}', '${encoding}')`;
        await tx.unsafe(
          `INSERT INTO ${tablesOf(NS).processes} (process_id, status, previous_status, status_changed_at) VALUES (${text}, 'running', 'init', now())`,
        );
        await tx.unsafe(
          `INSERT INTO ${tablesOf(NS).events} (process_id, task_id, event_id, "timestamp", metadata, payload)
             VALUES (${text}, 1, 1, now(), '{}', '\\x${encodePayload(int(1)).toString('hex')}')`,
        );
      });
      await fixture.confirmed('one');
      expect(service.failures()).toEqual([]);
      const records = await fixture.records(NS);
      const key = Buffer.concat([Buffer.from(`${NS} `), id]);
      const counts = [PARTITIONS.eventsink, PARTITIONS.lifecycle];
      expect(records.map((record) => record.key)).toEqual([key, key]);
      expect(records.every((record) => record.value.includes(id))).toBe(true);
      expect(records.map(({ partition }) => partition).sort()).toEqual(
        counts.map((count) => phash2(key) % count).sort(),
      );
    },
    TIMEOUT_MS,
  );

  test(
    'a namespace whose name has other bytes in the encoding of the database is refused by name',
    async () => {
      await using fixture = await openFixture({ encoding: 'WIN1251' });
      const service = fixture.start({ slots: { one: ['счёт'] }, namespaceSettings: { счёт: fixture.topics(NS) } });
      expect(await service.waitForFailure(fixture.slot('one'), 1)).toMatchObject({
        code: 'database_encoding',
        message: expect.stringContaining('WIN1251'),
      });
    },
    TIMEOUT_MS,
  );
});
