/**
 * Copies of a failover slot on the standbys of its server. A standby keeps those up to date that it has synchronized itself
 * (`synced`); a server that was the primary before keeps its own one, at its old position, and a fail-back to it goes on there.
 * Source: PostgreSQL manual, "Replication Slot Synchronization".
 */
import { formatAddress } from '../../config/address.ts';
import type { DatabaseConfig, DatabaseEndpoint } from '../../config/config.ts';
import { within } from '../../deadline.ts';
import { connectControl } from '../client/connect.ts';
import { OwnedConnection } from '../client/owned-connection.ts';

/** For connecting, logging in and answering together */
const ANSWER_TIMEOUT_MS = 3_000;

/** A copy that is not kept up to date. */
export interface StaleCopy {
  /** `host:port` of the standby */
  readonly address: string;
  /** Where a stream would go on, as text */
  readonly confirmedFlushLsn: string;
}

/** Asks every other server of a database, 17 or newer, for its copy of a slot. One that does not answer has none to report. */
export async function findStaleCopies(
  database: DatabaseConfig,
  {
    slot,
    followed,
    applicationName,
  }: {
    readonly slot: string;
    readonly followed: DatabaseEndpoint;
    /** Shown in pg_stat_activity */
    readonly applicationName: string;
  },
): Promise<StaleCopy[]> {
  const { hosts, ...common } = database;
  const others = hosts.filter((address) => formatAddress(address) !== formatAddress(followed));
  const copies = await Promise.allSettled(
    others.map((address) => readStaleCopy({ ...common, ...address }, { slot, applicationName })),
  );
  return copies.flatMap((copy) => (copy.status === 'fulfilled' && copy.value !== undefined ? [copy.value] : []));
}

async function readStaleCopy(
  endpoint: DatabaseEndpoint,
  { slot, applicationName }: { readonly slot: string; readonly applicationName: string },
): Promise<StaleCopy | undefined> {
  using connection = new OwnedConnection(connectControl, endpoint, {
    applicationName,
    connectTimeoutMs: ANSWER_TIMEOUT_MS,
  });
  const query = connection.sql<{ lsn: string }[]>`
    SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots
    WHERE slot_name = ${slot} AND NOT synced AND confirmed_flush_lsn IS NOT NULL AND pg_is_in_recovery()`;
  const [row] = await within(ANSWER_TIMEOUT_MS, 'ask the standby', query);
  return row && { address: formatAddress(endpoint), confirmedFlushLsn: row.lsn };
}
