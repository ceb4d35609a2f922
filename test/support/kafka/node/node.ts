/** One KRaft node, broker and controller in one Java process, on 127.0.0.1: its settings and its process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { open, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { freePort } from '../../network/ports.ts';
import { freezeProcess } from '../../process/freeze.ts';
import { guardProcess, releaseProcess } from '../../process/guardian.ts';
import { temporaryDirectory } from '../../process/temporary-directory.ts';
import { waitFor } from '../../process/wait.ts';
import { type KafkaProxy, startKafkaProxy } from '../proxy.ts';
import { classArchiveArguments } from './class-archive.ts';
import { type SecureListenerOptions, secureListener } from './secure-listener.ts';
import { fetchKafka, formatStorage, javaProgram } from './storage.ts';

/** Options of a node's process. */
export interface NodeOptions {
  /** Any version with KRaft */
  readonly version: string;
  /** Java heap, default 512 */
  readonly heapMb?: number | undefined;
  /** `quick` (default) starts sooner; `full` is faster once warm, for benchmarks */
  readonly compilation?: 'quick' | 'full' | undefined;
  /** Java arguments in place of those of the class archive */
  readonly javaArguments?: readonly string[] | undefined;
  /** Adds a TLS listener beside the plaintext one */
  readonly secure?: SecureListenerOptions | undefined;
  /** Adds a plaintext listener that is reached, and advertised, through a proxy */
  readonly proxied?: boolean | undefined;
  /** Settings that override the defaults below */
  readonly settings?: Readonly<Record<string, string>> | undefined;
}

/** A node; disposal kills it and removes its data. */
export interface KafkaNode extends AsyncDisposable {
  /** Where its KRaft controller listens, which is no address for clients */
  readonly controllerPort: number;
  readonly id: number;
  readonly port: number;
  /** `127.0.0.1:port` */
  readonly bootstrap: string;
  /** `localhost:port` of the TLS listener; undefined without `secure` */
  readonly secureBootstrap: string | undefined;
  /** Proxy in front of a listener of its own; undefined without `proxied` */
  readonly proxy: KafkaProxy | undefined;
  readonly logFile: string;
  /** The directory of its partitions (log.dirs) */
  readonly dataDirectory: string;
  /** Process id, undefined while stopped */
  readonly pid: number | undefined;
  /** Stops it gracefully; resolves when the process has ended */
  stop(): Promise<void>;
  /** Starts it, also again on the same port and data; resolves when it accepts connections */
  start(): Promise<void>;
  /** SIGKILL; resolves when the process has ended */
  kill(): Promise<void>;
  /** Freezes the process: its connections stay open and it answers nothing */
  pause(): void;
  resume(): void;
}

/** Id and controller port of a node; every node of a cluster knows those of all. */
export interface NodeIdentity {
  readonly id: number;
  readonly controllerPort: number;
}

const LOG_CONFIGURATION = join(import.meta.dirname, 'log4j2.properties');

/** Prepares a node's directory without starting it. `voters` are all nodes of its cluster, including itself. */
export async function createNode(
  { id, controllerPort }: NodeIdentity,
  { voters, ...options }: NodeOptions & { readonly voters: readonly NodeIdentity[] },
): Promise<KafkaNode> {
  const jars = await fetchKafka(options.version);
  await using undo = new AsyncDisposableStack();
  const directory = undo.use(await temporaryDirectory('kafka'));
  const [port, proxiedPort, securePort] = [await freePort(), await freePort(), await freePort()];
  const bootstrap = `127.0.0.1:${port}`;
  const [logFile, propertiesFile] = [join(directory.path, 'kafka.log'), join(directory.path, 'server.properties')];
  const dataDirectory = join(directory.path, 'data');
  const secure = options.secure && (await secureListener(options.secure, securePort, directory.path));
  const proxy = options.proxied ? undo.use(await startKafkaProxy({ host: '127.0.0.1', port: proxiedPort })) : undefined;
  const proxied = proxy && {
    listener: `PROXIED://127.0.0.1:${proxiedPort}`,
    advertised: `PROXIED://127.0.0.1:${proxy.port}`,
  };
  const settings: Record<string, string> = {
    'process.roles': 'broker,controller',
    'node.id': String(id),
    'controller.quorum.voters': voters.map((voter) => `${voter.id}@127.0.0.1:${voter.controllerPort}`).join(','),
    listeners: listOf(
      `PLAINTEXT://${bootstrap}`,
      secure?.listener,
      proxied?.listener,
      `CONTROLLER://127.0.0.1:${controllerPort}`,
    ),
    'advertised.listeners': listOf(`PLAINTEXT://${bootstrap}`, secure?.advertised, proxied?.advertised),
    'listener.security.protocol.map': listOf(
      'PLAINTEXT:PLAINTEXT',
      'CONTROLLER:PLAINTEXT',
      'PROXIED:PLAINTEXT',
      secure && `SECURE:${secure.protocol}`,
    ),
    'controller.listener.names': 'CONTROLLER',
    'log.dirs': dataDirectory,
    'auto.create.topics.enable': 'false',
    'offsets.topic.replication.factor': '1',
    'offsets.topic.num.partitions': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'transaction.state.log.num.partitions': '1',
    'group.initial.rebalance.delay.ms': '0',
    // After a crash the controller, in the same process, refuses the broker's registration until its old session expires.
    'broker.session.timeout.ms': '2000',
    'broker.heartbeat.interval.ms': '250',
    ...secure?.settings,
    ...options.settings,
  };
  await writeFile(propertiesFile, propertyLines(settings));
  const formatArguments = secure?.formatArguments ?? [];
  await formatStorage({ version: options.version, jars, propertiesFile, dataDirectory, nodeId: id, formatArguments });

  let child: ChildProcess | undefined;
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const ending = child;
    if (ending === undefined) return;
    const exit = once(ending, 'exit');
    // A paused process handles SIGTERM only after SIGCONT.
    if (signal !== 'SIGKILL') ending.kill('SIGCONT');
    ending.kill(signal);
    await exit;
  };
  undo.defer(() => end('SIGKILL'));
  const resources = undo.move();
  return {
    controllerPort,
    id,
    port,
    bootstrap,
    secureBootstrap: secure?.bootstrap,
    proxy,
    logFile,
    dataDirectory,
    get pid() {
      return child?.pid;
    },
    async start() {
      if (child !== undefined) return;
      const started = await startProcess({ jars, propertiesFile, logFile, options });
      child = started;
      started.once('exit', () => {
        child = undefined;
      });
      await waitForPort(started, port, logFile);
    },
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    pause() {
      if (child !== undefined) freezeProcess(child.pid as number);
    },
    resume() {
      child?.kill('SIGCONT');
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** The lines of a Java properties file. */
export function propertyLines(settings: Readonly<Record<string, string>>): string {
  const escaped = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${escaped(value)}\n`)
    .join('');
}

function listOf(...items: readonly (string | undefined)[]): string {
  return items.filter((item) => item !== undefined).join(',');
}

interface ProcessStart {
  readonly jars: string;
  readonly propertiesFile: string;
  readonly logFile: string;
  readonly options: NodeOptions;
}

async function startProcess({ jars, propertiesFile, logFile, options }: ProcessStart): Promise<ChildProcess> {
  const heapMb = options.heapMb ?? 512;
  const flags = [`-Xmx${heapMb}m`, '-XX:+UseSerialGC', '-XX:-UsePerfData', '-Djava.awt.headless=true'];
  if (options.compilation !== 'full') flags.push('-XX:TieredStopAtLevel=1');
  flags.push(...(options.javaArguments ?? classArchiveArguments(options.version)));
  flags.push(`-Dlog4j2.configurationFile=${LOG_CONFIGURATION}`);
  const log = await open(logFile, 'a');
  const child = spawn(javaProgram(), [...flags, '-cp', `${jars}/*`, 'kafka.Kafka', propertiesFile], {
    // Ctrl-C reaches the whole foreground group; the process that started the broker stops it in its own order.
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  });
  await once(child, 'spawn');
  await log.close();
  const pid = child.pid as number;
  guardProcess(pid, 'KILL');
  child.once('exit', () => releaseProcess(pid));
  child.unref();
  return child;
}

/** The broker opens its port only when it is ready; connecting is cheaper than a client. */
async function waitForPort(child: ChildProcess, port: number, logFile: string): Promise<void> {
  await waitFor(
    `Kafka on port ${port} (see ${logFile})`,
    () => {
      if (child.exitCode !== null || child.signalCode !== null) {
        const log = readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-20).join('\n');
        throw new Error(`Cannot start Kafka: ${log}`);
      }
      return canConnect(port);
    },
    { timeoutMs: 120_000 },
  );
}

function canConnect(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
