/**
 * The benchmark; see `USAGE` in options.ts. Reads the same backlogs with pg_recvlogical, with a reader that discards everything
 * and with the compiled service in one run, on its own PostgreSQL and Kafka, and measures latency, many slots, restarts and
 * growth. Progress goes to stderr, the tables to stdout. The exit code shows whether the run succeeded, not whether the
 * figures are good.
 */
import { join } from 'node:path';
import { KAFKA_VERSION } from '../support/kafka/server.ts';
import { PAYLOAD_BYTES } from './backlog/backlogs.ts';
import { recvLogicalCommand } from './backlog/recvlogical-reading.ts';
import { describeMachine, type Environment, PARTITION_COUNT, prepareEnvironment } from './environment.ts';
import { growthPlots } from './growth/growth-section.ts';
import { measureAll } from './measurements.ts';
import { type BenchOptions, readOptions, USAGE } from './options.ts';
import { elapsedSeconds, progress, runBenchProgram, writeFigures } from './program.ts';
import { type Report, reportJson, reportText } from './report/report.ts';

async function describeRun(environment: Environment): Promise<Pick<Report, 'versions' | 'settings' | 'commands'>> {
  const { postgres, recvLogical, notifier } = environment;
  const sql = postgres.sql('postgres', { max: 1 });
  const [row] = await sql`SHOW server_version`;
  await sql.end();
  const place = { host: postgres.host, port: postgres.port, database: 'DATABASE', slot: 'SLOT', end: 'LSN' };
  const hasRecvLogical = !('missing' in recvLogical);
  return {
    versions: {
      Bun: Bun.version,
      PostgreSQL: String(row?.server_version),
      Kafka: KAFKA_VERSION,
      ...(hasRecvLogical ? { pg_recvlogical: recvLogical.version.replace(/^pg_recvlogical /, '') } : {}),
    },
    settings: {
      acks: 'all',
      'idempotent producer': 'on',
      compression: 'none',
      partitions: String(PARTITION_COUNT),
      'Kafka nodes': '1',
      'payload bytes where nothing else is said': String(PAYLOAD_BYTES),
      'PostgreSQL fsync': 'off, on for latency',
      'all on': '127.0.0.1',
    },
    commands: {
      benchmark: ['bun test/bench/main.ts', ...process.argv.slice(2)].join(' '),
      'cdc-notifier': [...notifier, 'CONFIG.yaml'].map(shortened).join(' '),
      ...(hasRecvLogical ? { pg_recvlogical: recvLogicalCommand('pg_recvlogical', place).map(quoted).join(' ') } : {}),
    },
  };
}

/** The name of a program without its directory. */
function shortened(word: string): string {
  return word.startsWith('/') ? word.slice(word.lastIndexOf('/') + 1) : word;
}

function quoted(word: string): string {
  return /["\s]/.test(word) ? `'${word}'` : word;
}

async function run(options: BenchOptions, cleanup: AsyncDisposableStack): Promise<void> {
  const startedAt = new Date().toISOString();
  const machine = describeMachine();
  const { profileDirectory, jsonFile, plotsDirectory } = options;
  const environment = await prepareEnvironment(cleanup, { profileDirectory, progress });
  const description = await describeRun(environment);
  const { sections, growth } = await measureAll(environment, options);
  const report: Report = { startedAt, seconds: elapsedSeconds(), machine, ...description, sections };
  process.stdout.write(`\n${reportText(report)}`);
  if (jsonFile !== undefined) await writeFigures(jsonFile, `${JSON.stringify(reportJson(report), undefined, 2)}\n`);
  if (plotsDirectory !== undefined) {
    for (const [name, svg] of growthPlots(growth)) await writeFigures(join(plotsDirectory, name), svg);
  }
}

await runBenchProgram({
  name: 'The benchmark',
  usage: USAGE,
  readOptions: () => readOptions(process.argv.slice(2)),
  run,
});
