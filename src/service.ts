/** Runs all slots of one configuration side by side, and the HTTP listener that reports on them. */
import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import type { Config } from './config/config.ts';
import { runSlot } from './slot/runner.ts';
import { startHttpListener } from './status/http.ts';
import { SlotStatus } from './status/slot-status.ts';

/** Options of `runService`. */
export interface ServiceOptions {
  readonly version: string;
  readonly log: Logger;
}

/**
 * Follows every slot until the signal; resolves when all of them are closed.
 * @throws NotifierError when `http.port` is in use or `http.host` is not an address of this machine
 */
export async function runService(config: Config, options: ServiceOptions, stopSignal: AbortSignal): Promise<void> {
  const { version, log } = options;
  // By slot name alone, as a server may have several names: the advice that uses this is to drop slots.
  const configuredSlots = new Set(config.streams.map((stream) => stream.slot));
  const slots = config.streams.map((stream) => ({
    stream,
    status: new SlotStatus({
      database: stream.databaseRef,
      slot: stream.slot,
      namespaces: stream.namespaces.keys(),
    }),
  }));
  const statuses = slots.map(({ status }) => status);
  await using stack = new AsyncDisposableStack();
  if (config.http !== undefined) {
    stack.adopt(startHttpListener({ config: config.http, statuses, version, log }), (listener) => listener.stop());
  }
  const instance = randomUUID();
  await Promise.all(
    slots.map(({ stream, status }) =>
      runSlot(
        {
          config,
          stream,
          instance,
          isConfiguredSlot: (slot) => configuredSlots.has(slot),
          status,
          log: log.child({ database: stream.databaseRef, slot: stream.slot }),
        },
        stopSignal,
      ),
    ),
  );
}
