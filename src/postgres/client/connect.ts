/**
 * Connections to PostgreSQL through the `postgres` driver: an ordinary one for queries and DDL, and a replication one.
 * Each new connection reads secrets and certificates again.
 */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { Logger } from 'pino';
import postgres, { type Notice, type Options, type Sql } from 'postgres';
import type { DatabaseEndpoint } from '../../config/config.ts';
import { listenForFatalError } from './fatal-error.ts';
import { guardLogin } from './login-guard.ts';
import { renewingClient } from './renewing-client.ts';
import { closedError, failedSocket, openSocket } from './socket.ts';
import { transportWarning } from './tls.ts';

/** Longest wait for TCP and TLS, and again for authentication. */
const CONNECT_TIMEOUT_MS = 10_000;

/**
 * Settings of the role, the database or the server that would end a session, cancel its statements, make it wait or change
 * its results. Every supported version knows them: an unknown start parameter is refused. `transaction_timeout` (PostgreSQL
 * 17) is set where a transaction or a stream begins.
 */
const OWN_SETTINGS: Readonly<Record<string, string>> = {
  // Long statements have bounds of their own; a setting of the role would cancel them at every attempt.
  statement_timeout: '0',
  lock_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  idle_session_timeout: '0',
  default_transaction_read_only: 'off',
  default_transaction_isolation: 'read committed',
  default_transaction_deferrable: 'off',
  row_security: 'on',
  DateStyle: 'ISO',
  TimeZone: 'UTC',
  // PostgreSQL 18 reports a publication that it cannot load only by a warning; a setting of the role must not hide it.
  client_min_messages: 'warning',
};

/** Options of a connection. */
export interface ConnectOptions {
  /** Shown in pg_stat_activity; that of a replication connection contains the slot's name */
  readonly applicationName: string;
  /** Takes warnings about the transport and, at debug level, notices */
  readonly log?: Logger | undefined;
  /** Takes notices and warnings of the server instead of the log */
  readonly onNotice?: ((notice: Notice) => void) | undefined;
  /** Called with each socket that opens: its `close` reports a lost connection, its `destroy` drops it at once */
  readonly onSocket?: ((socket: Socket) => void) | undefined;
  /** For TCP and TLS together, and again for authentication; default 10 s */
  readonly connectTimeoutMs?: number | undefined;
}

/**
 * A client of one ordinary connection, opened at the first query and again at the first query after a loss. Names resolve
 * in pg_catalog only; quotes in string constants are escaped by doubling (see `quoteLiteral`).
 */
export function connectControl(endpoint: DatabaseEndpoint, options: ConnectOptions): Sql {
  return connect(endpoint, options, {
    ...OWN_SETTINGS,
    search_path: 'pg_catalog',
    standard_conforming_strings: 'on',
  });
}

/**
 * A client of one connection in logical replication mode, opened at the first command. It accepts simple queries (`unsafe`
 * without parameters) and replication commands; see `startCopyBoth`.
 */
export function connectReplication(endpoint: DatabaseEndpoint, options: ConnectOptions): Sql {
  return connect(endpoint, options, {
    ...OWN_SETTINGS,
    replication: 'database',
    // No conversion: progressor's client asks for none, so records carry the bytes that the database holds.
    client_encoding: 'SQL_ASCII',
    // With wal_sender_timeout = 0, a walsender whose client's machine is gone would otherwise keep the slot for hours.
    tcp_keepalives_idle: '30',
    tcp_keepalives_interval: '10',
    tcp_keepalives_count: '3',
    // It counts the time that the client does not read as well: a stuck Kafka would cost the walsender.
    tcp_user_timeout: '0',
  });
}

function connect(endpoint: DatabaseEndpoint, options: ConnectOptions, parameters: Record<string, string>): Sql {
  const warning = transportWarning(endpoint);
  if (warning !== undefined)
    options.log?.warn({ event: 'connection_insecure', host: endpoint.host, port: endpoint.port }, warning);
  return renewingClient((onLost) => openClient(endpoint, options, { parameters, onLost }));
}

function openClient(
  endpoint: DatabaseEndpoint,
  options: ConnectOptions,
  { parameters, onLost }: { readonly parameters: Record<string, string>; readonly onLost: () => void },
): Sql {
  const { applicationName, log, onNotice, onSocket, connectTimeoutMs = CONNECT_TIMEOUT_MS } = options;
  let password = '';
  let hasOpened = false;
  const driverOptions = {
    // A list, because the driver splits a string at commas and colons.
    host: [endpoint.host],
    port: [endpoint.port],
    database: endpoint.database,
    username: endpoint.username,
    // Read together with the socket below, where a failure can be reported.
    password: () => password,
    max: 1,
    fetch_types: false,
    idle_timeout: undefined,
    max_lifetime: null,
    connect_timeout: connectTimeoutMs / 1000,
    ssl: false,
    target_session_attrs: undefined,
    connection: { application_name: applicationName, ...parameters },
    onnotice:
      onNotice ??
      ((notice: Notice) => log?.debug({ severity: notice.severity, code: notice.code }, notice.message ?? '')),
    socket: async () => {
      try {
        // The driver opens another one when this is closed before the login is over, and another, without a pause.
        if (hasOpened) throw closedError();
        hasOpened = true;
        password = endpoint.password?.read() ?? '';
        const socket = await openSocket(endpoint, connectTimeoutMs);
        guardLogin(socket);
        // Before the driver listens: a query that follows a failure already gets another connection.
        socket.once('error', onLost);
        socket.once('close', onLost);
        if (parameters.replication === undefined) endWithFatalError(socket);
        onSocket?.(socket);
        return socket;
      } catch (error) {
        onLost();
        return failedSocket(error);
      }
    },
  };
  // The driver's types know neither `socket` nor lists of hosts.
  return postgres(driverOptions as unknown as Options<Record<string, never>>) as unknown as Sql;
}

/** Fails what runs with the server's last words: the driver would report only that the connection was closed. */
function endWithFatalError(socket: Socket): void {
  const fatalError = listenForFatalError(socket);
  socket.once('end', () => {
    const error = fatalError();
    if (error !== undefined) socket.destroy(error);
  });
}

/**
 * Runs START_REPLICATION and returns its stream: CopyData payloads come in, written chunks become CopyData.
 *
 * The stream has an `error` listener from the beginning: the server's refusal can arrive in the same read as its
 * acceptance, and would otherwise be raised before any caller can listen, which ends the process.
 * @throws the server's error when it refuses the command, also right after it accepted it
 */
export async function startCopyBoth(replication: Sql, command: string): Promise<Duplex> {
  const query = replication.unsafe(command);
  const settling = query as unknown as { resolve: (result: unknown) => void };
  const resolve = settling.resolve;
  settling.resolve = (result) => {
    if (result instanceof Duplex) result.on('error', () => {});
    resolve(result);
  };
  const stream = (await query.writable()) as Duplex;
  if (stream.errored != null) throw stream.errored;
  return stream;
}
