/** Certificates of every shape on a real PostgreSQL: which are accepted, and what the error of each other one names. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatabaseEndpoint, DatabaseTlsConfig } from '../../../src/config/config.ts';
import { fileSecret, textSecret } from '../../../src/config/secret.ts';
import { explainFailure } from '../../../src/failure-policy.ts';
import { connectControl } from '../../../src/postgres/client/connect.ts';
import { openSocket } from '../../../src/postgres/client/socket.ts';
import {
  AUTHORITIES,
  AUTHORITY,
  CERTIFICATE_SHAPES,
  NAMED_BY_CODE,
  SHAPE_KEY_FILE,
  shapeFile,
} from '../../support/network/certificate-shapes.ts';
import { CA_FILE, CERTIFICATE_DIRECTORY } from '../../support/network/certificates.ts';
import { enableTls, type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';

let server: PostgresServer;

beforeAll(async () => {
  server = await startPostgres();
  await enableTls(server);
  await writeFile(join(server.dataDirectory, 'server.key'), await readFile(SHAPE_KEY_FILE));
  await present('good');
}, 120_000);

afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
}, 30_000);

/** Makes the server present this certificate to new connections. */
async function present(name: string): Promise<void> {
  await writeFile(join(server.dataDirectory, 'server.crt'), await readFile(shapeFile(name)));
  const sql = server.sql('postgres', { max: 1 });
  const [before] = await sql`SELECT pg_conf_load_time() AS at, pg_reload_conf()`;
  await sql.end();
  // The postmaster loads certificates with the configuration; a session that it starts afterwards knows the time.
  await waitFor('the certificate', async () => {
    const probe = server.sql('postgres', { max: 1 });
    const [now] = await probe`SELECT pg_conf_load_time() > ${before?.at} AS is_loaded`;
    await probe.end();
    return now?.is_loaded === true;
  });
}

function endpoint(host: string, tls: Partial<DatabaseTlsConfig> = {}): DatabaseEndpoint {
  const { port } = server;
  return {
    ref: 'db',
    host,
    port,
    database: 'postgres',
    username: 'postgres',
    password: undefined,
    tls: { mode: 'verify-full', ca: textSecret(AUTHORITY), cert: undefined, key: undefined, ...tls },
  } as DatabaseEndpoint;
}

/** Connects up to the beginning of the protocol, and returns the error as the service reports it. */
async function refusal(
  host: string,
  tls?: Partial<DatabaseTlsConfig>,
): Promise<ReturnType<typeof explainFailure> | undefined> {
  try {
    (await openSocket(endpoint(host, tls), 5_000)).destroy();
    return undefined;
  } catch (error) {
    return explainFailure(error);
  }
}

describe('the certificate of PostgreSQL', () => {
  test.each(CERTIFICATE_SHAPES)('$name at $host: $code', async ({ name, host, code }) => {
    await present(name);
    const error = await refusal(host);
    if (code === undefined) {
      expect(error).toBeUndefined();
      return;
    }
    expect(error).toMatchObject({ code: 'tls', advice: expect.stringContaining(NAMED_BY_CODE[code]!.source) });
    expect(error!.message).toEndWith(`(${code})`);
    expect(error!.message).not.toContain('unexpected');
  });

  test('is verified against each authority of a file', async () => {
    await present('good');
    expect(await refusal('localhost', { ca: textSecret(AUTHORITIES) })).toBeUndefined();
  });

  test('needs no name with verify-ca, and nothing with require', async () => {
    await present('other-name');
    expect(await refusal('localhost', { mode: 'verify-ca' })).toBeUndefined();
    await present('self-signed');
    expect(await refusal('localhost', { mode: 'verify-ca' })).toMatchObject({ code: 'tls' });
    expect(await refusal('localhost', { mode: 'require' })).toBeUndefined();
  });
});

describe('a PostgreSQL that judges client certificates', () => {
  const file = (name: string) => fileSecret(join(CERTIFICATE_DIRECTORY, name));

  beforeAll(async () => {
    await present('good');
    await writeFile(join(server.dataDirectory, 'clients.crt'), await readFile(CA_FILE));
    const hba = await readFile(join(server.dataDirectory, 'pg_hba.conf'), 'utf8');
    await writeFile(join(server.dataDirectory, 'pg_hba.conf'), `hostssl postgres postgres samehost cert\n${hba}`);
    const sql = server.sql('template1', { max: 1 });
    await sql`ALTER SYSTEM SET ssl_ca_file = 'clients.crt'`;
    await sql.end();
    await server.restart();
  }, 60_000);

  async function loginRefusal(tls: Partial<DatabaseTlsConfig>): Promise<ReturnType<typeof explainFailure> | undefined> {
    const sql = connectControl(endpoint('localhost', tls), { applicationName: 'test' });
    try {
      await sql`SELECT`;
      return undefined;
    } catch (error) {
      return explainFailure(error);
    } finally {
      await sql.end({ timeout: 1 });
    }
  }

  test('accepts one of its authority', async () => {
    expect(await loginRefusal({ cert: file('client.crt'), key: file('client.key') })).toBeUndefined();
  });

  test('names tls.cert when it is of another authority', async () => {
    const tls = { cert: fileSecret(shapeFile('client-purpose')), key: fileSecret(SHAPE_KEY_FILE) };
    expect(await loginRefusal(tls)).toMatchObject({ code: 'tls', advice: expect.stringContaining('tls.cert') });
  });

  test('names pg_hba.conf when none is sent', async () => {
    expect(await loginRefusal({})).toMatchObject({
      code: 'authentication',
      advice: expect.stringContaining('pg_hba.conf'),
    });
  });
});
