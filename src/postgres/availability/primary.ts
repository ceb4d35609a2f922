/** Which of the servers of a database to follow: the primary. It changes with every failover, so each attempt asks again. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { formatAddress } from '../../config/address.ts';
import type { DatabaseConfig, DatabaseEndpoint } from '../../config/config.ts';
import { rejectOnAbort, within } from '../../deadline.ts';
import { type NotifierError, SetupError, SourceError } from '../../errors.ts';
import { explainFailure } from '../../failure-policy.ts';
import { connectControl } from '../client/connect.ts';
import { OwnedConnection } from '../client/owned-connection.ts';

/** For connecting, logging in and answering together: a server that is gone must not hold up its successor for long. */
const ANSWER_TIMEOUT_MS = 3_000;

const WATCH_INTERVAL_MS = 15_000;

/** Options of a search. */
export interface FindPrimaryOptions {
  /** Shown in pg_stat_activity */
  readonly applicationName: string;
  /** Takes a warning when more than one server accepts writes */
  readonly log: Logger;
  /** Ends the search, which then rejects with its reason */
  readonly signal: AbortSignal;
}

/** A server that answered. */
interface Answer {
  readonly endpoint: DatabaseEndpoint;
  /** Undefined on a standby */
  readonly timeline: number | undefined;
}

/** A server that did not answer, and why. */
interface Failure {
  readonly endpoint: DatabaseEndpoint;
  readonly error: NotifierError;
}

/**
 * Finds the server that accepts writes. A single address is returned without a query. Of several, all are asked at once,
 * and among those that accept writes the highest timeline wins: an old primary that returns after a failover has a lower
 * one than its successor. Equals are taken in the order of the list.
 * @throws SetupError when servers answer but all are standbys, SourceError when none answers
 */
export async function findPrimary(database: DatabaseConfig, options: FindPrimaryOptions): Promise<DatabaseEndpoint> {
  const { hosts, ...common } = database;
  const endpoints = hosts.map((address): DatabaseEndpoint => ({ ...common, ...address }));
  if (endpoints.length === 1) return endpoints[0]!;
  options.signal.throwIfAborted();
  const settled = await Promise.allSettled(endpoints.map((endpoint) => readTimeline(endpoint, options)));
  options.signal.throwIfAborted();
  const answers: Answer[] = [];
  const failures: Failure[] = [];
  for (const [index, endpoint] of endpoints.entries()) {
    const result = settled[index]!;
    if (result.status === 'fulfilled') answers.push({ endpoint, timeline: result.value });
    else failures.push({ endpoint, error: explainFailure(result.reason) });
  }
  const [primary, ...others] = answers
    .filter(({ timeline }) => timeline !== undefined)
    .sort((a, b) => b.timeline! - a.timeline!);
  if (primary === undefined) throw noPrimary(answers, failures);
  if (others.length > 0) {
    options.log.warn(
      {
        event: 'several_primaries',
        followed: formatAddress(primary.endpoint),
        others: others.map(({ endpoint }) => formatAddress(endpoint)),
      },
      'more than one server accepts writes; the service follows the one with the highest timeline, and changes on the others are not delivered',
    );
  }
  return primary.endpoint;
}

/** The timeline that a server writes; undefined on a standby. */
async function readTimeline(
  endpoint: DatabaseEndpoint,
  { applicationName, signal }: FindPrimaryOptions,
): Promise<number | undefined> {
  const answered = new AbortController();
  using connection = new OwnedConnection(connectControl, endpoint, {
    applicationName,
    connectTimeoutMs: ANSWER_TIMEOUT_MS,
  });
  const query = connection.sql`
    SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline`;
  try {
    const answer = within(ANSWER_TIMEOUT_MS, 'ask the server', query);
    const [row] = await Promise.race([answer, rejectOnAbort(signal, answered.signal)]);
    return row!.timeline === null ? undefined : Number.parseInt(row!.timeline as string, 16);
  } finally {
    answered.abort();
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
    return new SetupError(`Cannot find the primary: no server accepts writes (${reasons})`, {
      code: 'no_primary',
      advice: 'Wait for the failover, or promote a standby; hosts of the database must contain the primary',
      cause,
      mayPass: true,
    });
  }
  const advice = [...new Set(failures.flatMap(({ error }) => error.advice ?? []))].join('; ');
  return new SourceError(`Cannot find the primary: no server answers (${reasons})`, {
    code: 'no_server_answers',
    advice: advice === '' ? undefined : advice,
    cause,
  });
}

/**
 * Looks for the primary at intervals while the service follows one: an old primary that lives on apart from its successor
 * looks healthy, and brings no changes. Resolves when the signal aborts.
 * @throws SourceError when another server is the primary
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
    // A search without result is no reason to leave a server that streams.
    const primary = await findPrimary(database, options).catch(() => undefined);
    if (primary === undefined || formatAddress(primary) === formatAddress(followed)) continue;
    throw new SourceError(
      `Cannot continue with ${formatAddress(followed)}: ${formatAddress(primary)} is the primary now`,
      {
        code: 'primary_changed',
      },
    );
  }
}
