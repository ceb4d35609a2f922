import type { DatabaseEndpoint } from '../../config/config.ts';
import { SQL_STATE, sqlStateOf } from '../client/errors.ts';
import { runReplicationCommand } from './command.ts';

/** Why there is no replication connection: the role may not open one, or a pooler answers that passes none on. */
export interface WalsenderRefusal {
  readonly reason: 'privilege' | 'pooler';
  readonly cause: unknown;
}

/** How a pooler answers: it does not know the start parameter `replication`, or it passes a command on as SQL. */
const POOLER_ANSWERS: readonly (string | undefined)[] = [SQL_STATE.protocolViolation, SQL_STATE.syntaxError];

/**
 * Opens a replication connection and asks who answers. The server decides who may replicate; managed ones have rules of
 * their own.
 * @returns the refusal, if it is one
 * @throws what driver and server raise otherwise
 */
export async function tryWalsender(endpoint: DatabaseEndpoint, slot: string): Promise<WalsenderRefusal | undefined> {
  try {
    await runReplicationCommand(endpoint, {
      command: 'IDENTIFY_SYSTEM',
      applicationName: `cdc-notifier ${slot} check`,
    });
    return undefined;
  } catch (cause) {
    const state = sqlStateOf(cause);
    if (state === SQL_STATE.insufficientPrivilege) return { reason: 'privilege', cause };
    if (POOLER_ANSWERS.includes(state)) return { reason: 'pooler', cause };
    throw cause;
  }
}
