/** The service under measurement: the compiled program with a configuration file. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Environment } from '../environment.ts';
import { NAMESPACE } from '../workload/workloads.ts';
import { ChildProgram } from './child-program.ts';

/** One slot and its topics. */
export interface NotifierTarget {
  readonly database: string;
  readonly slot: string;
  /** Default: only `NAMESPACE` */
  readonly namespaces?: readonly string[] | undefined;
  readonly eventsTopic: string;
  readonly lifecycleTopic: string;
  /** Address of the cluster with the topics; default: that of the environment */
  readonly bootstrap?: string | undefined;
}

/** Options of `startNotifier`. */
export interface NotifierOptions {
  /** HTTP port on 127.0.0.1; default none */
  readonly httpPort?: number | undefined;
}

/** Log text of a slot that has started to stream. */
export const STREAMING = 'replication started';

/** Starts the service with these slots and resolves when all of them stream. */
export async function startNotifier(
  environment: Environment,
  target: NotifierTarget | readonly NotifierTarget[],
  options: NotifierOptions = {},
): Promise<ChildProgram> {
  const targets = [target].flat();
  const program = await spawnNotifier(environment, targets, options);
  try {
    await program.line(STREAMING, targets.length);
  } catch (error) {
    await program[Symbol.asyncDispose]();
    throw error;
  }
  return program;
}

/** Starts the service without waiting for its slots. */
async function spawnNotifier(
  environment: Environment,
  targets: readonly NotifierTarget[],
  options: NotifierOptions = {},
): Promise<ChildProgram> {
  const path = join(environment.directory, `${targets[0]?.slot}.yaml`);
  // JSON is YAML.
  await writeFile(path, JSON.stringify(configurationOf(environment, targets, options)));
  return new ChildProgram([...environment.notifier, path], { cwd: environment.directory });
}

function configurationOf(
  { postgres, kafka }: Environment,
  targets: readonly NotifierTarget[],
  { httpPort }: NotifierOptions,
): object {
  const bootstraps = [...new Set(targets.map(({ bootstrap = kafka.bootstrap }) => bootstrap))];
  const clientOf = (bootstrap: string): string => `cluster_${bootstraps.indexOf(bootstrap)}`;
  const databases = [...new Set(targets.map(({ database }) => database))];
  const streamOf = ({ namespaces = [NAMESPACE], eventsTopic, lifecycleTopic, bootstrap }: NotifierTarget): object =>
    Object.fromEntries(
      namespaces.map((namespace) => [
        namespace,
        {
          kafka_client: clientOf(bootstrap ?? kafka.bootstrap),
          eventsink_topic: eventsTopic,
          lifecycle_topic: lifecycleTopic,
        },
      ]),
    );
  const { host, port, superuser: username, password } = postgres;
  return {
    databases: Object.fromEntries(
      databases.map((database) => [database, { host, port, database, username, password }]),
    ),
    kafka_clients: Object.fromEntries(bootstraps.map((bootstrap) => [clientOf(bootstrap), { brokers: [bootstrap] }])),
    streams: Object.fromEntries(
      databases.map((database) => {
        const slots = targets.filter((target) => target.database === database);
        return [database, Object.fromEntries(slots.map((target) => [target.slot, streamOf(target)]))];
      }),
    ),
    ...(httpPort === undefined ? {} : { http: { host: '127.0.0.1', port: httpPort } }),
    log: { level: 'info', format: 'json' },
  };
}
