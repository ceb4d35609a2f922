/** Start-up of a slot on real servers: what is created and in which order, what is changed, what is refused. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import type { Sql } from 'postgres';
import { LossError, SetupError, SlotInUseError } from '../../../src/errors.ts';
import { parseLsn } from '../../../src/lsn.ts';
import { readPublishing } from '../../../src/postgres/catalog/publications.ts';
import { connectReplication, startCopyBoth } from '../../../src/postgres/client/connect.ts';
import { sqlStateOf } from '../../../src/postgres/client/errors.ts';
import { publicationNames, quoteIdentifier, quoteTable } from '../../../src/postgres/client/quote.ts';
import { readLedger } from '../../../src/postgres/continuity/ledger.ts';
import { describePublicationHazards } from '../../../src/postgres/hazards/publication-hazards.ts';
import { advanceSlot, createSlot, createStatement, dropSlotSql } from '../../../src/postgres/setup/create-slot.ts';
import { isPublicationMissing } from '../../../src/slot/missing-publication.ts';
import { type PostgresMajor, type PostgresServer, startPostgres } from '../../support/postgres/server.ts';
import { createTables, databaseEndpoint, openSetupFixture } from '../../support/postgres/setup-fixture.ts';
import { waitFor } from '../../support/process/wait.ts';

/** Names that go wrong when they are not quoted; the last two together have the longest tables. */
const ODD_NAMESPACES = ['default/default', 'Invoice', `O'Brien "the" \\ 1`, 'счёт', 'a_b', 'ж'.repeat(26)];

async function replicaIdentity(admin: Sql, table: string): Promise<string> {
  const [row] = await admin`SELECT relreplident FROM pg_class WHERE relname = ${table}`;
  return row!.relreplident;
}

async function refused(attempt: Promise<unknown>): Promise<SetupError> {
  const error = await attempt.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SetupError);
  return error as SetupError;
}

/** The statements of an advice: its text after the first colon and space. */
function adviceSql(error: SetupError): string {
  return error.advice!.slice(error.advice!.indexOf(': ') + 2);
}

/** Of the publication of namespace `ns`. */
async function hazardsOf(control: Sql, major: PostgresMajor): Promise<readonly string[]> {
  return describePublicationHazards(['ns'], await readPublishing(control, ['ns'], major));
}

/** A client that runs `action` after each query that matches, before its caller goes on. */
function afterQuery(sql: Sql, pattern: RegExp, action: () => Promise<void>): Sql {
  return new Proxy(sql, {
    apply(target, _this, parameters: [TemplateStringsArray, ...unknown[]]) {
      const query = Reflect.apply(target as unknown as (...args: unknown[]) => Promise<unknown>, undefined, parameters);
      if (!Array.isArray(parameters[0]) || !pattern.test(parameters[0].join('?'))) return query;
      return query.then(async (rows) => {
        await action();
        return rows;
      });
    },
  });
}

describe.each([14, 17, 18] as const)('prepareSlot on PostgreSQL %d', (major: PostgresMajor) => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await startPostgres({ major });
  }, 120_000);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  });

  test('creates identity, publication, marker and slot for oddly named namespaces, and then changes nothing', async () => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    for (const namespace of ODD_NAMESPACES) await createTables(admin, namespace);

    const first = await fixture.prepare('slot_odd', ODD_NAMESPACES);

    const [truth] = await admin`
      SELECT c.system_identifier, s.confirmed_flush_lsn, s.plugin, s.temporary FROM pg_control_system() c,
        pg_replication_slots s WHERE s.slot_name = 'slot_odd'`;
    const publications = await admin`SELECT pubname, oid::int4 AS oid FROM pg_publication`;
    expect(first).toEqual({
      systemIdentifier: truth!.system_identifier,
      databaseOid: expect.any(Number) as unknown as number,
      serverVersionNumber: expect.any(Number) as unknown as number,
      timeline: 1,
      serverMajor: major,
      role: 'postgres',
      walSenderTimeoutMs: 60_000,
      currentLsn: expect.any(BigInt) as unknown as bigint,
      confirmedFlushLsn: parseLsn(truth!.confirmed_flush_lsn),
      publications: ODD_NAMESPACES.map((name) => ({
        name,
        oid: publications.find((row) => row.pubname === name)!.oid,
        entryOids: [expect.any(Number), expect.any(Number)] as unknown as number[],
        tables: expect.any(Map) as unknown as Map<number, string>,
        statusLabels: expect.any(Array) as unknown as string[],
        createdAtLsn: expect.any(BigInt) as unknown as bigint,
      })),
      renewedPublications: [],
      isPartial: false,
      storedLedger: undefined,
      nextLedger: {
        systemIdentifier: truth!.system_identifier,
        timeline: 1,
        instance: 'instance of the test',
        revision: 1,
        fromLsn: first.confirmedFlushLsn,
        confirmedLsn: first.confirmedFlushLsn,
        deliveredLsn: first.confirmedFlushLsn,
        closed: false,
        publicationOids: new Map(first.publications.map(({ name, oid }) => [name, oid])),
        entryOids: new Map(first.publications.map(({ name, entryOids }) => [name, entryOids])),
        left: new Map(),
        clusterIds: new Map(),
        configurations: ['0badc0de'],
        watchedLsn: first.confirmedFlushLsn,
        acceptedLsn: undefined,
      },
    });
    expect(truth).toMatchObject({ plugin: 'pgoutput', temporary: false });
    for (const { name, createdAtLsn } of first.publications) {
      expect(await replicaIdentity(admin, `${name}_processes`)).toBe('f');
      expect(createdAtLsn! < first.confirmedFlushLsn).toBe(true);
      const tables = await admin`SELECT tablename FROM pg_publication_tables WHERE pubname = ${name} ORDER BY 1`;
      expect(tables.map((row) => row.tablename)).toEqual([`${name}_events`, `${name}_processes`]);
    }

    fixture.log.length = 0;
    const storedLedger = first.nextLedger;
    expect(await fixture.prepare('slot_odd', ODD_NAMESPACES)).toEqual({
      ...first,
      currentLsn: expect.any(BigInt) as unknown as bigint,
      storedLedger,
      nextLedger: { ...storedLedger, revision: 2 },
    });
    expect(await readLedger(fixture.control, 'slot_odd')).toEqual(storedLedger);
    expect(fixture.log).toEqual([]);
    const walBefore = await admin`SELECT xmin, relreplident FROM pg_class WHERE relname = 'Invoice_processes'`;
    await fixture.prepare('slot_odd', ODD_NAMESPACES);
    expect(await admin`SELECT xmin, relreplident FROM pg_class WHERE relname = 'Invoice_processes'`).toEqual(walBefore);

    // The names must also be right on the way to pgoutput.
    for (const namespace of ODD_NAMESPACES) {
      await admin.unsafe(`INSERT INTO ${quoteTable(`${namespace}_processes`)} VALUES ('p', 'running', NULL)`);
    }
    const messages = await admin`
      SELECT chr(get_byte(data, 0)) AS tag FROM pg_logical_slot_peek_binary_changes('slot_odd', NULL, NULL,
        'proto_version', '1', 'publication_names', ${publicationNames(ODD_NAMESPACES)})`;
    expect(messages.filter((row) => row.tag === 'I').length).toBe(ODD_NAMESPACES.length);
  });

  test('adds a namespace to an existing slot: its marker is a message in the WAL at createdAtLsn, its rows follow', async () => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    await createTables(admin, 'old');
    await createTables(admin, 'new/ns');
    await fixture.prepare('slot_grow', ['old']);
    await admin`INSERT INTO old_processes VALUES ('before', 'running', NULL)`;
    await admin`INSERT INTO "new/ns_processes" VALUES ('before', 'running', NULL)`;

    // A transaction of another namespace that is open while the publication comes into being.
    const straddler = await admin.reserve();
    await straddler`BEGIN`;
    await straddler`INSERT INTO old_processes VALUES ('straddling', 'running', NULL)`;
    const preparing = fixture.prepare('slot_grow', ['old', 'new/ns']);
    if (major <= 17) {
      await waitFor(
        'empty publication',
        async () => (await admin`SELECT FROM pg_publication WHERE pubname = 'new/ns'`).length,
      );
      expect((await admin`SELECT FROM pg_publication_tables WHERE pubname = 'new/ns'`).length).toBe(0);
    } else {
      await preparing;
    }
    await straddler`COMMIT`;
    straddler.release();
    const prepared = await preparing;
    await admin`INSERT INTO "new/ns_processes" VALUES ('after', 'running', NULL)`;

    const createdAtLsn = prepared.publications[1]!.createdAtLsn!;
    expect(createdAtLsn > prepared.confirmedFlushLsn).toBe(true);
    const messages = await admin`
      SELECT lsn::text, data FROM pg_logical_slot_peek_binary_changes('slot_grow', NULL, NULL, 'proto_version', '1',
        'publication_names', ${publicationNames(['old'])}, 'messages', 'true')`;
    const marker = messages.find((row) => row.data[0] === 'M'.charCodeAt(0) && row.data.includes('new/ns'))!;
    expect(parseLsn(marker.lsn)).toBe(createdAtLsn);
    expect(marker.data.readBigUInt64BE(2)).toBe(createdAtLsn);
    expect(marker.data.subarray(10).toString('latin1')).toBe('cdc-notifier\0\0\0\0\u0006new/ns');

    // From the marker on, everything can be streamed with both publications.
    await admin`SELECT pg_replication_slot_advance('slot_grow', ${marker.lsn}::pg_lsn)`;
    const rows = await admin`
      SELECT data FROM pg_logical_slot_get_binary_changes('slot_grow', NULL, NULL, 'proto_version', '1',
        'publication_names', ${publicationNames(['old', 'new/ns'])})`;
    const inserted = rows.filter((row) => row.data[0] === 'I'.charCodeAt(0)).map((row) => row.data.toString('latin1'));
    expect(inserted.some((row) => row.includes('after'))).toBe(true);
    expect(inserted.some((row) => row.includes('before'))).toBe(false);
  });

  test('a slot whose namespaces are all new is advanced to the marker, and streams from there', async () => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    await createTables(admin, 'old');
    await createTables(admin, 'new');
    await fixture.prepare('slot_moved', ['old']);
    await admin`INSERT INTO old_processes VALUES ('before', 'running', NULL)`;
    const prepared = await fixture.prepare('slot_moved', ['new']);
    await admin`INSERT INTO new_processes VALUES ('after', 'running', NULL)`;
    const { createdAtLsn } = prepared.publications[0]!;

    await advanceSlot(fixture.control, 'slot_moved', createdAtLsn!);

    expect((await fixture.prepare('slot_moved', ['new'])).confirmedFlushLsn).toBe(createdAtLsn!);
    const rows = await admin`
      SELECT data FROM pg_logical_slot_get_binary_changes('slot_moved', NULL, NULL, 'proto_version', '1',
        'publication_names', ${publicationNames(['new'])})`;
    const inserted = rows.filter((row) => row.data[0] === 'I'.charCodeAt(0)).map((row) => row.data.toString('latin1'));
    expect(inserted).toEqual([expect.stringContaining('after')]);
  });

  test('identity, publication and marker become visible together, the identity first in the WAL', async () => {
    await using fixture = await openSetupFixture(server);
    await createTables(fixture.admin, 'one');
    await fixture.prepare('slot_one', ['one']);
    const [row] = await fixture.admin`
      SELECT p.xmin AS publication, c.xmin AS identity, d.xmin AS comment FROM pg_publication p, pg_class c, pg_description d
      WHERE c.relname = 'one_processes' AND d.objoid = p.oid AND d.classoid = 'pg_publication'::regclass`;
    expect(row).toEqual({ publication: row!.identity, identity: row!.identity, comment: row!.identity });
  });

  test('the mark of a publication that was restored into another database of the server is none', async () => {
    await using fixture = await openSetupFixture(server);
    await using restored = await openSetupFixture(server);
    await createTables(fixture.admin, 'ns');
    await createTables(restored.admin, 'ns');
    await fixture.prepare('slot_dumped', ['ns']);
    const [row] =
      await fixture.admin`SELECT obj_description(oid, 'pg_publication') AS mark FROM pg_publication WHERE pubname = 'ns'`;
    await restored.admin`CREATE PUBLICATION ns FOR TABLE public.ns_processes, public.ns_events`;
    await restored.admin.unsafe(`COMMENT ON PUBLICATION ns IS '${row!.mark}'`);
    const prepared = await restored.prepare('slot_restored', ['ns']);
    expect(prepared.publications[0]!.createdAtLsn).toBeUndefined();
  });

  test('sets the replica identity for a publication that an operator created, and warns of the consequence', async () => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    await createTables(admin, 'ns');
    await admin`CREATE PUBLICATION ns FOR TABLE public.ns_processes, public.ns_events`;
    const prepared = await fixture.prepare('slot_ns', ['ns']);
    expect(prepared.publications[0]!.createdAtLsn).toBeUndefined();
    expect(await replicaIdentity(admin, 'ns_processes')).toBe('f');
    expect(fixture.log.filter((line) => line.level === 'warn')).toEqual([
      expect.objectContaining({
        namespace: 'ns',
        table: 'ns_processes',
        msg: expect.stringContaining('on_missing_old_tuple'),
      }),
    ]);
    await admin`ALTER TABLE ns_processes REPLICA IDENTITY DEFAULT`;
    await fixture.prepare('slot_ns', ['ns']);
    expect(await replicaIdentity(admin, 'ns_processes')).toBe('f');
  });

  const modern = major >= 15;
  describe('with a status index', () => {
    const STATUS_INDEX = { replicaIdentity: 'status_index', publishColumns: 'all' } as const;
    const NEEDED = { replicaIdentity: 'status_index', publishColumns: 'needed' } as const;
    const update = (admin: Sql) => admin`UPDATE ns_processes SET status = 'error', detail = 'x' WHERE process_id = 'p'`;
    const openScene = async () => {
      const fixture = await openSetupFixture(server);
      // Start-up names all columns that records are made of.
      await createTables(fixture.admin, 'ns');
      await fixture.script(`ALTER TABLE ns_events ADD "timestamp" timestamptz, ADD metadata jsonb, ADD task_id int8;
        ALTER TABLE ns_processes ADD aux_state bytea; INSERT INTO ns_processes VALUES ('p', 'running')`);
      return fixture;
    };
    /** Each statement by itself, as an index that is built beside writers has it. */
    const runAdvice = async (admin: Sql, error: SetupError) => {
      for (const statement of adviceSql(error).split(/(?<=;) /)) await admin.unsafe(statement);
    };
    const listOf = async (admin: Sql, table: string) => {
      const [row] = await admin`
        SELECT (SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
          WHERE attrelid = prrelid AND attnum = ANY (prattrs::int2[])) AS columns
        FROM pg_publication_rel WHERE prrelid = ${table}::regclass`;
      return row!.columns as string | null;
    };

    test('refuses a table without one before anything is created, with SQL that corrects it', async () => {
      await using fixture = await openScene();
      const { admin } = fixture;
      const error = await refused(fixture.prepare('slot_ns', ['ns'], { publishing: STATUS_INDEX }));
      expect(error.message).toContain('neither an index over process_id and status nor FULL');
      expect(error.place).toMatchObject({ namespace: 'ns', table: 'ns_processes' });
      expect(await admin`SELECT FROM pg_publication`).toHaveLength(0);
      await runAdvice(admin, error);
      await fixture.prepare('slot_ns', ['ns'], { publishing: STATUS_INDEX });
      expect(await replicaIdentity(admin, 'ns_processes')).toBe('i');
      expect(fixture.log.filter((line) => line.level === 'warn')).toEqual([]);
      await update(admin);
    });

    test('refuses the primary key as the index, and one that includes the status without its being of the key', async () => {
      await using fixture = await openScene();
      const { admin } = fixture;
      await admin`CREATE UNIQUE INDEX including ON ns_processes (process_id) INCLUDE (status)`;
      for (const index of ['ns_processes_pkey', 'including']) {
        await admin`ALTER TABLE ns_processes REPLICA IDENTITY USING INDEX ${admin(index)}`;
        await refused(fixture.prepare('slot_ns', ['ns'], { publishing: STATUS_INDEX }));
      }
    });

    test('continues with FULL, and warns that nothing is gained', async () => {
      await using fixture = await openScene();
      await fixture.prepare('slot_ns', ['ns']);
      fixture.log.length = 0;
      await fixture.prepare('slot_ns', ['ns'], { publishing: modern ? NEEDED : STATUS_INDEX });
      expect(fixture.log.map(({ level, msg }) => [level, msg])).toEqual([
        ['warn', expect.stringContaining('replica identity of processes is FULL')],
      ]);
      expect(await replicaIdentity(fixture.admin, 'ns_processes')).toBe('f');
      await update(fixture.admin);
    });

    test('reports an index that was dropped, by which all updates fail, and the remedy', async () => {
      await using fixture = await openScene();
      const { admin } = fixture;
      await runAdvice(admin, await refused(fixture.prepare('slot_ns', ['ns'], { publishing: STATUS_INDEX })));
      await fixture.prepare('slot_ns', ['ns'], { publishing: STATUS_INDEX });
      await admin`DROP INDEX ns_identity`;
      await update(admin).then(
        () => expect.unreachable(),
        (error) => expect(error.code).toBe('55000'),
      );
      const hazards = await hazardsOf(fixture.control, major);
      expect(hazards).toEqual([expect.stringContaining('neither FULL nor an index')]);
      const error = await refused(fixture.prepare('slot_ns', ['ns'], { publishing: STATUS_INDEX }));
      expect(error.message).toContain('PostgreSQL refuses all updates and deletes');
      await runAdvice(admin, error);
      await update(admin);
      await fixture.prepare('slot_ns', ['ns'], { publishing: STATUS_INDEX });
    });

    if (!modern) {
      test('refuses column lists on a server that has none', async () => {
        await using fixture = await openScene();
        const error = await refused(fixture.prepare('slot_ns', ['ns'], { publishing: NEEDED }));
        expect(error.message).toContain('has no column lists');
        expect(error.advice).toContain('publish_columns');
      });
      return;
    }

    test('publishes the needed columns alone, all again without the setting, and no update is ever refused', async () => {
      await using fixture = await openScene();
      const { admin } = fixture;
      await runAdvice(admin, await refused(fixture.prepare('slot_ns', ['ns'], { publishing: NEEDED })));
      const listed = await fixture.stream('slot_ns', ['ns'], { publishing: NEEDED });
      expect(await listOf(admin, 'ns_processes')).toBe('process_id status detail');
      expect(await listOf(admin, 'ns_events')).toBe('process_id event_id payload timestamp metadata');
      await update(admin);
      const whole = await fixture.stream('slot_ns', ['ns'], { remembered: listed, publishing: STATUS_INDEX });
      expect(await listOf(admin, 'ns_processes')).toBeNull();
      await update(admin);
      const again = await fixture.stream('slot_ns', ['ns'], { remembered: whole, publishing: NEEDED });
      await update(admin);
      await fixture.stream('slot_ns', ['ns'], { remembered: again });
      expect([await listOf(admin, 'ns_processes'), await listOf(admin, 'ns_events')]).toEqual([null, null]);
      expect(await replicaIdentity(admin, 'ns_processes')).toBe('f');
      await update(admin);
    });

    test("accepts an operator's publication whose lists hold what is needed, and changes one whose lists do not", async () => {
      await using fixture = await openScene();
      const { admin } = fixture;
      await runAdvice(admin, await refused(fixture.prepare('slot_ns', ['ns'], { publishing: NEEDED })));
      await fixture.script(`CREATE PUBLICATION ns FOR TABLE ns_processes (process_id, status, detail, aux_state),
        ns_events (event_id, process_id, payload, metadata, "timestamp")`);
      await fixture.prepare('slot_ns', ['ns'], { publishing: NEEDED });
      expect(await listOf(admin, 'ns_processes')).toBe('process_id status detail aux_state');
      await fixture.script('ALTER PUBLICATION ns SET TABLE ns_processes (process_id, status), ns_events');
      await admin`SELECT pg_drop_replication_slot('slot_ns')`;
      await admin.unsafe(`DROP PUBLICATION "cdc-notifier:slot_ns"`).catch(() => {});
      await fixture.prepare('slot_ns', ['ns'], { publishing: NEEDED });
      expect(await listOf(admin, 'ns_processes')).toBe('process_id status detail');
    });

    test('finds lists by which updates fail since FULL was set, and removes them', async () => {
      await using fixture = await openScene();
      const { admin } = fixture;
      await runAdvice(admin, await refused(fixture.prepare('slot_ns', ['ns'], { publishing: NEEDED })));
      const remembered = await fixture.stream('slot_ns', ['ns'], { publishing: NEEDED });
      await admin`ALTER TABLE ns_processes REPLICA IDENTITY FULL`;
      await update(admin).then(
        () => expect.unreachable(),
        (error) => expect(error.code).toBe('42P10'),
      );
      const hazards = await hazardsOf(fixture.control, major);
      expect(hazards).toEqual([expect.stringContaining('so that updates and deletes fail')]);
      await fixture.prepare('slot_ns', ['ns'], { remembered, publishing: NEEDED });
      await update(admin);
    });
  });

  const EXCESS = [
    ['another table', 'ADD TABLE other_events'],
    ...(modern ? [['a schema', 'ADD TABLES IN SCHEMA public']] : []),
  ];
  test.each(EXCESS)(
    'removes %s from its own publication, and leaves it in one of another program',
    async (_, addition) => {
      await using fixture = await openSetupFixture(server);
      const { admin } = fixture;
      for (const name of ['ns', 'foreign', 'other']) await createTables(admin, name);
      await fixture.prepare('slot_ns', ['ns']);
      await admin`CREATE PUBLICATION "foreign" FOR TABLE foreign_processes WITH (publish = 'insert, truncate')`;
      for (const name of ['ns', 'foreign']) await admin.unsafe(`ALTER PUBLICATION "${name}" ${addition}`);
      const tablesIn = async (name: string) =>
        (await admin`SELECT tablename FROM pg_publication_tables WHERE pubname = ${name} ORDER BY 1`).map(
          (row) => row.tablename,
        );
      await fixture.prepare('slot_ns', ['ns', 'foreign']);
      expect(await tablesIn('ns')).toEqual(['ns_events', 'ns_processes']);
      expect(await tablesIn('foreign')).toEqual(
        expect.arrayContaining(['foreign_events', 'foreign_processes', 'other_events']),
      );
      const [row] =
        await admin`SELECT pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = 'foreign'`;
      expect(row).toEqual({ pubinsert: true, pubupdate: true, pubdelete: true, pubtruncate: true });
    },
  );

  test.each([
    ['lacks a table', 'CREATE PUBLICATION ns FOR TABLE ns_events'],
    ['holds nothing', 'CREATE PUBLICATION ns'],
    ['lacks operations', `CREATE PUBLICATION ns FOR TABLE ns_events, ns_processes WITH (publish = 'insert, truncate')`],
    ...(modern
      ? [
          ['has a row filter', `CREATE PUBLICATION ns FOR TABLE ns_events, ns_processes WHERE (process_id > 'a')`],
          ['has a column list', 'CREATE PUBLICATION ns FOR TABLE ns_events (process_id, event_id), ns_processes'],
        ]
      : []),
  ])('changes a publication that %s', async (_, statement) => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    await createTables(admin, 'ns');
    await createTables(admin, 'other');
    await admin.unsafe(statement!);
    await fixture.prepare('slot_ns', ['ns']);
    const tables = await admin`SELECT tablename FROM pg_publication_tables WHERE pubname = 'ns' ORDER BY 1`;
    expect(tables.map((row) => row.tablename)).toEqual(['ns_events', 'ns_processes']);
    const [publication] = await admin`
      SELECT pubinsert, pubupdate, pubdelete FROM pg_publication WHERE pubname = 'ns'`;
    expect(publication).toEqual({ pubinsert: true, pubupdate: true, pubdelete: true });
    if (modern) {
      const [plain] = await admin`
        SELECT (SELECT count(*)::int4 FROM pg_publication_rel WHERE prqual IS NULL AND prattrs IS NULL) AS tables,
          (SELECT count(*)::int4 FROM pg_publication_namespace) AS schemas`;
      expect(plain).toEqual({ tables: 2, schemas: 0 });
    }
    fixture.log.length = 0;
    await fixture.prepare('slot_ns', ['ns']);
    expect(fixture.log).toEqual([]);
  });

  test('refuses FOR ALL TABLES with SQL that corrects it', async () => {
    await using fixture = await openSetupFixture(server);
    await createTables(fixture.admin, 'ns');
    await fixture.admin`CREATE PUBLICATION ns FOR ALL TABLES`;
    const error = await refused(fixture.prepare('slot_ns', ['ns']));
    expect(error.message).toContain('FOR ALL TABLES');
    await fixture.script(adviceSql(error));
    await fixture.prepare('slot_ns', ['ns']);
  });

  if (major <= 17) {
    test('leads an operator through two steps for a namespace of an existing slot: no open transaction is passed over', async () => {
      await using fixture = await openSetupFixture(server);
      const { admin } = fixture;
      for (const name of ['old', 'new']) await createTables(admin, name);
      await fixture.prepare('slot_two', ['old']);
      const role = `reader ${fixture.database}`;
      await admin.unsafe(`CREATE ROLE ${quoteIdentifier(role)} LOGIN REPLICATION`);
      const endpoint = databaseEndpoint(server, fixture.database, role);
      const prepare = () => fixture.prepare('slot_two', ['old', 'new'], { control: fixture.connectAs(role), endpoint });
      const writer = await admin.reserve();
      await writer`BEGIN`;
      await writer`SELECT pg_current_xact_id()`;

      const first = await refused(prepare());
      expect(adviceSql(first)).toMatch(/^CREATE PUBLICATION "new" WITH [^;]*;$/);
      await fixture.script(adviceSql(first));
      expect(await refused(prepare())).toMatchObject({ code: 'open_transactions' });
      await writer`COMMIT`;
      writer.release();
      const second = await refused(prepare());
      expect(adviceSql(second)).toContain('ALTER PUBLICATION "new" SET TABLE');
      await fixture.script(adviceSql(second));
      expect((await prepare()).publications[1]!.createdAtLsn).toBeDefined();
    }, 60_000);
  }

  test('refuses a role without REPLICATION, and one without ownership with SQL that corrects it', async () => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    const namespace = `Owner's "ns"/1`;
    const role = `reader ${fixture.database}`;
    await createTables(admin, namespace);
    await createTables(admin, 'ready');
    await admin.unsafe(`CREATE ROLE ${quoteIdentifier(role)} LOGIN`);
    const control = fixture.connectAs(role);

    const endpoint = databaseEndpoint(server, fixture.database, role);
    const withoutReplication = await refused(fixture.prepare('slot_role', [namespace], { control, endpoint }));
    expect(withoutReplication).toMatchObject({ code: 'replication_privilege' });
    await fixture.script(adviceSql(withoutReplication));

    const withoutOwnership = await refused(fixture.prepare('slot_role', [namespace], { control }));
    expect(withoutOwnership.message).toContain('may not create publication');
    expect(withoutOwnership.place).toEqual({ database: 'main', slot: 'slot_role', namespace });
    expect((await admin`SELECT FROM pg_publication`).length).toBe(0);
    await fixture.script(adviceSql(withoutOwnership));
    const prepared = await fixture.prepare('slot_role', [namespace], { control });
    expect(prepared.publications[0]!.createdAtLsn! < prepared.confirmedFlushLsn).toBe(true);
    expect(await replicaIdentity(admin, `${namespace}_processes`)).toBe('f');

    await admin.unsafe(`ALTER TABLE ${quoteTable(`${namespace}_processes`)} REPLICA IDENTITY DEFAULT`);
    const identity = await refused(fixture.prepare('slot_role', [namespace], { control }));
    expect(identity.message).toContain('replica identity');
    await fixture.script(adviceSql(identity));
    await fixture.prepare('slot_role', [namespace], { control });

    await admin.unsafe(
      `ALTER PUBLICATION ${quoteIdentifier(namespace)} SET TABLE ${quoteTable(`${namespace}_events`)}`,
    );
    // This role has no ledger to show that the slot was streamed with it.
    const contents = await refused(fixture.prepare('slot_role', [namespace], { control }));
    expect(contents.message).toContain('may not change publication');
    await fixture.script(adviceSql(contents));
    await fixture.prepare('slot_role', [namespace], { control });

    // Also where the slot exists and the new publication would come in two steps: nothing is left over.
    await refused(fixture.prepare('slot_role', ['ready'], { control }));
    expect((await admin`SELECT FROM pg_publication`).length).toBe(1);
  });

  test('refuses missing, partitioned and unlogged tables and an events table that could not be published safely', async () => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    const none = await refused(fixture.prepare('slot_t', ['none']));
    expect(none.message).toBe('Cannot prepare slot: table public."none_processes" does not exist');
    expect(none.place).toEqual({ database: 'main', slot: 'slot_t', namespace: 'none', table: 'none_processes' });

    await admin`CREATE TABLE part_processes (process_id text PRIMARY KEY) PARTITION BY HASH (process_id)`;
    expect((await refused(fixture.prepare('slot_t', ['part']))).message).toContain('is a partitioned table');

    await admin`CREATE UNLOGGED TABLE fast_processes (process_id text PRIMARY KEY)`;
    const unlogged = await refused(fixture.prepare('slot_t', ['fast']));
    expect(unlogged.advice).toContain('ALTER TABLE public."fast_processes" SET LOGGED;');

    await createTables(admin, 'bare');
    await admin`ALTER TABLE bare_events DROP CONSTRAINT bare_events_pkey`;
    const bare = await refused(fixture.prepare('slot_t', ['bare']));
    expect(bare.message).toContain('updates and deletes fail');
    await fixture.script(adviceSql(bare));
    await fixture.prepare('slot_t', ['bare']);

    // A table of that name in another schema is not ours.
    await admin.unsafe(`CREATE SCHEMA s; CREATE TABLE s.away_processes (process_id text PRIMARY KEY)`);
    expect((await refused(fixture.prepare('slot_t', ['away']))).message).toContain('does not exist');
  });

  test('refuses slots that are physical, of another plugin or database, or temporary', async () => {
    await using fixture = await openSetupFixture(server);
    await using other = await openSetupFixture(server);
    const { admin } = fixture;
    await createTables(admin, 'ns');
    await other.admin`SELECT pg_create_logical_replication_slot('slot_elsewhere', 'pgoutput')`;
    expect((await refused(fixture.prepare('slot_elsewhere', ['ns']))).message).toContain(
      `belongs to database "${other.database}", not to "${fixture.database}"`,
    );
    await admin`SELECT pg_create_physical_replication_slot('slot_physical')`;
    expect((await refused(fixture.prepare('slot_physical', ['ns']))).message).toContain('is a physical slot');
    await admin`SELECT pg_drop_replication_slot('slot_physical')`;
    const session = await admin.reserve();
    await session`SELECT pg_create_logical_replication_slot('slot_temporary', 'pgoutput', true)`;
    expect((await refused(fixture.prepare('slot_temporary', ['ns']))).message).toContain('is temporary');
    await session`SELECT pg_drop_replication_slot('slot_temporary')`;
    session.release();
    expect((await admin`SELECT FROM pg_publication`).length).toBe(0);
  });

  test('gives up DDL that waits for a long query within its lock timeout, names the session, and works afterwards', async () => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    await createTables(admin, 'ns');
    const reader = await admin.reserve();
    await reader`SET application_name = 'long report'`;
    const [{ pid }] = (await reader`SELECT pg_backend_pid() AS pid`) as unknown as [{ pid: number }];
    await reader`BEGIN`;
    await reader`SELECT count(*) FROM ns_processes /* a secret of the query */`;
    const startedAt = performance.now();
    const error = await refused(fixture.prepare('slot_ns', ['ns']));
    expect(performance.now() - startedAt).toBeLessThan(6_000);
    expect(error.message).toMatch(
      new RegExp(
        `^Cannot prepare slot: tables of namespace "ns" are locked by pid ${pid} \\(database ${fixture.database}, user postgres, ` +
          'application long report, idle in transaction, transaction open for \\d+ s\\)$',
      ),
    );
    expect(await replicaIdentity(admin, 'ns_processes')).toBe('d');
    await reader`COMMIT`;
    reader.release();
    await fixture.prepare('slot_ns', ['ns']);
  });

  test('a publication is not created beside an open transaction that wrote to processes, whose row it would leave out', async () => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    await createTables(admin, 'ns');
    await admin`ALTER TABLE ns_processes REPLICA IDENTITY FULL`;
    const writer = await admin.reserve();
    await writer`BEGIN`;
    await writer`INSERT INTO ns_processes VALUES ('p', 'running', NULL)`;
    const error = await refused(fixture.prepare('slot_ns', ['ns']));
    expect(error.message).toContain('are locked by');
    await writer`COMMIT`;
    writer.release();
    await fixture.prepare('slot_ns', ['ns']);
  });

  test('in a cycle of locks with a writer, the writer continues', async () => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    await createTables(admin, 'ns');
    const writer = await admin.reserve();
    await writer`BEGIN`;
    await writer`LOCK TABLE ns_events IN ROW EXCLUSIVE MODE`;
    const preparing = refused(fixture.prepare('slot_ns', ['ns']));
    await waitFor('the identity is being set', async () => {
      const locks = await admin`
        SELECT FROM pg_locks WHERE relation = 'ns_events'::regclass AND NOT granted AND mode = 'ShareRowExclusiveLock'`;
      return locks.length > 0;
    });
    // Waits for the ACCESS EXCLUSIVE lock that the service holds on processes, which waits for this transaction.
    await writer`INSERT INTO ns_processes VALUES ('p', 'running', NULL)`;
    await writer`COMMIT`;
    writer.release();
    expect((await preparing).message).toContain('are locked by');
  });

  test('says which transaction the creation of a slot waits for, prepared ones and other databases included', async () => {
    await using fixture = await openSetupFixture(server);
    await using other = await openSetupFixture(server);
    await createTables(fixture.admin, 'ns');
    await other.admin`CREATE TABLE t (i int)`;
    const writer = await other.admin.reserve();
    await writer`SET application_name = 'importer'`;
    await writer`BEGIN`;
    await writer`INSERT INTO t VALUES (1)`;
    await fixture.script(`BEGIN; CREATE TABLE x (i int); PREPARE TRANSACTION 'left behind'`);
    const create = () =>
      createSlot(fixture.control, createStatement('slot_waits', { failover: false, role: 'postgres' }), {
        place: { slot: 'slot_waits' },
        maxReplicationSlots: 20,
        timeoutMs: 300,
      });
    const error = await refused(create());
    expect(error.message).toContain(
      `(database ${other.database}, user postgres, application importer, idle in transaction`,
    );
    expect(error.message).toContain(`prepared transaction left behind (database ${fixture.database}`);
    await writer`ROLLBACK`;
    writer.release();
    await fixture.admin.unsafe(`ROLLBACK PREPARED 'left behind'`);
    await create();
    await create();
    expect((await fixture.admin`SELECT FROM pg_replication_slots WHERE slot_name = 'slot_waits'`).length).toBe(1);
  });

  test('two slots, and two attempts for one slot, prepared at once do not collide', async () => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    const namespaces = ['a', 'b', 'c'];
    for (const namespace of namespaces) await createTables(admin, namespace);
    const attempt = (slot: string) => fixture.prepare(slot, namespaces, { control: fixture.connectAs('postgres') });
    const results = await Promise.allSettled([
      attempt('slot_x'),
      attempt('slot_x'),
      attempt('slot_y'),
      attempt('slot_y'),
    ]);
    // Locks, or the slot being created, may make one attempt give up; the next one succeeds.
    for (const result of results) {
      if (result.status === 'fulfilled' || result.reason instanceof SlotInUseError) continue;
      expect(result.reason).toBeInstanceOf(SetupError);
    }
    const [x, y] = [await attempt('slot_x'), await attempt('slot_y')];
    expect(x.publications).toEqual(y.publications);
    expect((await admin`SELECT FROM pg_publication WHERE pubname IN ${admin(namespaces)}`).length).toBe(3);
  });

  test('a slot that another process creates between two looks of a first attempt is no loss', async () => {
    await using fixture = await openSetupFixture(server);
    await createTables(fixture.admin, 'a');
    let meanwhile: Promise<unknown> | undefined;
    // The other process prepares the slot when this one has looked for it, and before it looks at anything else.
    const control = afterQuery(fixture.connectAs('postgres'), /FROM pg_replication_slots, \(/, async () => {
      meanwhile ??= fixture.prepare('slot_a', ['a'], { instance: 'other' });
      await meanwhile;
    });
    const attempt = await fixture.prepare('slot_a', ['a'], { control }).catch((error: unknown) => error);
    expect(meanwhile).toBeDefined();
    expect(attempt).not.toBeInstanceOf(LossError);
    await fixture.prepare('slot_a', ['a']);
  });

  // From PostgreSQL 18 on the publication is created with its tables, and the later attempt collides with its name.
  if (major <= 17) {
    test('a publication that another process marks meanwhile keeps its mark', async () => {
      await using fixture = await openSetupFixture(server);
      for (const namespace of ['a', 'b']) await createTables(fixture.admin, namespace);
      await fixture.prepare('slot_a', ['a']);
      let marked: string | undefined;
      const mark = async () => {
        const [row] = await fixture.admin`
          SELECT obj_description(oid, 'pg_publication') AS comment FROM pg_publication WHERE pubname = 'b'`;
        return row!.comment;
      };
      // The other process prepares the namespace when this one has found its publication without tables.
      const control = afterQuery(fixture.connectAs('postgres'), /FROM pg_locks l/, async () => {
        if (marked !== undefined) return;
        await fixture.prepare('slot_a', ['a', 'b'], { instance: 'other' });
        marked = await mark();
      });
      const outcome = await fixture.prepare('slot_a', ['a', 'b'], { control }).catch((error: unknown) => error);
      expect(outcome).toBeInstanceOf(SlotInUseError);
      expect(marked).toMatch(/created at/);
      expect(await mark()).toBe(marked);
    });
  }

  test('a slot that is missing with its ledger, although its publications are there, is created with a warning', async () => {
    await using fixture = await openSetupFixture(server);
    await createTables(fixture.admin, 'invoice');
    await fixture.prepare('slot_failed_over', ['invoice']);
    await fixture.script(dropSlotSql('slot_failed_over'));
    expect(fixture.log.filter(({ level }) => level === 'warn')).toEqual([]);
    await fixture.prepare('slot_failed_over', ['invoice']);
    expect(fixture.log.filter(({ level }) => level === 'warn')).toEqual([
      expect.objectContaining({ publications: ['invoice'], msg: expect.stringContaining('created replication slot') }),
    ]);
  });

  test('warns of slots that hold WAL without a reader, and prints what drops them only for those of this service', async () => {
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    await createTables(admin, 'ns');
    await fixture.prepare('slot_left', ['ns'], { isConfiguredSlot: () => true });
    for (const slot of ['slot_foreign', 'slot_known', 'slot_ns']) {
      await admin`SELECT pg_create_logical_replication_slot(${slot}, 'pgoutput')`;
    }
    const isConfiguredSlot = (slot: string) => slot !== 'slot_left' && slot !== 'slot_foreign';
    await fixture.prepare('slot_ns', ['ns'], { isConfiguredSlot });
    expect(fixture.log.filter((line) => line.level === 'warn' && line.abandonedSlot !== undefined)).toEqual([
      expect.objectContaining({
        abandonedSlot: 'slot_foreign',
        retainedWalBytes: expect.any(Number),
        ...(major >= 17 ? { inactiveSince: expect.stringMatching(/^20\d\d-\d\d-\d\dT/) } : {}),
        advice: expect.not.stringContaining('pg_drop_replication_slot'),
      }),
      expect.objectContaining({ abandonedSlot: 'slot_left', advice: dropSlotSql('slot_left') }),
    ]);
  });

  test('refuses a slot with two_phase, whose prepared transactions it could not read', async () => {
    await using fixture = await openSetupFixture(server);
    await createTables(fixture.admin, 'ns');
    await fixture.admin`SELECT pg_create_logical_replication_slot('slot_ns', 'pgoutput', false, true)`;
    await expect(fixture.prepare('slot_ns', ['ns'])).rejects.toMatchObject({
      name: 'SetupError',
      code: 'slot_two_phase',
    });
  });

  test('startCopyBoth rejects with the refusal of the server, and wal_sender_timeout can be asked for on its connection', async () => {
    await using fixture = await openSetupFixture(server);
    await createTables(fixture.admin, 'ns');
    await fixture.prepare('slot_ns', ['ns']);
    const config = databaseEndpoint(server, fixture.database);
    const replication = connectReplication(config, { applicationName: 'cdc-notifier slot_ns' });
    try {
      const [setting] = await replication.unsafe('SHOW wal_sender_timeout');
      expect(setting?.wal_sender_timeout).toBe('1min');
      const start = (slot: string) =>
        startCopyBoth(
          replication,
          `START_REPLICATION SLOT ${slot} LOGICAL 0/0 (proto_version '1', publication_names '"ns"', binary 'true', messages 'true')`,
        );
      const absent = await start('slot_absent').catch((error: unknown) => error);
      expect([sqlStateOf(absent), isPublicationMissing(absent)]).toEqual(['42704', false]);
      const stream = await start('slot_ns');
      const received = Promise.withResolvers<Buffer>();
      stream.on('data', (chunk: Buffer) => {
        if (chunk[0] === 'w'.charCodeAt(0)) received.resolve(chunk);
      });
      await fixture.admin`INSERT INTO ns_processes VALUES ('p', 'running', NULL)`;
      expect((await received.promise)[25]).toBe('B'.charCodeAt(0));
      const [sender] =
        await fixture.admin`SELECT application_name FROM pg_stat_replication WHERE pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'slot_ns')`;
      expect(sender).toEqual({ application_name: 'cdc-notifier slot_ns' });
    } finally {
      await replication.end({ timeout: 0 });
    }
  });
});

describe('prepareSlot on a server that is not ready for it', () => {
  test('refuses wal_level replica', async () => {
    await using server = await startPostgres({ settings: { wal_level: 'replica' } });
    await using fixture = await openSetupFixture(server);
    await createTables(fixture.admin, 'ns');
    const error = await refused(fixture.prepare('slot_ns', ['ns']));
    expect(error.message).toBe('Cannot prepare slot: wal_level is replica, and must be logical');
    expect(error.advice).toContain('ALTER SYSTEM SET wal_level = logical;');
    expect((await fixture.admin`SELECT FROM pg_publication`).length).toBe(0);
  });

  test('refuses when all slots or all WAL senders are in use, and continues when one is free', async () => {
    await using server = await startPostgres({ settings: { max_replication_slots: '2', max_wal_senders: '1' } });
    await using fixture = await openSetupFixture(server);
    const { admin } = fixture;
    await createTables(admin, 'ns');
    for (const slot of ['one', 'two']) await admin`SELECT pg_create_logical_replication_slot(${slot}, 'pgoutput')`;
    expect((await refused(fixture.prepare('slot_ns', ['ns']))).message).toBe(
      'Cannot prepare slot: all 2 replication slots of the server are in use',
    );
    await admin`SELECT pg_drop_replication_slot('two')`;

    const replication = connectReplication(databaseEndpoint(server, fixture.database), { applicationName: 'other' });
    try {
      await admin`CREATE PUBLICATION any_publication`;
      const stream = await startCopyBoth(
        replication,
        `START_REPLICATION SLOT one LOGICAL 0/0 (proto_version '1', publication_names 'any_publication')`,
      );
      stream.resume();
      const error = await refused(fixture.prepare('slot_ns', ['ns']));
      expect(error.message).toBe('Cannot prepare slot: all 1 WAL senders of the server are in use');
    } finally {
      await replication.end({ timeout: 0 });
    }
    await waitFor('sender gone', async () => (await admin`SELECT FROM pg_stat_replication`).length === 0);
    await fixture.prepare('slot_ns', ['ns']);
  });
});
