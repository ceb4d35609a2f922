/** The fixture of a start-up test: a database of its own and the service's connections to it. */
import type { Sql } from 'postgres';
import type { DatabaseEndpoint, PublishSettings, SlotSettings } from '../../../src/config/config.ts';
import { textSecret } from '../../../src/config/secret.ts';
import { parseLsn } from '../../../src/lsn.ts';
import { connectControl } from '../../../src/postgres/client/connect.ts';
import { quoteTable } from '../../../src/postgres/client/quote.ts';
import type { SlotLedger } from '../../../src/postgres/continuity/ledger.ts';
import { claimSlot } from '../../../src/postgres/setup/claim-slot.ts';
import { type PreparedSlot, prepareSlot, type SetupRequest } from '../../../src/postgres/setup/prepare-slot.ts';
import { waitFor } from '../process/wait.ts';
import { type LogLine, recordingLogger } from '../service/recording-logger.ts';
import type { PostgresServer } from './server.ts';

/** A database of its own, a superuser's client for preparations, and the service's connection. */
export interface SetupFixture extends AsyncDisposable {
  readonly database: string;
  readonly endpoint: DatabaseEndpoint;
  readonly admin: Sql;
  readonly control: Sql;
  readonly log: LogLine[];
  /** Runs several statements, also with transactions of their own */
  script(text: string): Promise<void>;
  connectAs(role: string): Sql;
  prepare(slot: string, namespaces: readonly string[], options?: PrepareOptions): Promise<PreparedSlot>;
  /** Takes the slot as a session does and confirms everything committed; returns the ledger that the process remembers */
  stream(slot: string, namespaces: readonly string[], options?: PrepareOptions): Promise<SlotLedger>;
  /** The same database on another server: the standby of this one */
  on(server: PostgresServer): SetupFixture;
}

/** What differs from a process that has just started with default settings. */
export interface PrepareOptions {
  readonly control?: Sql;
  /** Of the role of `control`, for replication connections */
  readonly endpoint?: DatabaseEndpoint | undefined;
  readonly isConfiguredSlot?: SetupRequest['isConfiguredSlot'];
  readonly remembered?: SlotLedger | undefined;
  readonly isLedgerRefused?: boolean;
  readonly instance?: string;
  readonly settings?: Partial<SlotSettings>;
  /** For every namespace */
  readonly publishing?: Partial<PublishSettings>;
}

const WHOLE_ROWS: PublishSettings = { replicaIdentity: 'full', publishColumns: 'all' };

let fixtureCount = 0;

/** Creates a database whose name needs quotes. */
export async function openSetupFixture(server: PostgresServer): Promise<SetupFixture> {
  fixtureCount += 1;
  const database = `fixture ${fixtureCount}`;
  await server.createDatabase(database);
  return fixtureOn(server, database);
}

/** Creates progressor's tables with the columns that start-up looks at. */
export async function createTables(admin: Sql, namespace: string, extra = ''): Promise<void> {
  const processes = quoteTable(`${namespace}_processes`);
  await admin.unsafe(`
    CREATE TABLE ${processes} (process_id varchar(256) PRIMARY KEY, status text NOT NULL, detail text) ${extra};
    CREATE TABLE ${quoteTable(`${namespace}_events`)} (
      process_id varchar(256) NOT NULL REFERENCES ${processes}, event_id smallint NOT NULL, payload bytea NOT NULL,
      PRIMARY KEY (process_id, event_id));`);
}

/** Connection settings of a test database for one role. */
export function databaseEndpoint(server: PostgresServer, database: string, username = 'postgres'): DatabaseEndpoint {
  const password = textSecret(server.password);
  return { ref: 'main', host: server.host, port: server.port, database, username, password, tls: undefined };
}

/** The connections of a fixture on a database that exists; its disposal drops the slots of the database. */
export function fixtureOn(server: PostgresServer, database: string): SetupFixture {
  const endpoint = databaseEndpoint(server, database);
  const admin = server.sql(database, { max: 4 });
  const { logger, lines } = recordingLogger();
  const controls: Sql[] = [];
  const connectAs = (role: string): Sql => {
    const control = connectControl(databaseEndpoint(server, database, role), {
      applicationName: 'cdc-notifier control',
    });
    controls.push(control);
    return control;
  };
  const control = connectAs('postgres');
  const prepare: SetupFixture['prepare'] = (slot, namespaces, options = {}) =>
    prepareSlot(options.control ?? control, {
      databaseRef: 'main',
      endpoint: options.endpoint ?? endpoint,
      slot,
      settings: { failover: false, acceptLossAfterLsn: undefined, ...options.settings },
      namespaces,
      publishing: new Map(namespaces.map((namespace) => [namespace, { ...WHOLE_ROWS, ...options.publishing }])),
      instance: options.instance ?? 'instance of the test',
      configuration: '0badc0de',
      remembered: options.remembered,
      isLedgerRefused: options.isLedgerRefused ?? false,
      isConfiguredSlot: options.isConfiguredSlot ?? (() => true),
      warnedSlots: new Set(),
      onSlotSeen: () => {},
      whyUndeliverable: async () => undefined,
      log: logger,
      signal: new AbortController().signal,
    });
  return {
    database,
    endpoint,
    admin,
    control,
    log: lines,
    async script(text) {
      const session = server.sql(database, { max: 1 });
      await session.unsafe(text).finally(() => session.end());
    },
    connectAs,
    prepare,
    async stream(slot, namespaces, options = {}) {
      const prepared = await prepare(slot, namespaces, options);
      await claimSlot(options.control ?? control, { slot, databaseRef: 'main', prepared });
      const [end] = await admin`SELECT pg_current_wal_lsn()::text AS lsn`;
      await admin`SELECT pg_replication_slot_advance(${slot}, ${end!.lsn}::pg_lsn)`;
      const [row] = await admin`
        SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = ${slot}`;
      return { ...prepared.nextLedger, confirmedLsn: parseLsn(row!.lsn) };
    },
    on: (other) => fixtureOn(other, database),
    async [Symbol.asyncDispose]() {
      await Promise.all([admin, ...controls].map((sql) => sql.end({ timeout: 0 })));
      if (server.pid === undefined) return;
      const cleaner = server.sql('postgres', { max: 1 });
      try {
        await waitFor('slots inactive', async () => {
          const slots = await cleaner`SELECT active FROM pg_replication_slots WHERE database = ${database}`;
          return slots.every((slot) => !slot.active);
        });
        await cleaner`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = ${database}`;
      } finally {
        await cleaner.end();
      }
    },
  };
}
