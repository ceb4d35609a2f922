/** Looking for the primary among real servers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { chownSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import pino from 'pino';
import type { DatabaseConfig, ServerAddress } from '../../../src/config/config.ts';
import { textSecret } from '../../../src/config/secret.ts';
import { SetupError, SourceError } from '../../../src/errors.ts';
import { findPrimary } from '../../../src/postgres/availability/primary.ts';
import { freePort } from '../../support/network/ports.ts';
import { type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { waitFor } from '../../support/process/wait.ts';
import { type LogLine, recordingLogger } from '../../support/service/recording-logger.ts';

const NAME = 'cdc-notifier looks around';
const silent = pino({ level: 'silent' });

let first: PostgresServer;
let second: PostgresServer;
/** A server on timeline 2, or a standby until it is promoted */
let promoted: PostgresServer;

beforeAll(async () => {
  [first, second, promoted] = await Promise.all([startPostgres(), startPostgres({ major: 14 }), startPostgres()]);
  await promoted.stop();
  const signalFile = join(promoted.dataDirectory, 'standby.signal');
  writeFileSync(signalFile, '');
  const owner = statSync(promoted.dataDirectory);
  chownSync(signalFile, owner.uid, owner.gid);
  await promoted.start();
}, 120_000);
afterAll(async () => {
  await Promise.all([first, second, promoted].map((server) => server?.[Symbol.asyncDispose]()));
});

const address = ({ host, port }: ServerAddress): ServerAddress => ({ host, port });

function databaseAt(hosts: readonly ServerAddress[], change: Partial<DatabaseConfig> = {}): DatabaseConfig {
  return {
    ref: 'main',
    hosts: hosts.map(address),
    database: 'postgres',
    username: 'postgres',
    password: textSecret('postgres'),
    tls: undefined,
    ...change,
  };
}

interface Search {
  readonly port: number | undefined;
  readonly error: unknown;
  readonly lines: readonly LogLine[];
}

/** Looks for the primary of these servers. */
async function search(database: DatabaseConfig): Promise<Search> {
  const { logger, lines } = recordingLogger();
  try {
    const options = { applicationName: NAME, log: logger, signal: new AbortController().signal };
    const { port, ...endpoint } = await findPrimary(database, options);
    const { hosts: _, ...common } = database;
    expect(endpoint).toEqual({ host: '127.0.0.1', ...common });
    return { port, error: undefined, lines };
  } catch (error) {
    return { port: undefined, error, lines };
  }
}

async function deadAddress(): Promise<ServerAddress> {
  return { host: '127.0.0.1', port: await freePort() };
}

describe('findPrimary', () => {
  test('returns a single address unasked', async () => {
    const dead = await deadAddress();
    expect((await search(databaseAt([dead]))).port).toBe(dead.port);
  });

  test('skips standbys, silent servers and dead ones, and leaves no connection open', async () => {
    const mute = createServer(() => {});
    await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = mute.address() as { port: number };
      const hosts = [promoted, { host: '127.0.0.1', port }, await deadAddress(), first];
      expect(await search(databaseAt(hosts))).toEqual({ port: first.port, error: undefined, lines: [] });
    } finally {
      mute.close();
    }
    const admin = first.sql('postgres', { max: 1 });
    try {
      await waitFor('no connection', async () => {
        const rows = await admin`SELECT FROM pg_stat_activity WHERE application_name = ${NAME}`;
        return rows.length === 0;
      });
    } finally {
      await admin.end();
    }
  }, 60_000);

  test('says of each server why it is not the primary', async () => {
    const dead = await deadAddress();
    const { error } = await search(databaseAt([dead, promoted]));
    expect(error).toBeInstanceOf(SetupError);
    expect((error as SetupError).message).toBe(
      `Cannot find the primary: no server accepts writes (127.0.0.1:${promoted.port} is a standby, ` +
        `127.0.0.1:${dead.port}: no process listens there (ECONNREFUSED))`,
    );
    expect((error as SetupError).advice).toContain('promote a standby');
  });

  test('raises SourceError when no server answers, with the reason and the advice of each', async () => {
    const dead = await deadAddress();
    const { error } = await search(databaseAt([dead, first], { database: 'absent' }));
    expect(error).toBeInstanceOf(SourceError);
    const { message, advice, cause } = error as SourceError;
    expect(message).toBe(
      `Cannot find the primary: no server answers (127.0.0.1:${dead.port}: no process listens there (ECONNREFUSED), ` +
        `127.0.0.1:${first.port}: the database does not exist (SQLSTATE 3D000))`,
    );
    expect(advice).toMatch(/^Check host and port of the database.*; Correct `database` in the configuration$/);
    expect((cause as AggregateError).errors).toHaveLength(2);
  });

  test('takes the first of equals, and warns that two accept writes', async () => {
    for (const [hosts, others] of [
      [[first, second], second],
      [[promoted, second, first], first],
    ] as const) {
      const { port, lines } = await search(databaseAt(hosts));
      const followed = hosts.find((server) => server !== promoted)!;
      expect(port).toBe(followed.port);
      expect(lines).toEqual([
        expect.objectContaining({
          level: 'warn',
          followed: `127.0.0.1:${followed.port}`,
          others: [`127.0.0.1:${others.port}`],
        }),
      ]);
    }
  });

  test('takes the highest timeline wherever it stands, as after a failover whose old primary came back', async () => {
    const admin = promoted.sql('postgres', { max: 1 });
    try {
      await admin`SELECT pg_promote()`;
    } finally {
      await admin.end();
    }
    for (const hosts of [
      [first, promoted],
      [promoted, first],
    ]) {
      const { port, lines } = await search(databaseAt(hosts));
      expect(port).toBe(promoted.port);
      expect(lines).toEqual([expect.objectContaining({ level: 'warn', others: [`127.0.0.1:${first.port}`] })]);
    }
  });

  test('ends with the reason of the signal, before and while it asks', async () => {
    const stop = new AbortController();
    const connected = Promise.withResolvers<void>();
    const mute = createServer(() => connected.resolve());
    await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = mute.address() as { port: number };
      const options = { applicationName: NAME, log: silent, signal: stop.signal };
      const database = databaseAt([first, { host: '127.0.0.1', port }]);
      const searching = findPrimary(database, options).catch((error: unknown) => error);
      await connected.promise;
      const reason = new Error('stop');
      const abortedAt = performance.now();
      stop.abort(reason);
      expect(await searching).toBe(reason);
      // Less than it would wait for the server that says nothing.
      expect(performance.now() - abortedAt).toBeLessThan(2000);
      expect(await findPrimary(database, options).catch((error: unknown) => error)).toBe(reason);
    } finally {
      mute.close();
    }
  });
});
