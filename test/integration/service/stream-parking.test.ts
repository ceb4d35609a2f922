/** Rows that cannot be delivered: parked in stream order, or stopping their slot. Real servers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { phash2 } from '../../../src/kafka/produce/partitioner.ts';
import { parseLsn } from '../../../src/lsn.ts';
import type { StreamReport } from '../../../src/status/report.ts';
import { encodePayload } from '../../support/codecs/etf.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import type { KafkaRecord } from '../../support/kafka/topic-reader.ts';
import { CA_FILE, SERVER_IDENTITY } from '../../support/network/certificates.ts';
import { freePort } from '../../support/network/ports.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import {
  type InProcessService,
  type ServiceNamespace,
  type ServiceOptions,
  startInProcessService,
} from '../../support/service/in-process.ts';
import {
  type Emitted,
  event,
  firstOccurrences,
  inOrder,
  insertEvent,
  insertProcess,
  lifecycle,
  openStreamFixture,
  type StartOptions,
  type StreamFixture,
  setStatus,
} from '../../support/service/stream-fixture.ts';

const SICK = 'default/default';
const SOUND = 'sound';
const USER = 'notifier';
const PASSWORD = 'secret';
const PRODUCE = 0;
const PARKING_PARTITIONS = 3;
const NO_TERM = Buffer.of(131, 255);
const TIMEOUT_MS = 60_000;

let postgres: PostgresServer;
let kafka: KafkaServer;
beforeAll(async () => {
  const secure = { ...SERVER_IDENTITY, users: { [USER]: PASSWORD } };
  [postgres, kafka] = await Promise.all([
    startPostgres({ settings: { track_commit_timestamp: 'on', wal_sender_timeout: '2s' } }),
    startKafka({ secure, authorizer: true, proxied: true }),
  ]);
}, 120_000);
afterAll(async () => {
  await Promise.all([postgres?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
}, 30_000);

/** A value of a parked row. */
type ParkedValue = { text: string } | { base64: string } | { null: true } | { unchanged: true };

/** A parking record; src/conversion/parking-record.ts describes its fields. */
interface Parked {
  readonly table: string;
  readonly operation: string;
  readonly lsn: string;
  readonly reason: string;
  readonly key: ParkedValue;
  readonly columns?: readonly { readonly name: string; readonly typeOid: number; readonly value: ParkedValue }[];
}

/** A stream fixture with a parking topic, which the namespace of the first slot uses with `onInvalid: 'park'`. */
interface ParkingFixture extends AsyncDisposable {
  readonly fixture: StreamFixture;
  readonly parkingTopic: string;
  start(options?: StartOptions & { readonly onInvalid?: 'stop' | 'park' }): InProcessService;
  parkedRecords(): Promise<KafkaRecord[]>;
  parked(): Promise<Parked[]>;
}

async function openParkingFixture(parkingConfig: Readonly<Record<string, string>> = {}): Promise<ParkingFixture> {
  const fixture = await openStreamFixture({ postgres, kafka, slots: { one: [SICK], two: [SOUND] } });
  const parkingTopic = `${fixture.database}-parking`;
  await kafka.createTopic(parkingTopic, { partitions: PARKING_PARTITIONS, config: parkingConfig });
  const services: InProcessService[] = [];
  const parkedRecords = () => kafka.readTopic(parkingTopic);
  return {
    fixture,
    parkingTopic,
    start({ onInvalid = 'park', ...options } = {}) {
      const service = startInProcessService(
        onInvalid === 'park'
          ? withParking(fixture.serviceOptions(options), parkingTopic)
          : fixture.serviceOptions(options),
      );
      services.push(service);
      return service;
    },
    parkedRecords,
    parked: async () => (await parkedRecords()).map(({ value }) => JSON.parse(value.toString())),
    async [Symbol.asyncDispose]() {
      await Promise.all(services.map((service) => service.stop()));
      await fixture[Symbol.asyncDispose]();
    },
  };
}

function withParking(options: ServiceOptions, parkingTopic: string): ServiceOptions {
  const park = (target: ServiceNamespace): ServiceNamespace => ({
    ...target,
    on_invalid: 'park',
    parking_topic: parkingTopic,
  });
  const slots = options.slots.map((slot) => ({
    ...slot,
    namespaces: Object.fromEntries(
      Object.entries(slot.namespaces).map(([name, target]) => [name, name === SICK ? park(target) : target]),
    ),
  }));
  return { ...options, slots };
}

/** Settings of a Kafka client that needs ACLs. */
function asUser(): StartOptions['kafkaSettings'] {
  return {
    brokers: [kafka.secureBootstrap],
    tls: { ca: CA_FILE },
    sasl: { mechanism: 'SCRAM-SHA-256', username: USER, password: PASSWORD },
  };
}

/** Commits events of one process in one transaction; `rows` gives ids and differences from a valid row. */
async function writeEvents(
  fixture: StreamFixture,
  rows: readonly (readonly [eventId: number, row?: Parameters<typeof insertEvent>[4]])[],
): Promise<{ readonly createdAt: string; readonly xid: string }> {
  let xid = '';
  const createdAt = await fixture.commit(async (tx) => {
    for (const [eventId, row] of rows) await insertEvent(tx, SICK, 'p', eventId, row);
    const [current] = await tx`SELECT pg_current_xact_id()::text AS xid`;
    xid = current!.xid;
  });
  return { createdAt, xid };
}

const payloadOf = (bytes: number): Buffer => encodePayload({ bin: Buffer.alloc(bytes, 0x61) });

const goodEvent = (eventId: number, createdAt: string): Emitted => event(SICK, 'p', { eventId, createdAt });

describe('on_invalid: park', () => {
  test(
    'parks each row that cannot be converted with everything known about it, counts it, and continues',
    async () => {
      await using parking = await openParkingFixture();
      const { fixture } = parking;
      const { sql } = fixture;
      const port = await freePort();
      const service = parking.start({ settings: { http: { port } } });
      await fixture.confirmed('one');
      await fixture.confirmed('two');
      const before = await fixture.currentLsn();
      const { createdAt, xid } = await writeEvents(fixture, [
        [1],
        [2, { payload: NO_TERM, timestamp: '2001-02-03 04:05:06.789+00', metadata: '{"a": "ж"}' }],
        [3],
        [4, { timestamp: 'infinity' }],
        [5, { metadata: '{"format_version": "1"}' }],
      ]);
      const after = await fixture.currentLsn();
      await fixture.confirmed('one');
      const expected = [goodEvent(1, createdAt), goodEvent(3, createdAt)];
      expect(await fixture.emitted()).toEqual(expected);

      const records = await parking.parkedRecords();
      const place = { key: `${SICK} p`, partition: phash2(Buffer.from(`${SICK} p`)) % PARKING_PARTITIONS };
      expect(records.map(({ key, partition }) => ({ key: key.toString(), partition }))).toEqual([place, place, place]);
      const parked = await parking.parked();
      const [commit] = await sql`
        SELECT to_char(pg_xact_commit_timestamp(${xid}::text::xid) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at`;
      for (const one of parked) {
        expect(one).toMatchObject({
          database: fixture.database,
          slot: fixture.slot('one'),
          namespace: SICK,
          schema: 'public',
          table: tablesOf(SICK).events,
          operation: 'insert',
          xid: Number(xid),
          commitTime: commit!.at,
          key: { text: `${SICK} p` },
        });
      }
      const lsns = parked.map(({ lsn }) => parseLsn(lsn));
      expect(lsns[0]! >= before && lsns[0]! < lsns[1]! && lsns[1]! < lsns[2]! && lsns[2]! < after).toBe(true);
      expect(parked.map(({ reason }) => reason)).toEqual([
        expect.stringContaining('column "payload"'),
        expect.stringContaining('the timestamp is infinite'),
        expect.stringContaining('format_version'),
      ]);
      expect(parked[0]!.columns).toEqual([
        { name: 'process_id', typeOid: 1043, value: { text: 'p' } },
        { name: 'task_id', typeOid: 20, value: { base64: Buffer.of(0, 0, 0, 0, 0, 0, 0, 1).toString('base64') } },
        { name: 'event_id', typeOid: 21, value: { base64: Buffer.of(0, 2).toString('base64') } },
        { name: 'timestamp', typeOid: 1184, value: { base64: expect.any(String) } },
        {
          name: 'metadata',
          typeOid: 3802,
          value: { base64: Buffer.concat([Buffer.of(1), Buffer.from('{"a": "ж"}')]).toString('base64') },
        },
        { name: 'payload', typeOid: 17, value: { base64: NO_TERM.toString('base64') } },
      ]);

      // A table without a needed column: every row that would have a record is parked.
      const { processes } = tablesOf(SICK);
      const createdP = await fixture.commit((tx) => insertProcess(tx, SICK, 'p'));
      await sql`ALTER TABLE ${sql(processes)} RENAME COLUMN detail TO details`;
      await fixture.commit((tx) => setStatus(tx, SICK, 'p', 'error'));
      await sql`ALTER TABLE ${sql(processes)} RENAME COLUMN details TO detail`;
      const workingAt = await fixture.commit((tx) => setStatus(tx, SICK, 'p', 'running'));
      await fixture.confirmed('one');
      expected.push(lifecycle(SICK, 'p', 'created', createdP), lifecycle(SICK, 'p', 'working', workingAt));
      expect(await fixture.emitted()).toEqual(inOrder(expected));
      const [renamed] = (await parking.parked()).filter(({ table }) => table === processes);
      expect(renamed).toMatchObject({
        operation: 'update',
        reason: expect.stringContaining('it has no column "detail"'),
        oldKind: 'O',
        oldColumns: expect.arrayContaining([
          { name: 'status', typeOid: expect.any(Number), value: { base64: Buffer.from('running').toString('base64') } },
        ]),
      });

      expect(service.failures()).toEqual([]);
      const warnings = service.log.filter(({ level }) => level === 'warn');
      const msg = 'a row that cannot be delivered goes to the parking topic';
      expect(warnings.map((line) => line.msg)).toEqual([msg, msg, msg, msg]);
      expect(warnings[0]).toMatchObject({
        parkingTopic: parking.parkingTopic,
        error: { name: 'InvalidRowError', place: { key: `${SICK} p`, lsn: parked[0]!.lsn, namespace: SICK } },
      });
      const { streams } = (await (await fetch(`http://127.0.0.1:${port}/status`)).json()) as {
        streams: StreamReport[];
      };
      const one = streams.find(({ slot }) => slot === fixture.slot('one'))!;
      expect(one).toMatchObject({ state: 'streaming', lastError: null });
      expect(one.namespaces[SICK]).toEqual({
        received: { event: 5, lifecycle: 3 },
        converted: { event: 2, lifecycle: 2 },
        produced: { event: 2, lifecycle: 2 },
        parked: { event: 3, lifecycle: 1 },
        skipped: { event: 0, lifecycle: 0 },
      });
    },
    TIMEOUT_MS,
  );

  test(
    'confirms a parked row, and what follows it, only when the parking topic has acknowledged it',
    async () => {
      await using parking = await openParkingFixture();
      const { fixture } = parking;
      parking.start({
        kafkaSettings: { brokers: [`${kafka.proxy!.host}:${kafka.proxy!.port}`], request_timeout: 120_000 },
      });
      await fixture.confirmed('one');
      const { createdAt: firstAt } = await writeEvents(fixture, [[1]]);
      await fixture.confirmed('one');
      const good = await fixture.currentLsn();
      let heldCount = 0;
      const gate = kafka.proxy!.onResponse(PRODUCE, () => {
        heldCount++;
        return 'hold';
      });
      try {
        await writeEvents(fixture, [[2, { payload: NO_TERM }]]);
        const poisonEnd = await fixture.currentLsn();
        await waitFor('the answer about the parked row', () => heldCount > 0);
        expect(await parking.parked()).toHaveLength(1);
        const { createdAt: behindAt } = await writeEvents(fixture, [[3]]);
        await fixture.statuses('one', 2);
        expect(await fixture.confirmedLsn('one')).toBeLessThan(poisonEnd);
        expect(await fixture.confirmedLsn('one')).toBeGreaterThanOrEqual(good);
        gate.release();
        await fixture.confirmed('one');
        expect(await fixture.emitted(SICK)).toEqual([goodEvent(1, firstAt), goodEvent(3, behindAt)]);
        expect(await parking.parked()).toHaveLength(1);
      } finally {
        gate.release();
      }
    },
    TIMEOUT_MS,
  );

  test(
    'parks a row whose record exceeds max.message.bytes without an attempt to produce it, in stream order',
    async () => {
      await using parking = await openParkingFixture();
      const { fixture } = parking;
      await kafka.configureTopic(fixture.topics(SICK).eventsink_topic, { 'max.message.bytes': '2000' });
      const service = parking.start();
      await fixture.confirmed('one');
      const { createdAt } = await writeEvents(fixture, [[1], [2, { payload: payloadOf(5_000) }], [3]]);
      const { createdAt: laterAt } = await writeEvents(fixture, [[4], [5, { payload: payloadOf(5_000) }]]);
      await fixture.confirmed('one');
      expect(await fixture.emitted()).toEqual([
        goodEvent(1, createdAt),
        goodEvent(3, createdAt),
        goodEvent(4, laterAt),
      ]);
      expect((await parking.parked()).map(({ reason, columns }) => [reason, columns?.[2]?.value])).toEqual(
        [2, 5].map((eventId) => [
          expect.stringMatching(/^Cannot produce a record of 5\d\d\d bytes: the topic takes at most 2000$/),
          { base64: Buffer.of(0, eventId).toString('base64') },
        ]),
      );
      expect(service.failures()).toEqual([]);
    },
    TIMEOUT_MS,
  );

  test(
    'learns the limit from a refused record when it may not read max.message.bytes, and parks records as large',
    async () => {
      await using parking = await openParkingFixture();
      const { fixture } = parking;
      const topics = [...Object.values(fixture.topics(SICK)), parking.parkingTopic] as string[];
      await kafka.access.allow(
        ...topics.flatMap((topic) =>
          (['DESCRIBE', 'WRITE'] as const).map((operation) => ({ user: USER, operation, topic })),
        ),
      );
      await kafka.configureTopic(fixture.topics(SICK).eventsink_topic, { 'max.message.bytes': '2000' });
      const service = parking.start({ slots: { one: [SICK] }, kafkaSettings: asUser() });
      await fixture.confirmed('one');
      const rows = [[1], [2, { payload: payloadOf(5_000) }], [3], [4, { payload: payloadOf(1_000) }]] as const;
      const { createdAt } = await writeEvents(fixture, rows);
      await fixture.confirmed('one');
      const { createdAt: laterAt } = await writeEvents(fixture, [[5, { payload: payloadOf(6_000) }], [6]]);
      await fixture.confirmed('one');
      const expected = [
        goodEvent(1, createdAt),
        goodEvent(3, createdAt),
        event(SICK, 'p', { eventId: 4, createdAt, data: { bin: Buffer.alloc(1_000, 0x61) } }),
        goodEvent(6, laterAt),
      ];
      expect(firstOccurrences(await fixture.emitted(SICK))).toEqual(expected);
      const numbers = (await parking.parked()).map(({ columns }) => columns?.[2]?.value);
      expect(numbers).toEqual([2, 5].map((eventId) => ({ base64: Buffer.of(0, eventId).toString('base64') })));
      // The broker refuses the batch with other rows perhaps, then the row alone; the second row is not even tried.
      expect(service.failures().length).toBeGreaterThan(0);
      for (const { message } of service.failures()) expect(message).toContain('MESSAGE_TOO_LARGE');
      expect(service.failures().at(-1)).toMatchObject({
        message: expect.stringContaining('a batch of 1:'),
        place: { key: `${SICK} p` },
      });
    },
    TIMEOUT_MS,
  );

  test(
    'stops only the slot, with both reasons, when the parking topic refuses the row as well, until it accepts the row',
    async () => {
      await using parking = await openParkingFixture({ 'max.message.bytes': '1000' });
      const { fixture } = parking;
      const service = parking.start();
      await fixture.confirmed('one');
      await fixture.confirmed('two');
      const { createdAt: goodAt } = await writeEvents(fixture, [[1]]);
      await fixture.confirmed('one');
      const good = await fixture.currentLsn();
      const { createdAt } = await writeEvents(fixture, [
        [2],
        [3, { payload: Buffer.concat([NO_TERM, Buffer.alloc(2_000)]) }],
        [4, { payload: NO_TERM }],
      ]);
      const poisonEnd = await fixture.currentLsn();
      const error = await service.waitForFailure(fixture.slot('one'), 3);
      expect(error).toMatchObject({
        name: 'RecordTooLargeError',
        message: expect.stringContaining('the topic takes at most 1000'),
        place: { topic: parking.parkingTopic, namespace: SICK, table: tablesOf(SICK).events, key: `${SICK} p` },
        cause: { name: 'InvalidRowError', message: expect.stringContaining('column "payload"') },
      });
      const soundAt = await fixture.commit((tx) => insertProcess(tx, SOUND, 'q'));
      await fixture.confirmed('two');
      expect(service.failures(fixture.slot('two'))).toEqual([]);
      const confirmed = await fixture.confirmedLsn('one');
      expect(confirmed >= good && confirmed < poisonEnd).toBe(true);
      expect(await parking.parked()).toEqual([]);
      // Row 2 is delivered once, not with each attempt.
      const sound = lifecycle(SOUND, 'q', 'created', soundAt);
      expect(await fixture.emitted()).toEqual(inOrder([goodEvent(1, goodAt), goodEvent(2, createdAt), sound]));

      await kafka.configureTopic(parking.parkingTopic, { 'max.message.bytes': '10000' });
      await fixture.confirmed('one');
      expect((await parking.parked()).map(({ columns }) => columns?.[2]?.value)).toEqual(
        [3, 4].map((eventId) => ({ base64: Buffer.of(0, eventId).toString('base64') })),
      );
      expect(firstOccurrences(await fixture.emitted(SICK))).toEqual([goodEvent(1, goodAt), goodEvent(2, createdAt)]);
    },
    TIMEOUT_MS,
  );

  test(
    'produces to a parking topic again after its limit, which it may not read, was raised',
    async () => {
      await using parking = await openParkingFixture({ 'max.message.bytes': '1000' });
      const { fixture } = parking;
      const topics = [...Object.values(fixture.topics(SICK)), parking.parkingTopic] as string[];
      await kafka.access.allow(
        ...topics.flatMap((topic) =>
          (['DESCRIBE', 'WRITE'] as const).map((operation) => ({ user: USER, operation, topic })),
        ),
      );
      const service = parking.start({ slots: { one: [SICK] }, kafkaSettings: asUser() });
      await fixture.confirmed('one');
      await writeEvents(fixture, [[3, { payload: Buffer.concat([NO_TERM, Buffer.alloc(2_000)]) }]]);
      await service.waitForFailure(fixture.slot('one'), 3);
      await kafka.configureTopic(parking.parkingTopic, { 'max.message.bytes': '10000' });
      await fixture.confirmed('one');
      expect(await parking.parked()).toHaveLength(1);
    },
    TIMEOUT_MS,
  );
});

describe('on_invalid: stop', () => {
  test(
    'produces the rows before an undeliverable row once, not with each attempt, until the topic accepts the row',
    async () => {
      await using parking = await openParkingFixture();
      const { fixture } = parking;
      const { eventsink_topic } = fixture.topics(SICK);
      await kafka.configureTopic(eventsink_topic, { 'max.message.bytes': '2000' });
      const service = parking.start({ onInvalid: 'stop' });
      await fixture.confirmed('one');
      const created: Emitted[] = [];
      const large = payloadOf(5_000);
      const createdAt = await fixture.commit(async (tx) => {
        await insertProcess(tx, SICK, 'p');
        await insertEvent(tx, SICK, 'p', 1);
        await insertEvent(tx, SICK, 'p', 2);
        await insertEvent(tx, SICK, 'p', 3, { payload: large });
        await insertEvent(tx, SICK, 'p', 4);
      });
      created.push(goodEvent(1, createdAt), goodEvent(2, createdAt), lifecycle(SICK, 'p', 'created', createdAt));
      const error = await service.waitForFailure(fixture.slot('one'), 6);
      expect(error).toMatchObject({
        name: 'RecordTooLargeError',
        advice: expect.stringContaining(`Raise max.message.bytes of topic "${eventsink_topic}"`),
        place: { topic: eventsink_topic, key: `${SICK} p`, lsn: expect.any(String) },
      });
      expect(await fixture.emitted(SICK)).toEqual(inOrder(created));

      await kafka.configureTopic(eventsink_topic, { 'max.message.bytes': '20000' });
      await fixture.confirmed('one');
      const data = { bin: Buffer.alloc(5_000, 0x61) };
      const all = [...created, event(SICK, 'p', { eventId: 3, createdAt, data }), goodEvent(4, createdAt)];
      const emitted = await fixture.emitted(SICK);
      expect(firstOccurrences(emitted)).toEqual(inOrder(all));
      // The rows before it are repeated once, when the transaction is delivered.
      expect(emitted).toHaveLength(all.length + created.length);
    },
    TIMEOUT_MS,
  );

  test(
    'produces them only a few times when only a refusal by the broker shows that the record is too large',
    async () => {
      await using parking = await openParkingFixture();
      const { fixture } = parking;
      const topics = Object.values(fixture.topics(SICK)) as string[];
      await kafka.access.allow(
        ...topics.flatMap((topic) =>
          (['DESCRIBE', 'WRITE'] as const).map((operation) => ({ user: USER, operation, topic })),
        ),
      );
      await kafka.configureTopic(fixture.topics(SICK).eventsink_topic, { 'max.message.bytes': '2000' });
      const service = parking.start({ onInvalid: 'stop', slots: { one: [SICK] }, kafkaSettings: asUser() });
      await fixture.confirmed('one');
      const createdAt = await fixture.commit(async (tx) => {
        await insertProcess(tx, SICK, 'p');
        await insertEvent(tx, SICK, 'p', 1, { payload: payloadOf(5_000) });
      });
      await service.waitForFailure(fixture.slot('one'), 24);
      const repeats = (await fixture.emitted(SICK)).length;
      expect(repeats).toBeLessThanOrEqual(8);
      await kafka.configureTopic(fixture.topics(SICK).eventsink_topic, { 'max.message.bytes': '20000' });
      await fixture.confirmed('one');
      const data = { bin: Buffer.alloc(5_000, 0x61) };
      expect(firstOccurrences(await fixture.emitted(SICK))).toEqual([
        event(SICK, 'p', { eventId: 1, createdAt, data }),
        lifecycle(SICK, 'p', 'created', createdAt),
      ]);
    },
    TIMEOUT_MS,
  );
});
