/** The service inside the test process: real connections, its log as objects, stopped with the test. */
import { parseConfig } from '../../../src/config/load.ts';
import { createLogger } from '../../../src/log.ts';
import { runService } from '../../../src/service.ts';
import type { KafkaServer } from '../kafka/server.ts';
import type { PostgresServer } from '../postgres/server.ts';
import { type WaitOptions, waitFor } from '../process/wait.ts';
import { STARTED } from './binary.ts';
import type { LogLine } from './recording-logger.ts';

/** Where the records of a namespace go; names as in the configuration file. */
export interface ServiceNamespace {
  readonly eventsink_topic: string;
  readonly lifecycle_topic: string;
  readonly replica_identity?: 'full' | 'status_index' | undefined;
  readonly publish_columns?: 'all' | 'needed' | undefined;
  readonly on_missing_old_tuple?: 'stop' | 'skip' | undefined;
  readonly on_invalid?: 'stop' | 'park' | undefined;
  readonly parking_topic?: string | undefined;
}

/** One replication slot of the service. */
export interface ServiceSlot {
  /** Name of the database on the server, made of letters, digits and underscores */
  readonly database: string;
  readonly slot: string;
  readonly namespaces: Readonly<Record<string, ServiceNamespace>>;
}

/** Servers, slots and settings of a service. */
export interface ServiceOptions {
  readonly postgres: PostgresServer;
  readonly kafka: KafkaServer;
  readonly slots: readonly ServiceSlot[];
  /** Top-level settings of the configuration file; defaults `reconnect_timeout` and `resend_timeout` 200 ms */
  readonly settings?: Readonly<Record<string, unknown>> | undefined;
  /** Settings of the Kafka client */
  readonly kafkaSettings?: Readonly<Record<string, unknown>> | undefined;
  /** Called synchronously with each line as it is logged */
  readonly onLog?: ((line: LogLine) => void) | undefined;
}

/** A running service; disposal stops it. */
export interface InProcessService extends AsyncDisposable {
  /** Every logged line of every level */
  readonly log: readonly LogLine[];
  /** The errors that ended a session, of one slot or of all, oldest first */
  failures(slot?: string): readonly LoggedError[];
  /** Resolves with the first line that `matches`; a timeout says `Cannot see {what}` */
  waitForLog(what: string, matches: (line: LogLine) => boolean, options?: WaitOptions): Promise<LogLine>;
  /** Resolves when every one of these slots streams */
  waitForStart(...slots: string[]): Promise<void>;
  /** Resolves when sessions of the slot have failed so many times, with the last error */
  waitForFailure(slot: string, count?: number, options?: WaitOptions): Promise<LoggedError>;
  /** Stops it as SIGTERM does; resolves when everything is closed */
  stop(): Promise<void>;
}

/** An error as it is logged. */
export interface LoggedError {
  readonly name: string;
  readonly message: string;
  readonly advice?: string;
  readonly place?: Readonly<Record<string, unknown>>;
  readonly cause?: LoggedError;
}

/** The configuration file for these servers, as JSON, which is YAML. */
export function serviceConfig({ postgres, kafka, slots, settings, kafkaSettings }: ServiceOptions): string {
  const databases = [...new Set(slots.map(({ database }) => database))];
  const access = {
    host: postgres.host,
    port: postgres.port,
    username: postgres.superuser,
    password: postgres.password,
  };
  const streams = databases.map((database) => {
    const own = slots.filter((slot) => slot.database === database);
    const namespaces = (slot: ServiceSlot) =>
      Object.entries(slot.namespaces).map(([name, target]) => [name, { kafka_client: 'main', ...target }]);
    return [database, Object.fromEntries(own.map((slot) => [slot.slot, Object.fromEntries(namespaces(slot))]))];
  });
  return JSON.stringify({
    databases: Object.fromEntries(databases.map((database) => [database, { ...access, database }])),
    kafka_clients: { main: { brokers: [kafka.bootstrap], ...kafkaSettings } },
    streams: Object.fromEntries(streams),
    reconnect_timeout: 200,
    resend_timeout: 200,
    ...settings,
  });
}

/** Starts the service and returns at once; whether it streams is in its log. */
export function startInProcessService(options: ServiceOptions): InProcessService {
  const config = parseConfig(serviceConfig(options), { fileName: 'test.yaml', environment: {} });
  const log: LogLine[] = [];
  const destination = {
    write: (text: string) => {
      const line = JSON.parse(text) as LogLine;
      log.push(line);
      options.onLog?.(line);
    },
  };
  const stopping = new AbortController();
  const serviceLog = createLogger({ level: 'trace', format: 'json', destination });
  const running = runService(config, { version: '0.0.0', log: serviceLog }, stopping.signal);
  running.catch(() => {}); // seen by `stop`
  const failures = (slot?: string): readonly LoggedError[] =>
    log
      .filter((line) => line.msg.startsWith('replication failed') && (slot === undefined || line.slot === slot))
      .map((line) => line.error as LoggedError);
  const stop = async (): Promise<void> => {
    stopping.abort();
    await running;
  };
  const waitForLog: InProcessService['waitForLog'] = (what, matches, waitOptions) =>
    waitFor(what, () => log.find(matches), waitOptions);
  return {
    log,
    failures,
    waitForLog,
    async waitForStart(...slots) {
      for (const slot of slots) {
        await waitForLog(`the start of ${slot}`, (line) => line.msg === STARTED && line.slot === slot);
      }
    },
    waitForFailure: (slot, count = 1, waitOptions) =>
      waitFor(`failure ${count} of slot ${slot}`, () => failures(slot)[count - 1], waitOptions),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
