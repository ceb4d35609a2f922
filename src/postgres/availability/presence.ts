/**
 * Which configurations of a slot are alive: each process shows its own by a shared advisory lock on its control connection,
 * which every role sees in pg_locks, and which ends with the connection.
 */
import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import type { OwnedConnection } from '../client/owned-connection.ts';

const LOOK_INTERVAL_MS = 250;
/** pg_locks: an advisory lock of two keys. */
const TWO_KEYS = 2;

/** What a process shows. */
export interface Presence {
  readonly slot: string;
  /** `configurationId` */
  readonly configuration: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Shows the configuration on every connection that the client opens, soon after it is open. Ends with the signal. */
export async function keepPresent(
  control: Pick<OwnedConnection, 'sql' | 'socket'>,
  { slot, configuration, log, signal }: Presence,
): Promise<void> {
  let shownOn: Socket | undefined;
  let isReported = false;
  while (!signal.aborted) {
    // Only a connection that another query has opened: that query then gets the error of a refused login.
    const { socket } = control;
    if (socket !== undefined && !socket.destroyed && socket !== shownOn) {
      const error = await lock(control.sql, slot, configuration).then(
        () => undefined,
        (cause: unknown) => ({ cause }),
      );
      shownOn = socket;
      if (error !== undefined && !socket.destroyed && !isReported && !signal.aborted) {
        isReported = true;
        log.warn(
          { event: 'configuration_not_shown', error: error.cause },
          'other processes do not see the configuration of this one: grant EXECUTE ON FUNCTION pg_try_advisory_lock_shared(int, int)',
        );
      }
    }
    await sleep(LOOK_INTERVAL_MS, undefined, { signal, ref: false }).catch(() => {});
  }
}

async function lock(control: Sql, slot: string, configuration: string): Promise<void> {
  await control`SELECT pg_try_advisory_lock_shared(${slotKey(slot) | 0}::int, ${configurationKey(configuration) | 0}::int)`;
}

/** The configurations of all processes of the slot that are connected, this one included. */
export async function readPresent(control: Sql, slot: string): Promise<ReadonlySet<string>> {
  const rows = await control<{ key: string }[]>`
    SELECT DISTINCT lpad(to_hex(objid::int8), 8, '0') AS key
    FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = ${TWO_KEYS} AND classid::int8 = ${slotKey(slot)}
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
  return new Set(rows.map(({ key }) => key));
}

function slotKey(slot: string): number {
  return createHash('sha256').update(`cdc-notifier ${slot}`).digest().readUInt32BE();
}

function configurationKey(configuration: string): number {
  return Number.parseInt(configuration, 16);
}
