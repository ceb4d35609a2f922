/** A run without faults, and the verifier: what it detects in altered copies of a good run. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { Producer } from '@platformatic/kafka';
import { phash2 } from '../../src/kafka/produce/partitioner.ts';
import { expectCleanLogs } from '../support/service/binary-fixture.ts';
import { type FaultFixture, openFaultFixture } from './fixture/fault-fixture.ts';
import { type FaultServers, startFaultServers } from './fixture/servers.ts';
import { type ArrivedRecord, judgeRun, type Run } from './verification/verifier.ts';

let servers: FaultServers;

beforeAll(async () => {
  servers = await startFaultServers({ postgres: 18, kafka: '4.3.0' });
}, 120_000);

afterAll(async () => {
  await servers?.[Symbol.asyncDispose]();
}, 120_000);

afterEach(expectCleanLogs);

describe('a run without faults', () => {
  test('delivers every shape of transaction once, also over a migration', async () => {
    await using fixture = await openFaultFixture(servers, { seed: 1 });
    await fixture.start();
    fixture.workload.start();
    await fixture.workload.advance(300);
    await fixture.workload.writeHuge();
    await fixture.workload.migrate();
    await fixture.workload.advance(500);
    const verdict = judgeRun(await fixture.end());
    expect(verdict).toMatchObject({ ok: true, findings: [], duplicates: 0 });
    expect(verdict.expected).toBeGreaterThan(5_000);
    for (const count of Object.values(fixture.workload.counts)) expect(count).toBeGreaterThan(0);
  }, 120_000);
});

/** One run serves all tests: each alters a copy, because a run for each would take long. */
describe('the verifier', () => {
  let fixture: FaultFixture;
  let run: Run;

  beforeAll(async () => {
    fixture = await openFaultFixture(servers, { seed: 2 });
    await fixture.start();
    fixture.workload.start();
    await fixture.workload.advance(300);
    run = await fixture.end();
    expect(judgeRun(run)).toMatchObject({ ok: true, duplicates: 0 });
  }, 120_000);

  afterAll(async () => {
    await fixture?.[Symbol.asyncDispose]();
  }, 120_000);

  /** Two successive records of one key with different contents. */
  function neighbours(): readonly [ArrivedRecord, ArrivedRecord] {
    const first = run.arrived.find((record, index) => {
      const next = run.arrived
        .slice(index + 1)
        .find((other) => other.topic === record.topic && other.key.equals(record.key));
      return next !== undefined && next.content !== record.content;
    }) as ArrivedRecord;
    const rest = run.arrived.slice(run.arrived.indexOf(first) + 1);
    return [first, rest.find(({ topic, key }) => topic === first.topic && key.equals(first.key)) as ArrivedRecord];
  }

  function withArrived(change: (arrived: readonly ArrivedRecord[]) => readonly ArrivedRecord[]): object {
    return judgeRun({ ...run, arrived: change(run.arrived) });
  }

  test('detects a lost record', () => {
    const [lost] = neighbours();
    expect(withArrived((all) => all.filter((record) => record !== lost))).toMatchObject({ ok: false, missing: 1 });
  });

  test('detects a first occurrence after a later record of its key', () => {
    const [first, second] = neighbours();
    const swap = (record: ArrivedRecord) => (record === first ? second : record === second ? first : record);
    expect(withArrived((all) => all.map(swap))).toMatchObject({ ok: false, outOfOrder: 1, missing: 0 });
  });

  test('accepts keys in the partitions of a topic that has grown, and in no others', () => {
    const counts = (...all: number[]) => new Map([...run.partitionCounts.keys()].map((topic) => [topic, all]));
    const later = Math.max(...run.arrived.map(({ timestampMs }) => timestampMs)) + 1;
    const again = run.arrived.map((record) => ({ ...record, partition: phash2(record.key) % 5, timestampMs: later }));
    const grown = { ...run, arrived: [...again, ...run.arrived] };
    expect(judgeRun({ ...grown, partitionCounts: counts(3, 5) })).toMatchObject({ ok: true, wrongPartition: 0 });
    expect(judgeRun({ ...grown, partitionCounts: counts(3, 4) }).wrongPartition).toBeGreaterThan(0);
  });

  test('detects a key in a wrong partition', () => {
    const [moved] = neighbours();
    const elsewhere = { ...moved, partition: (moved.partition + 1) % 3 };
    expect(withArrived((all) => all.map((record) => (record === moved ? elsewhere : record)))).toMatchObject({
      ok: false,
      wrongPartition: 1,
    });
  });

  test('detects changed contents, changed times and bytes that are not a record', () => {
    const [changed] = neighbours();
    const replace = (by: Partial<ArrivedRecord>) =>
      withArrived((all) => all.map((record) => (record === changed ? { ...record, ...by } : record)));
    expect(replace({ content: `${changed.content}!` })).toMatchObject({ ok: false, missing: 1, unexpected: 1 });
    expect(replace({ createdAt: changed.createdAt + 1 })).toMatchObject({ ok: false, wrongTime: 1 });
    expect(replace({ content: undefined, createdAt: Number.NaN })).toMatchObject({ ok: false, unexpected: 1 });
  });

  test('counts and accepts repeats', () => {
    expect(withArrived((all) => [...all, ...all.slice(0, 50)])).toMatchObject({ ok: true, duplicates: 50 });
  });

  test('detects confirmations before the append, and only those', () => {
    const [late] = neighbours();
    const append = (timestampMs: number) =>
      withArrived((all) => all.map((record) => (record === late ? { ...record, timestampMs } : record)));
    const { endLsn } = run.committed.find(({ topic, content }) => topic === late.topic && content === late.content)!;
    const confirmedAtMs = run.samples.find(({ confirmedFlushLsn }) => confirmedFlushLsn >= endLsn)!.atMs;
    expect(append(confirmedAtMs + 2)).toMatchObject({ ok: false, premature: 1 });
    expect(append(confirmedAtMs)).toMatchObject({ ok: true, premature: 0 });
    const ahead = run.samples.map(({ atMs, confirmedFlushLsn }) => ({ atMs: atMs - 5_000, confirmedFlushLsn }));
    expect(judgeRun({ ...run, samples: ahead }).premature).toBeGreaterThan(0);
  });

  test('accepts missing records only in the accepted range', () => {
    const [lost] = neighbours();
    const { endLsn } = run.committed.find(({ topic, content }) => topic === lost.topic && content === lost.content)!;
    const arrived = run.arrived.filter((record) => record !== lost);
    const judge = (fromLsn: bigint, toLsn: bigint) => judgeRun({ ...run, arrived, accepted: [{ fromLsn, toLsn }] });
    expect(judge(endLsn - 1n, endLsn)).toMatchObject({ ok: true, acceptedAsLost: 1 });
    expect(judge(endLsn, endLsn + 1_000_000n)).toMatchObject({ ok: false, missing: 1, acceptedAsLost: 0 });
  });

  test('uses the append time of the broker, not the time of the producer', async () => {
    const topic = fixture.topics[1]!;
    const producer = new Producer({ clientId: 'liar', bootstrapBrokers: [servers.broker.bootstrap] });
    const key = Buffer.from('invoice foreign');
    const partition = (phash2(key) + 1) % 3;
    const before = Date.now();
    try {
      const messages = [{ topic, key, value: Buffer.from('no thrift'), partition, timestamp: 1_000_000_000_000n }];
      await producer.send({ messages });
    } finally {
      await producer.close();
    }
    const lie = (await fixture.kafka.readTopic(topic)).find((record) => record.key.equals(key))!;
    expect(lie.timestampMs).toBeGreaterThanOrEqual(before);
    // The verdict on the real contents of the topic includes the foreign record.
    expect(judgeRun(await fixture.end())).toMatchObject({ ok: false, unexpected: 1, wrongPartition: 1, missing: 0 });
  });

  test('relies on the journal: a change added to it is missing, one removed from it is unexpected', async () => {
    const { sql } = fixture.database;
    await sql`INSERT INTO journal (namespace, process_id, change) VALUES ('invoice', 'missing', 'created')`;
    expect((await fixture.end().then(judgeRun)).missing).toBe(1);
    await sql`DELETE FROM journal WHERE id = (SELECT min(id) FROM journal WHERE change = 'created')`;
    expect((await fixture.end().then(judgeRun)).unexpected).toBe(2);
  });
});
