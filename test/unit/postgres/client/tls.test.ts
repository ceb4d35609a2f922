import { describe, expect, test } from 'bun:test';
import type { DatabaseEndpoint, DatabaseTlsConfig } from '../../../../src/config/config.ts';
import { textSecret } from '../../../../src/config/secret.ts';
import { judgeTlsAnswer, tlsOptions, transportWarning } from '../../../../src/postgres/client/tls.ts';

const bare: DatabaseTlsConfig = { mode: 'verify-full', ca: undefined, cert: undefined, key: undefined };

describe('judgeTlsAnswer', () => {
  test.each([
    ['S', 'accepted'],
    ['N', 'declined'],
    ['E', 'invalid'],
    ['', 'invalid'],
    ['SR', 'invalid'],
    ['NS', 'invalid'],
  ])('takes %p for %s', (answer, verdict) => {
    expect<string>(judgeTlsAnswer(Buffer.from(answer))).toBe(verdict);
  });
});

describe('tlsOptions', () => {
  test.each(['require', 'verify-ca', 'verify-full'] as const)('verifies what %s says', (mode) => {
    const options = tlsOptions({ ...bare, mode }, 'db.example');
    expect(options.rejectUnauthorized).toBe(mode !== 'require');
    expect(options.checkServerIdentity === undefined).toBe(mode === 'verify-full');
    expect(options).toMatchObject({ host: 'db.example', servername: 'db.example', minVersion: 'TLSv1.2' });
  });

  test('sends no server name for an address', () => {
    expect(tlsOptions(bare, '10.0.0.1')).not.toHaveProperty('servername');
    expect(tlsOptions(bare, '::1')).not.toHaveProperty('servername');
  });

  test('reads certificates again each time', () => {
    let pem = 'first';
    const tls = { ...bare, ca: { origin: 'test', read: () => pem }, cert: textSecret('c'), key: textSecret('k') };
    expect(tlsOptions(tls, 'db')).toMatchObject({ ca: 'first', cert: 'c', key: 'k' });
    pem = 'second';
    expect(tlsOptions(tls, 'db').ca).toBe('second');
  });
});

describe('transportWarning', () => {
  const database: DatabaseEndpoint = {
    ref: 'main',
    host: 'db.example',
    port: 5432,
    database: 'main',
    username: 'app',
    password: undefined,
    tls: undefined,
  };

  test.each<[Partial<DatabaseEndpoint>, string | undefined]>([
    [{}, 'is not encrypted'],
    [{ host: '10.0.0.1' }, 'is not encrypted'],
    [{ host: '127.0.0.1.example' }, 'is not encrypted'],
    [{ host: 'localhost' }, undefined],
    [{ host: '127.1.2.3' }, undefined],
    [{ host: '::1' }, undefined],
    [{ tls: { ...bare, mode: 'require' } }, 'not verified'],
    [{ host: '127.0.0.1', tls: { ...bare, mode: 'require' } }, 'not verified'],
    [{ tls: { ...bare, mode: 'verify-ca' } }, undefined],
    [{ tls: bare }, undefined],
  ])('judges %j', (change, warning) => {
    const text = transportWarning({ ...database, ...change });
    if (warning === undefined) expect(text).toBeUndefined();
    else expect(text).toContain(warning);
  });
});
