/**
 * The benchmark: `bun test/bench/main.ts [--quick] [--json FILE] [--only LIST] [--profile DIRECTORY]`.
 *
 * Reads the same backlogs by pg_recvlogical and by the compiled service in one run, on its own PostgreSQL and Kafka,
 * and measures latency at a steady rate. Progress goes to stderr, the table to stdout. The exit code tells whether the
 * run succeeded, never whether the figures are good.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { KAFKA_VERSION } from '../support/kafka.ts';
import { measureBacklog, recvLogicalCommand } from './backlog-run.ts';
import { describeMachine, type Environment, PARTITION_COUNT, prepareEnvironment } from './environment.ts';
import { measureLatency } from './latency.ts';
import { type Report, reportJson, reportText } from './report.ts';
import { type Backlog, eventBacklog, stepBacklog } from './workloads.ts';

const PAYLOAD_BYTES = 270;

const BACKLOGS: readonly Backlog[] = [
  eventBacklog({
    id: 'a',
    title: 'events in transactions of 50,000',
    eventCount: 500_000,
    eventsPerTransaction: 50_000,
    payloadBytes: PAYLOAD_BYTES,
    repeatCount: 3,
    minimumRatio: 0.6,
  }),
  stepBacklog({
    id: 'b',
    title: 'transactions of one event and one irrelevant update',
    transactionCount: 100_000,
    payloadBytes: PAYLOAD_BYTES,
    repeatCount: 3,
    minimumRatio: 0.85,
  }),
  eventBacklog({
    id: 'c',
    title: 'one transaction',
    eventCount: 1_000_000,
    eventsPerTransaction: 1_000_000,
    payloadBytes: PAYLOAD_BYTES,
    repeatCount: 1,
  }),
];

/** Brings broker and file cache up to speed; its figures are thrown away. */
const WARM_UP = eventBacklog({
  id: 'warmup',
  title: 'warm-up',
  eventCount: 100_000,
  eventsPerTransaction: 10_000,
  payloadBytes: PAYLOAD_BYTES,
  repeatCount: 1,
});

const LATENCY = { transactionsPerSecond: 500, payloadBytes: PAYLOAD_BYTES };
const LATENCY_SECONDS = { full: 20, quick: 10 } as const;
const LATENCY_WARM_UP_SECONDS = 3;

const USAGE = `Usage: bun test/bench/main.ts [--quick] [--json FILE] [--only LIST] [--profile DIRECTORY]

  --quick              each backlog once, a shorter latency measurement
  --json FILE          write all figures to FILE too
  --only LIST          some of a, b, c, latency, separated by commas
  --profile DIRECTORY  run the sources under Bun's CPU profiler, one file a reading; the figures are worth less then
`;

interface Options {
  readonly quick: boolean;
  readonly jsonFile: string | undefined;
  readonly only: ReadonlySet<string>;
  readonly profileDirectory: string | undefined;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
      only: { type: 'string', default: [...BACKLOGS.map(({ id }) => id), 'latency'].join(',') },
      profile: { type: 'string' },
    },
  });
  const known = new Set([...BACKLOGS.map(({ id }) => id), 'latency']);
  const only = new Set(values.only.split(','));
  for (const name of only) if (!known.has(name)) throw new Error(`There is no measurement "${name}"`);
  return { quick: values.quick, jsonFile: values.json, only, profileDirectory: values.profile };
}

const startedMs = performance.now();

function progress(text: string): void {
  process.stderr.write(`${((performance.now() - startedMs) / 1000).toFixed(1).padStart(6)} s  ${text}\n`);
}

async function measure(environment: Environment, options: Options, machine: Report['machine']): Promise<Report> {
  const { postgres, recvLogical } = environment;
  const sql = postgres.sql('postgres', { max: 1 });
  const [row] = await sql`SHOW server_version`;
  await sql.end();
  const wanted = BACKLOGS.filter(({ id }) => options.only.has(id));
  if (wanted.length > 0) await measureBacklog(environment, WARM_UP, 1);
  const backlogs = [];
  for (const backlog of wanted) {
    backlogs.push(await measureBacklog(environment, backlog, options.quick ? 1 : backlog.repeatCount));
  }
  const latency = options.only.has('latency')
    ? await measureLatency(
        environment,
        { ...LATENCY, seconds: LATENCY_SECONDS[options.quick ? 'quick' : 'full'] },
        LATENCY_WARM_UP_SECONDS,
      )
    : undefined;
  const missing = 'missing' in recvLogical ? recvLogical.missing : undefined;
  const place = { host: postgres.host, port: postgres.port, database: 'DATABASE', slot: 'SLOT', end: 'LSN' };
  return {
    machine,
    versions: {
      Bun: Bun.version,
      PostgreSQL: String(row?.server_version),
      Kafka: KAFKA_VERSION,
      ...('missing' in recvLogical ? {} : { pg_recvlogical: recvLogical.version.replace(/^pg_recvlogical /, '') }),
    },
    settings: {
      acks: 'all',
      'idempotent producer': 'on',
      partitions: String(PARTITION_COUNT),
      'Kafka nodes': '1',
      'payload bytes': String(PAYLOAD_BYTES),
      'PostgreSQL fsync': 'off for backlogs, on for latency',
      'all on': '127.0.0.1',
    },
    commands: {
      benchmark: ['bun test/bench/main.ts', ...process.argv.slice(2)].join(' '),
      'cdc-notifier': [...environment.notifier, 'CONFIG.yaml'].map(shortened).join(' '),
      ...('missing' in recvLogical
        ? {}
        : { pg_recvlogical: recvLogicalCommand('pg_recvlogical', place).map(quoted).join(' ') }),
    },
    comparisonMissing: missing,
    backlogs,
    latency,
  };
}

/** Programs by their names: where they lie on this machine says nothing. */
function shortened(word: string): string {
  return word.startsWith('/') ? word.slice(word.lastIndexOf('/') + 1) : word;
}

function quoted(word: string): string {
  return /["\s]/.test(word) ? `'${word}'` : word;
}

async function run(options: Options, cleanup: AsyncDisposableStack): Promise<number> {
  const machine = describeMachine();
  const { profileDirectory } = options;
  const environment = await prepareEnvironment(cleanup, { profileDirectory, progress });
  const report = await measure(environment, options, machine);
  process.stdout.write(`\n${reportText(report)}`);
  if (options.jsonFile !== undefined) {
    await writeFile(options.jsonFile, `${JSON.stringify(reportJson(report), undefined, 2)}\n`);
    progress(`written: ${options.jsonFile}`);
  }
  return 0;
}

/** Resolves with an exit code at the first signal that asks for an end. */
function interrupted(): Promise<number> {
  return new Promise((resolve) => {
    process.once('SIGINT', () => resolve(130));
    process.once('SIGTERM', () => resolve(143));
  });
}

async function main(): Promise<number> {
  let options: Options;
  try {
    options = readOptions();
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n\n${USAGE}`);
    return 1;
  }
  const cleanup = new AsyncDisposableStack();
  try {
    return await Promise.race([run(options, cleanup), interrupted()]);
  } catch (error) {
    process.stderr.write(`The benchmark failed: ${error instanceof Error ? error.message : error}\n`);
    return 1;
  } finally {
    progress('stopping the servers');
    await cleanup.disposeAsync();
  }
}

process.exit(await main());
