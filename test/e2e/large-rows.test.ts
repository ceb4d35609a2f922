/** Rows that are larger than the memory of the program: the compiled program on real servers. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { type KafkaServer, startKafka } from '../support/kafka/server.ts';
import type { PostgresServer } from '../support/postgres/server.ts';
import { peakRssBytes } from '../support/process/process-usage.ts';
import { tablesOf } from '../support/progressor/tables.ts';
import {
  type BinaryFixture,
  expectCleanLogs,
  isFailure,
  openBinaryFixture,
  startServer,
  uniqueName,
} from '../support/service/binary-fixture.ts';

const MIB = 1024 * 1024;
/** Far more than the bound of the peak: a row that is held whole, even once, exceeds it */
const LARGE_MIB = 300;
/** A row that is held on its way to Kafka */
const NEEDED_MIB = 99;
/** What a small stream takes, and garbage of reads */
const PEAK_BOUND_BYTES = 250 * 1000 * 1000;
const NAMESPACE = 'invoice';

let server: PostgresServer;
let kafka: KafkaServer;

beforeAll(async () => {
  [server, kafka] = await Promise.all([
    startServer({ max_wal_size: '4GB' }),
    startKafka({
      settings: {
        'message.max.bytes': String(2 * LARGE_MIB * MIB),
        'socket.request.max.bytes': String(2 * LARGE_MIB * MIB),
      },
    }),
  ]);
}, 120_000);

afterAll(async () => {
  await Promise.all([server?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
}, 30_000);

afterEach(expectCleanLogs);

function openFixture(settings: object = {}): Promise<BinaryFixture> {
  return openBinaryFixture({ server, kafka, namespaces: { [NAMESPACE]: 'new' }, settings });
}

/** The settings of the namespace in the configuration. */
function settingsOf({ config, slot }: BinaryFixture): Record<string, string> {
  const { streams } = config as { streams: { db: Record<string, Record<string, Record<string, string>>> } };
  return streams.db[slot]![NAMESPACE]!;
}

/** Sets aux_state of one process to so many MiB. */
async function setAuxState({ database: { sql } }: BinaryFixture, mib: number): Promise<void> {
  const { processes } = tablesOf(NAMESPACE);
  await sql`
    UPDATE ${sql(processes)} SET aux_state = convert_to(repeat('x', ${mib * MIB}::int), 'UTF8')
    WHERE process_id = (SELECT min(process_id) FROM ${sql(processes)})`;
}

/**
 * Commits an event whose payload ends with so many MiB of `x`; returns the key of its record.
 * @param head of the payload, as an expression of SQL: without one the payload is no term
 */
async function insertLargeEvent({ database: { sql } }: BinaryFixture, mib: number, head = `''`): Promise<string> {
  const { events, tasks } = tablesOf(NAMESPACE);
  const [row] = await sql`
    INSERT INTO ${sql(events)} (process_id, task_id, event_id, payload)
    SELECT process_id, task_id, 32100, ${sql.unsafe(head)}::bytea || convert_to(repeat('x', ${mib * MIB}::int), 'UTF8')
    FROM ${sql(tasks)} LIMIT 1
    RETURNING process_id`;
  return `${NAMESPACE} ${row?.process_id}`;
}

describe('a row that is larger than the memory of the program', () => {
  test('costs nothing where its large column makes no record, with both its old and its new version', async () => {
    await using fixture = await openFixture();
    await using service = await fixture.start();
    await fixture.writer.write(30);
    await setAuxState(fixture, LARGE_MIB);
    await setAuxState(fixture, LARGE_MIB);
    await fixture.writer.write(30);
    await fixture.confirmed();
    await fixture.expectAllArrived();
    expect(peakRssBytes(service.pid)).toBeLessThan(PEAK_BOUND_BYTES);
    expect(service.lines.filter(isFailure())).toEqual([]);
    expect(await service.stop()).toBe(0);
  }, 120_000);

  test('costs nothing as a logical message of another program', async () => {
    await using fixture = await openFixture();
    await using service = await fixture.start();
    await fixture.database.sql`SELECT pg_logical_emit_message(true, 'others', repeat('x', ${LARGE_MIB * MIB}::int))`;
    await fixture.writer.write(30);
    await fixture.confirmed();
    await fixture.expectAllArrived();
    expect(peakRssBytes(service.pid)).toBeLessThan(PEAK_BOUND_BYTES);
    expect(await service.stop()).toBe(0);
  }, 120_000);

  test('that its record needs takes about twice its size', async () => {
    await using fixture = await openFixture({ max_row_bytes: 2 * NEEDED_MIB * MIB });
    await using service = await fixture.start();
    await fixture.writer.write(30);
    await fixture.confirmed();
    const before = peakRssBytes(service.pid)!;
    // The external term format of {bin, Binary}.
    await insertLargeEvent(fixture, NEEDED_MIB, `'\\x83680264000362696e6d'::bytea || int4send(${NEEDED_MIB * MIB})`);
    await fixture.confirmed();
    const grown = peakRssBytes(service.pid)! - before;
    expect(grown).toBeLessThan(2.5 * NEEDED_MIB * MIB);
    const records = await kafka.readAll([settingsOf(fixture).eventsink_topic!]);
    const large = records.find(({ value }) => value!.length > NEEDED_MIB * MIB);
    expect(large?.value?.includes(Buffer.alloc(NEEDED_MIB * MIB, 'x'))).toBe(true);
    expect(await service.stop()).toBe(0);
  }, 120_000);

  test('stops its slot, named, where a record needs the column', async () => {
    await using fixture = await openFixture({ max_row_bytes: MIB });
    await using service = await fixture.start();
    await fixture.writer.write(30);
    await fixture.confirmed();
    const key = await insertLargeEvent(fixture, LARGE_MIB);
    const failure = await service.waitForLine('the refusal', isFailure(fixture.slot), { timeoutMs: 60_000 });
    expect(failure.error).toMatchObject({
      code: 'row_above_limit',
      place: {
        database: 'db',
        slot: fixture.slot,
        namespace: NAMESPACE,
        table: 'invoice_events',
        key,
        lsn: expect.any(String),
      },
      advice: expect.stringContaining('max_row_bytes'),
    });
    expect(peakRssBytes(service.pid)).toBeLessThan(PEAK_BOUND_BYTES);
    expect(await service.stop()).toBe(0);
  }, 120_000);

  test('is parked without the value that is too large, and the stream goes on', async () => {
    const parkingTopic = uniqueName('parking');
    await kafka.createTopic(parkingTopic, { partitions: 1 });
    await using fixture = await openFixture({ max_row_bytes: MIB });
    Object.assign(settingsOf(fixture), { on_invalid: 'park', parking_topic: parkingTopic });
    await using service = await fixture.start();
    await fixture.writer.write(30);
    await insertLargeEvent(fixture, LARGE_MIB);
    await fixture.writer.write(30);
    await fixture.confirmed();
    await fixture.expectAllArrived();
    const [parked] = await kafka.readAll([parkingTopic]);
    const { columns } = JSON.parse(parked!.value!.toString()) as { columns: { name: string; value: object }[] };
    expect(columns.find(({ name }) => name === 'payload')?.value).toEqual({ omittedBytes: LARGE_MIB * MIB });
    expect(peakRssBytes(service.pid)).toBeLessThan(PEAK_BOUND_BYTES);
    expect(await service.stop()).toBe(0);
  }, 120_000);
});
