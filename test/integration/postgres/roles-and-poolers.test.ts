/** Who may replicate, as the server decides it, and connections that end in a pooler. Real servers. */
import { describe, expect, test } from 'bun:test';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { PostgresServer } from '../../support/postgres/server.ts';
import { tablesOf } from '../../support/progressor/tables.ts';
import { useKafka, usePostgres } from '../../support/service/file-servers.ts';
import {
  openStreamFixture,
  type StreamFixture,
  type StreamFixtureOptions,
  writeProcess,
} from '../../support/service/stream-fixture.ts';

const NS = 'orders';
const TIMEOUT_MS = 120_000;

const kafka = useKafka();

/** Starts the service as this role, at this port. */
function startAs(fixture: StreamFixture, postgres: PostgresServer, { username, port = postgres.port }: Login) {
  const database = { host: postgres.host, port, database: fixture.database, username, password: 'none' };
  return fixture.start({ settings: { databases: { [fixture.database]: database } } });
}
interface Login {
  readonly username: string;
  readonly port?: number;
}

/** What a start may leave behind: publications, slots, and a replica identity other than the default. */
async function leftBehind(fixture: StreamFixture): Promise<readonly unknown[]> {
  return await fixture.sql`
    SELECT pubname::text AS name FROM pg_publication
    UNION ALL SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()
    UNION ALL SELECT relname::text FROM pg_class WHERE relname = ${tablesOf(NS).processes} AND relreplident <> 'd'`;
}

/** The parameters of a start-up message, in pairs. */
function startParameters(message: Buffer): string[] {
  return message.toString('utf8', 8, message.length - 2).split('\0');
}

function startMessage(parameters: readonly string[]): Buffer {
  const body = Buffer.from(`${parameters.join('\0')}\0\0`);
  const head = Buffer.alloc(8);
  head.writeInt32BE(8 + body.length);
  head.writeInt32BE(3 << 16, 4);
  return Buffer.concat([head, body]);
}

/** PgBouncer as it answers to a start parameter that it does not know. */
function refuseParameters(client: Socket): void {
  const fields = 'SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: search_path\0\0';
  const head = Buffer.from('E\0\0\0\0');
  head.writeInt32BE(4 + fields.length, 1);
  client.end(Buffer.concat([head, Buffer.from(fields)]));
}

/** A pooler that passes on what it knows, with `ignore_startup_parameters` for the rest, `replication` among it. */
async function startPooler(postgres: PostgresServer, kind: 'refuses' | 'ignores') {
  const known = ['user', 'database', 'client_encoding', 'application_name'];
  const pooler = createServer(async (client) => {
    client.on('error', () => {});
    const [first] = (await once(client, 'data')) as [Buffer];
    const parameters = startParameters(first);
    const pairs = parameters.flatMap((key, index) => (index % 2 === 0 ? [[key, parameters[index + 1]!] as const] : []));
    if (kind === 'refuses' && pairs.some(([key]) => !known.includes(key))) return refuseParameters(client);
    const server = connect(postgres.port, postgres.host);
    server.on('error', () => {});
    server.write(startMessage(pairs.filter(([key]) => known.includes(key)).flat()));
    client.pipe(server).pipe(client);
  });
  pooler.listen(0, '127.0.0.1');
  await once(pooler, 'listening');
  return { port: (pooler.address() as AddressInfo).port, [Symbol.dispose]: () => void pooler.close() };
}

describe.each([14, 18] as const)('on PostgreSQL %d', (major) => {
  const postgres = usePostgres(major);
  const openFixture = (options: Partial<StreamFixtureOptions> = {}) =>
    openStreamFixture({ postgres: postgres(), kafka: kafka(), slots: { one: [NS] }, ...options });

  test(
    'a role whose default role owns the tables streams with its own right to replicate',
    async () => {
      await using fixture = await openFixture();
      const { sql, database } = fixture;
      await sql.unsafe('CREATE ROLE app_owner NOLOGIN; CREATE ROLE v_app LOGIN REPLICATION IN ROLE app_owner');
      await sql.unsafe('ALTER ROLE v_app SET role TO app_owner');
      await sql.unsafe(`ALTER DATABASE ${database} OWNER TO app_owner`);
      for (const table of Object.values(tablesOf(NS))) await sql.unsafe(`ALTER TABLE ${table} OWNER TO app_owner`);
      const service = startAs(fixture, postgres(), { username: 'v_app' });
      await fixture.confirmed('one');
      const record = await writeProcess(fixture, NS, 'p');
      await fixture.confirmed('one');
      expect(await fixture.emitted(NS)).toEqual([record]);
      expect(service.failures()).toEqual([]);
      const [row] = await sql`SELECT pg_get_userbyid(pubowner) AS owner FROM pg_publication WHERE pubname = ${NS}`;
      expect(row!.owner).toBe('app_owner');
      await service.stop();
      await sql.unsafe(`ALTER DATABASE ${database} OWNER TO ${postgres().superuser}`);
      await sql.unsafe('REASSIGN OWNED BY app_owner TO CURRENT_USER; DROP ROLE v_app; DROP ROLE app_owner');
    },
    TIMEOUT_MS,
  );

  test(
    'a role that the server lets open no replication connection is named, and nothing is created',
    async () => {
      await using fixture = await openFixture();
      const { sql } = fixture;
      await sql.unsafe('CREATE ROLE plain LOGIN');
      await sql.unsafe(`GRANT CREATE ON DATABASE ${fixture.database} TO plain`);
      for (const table of Object.values(tablesOf(NS))) await sql.unsafe(`ALTER TABLE ${table} OWNER TO plain`);
      const service = startAs(fixture, postgres(), { username: 'plain' });
      expect(await service.waitForFailure(fixture.slot('one'), 2)).toMatchObject({
        code: 'replication_privilege',
        message: expect.stringContaining('role plain'),
        advice: expect.stringContaining('ALTER ROLE "plain" REPLICATION;'),
      });
      expect(await leftBehind(fixture)).toEqual([]);
      await service.stop();
      await sql.unsafe('REASSIGN OWNED BY plain TO CURRENT_USER; DROP OWNED BY plain; DROP ROLE plain');
    },
    TIMEOUT_MS,
  );

  test.each([
    ['refuses', { code: 'configuration', advice: expect.stringContaining('PostgreSQL itself') }],
    ['ignores', { code: 'connection_pooler', advice: expect.stringContaining('PostgreSQL itself') }],
  ] as const)(
    'a pooler that %s start parameters is named, and nothing is created',
    async (kind, expected) => {
      await using fixture = await openFixture();
      using pooler = await startPooler(postgres(), kind);
      const service = startAs(fixture, postgres(), { username: postgres().superuser, port: pooler.port });
      expect(await service.waitForFailure(fixture.slot('one'), 2)).toMatchObject(expected);
      expect(await leftBehind(fixture)).toEqual([]);
      await service.stop();
    },
    TIMEOUT_MS,
  );
});
