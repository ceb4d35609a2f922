/**
 * A physical standby of a test server: a base backup by file copy (the packages have no pg_basebackup), then streaming
 * through a physical slot, which keeps WAL until the standby has it.
 * Source: https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP
 */
import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sql } from 'postgres';
import { waitFor } from '../process/wait.ts';
import { type PostgresServer, startPostgresOn, writeSettings } from './server.ts';

/** Options of `startStandby`. */
export interface StandbyOptions {
  /** Name of its physical slot on the primary and its application_name; default `standby` */
  readonly name?: string | undefined;
  /** Synchronizes logical slots that have `failover`; PostgreSQL 17 and later, where it is the default */
  readonly slotSync?: boolean | undefined;
  /** Settings that override those of the primary */
  readonly settings?: Readonly<Record<string, string>> | undefined;
}

/** A running standby; disposal stops it and removes its data. Its slot on the primary stays. */
export interface PostgresStandby extends PostgresServer {
  /** Its physical slot on the primary, for `synchronized_standby_slots` */
  readonly slotName: string;
  /** Resolves when it has replayed everything that the primary has written by now */
  catchUp(): Promise<void>;
  /** Resolves when the logical slot here would survive a promotion and is confirmed at `confirmedLsn` (text) or later */
  waitForSyncedSlot(slot: string, confirmedLsn?: string): Promise<void>;
  /** Promotes it to a primary on a new timeline; resolves when it accepts writes. The caller must stop the old primary */
  promote(): Promise<void>;
}

/** Starts a standby of a running primary; resolves when it streams and accepts queries. */
export async function startStandby(primary: PostgresServer, options: StandbyOptions = {}): Promise<PostgresStandby> {
  const slotName = options.name ?? 'standby';
  const slotSync = options.slotSync ?? primary.major >= 17;
  const onPrimary = primary.sql('postgres', { max: 1 });
  try {
    const server = await startPostgresOn(primary.major, async (dataDirectory, port) => {
      await onPrimary`SELECT pg_create_physical_replication_slot(${slotName}, immediately_reserve => true)`;
      await backUp(onPrimary, { primary, dataDirectory });
      const address = `host=${primary.host} port=${primary.port} user=${primary.superuser} password=${primary.password}`;
      await writeSettings(dataDirectory, {
        port: String(port),
        // Slot synchronization reads catalogs and needs a database; streaming ignores it.
        primary_conninfo: `${address} application_name=${slotName}${slotSync ? ' dbname=postgres' : ''}`,
        primary_slot_name: slotName,
        hot_standby_feedback: 'on',
        wal_retrieve_retry_interval: '100ms',
        wal_receiver_status_interval: '1s',
        ...(slotSync ? { sync_replication_slots: 'on' } : {}),
        ...options.settings,
      });
      await writeFile(join(dataDirectory, 'standby.signal'), '');
    });
    return await followed(server, { primary, slotName });
  } finally {
    await onPrimary.end();
  }
}

/** Waits until the standby streams and adds its methods. */
async function followed(
  server: PostgresServer,
  { primary, slotName }: { readonly primary: PostgresServer; readonly slotName: string },
): Promise<PostgresStandby> {
  const ask = async <T>(of: PostgresServer, query: (sql: Sql) => Promise<T>): Promise<T> => {
    const sql = of.sql('postgres', { max: 1 });
    try {
      return await query(sql);
    } finally {
      await sql.end();
    }
  };
  const standby: PostgresStandby = Object.assign(server, {
    slotName,
    async catchUp() {
      const lsn = await ask(primary, async (sql) => (await sql`SELECT pg_current_wal_lsn()::text AS lsn`)[0]?.lsn);
      await ask(server, (sql) =>
        waitFor(`the standby at ${lsn}`, async () => {
          const [row] = await sql`SELECT pg_last_wal_replay_lsn() >= ${lsn}::pg_lsn AS reached`;
          return row?.reached === true;
        }),
      );
    },
    async waitForSyncedSlot(slot: string, confirmedLsn = '0/0') {
      await ask(server, (sql) =>
        waitFor(
          `slot ${slot} on the standby (see ${server.logFile})`,
          async () => {
            // A promotion drops slots that are still temporary.
            const slots = await sql`SELECT FROM pg_replication_slots WHERE slot_name = ${slot} AND synced
              AND NOT temporary AND invalidation_reason IS NULL AND confirmed_flush_lsn >= ${confirmedLsn}::pg_lsn`;
            return slots.length === 1;
          },
          { timeoutMs: 90_000, intervalMs: 100 },
        ),
      );
    },
    async promote() {
      await ask(server, async (sql) => {
        const [row] = await sql`SELECT pg_promote(true, 60) AS promoted`;
        if (row?.promoted !== true) throw new Error(`Cannot promote the standby, see ${server.logFile}`);
      });
    },
  });
  try {
    await ask(primary, (sql) =>
      waitFor(`a standby that streams (see ${server.logFile})`, async () => {
        const rows = await sql`SELECT FROM pg_replication_slots WHERE slot_name = ${slotName} AND active`;
        return rows.length === 1;
      }),
    );
    return standby;
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
}

/** Takes a base backup in one session, which must stay open until the backup ends. */
async function backUp(
  sql: Sql,
  { primary, dataDirectory }: { readonly primary: PostgresServer; readonly dataDirectory: string },
): Promise<void> {
  const isOld = primary.major < 15;
  await (isOld ? sql`SELECT pg_start_backup('standby', true, false)` : sql`SELECT pg_backup_start('standby', true)`);
  await copyTree(primary.dataDirectory, dataDirectory);
  const [stopped] = await (isOld
    ? sql`SELECT labelfile FROM pg_stop_backup(false, false)`
    : sql`SELECT labelfile FROM pg_backup_stop(false)`);
  await writeFile(join(dataDirectory, 'backup_label'), stopped?.labelfile as string);
}

/** Files that a copy must not have, and directories that it must have empty: they belong to the running server. */
const SKIPPED_FILES = ['postmaster.pid', 'postmaster.opts', 'standby.signal', 'backup_label'];
const SKIPPED_CONTENTS = [
  'pg_dynshmem',
  'pg_notify',
  'pg_replslot',
  'pg_serial',
  'pg_snapshots',
  'pg_stat_tmp',
  'pg_subtrans',
];

/** Copies a data directory while the server writes to it: files may vanish meanwhile. */
async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) {
      if (SKIPPED_CONTENTS.includes(entry.name)) await mkdir(target);
      else if (entry.name === 'pg_wal') await mkdir(join(target, 'archive_status'), { recursive: true });
      else await copyTree(source, target);
    } else if (!SKIPPED_FILES.includes(entry.name)) {
      await copyFile(source, target).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error;
      });
    }
  }
}
