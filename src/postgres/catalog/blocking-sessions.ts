/**
 * Sessions and prepared transactions that block a statement of the service, as far as its role may see them. Their queries
 * are never read: they may contain data.
 */
import type { Sql } from 'postgres';

/** A session or a prepared transaction that blocks a statement. */
export interface BlockingSession {
  /** Absent for a prepared transaction */
  readonly pid: number | undefined;
  /** Global identifier of a prepared transaction */
  readonly preparedAs: string | undefined;
  readonly database: string | undefined;
  readonly username: string | undefined;
  readonly applicationName: string | undefined;
  /** `state` of pg_stat_activity; hidden from roles without pg_read_all_stats */
  readonly state: string | undefined;
  readonly transactionAgeSeconds: number | undefined;
}

/** Sessions beyond this number are counted, not listed. */
const MAX_LISTED = 10;

/** The sessions that hold locks on any of these tables, oldest transaction first. */
export async function lockHolders(control: Sql, relationOids: readonly number[]): Promise<BlockingSession[]> {
  const rows = await control`
    SELECT DISTINCT l.pid, p.gid, coalesce(a.datname, p.database) AS database, coalesce(a.usename, p.owner) AS username,
      a.application_name, a.state,
      floor(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared)))::int8 AS age
    FROM pg_locks l
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND l.virtualtransaction = '-1/' || p.transaction
    WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.relation::int8 IN ${control([...relationOids])}
    ORDER BY age DESC NULLS LAST`;
  return rows.map(toSession);
}

/** An open transaction that has written something: its id and its session. */
export interface OpenWriter extends BlockingSession {
  readonly xid: string;
}

/** Open transactions that have written something, in this database or in all databases of the server. */
export async function openWriters(control: Sql, where: 'database' | 'server'): Promise<OpenWriter[]> {
  const rows = await control`
    SELECT l.transactionid::text AS xid, l.pid, p.gid, coalesce(a.datname, p.database) AS database,
      coalesce(a.usename, p.owner) AS username, a.application_name, a.state,
      floor(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared)))::int8 AS age
    FROM pg_locks l
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    LEFT JOIN pg_prepared_xacts p ON p.transaction = l.transactionid
    WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
      AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND (${where} = 'server' OR coalesce(a.datname, p.database) = current_database())
    ORDER BY age DESC NULLS LAST`;
  return rows.map((row) => ({ ...toSession(row), xid: row.xid as string }));
}

/** For an error message: `pid 71 (user app, application psql, idle in transaction, transaction open for 35 s)`, comma-separated. */
export function describeSessions(sessions: readonly BlockingSession[]): string {
  const listed = sessions.slice(0, MAX_LISTED).map(describeSession);
  const rest = sessions.length - listed.length;
  return [...listed, ...(rest > 0 ? [`${rest} more`] : [])].join(', ');
}

function describeSession(session: BlockingSession): string {
  const facts = [
    session.database === undefined ? undefined : `database ${session.database}`,
    session.username === undefined ? undefined : `user ${session.username}`,
    session.applicationName === undefined || session.applicationName === ''
      ? undefined
      : `application ${session.applicationName}`,
    session.state,
    session.transactionAgeSeconds === undefined ? undefined : `transaction open for ${session.transactionAgeSeconds} s`,
  ].filter((fact) => fact !== undefined);
  const name =
    session.preparedAs === undefined ? `pid ${session.pid ?? 'unknown'}` : `prepared transaction ${session.preparedAs}`;
  return facts.length === 0 ? name : `${name} (${facts.join(', ')})`;
}

function toSession(row: Record<string, unknown>): BlockingSession {
  return {
    pid: (row.pid as number | null) ?? undefined,
    preparedAs: (row.gid as string | null) ?? undefined,
    database: (row.database as string | null) ?? undefined,
    username: (row.username as string | null) ?? undefined,
    applicationName: (row.application_name as string | null) ?? undefined,
    state: (row.state as string | null) ?? undefined,
    transactionAgeSeconds: row.age === null ? undefined : Number(row.age),
  };
}
