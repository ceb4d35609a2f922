import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import { waitUntilFree } from '../postgres/availability/slot-holder.ts';
import type { SlotStatus } from '../status/slot-status.ts';

/**
 * Stands by while another process streams from the slot: polls the slot's holder, shows it in the status, and does nothing
 * else. Resolves when the slot is free.
 */
export async function standBy(
  control: Sql,
  {
    slot,
    status,
    log,
    signal,
  }: {
    readonly slot: string;
    readonly status: SlotStatus;
    readonly log: Logger;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  await waitUntilFree(control, {
    slot,
    signal,
    onHolder: (holder) => {
      if (holder.pid !== status.holder?.pid) {
        log.info({ event: 'standing_by', ...holder }, 'another process streams from the slot, standing by');
      }
      status.holder = holder;
      status.enter('standby');
    },
  });
  status.holder = undefined;
  if (status.state !== 'standby') return;
  log.info({ event: 'taking_over' }, 'the slot is free, taking over');
  status.enter('starting');
}
