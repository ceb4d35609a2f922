/** Replication commands other than START_REPLICATION, each on a short-lived connection: SQL has no functions for them. */
import type { DatabaseEndpoint } from '../../config/config.ts';
import { within } from '../../deadline.ts';
import { connectReplication } from '../client/connect.ts';
import { OwnedConnection } from '../client/owned-connection.ts';

/** For connecting, logging in and the command, none of which waits for other sessions. */
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
  using connection = new OwnedConnection(connectReplication, endpoint, { applicationName });
  return await within(timeoutMs, 'run a replication command', connection.sql.unsafe(command));
}
