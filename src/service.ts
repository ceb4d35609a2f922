/** All slots of one configuration, side by side. */
import type { Logger } from 'pino';
import type { Config } from './config/config.ts';
import { runSlot } from './delivery/slot-runner.ts';

/** Follows every slot until the signal; resolves when all of them are closed. */
export async function runService(config: Config, log: Logger, stopSignal: AbortSignal): Promise<void> {
  // By name alone: a server has many names, and the advice is to drop what is not configured.
  const configuredSlots = new Set(config.streams.map((stream) => stream.slot));
  await Promise.all(
    config.streams.map((stream) =>
      runSlot(
        {
          config,
          stream,
          isConfiguredSlot: (slot) => configuredSlots.has(slot),
          log: log.child({ database: stream.databaseRef, slot: stream.slot }),
        },
        stopSignal,
      ),
    ),
  );
}
