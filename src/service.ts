/** All slots of one configuration, side by side, and the listener that tells of them. */
import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import type { Config } from './config/config.ts';
import { runSlot } from './slot/runner.ts';
import { startHttpListener } from './status/http.ts';
import { SlotStatus } from './status/slot-status.ts';

/** What the service is given beside its configuration. */
export interface ServiceOptions {
  readonly version: string;
  readonly log: Logger;
}

/**
 * Follows every slot until the signal; resolves when all of them are closed.
 * @throws NotifierError when nobody can listen at `http.host` and `http.port`
 */
export async function runService(config: Config, options: ServiceOptions, stopSignal: AbortSignal): Promise<void> {
  const { version, log } = options;
  // By name alone: a server has many names, and the advice is to drop what is not configured.
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
