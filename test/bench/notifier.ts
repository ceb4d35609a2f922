/** The service under measurement, as its users run it: a program with a configuration file. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ChildProgram } from './child-program.ts';
import type { Environment } from './environment.ts';
import { NAMESPACE } from './workloads.ts';

/** One slot and its topics. */
export interface NotifierTarget {
  readonly database: string;
  readonly slot: string;
  readonly eventsTopic: string;
  readonly lifecycleTopic: string;
}

/** Starts the service and resolves when it streams. */
export async function startNotifier(environment: Environment, target: NotifierTarget): Promise<ChildProgram> {
  const { postgres, kafka, directory, notifier } = environment;
  const path = join(directory, `${target.slot}.yaml`);
  // JSON is YAML too.
  const configuration = {
    databases: {
      bench: {
        host: postgres.host,
        port: postgres.port,
        database: target.database,
        username: postgres.superuser,
        password: postgres.password,
      },
    },
    kafka_clients: { bench: { brokers: [kafka.bootstrap] } },
    streams: {
      bench: {
        [target.slot]: {
          [NAMESPACE]: {
            kafka_client: 'bench',
            eventsink_topic: target.eventsTopic,
            lifecycle_topic: target.lifecycleTopic,
          },
        },
      },
    },
    log: { level: 'info', format: 'json' },
  };
  await writeFile(path, JSON.stringify(configuration));
  const program = new ChildProgram([...notifier, path], { cwd: directory });
  try {
    await program.line('replication started');
  } catch (error) {
    await program[Symbol.asyncDispose]();
    throw error;
  }
  return program;
}
