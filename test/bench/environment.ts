/** The environment of a run: servers, programs under measurement, and their description. */
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { cpus, loadavg, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { compile } from '../../src/build/compile.ts';
import { type KafkaServer, startKafka } from '../support/kafka/server.ts';
import { type PostgresServer, startPostgres } from '../support/postgres/server.ts';
import { PROJECT_DIRECTORY } from '../support/process/directories.ts';
import { temporaryDirectory } from '../support/process/temporary-directory.ts';
import { findRecvLogical, type RecvLogical } from './backlog/recvlogical.ts';

/** What measurements need. */
export interface Environment {
  readonly postgres: PostgresServer;
  readonly kafka: KafkaServer;
  /** Command of the service, without the configuration file */
  readonly notifier: readonly string[];
  readonly recvLogical: RecvLogical | { readonly missing: string };
  /** Directory of configuration files */
  readonly directory: string;
  /** Reports what is done now */
  progress(text: string): void;
}

/** The machine of a run. */
export interface Machine {
  readonly cpu: string;
  readonly coreCount: number;
  /** Cores that this run may use (taskset) */
  readonly usableCoreCount: number;
  readonly memoryBytes: number;
  /** Over the last minute before the run */
  readonly loadAverage: number;
  readonly kernel: string;
}

/** Partitions of each events topic. */
export const PARTITION_COUNT = 8;

const POSTGRES_SETTINGS: Readonly<Record<string, string>> = {
  // Nothing else may use the two cores during a measurement.
  autovacuum: 'off',
  max_wal_size: '16GB',
  checkpoint_timeout: '1h',
  // Commit times for the latency measurement.
  track_commit_timestamp: 'on',
  max_replication_slots: '50',
  max_wal_senders: '50',
};

/** Describes the machine; the load average shows whether it was otherwise idle. */
export function describeMachine(): Machine {
  const model = cpus()[0]?.model ?? 'unknown';
  const kernel = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
  return {
    cpu: model,
    coreCount: cpus().length,
    usableCoreCount: usableCores(),
    memoryBytes: totalmem(),
    loadAverage: Math.round((loadavg()[0] as number) * 100) / 100,
    kernel,
  };
}

/** Everything that is started inherits it. */
function usableCores(): number {
  const list = /^Cpus_allowed_list:\s+(\S+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '';
  return list.split(',').reduce((sum, range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return sum + last - first + 1;
  }, 0);
}

/** Builds the program and starts the servers, which `cleanup` stops. */
export async function prepareEnvironment(
  cleanup: AsyncDisposableStack,
  options: { readonly profileDirectory?: string | undefined; progress(text: string): void },
): Promise<Environment> {
  const { progress } = options;
  const directory = cleanup.use(await temporaryDirectory('bench')).path;
  progress('looking for pg_recvlogical');
  const recvLogical = await findRecvLogical();
  progress('building the program');
  const notifier = await notifierCommand(directory, options.profileDirectory);
  progress('starting PostgreSQL');
  const postgres = cleanup.use(await startPostgres({ settings: POSTGRES_SETTINGS }));
  progress('starting Kafka');
  const kafka = cleanup.use(await startKafka({ compilation: 'full' }));
  return { postgres, kafka, notifier, recvLogical, directory, progress };
}

/** The binary, always built from the current sources; for a profile the sources, run by Bun. */
async function notifierCommand(directory: string, profileDirectory: string | undefined): Promise<string[]> {
  if (profileDirectory !== undefined) {
    await mkdir(profileDirectory, { recursive: true });
    const main = join(PROJECT_DIRECTORY, 'src/main.ts');
    return [process.execPath, '--cpu-prof', '--cpu-prof-dir', profileDirectory, main];
  }
  const binary = join(directory, 'cdc-notifier');
  await compile({ file: binary });
  return [binary];
}

/** Directory of the server's data on a disk, for the time of one fsync. */
export function diskOf(postgres: PostgresServer): string {
  return dirname(postgres.dataDirectory);
}
