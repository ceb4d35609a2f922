/** TLS and authentication on both sides, and the errors of wrong certificates and passwords. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type KafkaServer, startKafka } from '../support/kafka/server.ts';
import { CA_FILE, SERVER_IDENTITY, STRANGER_FILE } from '../support/network/certificates.ts';
import { enableTls, type PostgresServer } from '../support/postgres/server.ts';
import { temporaryDirectory } from '../support/process/temporary-directory.ts';
import { STARTED } from '../support/service/binary.ts';
import {
  type BinaryFixture,
  expectCleanLogs,
  isFailure,
  KAFKA_PASSWORD,
  openBinaryFixture,
  startServer,
  startService,
  WRONG_PASSWORD,
} from '../support/service/binary-fixture.ts';

const KAFKA_USER = 'notifier';

let server: PostgresServer;
let kafka: KafkaServer;

beforeAll(async () => {
  const secure = { ...SERVER_IDENTITY, users: { [KAFKA_USER]: KAFKA_PASSWORD } };
  [server, kafka] = await Promise.all([startServer(), startKafka({ secure })]);
  await enableTls(server);
}, 120_000);

afterAll(async () => {
  await Promise.all([server?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
}, 30_000);

afterEach(() => expectCleanLogs());

interface SecureOptions {
  /** Host of PostgreSQL */
  readonly host?: string;
  /** Host of the broker */
  readonly broker?: string;
  readonly kafkaTls?: object | undefined;
  /** A secret of the configuration */
  readonly kafkaPassword?: unknown;
}

/** A fixture whose connections are verified, encrypted and authenticated, unless the options say otherwise. */
function secureFixture(options: SecureOptions = {}): Promise<BinaryFixture> {
  const { host, broker, kafkaTls, kafkaPassword } = {
    host: 'localhost',
    broker: 'localhost',
    kafkaTls: { ca: CA_FILE },
    kafkaPassword: KAFKA_PASSWORD,
    ...options,
  };
  const port = kafka.secureBootstrap?.split(':').at(-1);
  return openBinaryFixture({
    server,
    kafka,
    databaseKeys: { host, tls: { ca: CA_FILE } },
    kafkaClient: {
      brokers: [`${broker}:${port}`],
      ...(kafkaTls === undefined ? {} : { tls: kafkaTls }),
      sasl: { mechanism: 'SCRAM-SHA-512', username: KAFKA_USER, password: kafkaPassword },
    },
  });
}

async function expectDelivery(fixture: BinaryFixture): Promise<void> {
  await fixture.writer.write(30);
  await fixture.confirmed();
  await fixture.expectAllArrived();
}

describe('with TLS', () => {
  test('delivers without a warning over verify-full to PostgreSQL and SASL_SSL with SCRAM-SHA-512 to Kafka', async () => {
    await using fixture = await secureFixture();
    await using service = await fixture.start();
    await expectDelivery(fixture);
    const sessions = await fixture.database.sql`
      SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
      WHERE application_name LIKE ${`cdc-notifier ${fixture.slot}%`}`;
    expect(sessions.map(({ ssl }) => ssl)).toEqual([true, true]);
    expect(service.lines.filter(({ level }) => level !== 'info')).toEqual([]);
    expect(await service.stop()).toBe(0);
  }, 60_000);

  test('refuses a PostgreSQL certificate for another name', async () => {
    await using fixture = await secureFixture({ host: '127.0.0.1' });
    await using service = await startService(fixture.config);
    expect(await service.waitForLine('the refusal', isFailure(fixture.slot))).toMatchObject({
      error: {
        name: 'SourceError',
        message: expect.stringContaining('another host name'),
        advice: expect.stringContaining('a name that the certificate contains'),
        place: { database: 'db', slot: fixture.slot },
      },
    });
    expect(await service.stop()).toBe(0);
  }, 60_000);

  test.each([
    ['a broker certificate for another name', { broker: '127.0.0.1' }, 'tls.server_name'],
    ['a broker certificate of an unknown authority', { kafkaTls: { ca: STRANGER_FILE } }, 'tls.ca'],
    ['a plaintext connection to a TLS listener', { kafkaTls: undefined }, 'tls'],
  ])(
    'fails on %s and names the setting',
    async (_, options, setting) => {
      await using fixture = await secureFixture(options);
      await using service = await startService(fixture.config);
      expect(await service.waitForLine('the refusal', isFailure(fixture.slot))).toMatchObject({
        error: {
          name: 'SinkError',
          message: expect.stringContaining('Cannot connect to broker'),
          advice: expect.stringContaining(setting),
          place: { database: 'db', slot: fixture.slot, kafkaClient: 'main' },
        },
      });
      expect(await service.stop()).toBe(0);
    },
    60_000,
  );

  test('verifies server_name in place of the broker address', async () => {
    await using fixture = await secureFixture({
      broker: '127.0.0.1',
      kafkaTls: { ca: CA_FILE, server_name: 'localhost' },
    });
    await using service = await fixture.start();
    await expectDelivery(fixture);
    expect(await service.stop()).toBe(0);
  }, 60_000);

  test('reads a wrong Kafka password again from its file, and names the setting until then', async () => {
    await using secrets = await temporaryDirectory('secrets');
    const file = join(secrets.path, 'kafka');
    await writeFile(file, `${WRONG_PASSWORD}\n`);
    await using fixture = await secureFixture({ kafkaPassword: { file } });
    const { slot } = fixture;
    await using service = await startService(fixture.config);
    const again = await service.waitForLine('a failure', (line) => isFailure(slot)(line) && line.reconnectCount === 2);
    expect(again.error).toMatchObject({
      name: 'SinkError',
      message: expect.stringContaining('SASL_AUTHENTICATION_FAILED'),
      advice: expect.stringContaining('sasl'),
      place: { database: 'db', slot, kafkaClient: 'main' },
    });
    await writeFile(file, `${KAFKA_PASSWORD}\n`);
    await service.waitForLine('a start', (line) => line.msg === STARTED && line.slot === slot);
    await expectDelivery(fixture);
    expect(await service.stop()).toBe(0);
  }, 60_000);
});
