/** Replication commands that are no stream, each on a short-lived connection: there is no SQL function for them. */
import type { Socket } from 'node:net';
import type { DatabaseEndpoint } from '../../config/config.ts';
import { SourceError } from '../../errors.ts';
import { connectReplication } from '../client/connect.ts';

/** For connecting, logging in and the command, none of which waits for anybody. */
const TIMEOUT_MS = 15_000;

/** Runs one command and returns its rows. @throws SourceError when it takes too long, and what driver and server raise */
export async function runReplicationCommand(
  endpoint: DatabaseEndpoint,
  {
    command,
    applicationName,
    timeoutMs = TIMEOUT_MS,
  }: { readonly command: string; readonly applicationName: string; readonly timeoutMs?: number | undefined },
): Promise<readonly Record<string, unknown>[]> {
  let socket: Socket | undefined;
  let isOver = false;
  const replication = connectReplication(endpoint, {
    applicationName,
    onSocket: (opened) => {
      socket = opened;
      if (!isOver) return;
      // Nobody else would close it, and its walsender would stay. The error keeps the driver from trying again.
      opened.destroy();
      throw new SourceError('Cannot run a replication command: its time is over');
    },
  });
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new SourceError(`Cannot run a replication command: no answer within ${timeoutMs} ms`)),
    timeoutMs,
  );
  try {
    return await Promise.race([replication.unsafe(command), late.promise]);
  } finally {
    isOver = true;
    clearTimeout(timer);
    socket?.destroy();
  }
}
