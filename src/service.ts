/** All slots of one configuration, side by side. */
import type { Logger } from 'pino';
import type { Config, DatabaseConfig } from './config/config.ts';
import { runSlot } from './delivery/slot-runner.ts';

/** Follows every slot until the signal; resolves when all of them are closed. */
export async function runService(config: Config, log: Logger, stopSignal: AbortSignal): Promise<void> {
  await Promise.all(
    config.streams.map((stream) =>
      runSlot(
        {
          config,
          stream,
          isConfiguredSlot: (slot) =>
            config.streams.some((other) => other.slot === slot && isSameServer(other.database, stream.database)),
          log: log.child({ database: stream.databaseRef, slot: stream.slot }),
        },
        stopSignal,
      ),
    ),
  );
}

/** Slot names belong to a server, not to a database. */
function isSameServer(one: DatabaseConfig, other: DatabaseConfig): boolean {
  return one.host === other.host && one.port === other.port;
}
