/** Connections to real servers: TLS, secrets, lost connections. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { chownSync, copyFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Sql } from 'postgres';
import type { DatabaseEndpoint, DatabaseTlsConfig } from '../../../src/config/config.ts';
import { fileSecret, textSecret } from '../../../src/config/secret.ts';
import { SecretError, SourceError } from '../../../src/errors.ts';
import { connectControl, connectReplication, startCopyBoth } from '../../../src/postgres/client/connect.ts';
import { runTransaction } from '../../../src/postgres/client/transaction.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { temporaryDirectory } from '../../support/process/temporary-directory.ts';
import { waitFor } from '../../support/process/wait.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';

const CERTIFICATES = join(import.meta.dirname, '../../fixtures/tls');
const pem = (name: string) => fileSecret(join(CERTIFICATES, name));

let server: PostgresServer;

beforeAll(async () => {
  server = await startPostgres({
    hba: [
      'hostssl all certain 127.0.0.1/32 cert map=certain',
      'host all secretive 127.0.0.1/32 scram-sha-256',
      'host all all 127.0.0.1/32 trust',
    ],
  });
}, 120_000);
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
});

function config(change: Partial<DatabaseEndpoint> = {}): DatabaseEndpoint {
  return {
    ref: 'main',
    host: server.host,
    port: server.port,
    database: 'postgres',
    username: 'postgres',
    password: undefined,
    tls: undefined,
    ...change,
  };
}

/** Runs one query on a connection of its own; resolves to its result or to the error. */
async function attempt(change: Partial<DatabaseEndpoint>, connectTimeoutMs?: number): Promise<unknown> {
  const sql = connectControl(config(change), { applicationName: 'attempt', connectTimeoutMs });
  try {
    const [row] =
      await sql`SELECT coalesce((SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()), 'plain') AS tls`;
    return row!.tls;
  } catch (error) {
    return error;
  } finally {
    await sql.end({ timeout: 0 });
  }
}

/** Listens on a free port and does with each connection what `answer` says. */
async function withListener<T>(
  answer: (socket: import('node:net').Socket) => void,
  body: (port: number) => Promise<T>,
): Promise<T> {
  const listener: Server = createServer((socket) => {
    socket.on('error', () => {});
    answer(socket);
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  try {
    return await body((listener.address() as { port: number }).port);
  } finally {
    listener.close();
  }
}

const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
/** A message of the server: type, length, body. */
const message = (type: string, body: Buffer): Buffer =>
  Buffer.concat([Buffer.from(type), int32(4 + body.length), body]);
const AUTHENTICATION_OK = message('R', int32(0));

const tls = (mode: DatabaseTlsConfig['mode'], ca?: string): DatabaseTlsConfig => ({
  mode,
  ca: ca === undefined ? undefined : pem(ca),
  cert: undefined,
  key: undefined,
});

describe('connectControl', () => {
  test('names itself, resolves names in pg_catalog only, and says once that a remote connection is plain', async () => {
    const { logger, lines } = recordingLogger();
    const sql = connectControl(config(), { applicationName: 'cdc-notifier slot_x', log: logger });
    try {
      const [row] =
        await sql`SELECT current_setting('application_name') AS name, current_setting('search_path') AS path`;
      expect(row).toEqual({ name: 'cdc-notifier slot_x', path: 'pg_catalog' });
      expect(lines).toEqual([]);
    } finally {
      await sql.end();
    }
    const remote = connectControl(config({ host: 'db.example' }), { applicationName: 'x', log: logger });
    await remote.end({ timeout: 0 });
    expect(lines).toEqual([expect.objectContaining({ level: 'warn', host: 'db.example' })]);
  });

  test('reads the password again at each connection, and recovers from one that cannot be read', async () => {
    const admin = server.sql('postgres', { max: 1 });
    await using directory = await temporaryDirectory('secret');
    const file = join(directory.path, 'password');
    await admin`CREATE ROLE secretive LOGIN PASSWORD 'first'`;
    const sql = connectControl(config({ username: 'secretive', password: fileSecret(file) }), {
      applicationName: 'secretive',
    });
    const ask = () =>
      sql`SELECT 1 AS one`.then(
        ([row]) => row!.one as unknown,
        (error: unknown) => error,
      );
    try {
      expect(await ask()).toBeInstanceOf(SecretError);
      expect(await ask()).toBeInstanceOf(SecretError);
      writeFileSync(file, 'first\n');
      expect(await ask()).toBe(1);
      await admin`ALTER ROLE secretive PASSWORD 'second'`;
      writeFileSync(file, 'second');
      await admin`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'secretive'`;
      await waitFor('connected with the second password', async () => (await ask()) === 1);
      writeFileSync(file, 'wrong');
      await admin`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'secretive'`;
      await waitFor('refused', async () => ((await ask()) as { code?: string }).code === '28P01');
    } finally {
      await sql.end({ timeout: 0 });
      await admin.end();
    }
  });

  test('a query asked the moment a connection is lost is answered, and not with the error that ended it', async () => {
    const admin = server.sql('postgres', { max: 1 });
    try {
      for (let round = 0; round < 20; round += 1) {
        let sockets = 0;
        const sql = connectControl(config(), {
          applicationName: 'lost',
          onSocket: () => {
            sockets += 1;
          },
        });
        const pid = async () => (await sql`SELECT pg_backend_pid() AS pid`)[0]!.pid as number;
        const first = await pid();
        await admin`SELECT pg_terminate_backend(${first})`;
        // Meets the end of the connection, or comes after it.
        const second = await pid().catch(() => pid());
        expect(second).not.toBe(first);
        expect(await pid()).toBe(second);
        expect(sockets).toBe(2);
        await sql.end();
        expect(await sql`SELECT 1`.catch((error: { code: string }) => error.code)).toBe('CONNECTION_ENDED');
      }
    } finally {
      await admin.end();
    }
  });

  test.each([
    ['57P01', 'SELECT pg_sleep(60)'],
    ['25P04', "SET transaction_timeout = '100ms'; BEGIN; SELECT pg_sleep(60)"],
    ['57P01', 'DO $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); END $$'],
  ])('a query that the server ends with its session fails with SQLSTATE %s: %s', async (code, statement) => {
    const admin = server.sql('postgres', { max: 1 });
    const sql = connectControl(config(), { applicationName: 'ended' });
    try {
      const failed = sql.unsafe(statement).then(
        () => undefined,
        (error: unknown) => error,
      );
      if (statement === 'SELECT pg_sleep(60)') {
        const end = () => admin`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE application_name = 'ended' AND wait_event = 'PgSleep'`;
        await waitFor('ended', async () => (await end()).length > 0);
      }
      expect(await failed).toMatchObject({ code, severity: 'FATAL' });
      expect((await sql`SELECT 1 AS one`)[0]!.one).toBe(1);
    } finally {
      await sql.end({ timeout: 0 });
      await admin.end();
    }
  });

  test('rejects with the reason when no process listens, none answers, or one answers in another protocol', async () => {
    const port = await withListener(
      () => {},
      async (port) => port,
    );
    expect(await attempt({ port })).toMatchObject({ code: 'ECONNREFUSED' });
    await withListener(
      () => {},
      async (port) => {
        expect(await attempt({ port }, 200)).toMatchObject({ code: 'CONNECT_TIMEOUT' });
        const silent = (await attempt({ port, tls: tls('require') }, 200)) as Error;
        expect(silent).toBeInstanceOf(SourceError);
        expect(silent.message).toBe('Cannot connect to PostgreSQL: no answer within 200 ms');
      },
    );
    await withListener(
      (socket) => socket.once('data', () => socket.end()),
      async (port) => {
        const closed = (await attempt({ port, tls: tls('require') })) as Error;
        expect(closed.message).toBe('Cannot connect to PostgreSQL: the connection was closed');
      },
    );
    await withListener(
      (socket) => socket.once('data', () => socket.write('SSH-2.0')),
      async (port) => {
        const strange = (await attempt({ port, tls: tls('require') })) as Error;
        expect(strange.message).toContain('is no PostgreSQL protocol');
      },
    );
  });

  test.each([
    ['at once', (socket: Socket) => socket.destroy()],
    ['when it has read the start-up message', (socket: Socket) => socket.once('data', () => socket.end())],
    ['after the first answer', (socket: Socket) => socket.once('data', () => socket.end(AUTHENTICATION_OK))],
  ])('a server that closes %s before the login is over gets one connection for one attempt', async (_, close) => {
    let connectionCount = 0;
    const answer = (socket: Socket) => {
      connectionCount++;
      close(socket);
    };
    await withListener(answer, async (port) => {
      for (const connect of [connectControl, connectReplication]) {
        connectionCount = 0;
        const sql = connect(config({ port }), { applicationName: 'attempt' });
        await expect(sql.unsafe('SELECT 1')).rejects.toThrow(/closed|EPIPE|ECONNRESET/);
        await Bun.sleep(200);
        expect(connectionCount).toBe(1);
        await sql.end({ timeout: 0 });
      }
    });
  });

  const challenge = (text: string) => message('R', Buffer.concat([int32(11), Buffer.from(text)]));
  test.each([
    ['a SCRAM challenge without a salt', challenge('r=abc,i=4096')],
    ['a SCRAM challenge without anything', challenge('')],
    ['a SCRAM challenge with text for iterations', challenge('r=abc,s=QUJD,i=many')],
    ['a SCRAM challenge of 2147483647 iterations', challenge('r=abc,s=QUJD,i=2147483647')],
    ['an authentication message without its kind', message('R', Buffer.alloc(2))],
    ['an authentication of an unknown kind', message('R', int32(99))],
    ['a row before the login is over', message('D', Buffer.alloc(2))],
    ['a message of 0 bytes', Buffer.from('R\0\0\0\0')],
    ['a message of 1073741824 bytes', Buffer.from([0x45, 0x40, 0, 0, 0])],
  ])('%s is a typed error of the attempt', async (_, answer) => {
    const sasl = message('R', Buffer.concat([int32(10), Buffer.from('SCRAM-SHA-256\0\0')]));
    const serve = (socket: Socket) => {
      socket.once('data', () => {
        socket.write(sasl);
        socket.once('data', () => socket.write(answer));
      });
    };
    await withListener(serve, async (port) => {
      const error = await attempt({ port, password: textSecret('secret') }, 5_000);
      expect(error).toMatchObject({ name: 'SourceError', code: 'login_malformed' });
    });
  });

  test.each([
    ['Kerberos V5', 2],
    ['GSSAPI', 7],
    ['SSPI', 9],
  ])('a server that asks for %s is named as such, with the line for pg_hba.conf', async (method, kind) => {
    const serve = (socket: Socket) => socket.once('data', () => socket.write(message('R', int32(kind))));
    await withListener(serve, async (port) => {
      const error = await attempt({ port, password: textSecret('secret') }, 5_000);
      expect(error).toMatchObject({ name: 'SourceError', code: 'authentication_unsupported' });
      expect((error as Error).message).toContain(method);
    });
  });

  test('a server that does not offer TLS differs from one that cannot be reached', async () => {
    const error = (await attempt({ tls: tls('require') })) as SourceError;
    expect(error).toBeInstanceOf(SourceError);
    expect(error.message).toBe('Cannot connect to PostgreSQL: the server does not offer TLS');
    expect(error.advice).toContain('ssl = on');
  });

  describe('with TLS on the server', () => {
    beforeAll(async () => {
      const owner = statSync(server.dataDirectory);
      for (const name of ['server.crt', 'server.key', 'ca.crt']) {
        const path = join(server.dataDirectory, name);
        writeFileSync(path, readFileSync(join(CERTIFICATES, name)), { mode: 0o600 });
        chownSync(path, owner.uid, owner.gid);
      }
      const identities = join(server.dataDirectory, 'pg_ident.conf');
      writeFileSync(identities, 'certain postgres certain\n');
      const admin = server.sql('postgres', { max: 1 });
      await admin`ALTER SYSTEM SET ssl = on`;
      await admin`ALTER SYSTEM SET ssl_ca_file = 'ca.crt'`;
      await admin`CREATE ROLE certain LOGIN`;
      await admin.end();
      await server.restart();
    }, 60_000);

    test.each<[DatabaseTlsConfig['mode'], string, string | undefined, boolean]>([
      ['verify-full', 'localhost', 'ca.crt', true],
      ['verify-full', '127.0.0.1', 'ca.crt', false],
      ['verify-full', 'localhost', 'stranger.crt', false],
      ['verify-full', 'localhost', undefined, false],
      ['verify-ca', 'localhost', 'ca.crt', true],
      ['verify-ca', '127.0.0.1', 'ca.crt', true],
      ['verify-ca', '127.0.0.1', 'stranger.crt', false],
      ['verify-ca', '127.0.0.1', undefined, false],
      ['require', '127.0.0.1', undefined, true],
      ['require', '127.0.0.1', 'stranger.crt', true],
    ])('%s to %s with %s: accepted is %s', async (mode, host, ca, accepted) => {
      const result = await attempt({ host, tls: tls(mode, ca) });
      if (accepted) expect(result).toMatch(/^TLSv1\.[23]$/);
      else expect(result).toBeInstanceOf(Error);
    });

    test('presents the client certificate, in replication too', async () => {
      const certain = {
        username: 'certain',
        host: 'localhost',
        tls: { ...tls('verify-full', 'ca.crt'), cert: pem('client.crt'), key: pem('client.key') },
      };
      expect(await attempt(certain)).toMatch(/^TLSv1/);
      expect(await attempt({ ...certain, tls: tls('verify-full', 'ca.crt') })).toMatchObject({ code: '28000' });
      const replication = connectReplication(config({ ...certain, username: 'postgres' }), { applicationName: 'r' });
      try {
        expect((await replication.unsafe('IDENTIFY_SYSTEM')).length).toBe(1);
      } finally {
        await replication.end({ timeout: 0 });
      }
    });

    test('reads certificates again at each connection', async () => {
      await using directory = await temporaryDirectory('certificates');
      const ca = join(directory.path, 'ca.crt');
      copyFileSync(join(CERTIFICATES, 'stranger.crt'), ca);
      const sql = connectControl(config({ host: 'localhost', tls: { ...tls('verify-full'), ca: fileSecret(ca) } }), {
        applicationName: 'rotated',
      });
      const ask = () =>
        sql`SELECT 1`.then(
          () => 'ok',
          () => 'failed',
        );
      try {
        expect(await ask()).toBe('failed');
        copyFileSync(join(CERTIFICATES, 'ca.crt'), ca);
        expect(await ask()).toBe('ok');
      } finally {
        await sql.end({ timeout: 0 });
      }
    });
  });
});

describe('runTransaction', () => {
  test('a connection that is lost inside rejects, and the next query opens another', async () => {
    const admin = server.sql('postgres', { max: 1 });
    const sql = connectControl(config(), { applicationName: 'victim' });
    try {
      const running = runTransaction(sql, ['CREATE TABLE public.half (i int)', 'SELECT pg_sleep(60)']).catch(
        (error: unknown) => error,
      );
      await waitFor('asleep', async () => {
        const rows = await admin`
          SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim' AND wait_event = 'PgSleep'`;
        return rows.length > 0;
      });
      expect(await running).toBeInstanceOf(Error);
      await waitFor('connected again', () =>
        sql`SELECT 1`.then(
          () => true,
          () => false,
        ),
      );
      expect((await admin`SELECT FROM pg_class WHERE relname = 'half'`).length).toBe(0);
    } finally {
      await sql.end({ timeout: 0 });
      await admin.end();
    }
  });

  test('leaves the session outside of a transaction when a statement fails', async () => {
    const sql = connectControl(config(), { applicationName: 'failing' });
    try {
      expect(runTransaction(sql, ['SELECT 1/0'])).rejects.toMatchObject({ code: '22012' });
      await runTransaction(sql, ['CREATE TABLE public.whole (i int)']);
      expect((await sql`SELECT FROM pg_class WHERE relname = 'whole'`).length).toBe(1);
    } finally {
      await sql.end({ timeout: 0 });
    }
  });
});

describe('startCopyBoth on PostgreSQL 14', () => {
  test('rejects when the server refuses right after it accepted, as for a publication that is not there', async () => {
    await using old: PostgresServer = await startPostgres({ major: 14 });
    const admin: Sql = old.sql('postgres', { max: 1 });
    try {
      await admin`CREATE TABLE t (i int PRIMARY KEY)`;
      await admin`SELECT pg_create_logical_replication_slot('s', 'pgoutput')`;
      await admin`INSERT INTO t VALUES (1)`;
      const codes = new Set<unknown>();
      // The refusal comes in the same read as the acceptance, or a moment later.
      for (let i = 0; i < 20; i += 1) {
        const replication = connectReplication(
          { ...config(), port: old.port },
          { applicationName: 'cdc-notifier s', onNotice: () => {} },
        );
        const stream = await startCopyBoth(
          replication,
          `START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'absent')`,
        ).catch((error: unknown) => error);
        if (stream instanceof Error) codes.add((stream as Error & { code?: unknown }).code);
        else {
          const opened = stream as import('node:stream').Duplex;
          codes.add(
            await new Promise((resolve) =>
              opened.on('error', (error) => resolve((error as Error & { code?: unknown }).code)),
            ),
          );
        }
        await replication.end({ timeout: 0 });
      }
      expect([...codes]).toEqual(['42704']);
    } finally {
      await admin.end();
    }
  }, 60_000);
});
