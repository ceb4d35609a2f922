/**
 * Settings of the role, the database or the server that would end, block or change a session of the service: it delivers
 * each row once, in one session, whatever they are. Real servers.
 */
import { describe, expect, test } from 'bun:test';
import { useKafka, usePostgres } from '../../support/service/file-servers.ts';
import {
  expectEmitted,
  insertEvent,
  openStreamFixture,
  type StreamFixture,
  type StreamFixtureOptions,
  writeProcess,
} from '../../support/service/stream-fixture.ts';

const NS = 'orders';
const TIMEOUT_MS = 120_000;
/** Longer than every time limit below */
const PAUSE_MS = 1_500;

/** Settings that any session may have, by the first version that knows them. */
const SETTINGS: readonly (readonly [name: string, value: string, since: number])[] = [
  ['statement_timeout', '100ms', 14],
  ['lock_timeout', '1ms', 14],
  ['idle_in_transaction_session_timeout', '100ms', 14],
  ['idle_session_timeout', '400ms', 14],
  ['transaction_timeout', '400ms', 17],
  ['default_transaction_read_only', 'on', 14],
  ['default_transaction_isolation', 'serializable', 14],
  ['default_transaction_deferrable', 'on', 14],
  ['search_path', 'nowhere', 14],
  ['client_min_messages', 'error', 14],
  ['row_security', 'off', 14],
  ['DateStyle', 'German, DMY', 14],
  ['IntervalStyle', 'sql_standard', 14],
  ['TimeZone', 'Pacific/Auckland', 14],
  ['bytea_output', 'escape', 14],
  ['extra_float_digits', '-15', 14],
  ['standard_conforming_strings', 'off', 14],
  ['quote_all_identifiers', 'on', 14],
  ['array_nulls', 'off', 14],
  ['session_replication_role', 'replica', 14],
  ['synchronous_commit', 'remote_apply', 14],
  ['wal_sender_timeout', '2s', 14],
  ['tcp_user_timeout', '1000', 14],
  ['tcp_keepalives_idle', '1', 14],
  ['client_connection_check_interval', '100ms', 14],
  ['logical_decoding_work_mem', '64kB', 14],
  ['event_triggers', 'off', 17],
];

const kafka = useKafka();

describe.each([14, 15, 16, 17, 18] as const)('PostgreSQL %d', (major) => {
  const postgres = usePostgres(major);
  const openFixture = (options: Partial<StreamFixtureOptions> = {}) =>
    openStreamFixture({ postgres: postgres(), kafka: kafka(), slots: { one: [NS] }, ...options });

  const set = async (fixture: StreamFixture, settings: readonly (readonly [string, string, number])[]) => {
    for (const [name, value] of settings) {
      await fixture.sql.unsafe(`ALTER DATABASE "${fixture.database}" SET ${name} = '${value}'`);
    }
  };
  const known = SETTINGS.filter(([, , since]) => major >= since);
  // The oldest and the newest version one by one, the others all together
  const cases = [14, 18].includes(major) ? [...known.map((one) => [one]), known] : [known];

  test.each(cases.map((settings) => [settings.length === 1 ? settings[0]![0] : 'all of them', settings] as const))(
    'a stream is undisturbed by %s',
    async (_, settings) => {
      await using fixture = await openFixture();
      await set(fixture, settings);
      const service = fixture.start();
      await fixture.confirmed('one');
      const expected = [await writeProcess(fixture, NS, 'before')];
      await fixture.confirmed('one');
      // The control connection is idle for longer than the limits.
      await Bun.sleep(settings.some(([name]) => name.includes('timeout')) ? PAUSE_MS : 0);
      expected.push(await writeProcess(fixture, NS, 'after'));
      await fixture.confirmed('one');
      await service.stop();
      await expectEmitted(fixture, expected);
      expect(service.failures()).toEqual([]);
      expect(service.log.filter(({ level }) => level === 'warn')).toEqual([]);
    },
    TIMEOUT_MS,
  );

  test(
    'a transaction that takes longer to stream than any time limit is delivered once, in one session',
    async () => {
      await using fixture = await openFixture();
      await set(
        fixture,
        known.filter(([name]) => name.endsWith('_timeout') && name !== 'wal_sender_timeout'),
      );
      // Nothing but a time limit may end the session: a broker that was frozen may lead nothing for a moment.
      const service = fixture.start({ settings: { max_retries: 1000 } });
      await fixture.confirmed('one');
      kafka().pause();
      try {
        await fixture.commit(async (tx) => {
          if (major >= 17) await tx`SET LOCAL transaction_timeout = 0`;
          await insertEvent(tx, NS, 'big', 1);
          await tx.unsafe(
            `INSERT INTO ${NS}_events SELECT process_id, task_id, n, timestamp, metadata, payload || repeat('x', 900)::bytea
               FROM ${NS}_events, generate_series(2, 20000) n`,
          );
        });
        await Bun.sleep(PAUSE_MS);
      } finally {
        kafka().resume();
      }
      await fixture.confirmed('one', { timeoutMs: 60_000 });
      expect(service.failures()).toEqual([]);
      expect(await fixture.records(NS)).toHaveLength(20_000);
    },
    TIMEOUT_MS,
  );
});
