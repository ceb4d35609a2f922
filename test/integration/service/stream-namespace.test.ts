/** A namespace is added to a slot with a backlog: every row after the creation of its publication arrives. Real servers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import type { ReservedSql } from 'postgres';
import { parseLsn } from '../../../src/lsn.ts';
import { quoteIdentifier } from '../../../src/postgres/client/quote.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { fixtureOn } from '../../support/postgres/setup-fixture.ts';
import { waitFor } from '../../support/process/wait.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import {
  type Emitted,
  expectEmitted,
  insertProcess,
  lifecycle,
  openStreamFixture,
  type StreamFixture,
  writeProcess,
} from '../../support/service/stream-fixture.ts';

const OLD = 'old';
const NEW = 'Новый/"1"';
const NEWER = 'newer';

let kafka: KafkaServer;
beforeAll(async () => {
  kafka = await startKafka();
}, 120_000);
afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
});

/** A slot of the old namespace, with a backlog of rows of both namespaces; no service runs. */
async function openBacklog(
  postgres: PostgresServer,
  namespaces: readonly string[] = [OLD, NEW],
): Promise<{ readonly fixture: StreamFixture; readonly expected: Emitted[] }> {
  const fixture = await openStreamFixture({ postgres, kafka, slots: { main: namespaces } });
  const service = fixture.start({ slots: { main: [OLD] } });
  await fixture.confirmed('main');
  await service.stop();
  const expected = [await writeProcess(fixture, OLD, 'before')];
  await writeProcess(fixture, NEW, 'before');
  expected.push(await writeProcess(fixture, OLD, 'before too'));
  return { fixture, expected };
}

/** Publishes a namespace as an operator does in advance. */
async function publishByHand(fixture: StreamFixture, namespace = NEW): Promise<void> {
  const { sql } = fixture;
  const { processes, events } = tablesOf(namespace);
  await sql`ALTER TABLE ${sql(processes)} REPLICA IDENTITY FULL`;
  await sql`CREATE PUBLICATION ${sql(namespace)} FOR TABLE ${sql(processes)}, ${sql(events)}`;
}

/** Prepares the slot with both namespaces, as a service does that is killed before it streams. */
async function prepareUnstreamed(fixture: StreamFixture, postgres: PostgresServer): Promise<void> {
  const { prepare, admin, control } = fixtureOn(postgres, fixture.database);
  await prepare(fixture.slot('main'), [OLD, NEW]);
  await Promise.all([admin.end(), control.end()]);
}

/** Gives the publication a comment as older versions of the service wrote it. */
async function markByHand({ sql }: StreamFixture, lsn: () => Promise<string>): Promise<void> {
  const [row] = await sql`SELECT system_identifier::text AS system FROM pg_control_system()`;
  const comment = `cdc-notifier: created at ${await lsn()} of system ${row!.system}`;
  await sql.unsafe(`COMMENT ON PUBLICATION ${quoteIdentifier(NEW)} IS '${comment}'`);
}

/** True when rows of the new namespace are published from now on. */
async function isPublished(fixture: StreamFixture): Promise<boolean> {
  return (await fixture.sql`SELECT FROM pg_publication_tables WHERE pubname = ${NEW}`).length === 2;
}

async function expectDelivered(fixture: StreamFixture, expected: readonly Emitted[]): Promise<void> {
  await fixture.confirmed('main');
  await expectEmitted(fixture, expected);
}

/** A transaction that stays open while the publication is created. */
interface OpenTransaction extends Disposable {
  readonly tx: ReservedSql;
  /** Commits; returns the commit time as a record shows it */
  commit(): Promise<string>;
}

/** Begins a transaction and inserts a process of the old namespace. */
async function beginOpenTransaction({ sql, commitTime }: StreamFixture): Promise<OpenTransaction> {
  const tx = await sql.reserve();
  await tx`BEGIN`;
  const [row] = await tx`SELECT pg_current_xact_id()::text AS xid`;
  await insertProcess(tx, OLD, 'open');
  return {
    tx,
    async commit() {
      await tx`COMMIT`;
      return commitTime(row!.xid);
    },
    [Symbol.dispose]: () => tx.release(),
  };
}

describe.each([14, 17, 18] as const)('a namespace added to a slot with a backlog on PostgreSQL %d', (major) => {
  let postgres: PostgresServer;
  beforeAll(async () => {
    postgres = await startPostgres({ major, settings: { track_commit_timestamp: 'on' } });
  }, 120_000);
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
  });

  test('delivers every row since the service created the publication, also when the service stopped in between', async () => {
    const { fixture, expected } = await openBacklog(postgres);
    await using _ = fixture;
    await prepareUnstreamed(fixture, postgres);
    expect(await isPublished(fixture)).toBe(true);
    expected.push(await writeProcess(fixture, NEW, 'since'));
    expected.push(await writeProcess(fixture, OLD, 'since'));

    const service = fixture.start();
    await fixture.confirmed('main');
    expected.push(await writeProcess(fixture, NEW, 'live'));
    expected.push(await writeProcess(fixture, OLD, 'live'));
    await expectDelivered(fixture, expected);
    expect(service.failures()).toEqual([]);
  }, 60_000);

  test('delivers every row since an operator created the publication, also when the service stopped in between', async () => {
    const { fixture, expected } = await openBacklog(postgres);
    await using _ = fixture;
    await publishByHand(fixture);
    expected.push(await writeProcess(fixture, NEW, 'since'));
    expected.push(await writeProcess(fixture, OLD, 'since'));
    const stopping = fixture.start();
    await stopping.waitForStart(fixture.slot('main'));
    await stopping.stop();
    expected.push(await writeProcess(fixture, NEW, 'while the service was down'));

    const service = fixture.start();
    await fixture.confirmed('main');
    expected.push(await writeProcess(fixture, NEW, 'live'));
    await expectDelivered(fixture, expected);
    expect(service.failures()).toEqual([]);
  }, 60_000);

  test.each([
    ['the service', false],
    ['an operator', true],
  ])(
    'reports a loss when a namespace that %s published was prepared, taken out unstreamed, and comes back',
    async (_who, byHand) => {
      const { fixture } = await openBacklog(postgres);
      await using _ = fixture;
      if (byHand) await publishByHand(fixture);
      await prepareUnstreamed(fixture, postgres);
      expect(await isPublished(fixture)).toBe(true);
      await writeProcess(fixture, NEW, 'owed');
      const without = fixture.start({ slots: { main: [OLD] } });
      await writeProcess(fixture, OLD, 'meanwhile');
      await fixture.confirmed('main');
      await without.stop();

      const back = fixture.start();
      await back.waitForFailure(fixture.slot('main'));
      expect(back.failures().map(({ name }) => name)).toEqual(['LossError']);
      expect(back.failures()[0]!.message).toContain(quoteIdentifier(NEW));
    },
    60_000,
  );

  test('creates nothing while a topic of the new namespace is missing', async () => {
    const { fixture, expected } = await openBacklog(postgres);
    await using _ = fixture;
    const topic = fixture.topics(NEW).lifecycle_topic;
    await kafka.deleteTopic(topic);
    const service = fixture.start();
    await service.waitForFailure(fixture.slot('main'), 2);
    expect(await fixture.sql`SELECT FROM pg_publication WHERE pubname = ${NEW}`).toHaveLength(0);
    await writeProcess(fixture, NEW, 'before its publication');
    await kafka.createTopic(topic, { partitions: 3 });
    await waitFor('the publication', () => isPublished(fixture));
    expected.push(await writeProcess(fixture, NEW, 'since'));
    await expectDelivered(fixture, expected);
    expect(service.failures().every(({ message }) => message.includes(topic))).toBe(true);
  }, 60_000);

  test('creates nothing while Kafka does not answer, and holds the slot meanwhile', async () => {
    const { fixture, expected } = await openBacklog(postgres);
    await using _ = fixture;
    kafka.pause();
    try {
      fixture.start({ kafkaSettings: { request_timeout: 1_000 } });
      await waitFor('a walsender', () => fixture.walsender('main'));
      expect(await fixture.sql`SELECT FROM pg_publication WHERE pubname = ${NEW}`).toHaveLength(0);
    } finally {
      kafka.resume();
    }
    await waitFor('the publication', () => isPublished(fixture));
    expected.push(await writeProcess(fixture, NEW, 'since'));
    await expectDelivered(fixture, expected);
  }, 60_000);

  test('creates neither slot nor publication while Kafka is away, and nothing that holds WAL', async () => {
    await using fixture = await openStreamFixture({ postgres, kafka, slots: { main: [OLD] } });
    const service = fixture.start({ kafkaSettings: { brokers: ['127.0.0.1:1'] } });
    await service.waitForFailure(fixture.slot('main'), 2);
    const [row] = await fixture.sql`
      SELECT (SELECT count(*)::int4 FROM pg_publication) AS publications,
        (SELECT count(*)::int4 FROM pg_replication_slots WHERE slot_name = ${fixture.slot('main')}) AS slots`;
    expect(row).toEqual({ publications: 0, slots: 0 });
  }, 60_000);

  test('delivers every row of namespaces that an operator published one after the other', async () => {
    const { fixture, expected } = await openBacklog(postgres, [NEWER, OLD, NEW]);
    await using _ = fixture;
    await publishByHand(fixture, NEW);
    expected.push(await writeProcess(fixture, NEW, 'since'));
    await writeProcess(fixture, NEWER, 'before');
    await publishByHand(fixture, NEWER);
    expected.push(await writeProcess(fixture, NEW, 'since both'));
    expected.push(await writeProcess(fixture, NEWER, 'since'));
    const service = fixture.start();
    await expectDelivered(fixture, expected);
    expect(service.failures()).toEqual([]);
  }, 60_000);

  test('delivers every row when Kafka fails after the LSN where the publication starts', async () => {
    const { fixture, expected } = await openBacklog(postgres);
    await using _ = fixture;
    await publishByHand(fixture);
    expected.push(await writeProcess(fixture, NEW, 'since'));
    // Rows of both namespaces are read; none is acknowledged, so the next session starts at the same LSN.
    const service = fixture.start({
      settings: { max_retries: 0 },
      kafkaSettings: { request_timeout: 500, connect_timeout: 500 },
      onLog: ({ msg, publications }) => {
        const isWhole = Array.isArray(publications) && publications.includes(NEW);
        if (msg === 'replication started' && isWhole && service.failures().length === 0) kafka.pause();
      },
    });
    try {
      await service.waitForFailure(fixture.slot('main'));
    } finally {
      kafka.resume();
    }
    expected.push(await writeProcess(fixture, NEW, 'live'));
    await expectDelivered(fixture, expected);
    expect(service.failures().map(({ name }) => name)).toEqual(service.failures().map(() => 'SinkError'));
  }, 60_000);

  test('streams a publication whose mark came with a dump from another copy of the server, ahead of the WAL', async () => {
    await using fixture = await openStreamFixture({ postgres, kafka, slots: { main: [NEW] } });
    await publishByHand(fixture);
    await markByHand(fixture, async () => 'FFFF/0');
    const service = fixture.start();
    await fixture.confirmed('main');
    await expectDelivered(fixture, [await writeProcess(fixture, NEW, 'p'), await writeProcess(fixture, NEW, 'q')]);
    expect(service.failures()).toEqual([]);
    expect(service.log.filter(({ event }) => event === 'replication_started')).toHaveLength(1);
  }, 60_000);

  test('streams a publication whose mark is in no WAL of this database, and reports the range that is passed over', async () => {
    const { fixture, expected } = await openBacklog(postgres);
    await using _ = fixture;
    await publishByHand(fixture);
    await markByHand(fixture, async () => {
      const [row] = await fixture.sql`SELECT pg_current_wal_insert_lsn()::text AS lsn`;
      expected.push(await writeProcess(fixture, OLD, 'after the mark'));
      return row!.lsn;
    });
    const service = fixture.start();
    await fixture.confirmed('main');
    // The WAL goes on after the start.
    expected.push(await writeProcess(fixture, OLD, 'live'));
    const line = await service.waitForLog('the warning', ({ event }) => event === 'publication_mark_missing');
    expect(line).toMatchObject({ namespace: NEW });
    await fixture.confirmed('main');
    expected.push(await writeProcess(fixture, NEW, 'live'));
    await expectDelivered(fixture, expected);
    expect(service.failures()).toEqual([]);
  }, 60_000);

  test('is not added while another process streams from the slot, which would confirm its rows unread', async () => {
    const { fixture, expected } = await openBacklog(postgres);
    await using _ = fixture;
    const other = fixture.start({ slots: { main: [OLD] } });
    await fixture.confirmed('main');
    const service = fixture.start();
    await service.waitForLog('a standby', (line) => line.msg.includes('standing by'));
    expect(await isPublished(fixture)).toBe(false);
    expected.push(await writeProcess(fixture, OLD, 'for the other process'));
    await fixture.confirmed('main');
    await other.stop();
    await waitFor('the publication', () => isPublished(fixture));
    expected.push(await writeProcess(fixture, NEW, 'since'));
    await expectDelivered(fixture, expected);
    expect(service.failures()).toEqual([]);
  }, 60_000);

  test('delivers every row around a transaction that was open while the service created the publication', async () => {
    const { fixture, expected } = await openBacklog(postgres);
    await using _ = fixture;
    using open = await beginOpenTransaction(fixture);
    const service = fixture.start();
    await waitFor(
      'the publication',
      async () => (await fixture.sql`SELECT FROM pg_publication WHERE pubname = ${NEW}`)[0],
    );
    const owed = await isPublished(fixture);
    await insertProcess(open.tx, NEW, 'open');
    const between = await writeProcess(fixture, NEW, 'between');
    const mayCome = await isPublished(fixture);
    const openAt = await open.commit();
    expected.push(lifecycle(OLD, 'open', 'created', openAt));
    await waitFor('the tables in the publication', () => isPublished(fixture));
    const since = await writeProcess(fixture, NEW, 'since');
    await fixture.confirmed('main');
    // Rows that were written while the tables were being added are delivered or not; before and after it is certain.
    const doubtful = [between, lifecycle(NEW, 'open', 'created', openAt)];
    const emittedKeys = (await fixture.emitted()).map(({ key }) => key);
    for (const record of doubtful) {
      if (owed || (mayCome && emittedKeys.includes(record.key))) expected.push(record);
    }
    expected.push(since);
    await expectDelivered(fixture, expected);
    expect(service.failures()).toEqual([]);
  }, 60_000);

  test('delivers every row around a transaction that was open while an operator created the publication', async () => {
    const { fixture, expected } = await openBacklog(postgres);
    await using _ = fixture;
    using open = await beginOpenTransaction(fixture);
    await publishByHand(fixture);
    const service = fixture.start();
    expected.push(await writeProcess(fixture, NEW, 'before the open one ends'));
    await fixture.confirmed('main');
    // The server's relation cache ends with the connection: the open transaction is the first that the next one reads.
    const { pid } = (await fixture.walsender('main'))!;
    await fixture.sql`SELECT pg_terminate_backend(${pid})`;
    await service.waitForFailure(fixture.slot('main'));
    expected.push(lifecycle(OLD, 'open', 'created', await open.commit()));
    expected.push(await writeProcess(fixture, NEW, 'since'));
    expected.push(await writeProcess(fixture, OLD, 'since'));
    await expectDelivered(fixture, expected);
    expect(service.failures()).toHaveLength(1);
  }, 60_000);

  if (major <= 17) {
    test('reports a loss, until it is accepted, when a transaction was open while an operator created publication and mark at once', async () => {
      const { fixture, expected } = await openBacklog(postgres);
      await using _ = fixture;
      using open = await beginOpenTransaction(fixture);
      await publishByHand(fixture);
      const { sql } = fixture;
      const [row] = await sql`
        SELECT pg_logical_emit_message(true, 'cdc-notifier', ${NEW})::text AS lsn, system_identifier::text AS system FROM pg_control_system()`;
      await sql.unsafe(
        `COMMENT ON PUBLICATION ${quoteIdentifier(NEW)} IS 'cdc-notifier: created at ${row!.lsn} of system ${row!.system}'`,
      );
      await insertProcess(open.tx, NEW, 'open');
      expected.push(lifecycle(OLD, 'open', 'created', await open.commit()));
      const service = fixture.start();
      const error = await service.waitForFailure(fixture.slot('main'));
      expect(error).toMatchObject({ name: 'LossError', advice: expect.stringContaining(row!.lsn) });
      await service.stop();

      fixture.start({
        settings: { slots: { [fixture.database]: { [fixture.slot('main')]: { accept_loss_after: row!.lsn } } } },
      });
      expected.push(await writeProcess(fixture, NEW, 'since'));
      await expectDelivered(fixture, expected);
    }, 60_000);
  }

  test('delivers a transaction again that the server had decoded with the relation cache of a later one', async () => {
    const { fixture, expected } = await openBacklog(postgres);
    await using _ = fixture;
    using open = await beginOpenTransaction(fixture);
    try {
      await publishByHand(fixture);
      const service = fixture.start();
      expected.push(await writeProcess(fixture, NEW, 'before the open one ends'));
      await fixture.confirmed('main');
      kafka.pause();
      const openAt = await open.commit();
      const end = await fixture.currentLsn();
      const { pid } = (await fixture.walsender('main'))!;
      await waitFor('the transaction to be sent', async () => {
        const [sender] = await fixture.sql`SELECT sent_lsn::text AS lsn FROM pg_stat_replication WHERE pid = ${pid}`;
        return parseLsn(sender!.lsn) >= end;
      });
      await fixture.sql`SELECT pg_terminate_backend(${pid})`;
      await service.waitForFailure(fixture.slot('main'));
      kafka.resume();
      expected.push(lifecycle(OLD, 'open', 'created', openAt));
      expected.push(await writeProcess(fixture, NEW, 'since'));
      await expectDelivered(fixture, expected);
      expect(service.failures()).toHaveLength(1);
    } finally {
      kafka.resume();
    }
  }, 60_000);
});
