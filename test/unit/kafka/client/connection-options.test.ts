import { describe, expect, test } from 'bun:test';
import { fileSecret, textSecret } from '../../../../src/config/secret.ts';
import { SecretError } from '../../../../src/errors.ts';
import { connectionOptions } from '../../../../src/kafka/client/connection-options.ts';
import { clientConfig } from '../../../support/kafka/open-producer.ts';

const TLS = { ca: undefined, cert: undefined, key: undefined, serverName: undefined };
const MISSING = fileSecret('/nowhere/secret');

describe('connectionOptions', () => {
  test('without tls and sasl are the timeouts alone', () => {
    const client = clientConfig([], { connectTimeoutMs: 1, requestTimeoutMs: 2 });
    expect(connectionOptions(client)).toEqual({ connectTimeout: 1, requestTimeout: 2 });
  });

  test('hold the TLS files that are configured, and always verify the certificate', () => {
    expect(connectionOptions(clientConfig([], { tls: TLS })).tls).toEqual({ rejectUnauthorized: true });
    const tls = {
      ca: textSecret('ca'),
      cert: textSecret('cert'),
      key: textSecret('key'),
      serverName: 'kafka.example',
    };
    expect(connectionOptions(clientConfig([], { tls }))).toMatchObject({
      tls: { ca: 'ca', cert: 'cert', key: 'key', rejectUnauthorized: true },
      tlsServerName: 'kafka.example',
    });
  });

  test('report a file that is missing', () => {
    expect(() => connectionOptions(clientConfig([], { tls: { ...TLS, ca: MISSING } }))).toThrow(SecretError);
  });
});
