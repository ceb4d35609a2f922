/**
 * The comparison with Debezium: `bun test/bench/debezium/main.ts [--quick] [--json FILE]`.
 *
 * Reads the same backlogs with Debezium on Kafka Connect and with the compiled service in one run, on its own PostgreSQL and
 * Kafka. Progress goes to stderr, the table to stdout. The exit code shows whether the run succeeded.
 */
import { parseArgs } from 'node:util';
import { javaProgram } from '../../support/kafka/node/storage.ts';
import { KAFKA_VERSION } from '../../support/kafka/server.ts';
import { runProgram } from '../../support/process/run-program.ts';
import { describeMachine, type Environment, PARTITION_COUNT, prepareEnvironment } from '../environment.ts';
import { progress, runBenchProgram, writeFigures } from '../program.ts';
import { type Backlog, eventBacklog, stepBacklog } from '../workload/workloads.ts';
import { DEBEZIUM_VERSION, fetchDebezium } from './jars.ts';
import { type Comparison, compareReaders } from './reading.ts';
import { reportJson, reportText } from './report.ts';
import { CONNECTOR_TUNING, JAVA_ARGUMENTS, WORKER_TUNING } from './settings.ts';

const PAYLOAD_BYTES = 270;
/** Readings of a backlog per reader in a full run; the figures are medians */
const REPEAT_COUNT = 3;

const BACKLOGS: readonly Backlog[] = [
  eventBacklog({
    id: 'a',
    title: 'events in transactions of 50,000',
    eventCount: 500_000,
    eventsPerTransaction: 50_000,
    payloadBytes: PAYLOAD_BYTES,
  }),
  stepBacklog({
    id: 'b',
    title: 'transactions of one event and one irrelevant update',
    transactionCount: 100_000,
    payloadBytes: PAYLOAD_BYTES,
  }),
];

const USAGE = `Usage: bun test/bench/debezium/main.ts [--quick] [--json FILE]

  --quick      each backlog once
  --json FILE  write all figures to FILE too
`;

interface Options {
  readonly quick: boolean;
  readonly jsonFile: string | undefined;
}

function readOptions(): Options {
  const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false }, json: { type: 'string' } } });
  return { quick: values.quick, jsonFile: values.json };
}

async function versionsOf({ postgres }: Environment): Promise<Record<string, string>> {
  const sql = postgres.sql('postgres', { max: 1 });
  const [row] = await sql`SHOW server_version`;
  await sql.end();
  const java = /version "([^"]+)"/.exec(await runProgram(javaProgram(), ['-version']))?.[1];
  return {
    Debezium: DEBEZIUM_VERSION,
    'Kafka and Kafka Connect': KAFKA_VERSION,
    Java: String(java),
    PostgreSQL: String(row?.server_version),
    Bun: Bun.version,
  };
}

async function run({ quick, jsonFile }: Options, cleanup: AsyncDisposableStack): Promise<void> {
  const machine = describeMachine();
  progress('fetching Kafka Connect and Debezium');
  const jars = await fetchDebezium();
  const environment = await prepareEnvironment(cleanup, { progress });
  const comparisons: Comparison[] = [];
  for (const backlog of BACKLOGS) {
    comparisons.push(await compareReaders(environment, jars, backlog, quick ? 1 : REPEAT_COUNT));
  }
  const report = {
    machine,
    versions: await versionsOf(environment),
    settings: { java: JAVA_ARGUMENTS, worker: WORKER_TUNING, connector: CONNECTOR_TUNING },
    partitionCount: PARTITION_COUNT,
    comparisons,
  };
  process.stdout.write(`\n${reportText(report)}`);
  if (jsonFile !== undefined) {
    await writeFigures(jsonFile, `${JSON.stringify(reportJson(report), undefined, 2)}\n`);
  }
}

await runBenchProgram({ name: 'The comparison', usage: USAGE, readOptions, run });
