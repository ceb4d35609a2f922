/**
 * Of the servers that may hold a database the one to follow: the primary. Which one that is changes with every failover,
 * so it is asked anew for each attempt.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { formatAddress } from '../../config/address.ts';
import type { DatabaseConfig, DatabaseEndpoint } from '../../config/config.ts';
import { type NotifierError, SetupError, SourceError } from '../../errors.ts';
import { explainSourceError } from '../../failure-policy.ts';
import { connectControl } from '../client/connect.ts';

/** For connecting, logging in and answering together: a server that is gone must not hold up its successor for long. */
const ANSWER_TIMEOUT_MS = 3_000;

const WATCH_INTERVAL_MS = 15_000;

/** How to ask. */
export interface FindPrimaryOptions {
  /** Shown in pg_stat_activity */
  readonly applicationName: string;
  /** Takes a warning when more than one server can be written to */
  readonly log: Logger;
  /** Ends the search, which then rejects with its reason */
  readonly signal: AbortSignal;
}

/** What a server said of itself. */
interface Answer {
  readonly endpoint: DatabaseEndpoint;
  /** Undefined on a standby */
  readonly timeline: number | undefined;
}

/** Why a server said nothing. */
interface Failure {
  readonly endpoint: DatabaseEndpoint;
  readonly error: NotifierError;
}

/**
 * Finds the server that can be written to. A single address is returned unasked; of several all are asked at once, and
 * among those that can be written to the highest timeline wins: an old primary that came back after a failover has a
 * lower one than its successor. Equals are taken in the order of the list.
 * @throws SetupError when servers answer but all are standbys, SourceError when none answers
 */
export async function findPrimary(database: DatabaseConfig, options: FindPrimaryOptions): Promise<DatabaseEndpoint> {
  const { hosts, ...common } = database;
  const endpoints = hosts.map((address): DatabaseEndpoint => ({ ...common, ...address }));
  if (endpoints.length === 1) return endpoints[0]!;
  const answers: Answer[] = [];
  const failures: Failure[] = [];
  const settled = await askAll(endpoints, options);
  for (const [index, endpoint] of endpoints.entries()) {
    const result = settled[index]!;
    if (result.status === 'fulfilled') answers.push({ endpoint, timeline: result.value });
    else failures.push({ endpoint, error: explainSourceError(result.reason) });
  }
  const [primary, ...others] = answers
    .filter(({ timeline }) => timeline !== undefined)
    .sort((a, b) => b.timeline! - a.timeline!);
  if (primary === undefined) throw noPrimary(answers, failures);
  if (others.length > 0) {
    options.log.warn(
      { followed: formatAddress(primary.endpoint), others: others.map(({ endpoint }) => formatAddress(endpoint)) },
      'more than one server can be written to, the one of the highest timeline is followed; what is written to another one is not delivered',
    );
  }
  return primary.endpoint;
}

/** Asks each server for its timeline; all have the same time for it. @throws the reason of the signal */
async function askAll(endpoints: readonly DatabaseEndpoint[], { applicationName, signal }: FindPrimaryOptions) {
  signal.throwIfAborted();
  const ended = new AbortController();
  const stop = () => ended.abort(signal.reason);
  signal.addEventListener('abort', stop);
  const late = new SourceError(`Cannot ask the server: no answer within ${ANSWER_TIMEOUT_MS} ms`);
  const timer = setTimeout(() => ended.abort(late), ANSWER_TIMEOUT_MS);
  try {
    const settled = await Promise.allSettled(
      endpoints.map((endpoint) => readTimeline(endpoint, { applicationName, ended: ended.signal })),
    );
    signal.throwIfAborted();
    return settled;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
  }
}

/** The timeline that a server writes; undefined on a standby. */
async function readTimeline(
  endpoint: DatabaseEndpoint,
  { applicationName, ended }: { readonly applicationName: string; readonly ended: AbortSignal },
): Promise<number | undefined> {
  let socket: Socket | undefined;
  const control = connectControl(endpoint, {
    applicationName,
    connectTimeoutMs: ANSWER_TIMEOUT_MS,
    onSocket: (opened) => {
      socket = opened;
      if (!ended.aborted) return;
      // Nobody waits for it any more.
      opened.destroy();
      throw ended.reason;
    },
  });
  const overdue = new Promise<never>((_, reject) => {
    ended.addEventListener('abort', () => reject(ended.reason));
  });
  const ask = async () => {
    const [row] = await control`
      SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline`;
    return row!.timeline === null ? undefined : Number.parseInt(row!.timeline as string, 16);
  };
  try {
    return await Promise.race([ask(), overdue]);
  } finally {
    socket?.destroy();
  }
}

function noPrimary(standbys: readonly Answer[], failures: readonly Failure[]): SetupError | SourceError {
  const cause =
    failures.length === 0
      ? undefined
      : new AggregateError(
          failures.map(({ error }) => error),
          'Servers that did not answer',
        );
  const reasons = [
    ...standbys.map(({ endpoint }) => `${formatAddress(endpoint)} is a standby`),
    // The address takes the place of `Cannot ...`.
    ...failures.map(
      ({ endpoint, error }) => `${formatAddress(endpoint)}: ${error.message.replace(/^Cannot [^:]*: /, '')}`,
    ),
  ].join(', ');
  if (standbys.length > 0) {
    return new SetupError(`Cannot find the primary: no server can be written to (${reasons})`, {
      advice: 'Wait for the failover, or promote a standby; the primary must be in hosts of the database',
      cause,
      mayPass: true,
    });
  }
  const advice = [...new Set(failures.flatMap(({ error }) => error.advice ?? []))].join('; ');
  return new SourceError(`Cannot find the primary: no server answers (${reasons})`, {
    advice: advice === '' ? undefined : advice,
    cause,
  });
}

/**
 * Looks for the primary again and again while one is followed: an old primary that lives on apart from its successor is
 * as well as ever, and brings nothing. Resolves when the signal is given.
 * @throws SourceError when another server is to be followed
 */
export async function watchPrimary(
  database: DatabaseConfig,
  { followed, ...options }: FindPrimaryOptions & { readonly followed: DatabaseEndpoint },
): Promise<void> {
  const { signal } = options;
  if (database.hosts.length === 1) return;
  for (;;) {
    await sleep(WATCH_INTERVAL_MS, undefined, { signal, ref: false }).catch(() => {});
    if (signal.aborted) return;
    // Nobody to be found is no reason to leave the one that is there.
    const primary = await findPrimary(database, options).catch(() => undefined);
    if (primary === undefined || formatAddress(primary) === formatAddress(followed)) continue;
    throw new SourceError(`Cannot go on with ${formatAddress(followed)}: ${formatAddress(primary)} is the primary now`);
  }
}
