/**
 * Certificates of every shape in front of a real broker: which are accepted, and what the error of each other one names. A
 * TLS listener of the test presents them and passes the bytes on; client certificates are judged by the broker itself.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import pino from 'pino';
import type { KafkaTlsConfig } from '../../../src/config/config.ts';
import { fileSecret, textSecret } from '../../../src/config/secret.ts';
import type { SinkError } from '../../../src/errors.ts';
import { Cluster } from '../../../src/kafka/client/cluster.ts';
import { clientConfig } from '../../support/kafka/open-producer.ts';
import { type KafkaServer, startKafka } from '../../support/kafka/server.ts';
import {
  AUTHORITIES,
  AUTHORITY,
  CERTIFICATE_SHAPES,
  NAMED_BY_CODE,
  SHAPE_KEY_FILE,
  shapeFile,
} from '../../support/network/certificate-shapes.ts';
import { CA_FILE, CERTIFICATE_DIRECTORY, SERVER_IDENTITY } from '../../support/network/certificates.ts';

const TOPIC = 'topic';

let kafka: KafkaServer;

beforeAll(async () => {
  kafka = await startKafka({ secure: { ...SERVER_IDENTITY, clientAuthorityFile: CA_FILE } });
  await kafka.createTopic(TOPIC);
}, 120_000);

afterAll(async () => {
  await kafka?.[Symbol.asyncDispose]();
}, 30_000);

interface Address {
  readonly host: string;
  readonly port: number;
}

/** Reads the metadata of a topic, and returns the error as the service reports it. */
async function refusal(broker: Address, tls: Partial<KafkaTlsConfig>): Promise<SinkError | undefined> {
  const nothing = { ca: undefined, cert: undefined, key: undefined, serverName: undefined };
  const config = clientConfig([], { brokers: [broker], tls: { ...nothing, ...tls } });
  const cluster = new Cluster(config, pino({ level: 'silent' }));
  try {
    await cluster.refreshMetadata([TOPIC]);
    return undefined;
  } catch (error) {
    return error as SinkError;
  } finally {
    cluster.close();
  }
}

/** A listener in front of the broker that presents this certificate. */
async function present(name: string): Promise<AsyncDisposable & { readonly port: number }> {
  const server = createServer({ cert: readFileSync(shapeFile(name)), key: readFileSync(SHAPE_KEY_FILE) }, (client) => {
    const broker = connect(kafka.port, '127.0.0.1');
    for (const socket of [client, broker]) socket.on('error', () => {});
    client.pipe(broker).pipe(client);
  });
  server.on('tlsClientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.close();
    },
  };
}

describe('the certificate of a broker', () => {
  test.each(CERTIFICATE_SHAPES)('$name at $host: $code', async ({ name, host, code }) => {
    await using listener = await present(name);
    const error = await refusal({ host, port: listener.port }, { ca: textSecret(AUTHORITY) });
    if (code === undefined) {
      expect(error).toBeUndefined();
      return;
    }
    expect(error).toMatchObject({
      message: `Cannot connect to broker ${host}:${listener.port}: ${code}`,
      advice: expect.stringContaining(NAMED_BY_CODE[code]!.sink),
      place: { kafkaClient: 'main' },
    });
  });

  test('is verified against each authority of a file', async () => {
    await using listener = await present('good');
    expect(await refusal({ host: 'localhost', port: listener.port }, { ca: textSecret(AUTHORITIES) })).toBeUndefined();
  });

  test('is verified for server_name in place of the address', async () => {
    await using listener = await present('other-name');
    const broker = { host: '127.0.0.1', port: listener.port };
    const ca = textSecret(AUTHORITY);
    expect(await refusal(broker, { ca, serverName: 'other.example' })).toBeUndefined();
    expect(await refusal(broker, { ca, serverName: 'another.example' })).toMatchObject({
      message: expect.stringContaining('ERR_TLS_CERT_ALTNAME_INVALID'),
    });
  });
});

describe('a broker that demands a client certificate', () => {
  const broker = (): Address => ({ host: 'localhost', port: Number(kafka.secureBootstrap?.split(':').at(-1)) });
  const clientFile = (extension: string) => fileSecret(join(CERTIFICATE_DIRECTORY, `client.${extension}`));

  test('accepts one of its authority', async () => {
    const tls = { ca: fileSecret(CA_FILE), cert: clientFile('crt'), key: clientFile('key') };
    expect(await refusal(broker(), tls)).toBeUndefined();
  });

  test.each<[string, Partial<KafkaTlsConfig>]>([
    ['none is sent', {}],
    ['it is of another authority', { cert: fileSecret(shapeFile('client-purpose')), key: fileSecret(SHAPE_KEY_FILE) }],
  ])('names tls.cert when %s', async (_, tls) => {
    const error = await refusal(broker(), { ca: fileSecret(CA_FILE), ...tls });
    expect(error).toMatchObject({ advice: expect.stringContaining('tls.cert'), place: { kafkaClient: 'main' } });
  });
});
