import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { DatabaseConfig, DatabaseEndpoint } from '../config/config.ts';
import { findStaleCopies, type StaleCopy } from '../postgres/availability/standby-copies.ts';
import { dropCopySql } from '../postgres/setup/create-slot.ts';
import type { SlotStatus } from '../status/slot-status.ts';
import type { SlotWarning } from '../status/slot-warnings.ts';

/** A former primary joins as a standby minutes after a failover, and a fail-back follows hours later */
const LOOK_INTERVAL_MS = 15_000;

/** Options of `watchStandbyCopies`. */
export interface StandbyCopiesOptions {
  readonly database: DatabaseConfig;
  /** The server that the slot is streamed from */
  readonly followed: DatabaseEndpoint;
  readonly slot: string;
  /** Shown in pg_stat_activity */
  readonly applicationName: string;
  readonly status: SlotStatus;
  readonly log: Logger;
  /** Ends the watch */
  readonly signal: AbortSignal;
}

/** Warns of standbys whose copy of a failover slot is an old one of their own. Resolves when the signal aborts. */
export async function watchStandbyCopies(options: StandbyCopiesOptions): Promise<void> {
  const { database, slot, status, log, signal } = options;
  if (database.hosts.length === 1) return;
  while (!signal.aborted) {
    const copies = await findStaleCopies(database, options);
    if (signal.aborted) return;
    status.warnings.update(
      'standbys',
      copies.map((copy) => staleCopyWarning(slot, copy)),
      log,
    );
    await sleep(LOOK_INTERVAL_MS, undefined, { signal, ref: false }).catch(() => {});
  }
}

/** The warning about a copy of a slot that a fail-back would go on with. */
export function staleCopyWarning(slot: string, { address, confirmedFlushLsn }: StaleCopy): SlotWarning {
  return {
    code: 'stale_slot_copy',
    subject: address,
    message:
      `The standby ${address} has a slot ${slot} of its own, from when it was the primary, and does not synchronize it: if it is ` +
      `promoted, everything since ${confirmedFlushLsn} is delivered again, or is a loss where its WAL is gone`,
    advice: `On ${address}: ${dropCopySql(slot)} It then synchronizes the slot of the primary`,
  };
}
