/**
 * A real Apache Kafka for tests: one KRaft node, broker and controller in one Java process, on 127.0.0.1 and free ports.
 * Its jars come from Maven Central once and stay under `.cache/`.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, open, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { Admin } from '@platformatic/kafka';
import { guardProcess, releaseProcess } from './guardian.ts';
import { type SecureListenerOptions, secureListener } from './kafka/secure-listener.ts';
import { CACHE_DIRECTORY, makeOnce } from './make-once.ts';
import { freePort } from './ports.ts';
import { runProgram } from './run-program.ts';
import { temporaryDirectory } from './temporary-directory.ts';
import { type FollowOptions, type KafkaRecord, readTopics, TopicReader } from './topic-reader.ts';
import { waitFor } from './wait.ts';

/** The version that tests run on unless they ask for another. */
export const KAFKA_VERSION = '4.3.0';

/** What kind of broker to start. */
export interface KafkaOptions {
  /** Default `KAFKA_VERSION`; any version with KRaft */
  readonly version?: string | undefined;
  /** Java heap, default 512 */
  readonly heapMb?: number | undefined;
  /** `quick` (default) starts sooner, `full` runs faster once warm: for measurements */
  readonly compilation?: 'quick' | 'full' | undefined;
  /** Adds a listener with TLS beside the plain one */
  readonly secure?: SecureListenerOptions | undefined;
  /** Broker settings over the defaults below */
  readonly settings?: Readonly<Record<string, string>> | undefined;
}

/** What a topic is created with. */
export interface TopicOptions {
  /** Default 1 */
  readonly partitions?: number | undefined;
  /** Topic settings, such as `max.message.bytes` */
  readonly config?: Readonly<Record<string, string>> | undefined;
}

/** A running broker; disposal ends it and removes its data. */
export interface KafkaServer extends AsyncDisposable {
  /** `127.0.0.1:port` */
  readonly bootstrap: string;
  readonly port: number;
  /** `localhost:port` of the listener with TLS; undefined unless `secure` was asked for */
  readonly secureBootstrap: string | undefined;
  readonly logFile: string;
  /** Process id of the broker, undefined while stopped */
  readonly pid: number | undefined;
  /** Creates a topic; resolves when every partition has a leader */
  createTopic(name: string, options?: TopicOptions): Promise<void>;
  deleteTopic(name: string): Promise<void>;
  /** Ends the broker in good order; resolves when the process has ended */
  stop(): Promise<void>;
  /** Starts it again on the same port and data; resolves when it serves requests */
  start(): Promise<void>;
  /** Ends the broker by SIGKILL */
  kill(): Promise<void>;
  /** Freezes the process: its connections stay open and nothing answers */
  pause(): void;
  resume(): void;
  /** Everything that one topic holds now, by partition and offset */
  readTopic(topic: string): Promise<KafkaRecord[]>;
  /** Everything that these topics hold now, by topic, partition and offset */
  readAll(topics: readonly string[]): Promise<KafkaRecord[]>;
  /** Follows topics live from their beginning; the caller closes the reader */
  follow(topics: readonly string[], options?: FollowOptions): TopicReader;
}

const CLUSTER_ID = 'Y2RjLW5vdGlmaWVyLXRlcw';
const POM = join(import.meta.dirname, 'kafka', 'pom.xml');
const LOG_CONFIGURATION = join(import.meta.dirname, 'kafka', 'log4j2.properties');

/** Starts a broker and waits until it serves requests. */
export async function startKafka(options: KafkaOptions = {}): Promise<KafkaServer> {
  const version = options.version ?? KAFKA_VERSION;
  const jars = await fetchKafka(version);
  const directory = await temporaryDirectory('kafka');
  const [port, controllerPort] = [await freePort(), await freePort()];
  const bootstrap = `127.0.0.1:${port}`;
  const logFile = join(directory.path, 'kafka.log');
  const propertiesFile = join(directory.path, 'server.properties');
  const dataDirectory = join(directory.path, 'data');
  const secure =
    options.secure === undefined ? undefined : await secureListener(options.secure, await freePort(), directory.path);
  const settings: Record<string, string> = {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    listeners: listOf(`PLAINTEXT://127.0.0.1:${port}`, secure?.listener, `CONTROLLER://127.0.0.1:${controllerPort}`),
    'advertised.listeners': listOf(`PLAINTEXT://127.0.0.1:${port}`, secure?.advertised),
    'controller.listener.names': 'CONTROLLER',
    'log.dirs': dataDirectory,
    'auto.create.topics.enable': 'false',
    'offsets.topic.replication.factor': '1',
    'offsets.topic.num.partitions': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'transaction.state.log.num.partitions': '1',
    'group.initial.rebalance.delay.ms': '0',
    // After a crash the controller, which starts with the broker, refuses its registration until the session has run out.
    'broker.session.timeout.ms': '2000',
    'broker.heartbeat.interval.ms': '250',
    ...secure?.settings,
    ...options.settings,
  };
  await writeFile(propertiesFile, propertyLines(settings));

  let child: ChildProcess | undefined;
  const clientOptions = { bootstrapBrokers: [bootstrap] };
  const withAdmin = async <T>(use: (admin: Admin) => Promise<T>): Promise<T> => {
    const admin = new Admin({ ...clientOptions, clientId: 'cdc-notifier-test-admin', retries: 5, retryDelay: 200 });
    try {
      return await use(admin);
    } finally {
      await admin.close();
    }
  };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const ending = child;
    if (ending === undefined) return;
    const exit = once(ending, 'exit');
    // A paused process takes no SIGTERM until it is resumed.
    if (signal !== 'SIGKILL') ending.kill('SIGCONT');
    ending.kill(signal);
    await exit;
  };

  const server: KafkaServer = {
    bootstrap,
    port,
    secureBootstrap: secure?.bootstrap,
    logFile,
    get pid() {
      return child?.pid;
    },
    async createTopic(name, { partitions = 1, config = {} } = {}) {
      const configs = Object.entries(config).map(([key, value]) => ({ name: key, value }));
      await withAdmin(async (admin) => {
        await admin.createTopics({ topics: [name], partitions, replicas: 1, configs });
        await waitFor(`leaders of topic ${name}`, async () => {
          const metadata = await admin.metadata({ topics: [name], forceUpdate: true }).catch(() => undefined);
          const topic = metadata?.topics.get(name);
          return topic?.partitionsCount === partitions && topic.partitions.every(({ leader }) => leader >= 0);
        });
      });
    },
    async deleteTopic(name) {
      await withAdmin((admin) => admin.deleteTopics({ topics: [name] }));
    },
    async start() {
      if (child !== undefined) return;
      const started = await startBroker({ jars, propertiesFile, logFile, options });
      child = started;
      started.once('exit', () => {
        child = undefined;
      });
      await waitForBroker(started, port, logFile);
      await withAdmin((admin) =>
        waitFor('the broker in its own metadata', async () => {
          const metadata = await admin.metadata({ topics: [], forceUpdate: true }).catch(() => undefined);
          return metadata?.brokers.has(1);
        }),
      );
    },
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    pause() {
      child?.kill('SIGSTOP');
    },
    resume() {
      child?.kill('SIGCONT');
    },
    readTopic: (topic) => readTopics(clientOptions, [topic]),
    readAll: (topics) => readTopics(clientOptions, topics),
    follow: (topics, followOptions) => new TopicReader(clientOptions, topics, followOptions),
    async [Symbol.asyncDispose]() {
      await end('SIGKILL');
      await directory[Symbol.asyncDispose]();
    },
  };

  try {
    await formatStorage({
      version,
      jars,
      propertiesFile,
      dataDirectory,
      formatArguments: secure?.formatArguments ?? [],
    });
    await server.start();
    return server;
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
}

/** Brings the jars of one version of Kafka into the cache and returns their directory. */
export async function fetchKafka(version: string = KAFKA_VERSION): Promise<string> {
  const jars = join(CACHE_DIRECTORY, `kafka-${version}`);
  await makeOnce(jars, async (partial) => {
    const goal = 'dependency:copy-dependencies';
    const options = [`-Dkafka.version=${version}`, '-DincludeScope=runtime', `-DoutputDirectory=${partial}`];
    await runProgram('mvn', ['--quiet', '--batch-mode', '--file', POM, goal, ...options]);
  });
  return jars;
}

/** The lines of a Java properties file. */
export function propertyLines(settings: Readonly<Record<string, string>>): string {
  const escaped = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${escaped(value)}\n`)
    .join('');
}

/** Java's program: the one of JAVA_HOME, otherwise the one on the path. */
function javaProgram(): string {
  return process.env.JAVA_HOME ? join(process.env.JAVA_HOME, 'bin', 'java') : 'java';
}

interface Storage {
  readonly version: string;
  readonly jars: string;
  readonly propertiesFile: string;
  readonly dataDirectory: string;
  /** Users with SCRAM passwords, which are part of what is formatted */
  readonly formatArguments: readonly string[];
}

/** Formatting takes a Java start of its own; without users it depends on the version alone, so its result is kept. */
async function formatStorage(storage: Storage): Promise<void> {
  if (storage.formatArguments.length > 0) {
    await runStorageTool(storage, storage.propertiesFile);
    return;
  }
  const template = join(CACHE_DIRECTORY, `kafka-${storage.version}-storage`);
  await makeOnce(template, async (partial) => {
    await mkdir(partial);
    const properties = join(partial, 'format.properties');
    const text = await readFile(storage.propertiesFile, 'utf8');
    await writeFile(properties, text.replace(/^log\.dirs=.*$/m, `log.dirs=${join(partial, 'data')}`));
    await runStorageTool(storage, properties);
  });
  await runProgram('cp', ['-R', join(template, 'data'), storage.dataDirectory]);
}

async function runStorageTool({ jars, formatArguments }: Storage, propertiesFile: string): Promise<void> {
  const command = ['kafka.tools.StorageTool', 'format', '-t', CLUSTER_ID, '-c', propertiesFile, ...formatArguments];
  await runProgram(javaProgram(), ['-XX:TieredStopAtLevel=1', '-cp', `${jars}/*`, ...command]);
}

function listOf(...items: readonly (string | undefined)[]): string {
  return items.filter((item) => item !== undefined).join(',');
}

interface BrokerStart {
  readonly jars: string;
  readonly propertiesFile: string;
  readonly logFile: string;
  readonly options: KafkaOptions;
}

async function startBroker({ jars, propertiesFile, logFile, options }: BrokerStart): Promise<ChildProcess> {
  const heapMb = options.heapMb ?? 512;
  const flags = [`-Xmx${heapMb}m`, '-XX:+UseSerialGC', '-XX:-UsePerfData', '-Djava.awt.headless=true'];
  if (options.compilation !== 'full') flags.push('-XX:TieredStopAtLevel=1');
  flags.push(`-Dlog4j2.configurationFile=${LOG_CONFIGURATION}`);
  const log = await open(logFile, 'a');
  const child = spawn(javaProgram(), [...flags, '-cp', `${jars}/*`, 'kafka.Kafka', propertiesFile], {
    // Ctrl-C on the terminal is for the one who started the broker: it stops servers in its own order.
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

/** The broker opens its port only when it is ready to serve; connection attempts are cheaper than clients. */
async function waitForBroker(child: ChildProcess, port: number, logFile: string): Promise<void> {
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
