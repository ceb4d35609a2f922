/**
 * `make demo`: the compiled service between a real PostgreSQL and a real Kafka, with a simulated progressor workload. The
 * screen shows the records that arrive in Kafka; the end compares them with everything that was written.
 */
import { join } from 'node:path';
import type { Sql } from 'postgres';
import { type DescribedRecord, describeRecord } from '../support/codecs/record-text.ts';
import { compare, type Verdict } from '../support/codecs/verdict.ts';
import type { KafkaRecord, TopicReader } from '../support/kafka/topic-reader.ts';
import { waitFor } from '../support/process/wait.ts';
import { ProgressorWriter } from '../support/progressor/writer.ts';
import { type Lag, LagMeter } from './lag.ts';
import { type DemoOptions, parseOptions, USAGE } from './options.ts';
import { Screen, type StatusPart, step } from './screen.ts';
import { type DemoServers, NAMESPACES, SLOT, startDemoServers, TOPICS } from './servers.ts';
import { type LogLine, Service } from './service.ts';
import { byteSize, clock, fit, grouped, pad, printable } from './text.ts';

const START_TIMEOUT_MS = 60_000;
const DELIVERY_TIMEOUT_MS = 20_000;
/** A little longer than the service's shutdown_timeout */
const STOP_TIMEOUT_MS = 25_000;
const STATUS_PERIOD_MS = 250;
const RATE_WINDOW_MS = 3_000;
/** More lines than this are unreadable; further records are counted */
const MAX_LINES_PER_SECOND = 40;

/** The client of `DemoServers` has this many connections to spare */
const MAX_LANES = 16;

const KIND_BY_TOPIC = new Map(TOPICS.map(({ name, kind }) => [name, kind]));
const TOPIC_WIDTH = Math.max(...TOPICS.map(({ name }) => name.length));
const KEY_WIDTH = 28;

/** Aborted by the first Ctrl-C. A second one exits at once; the guardian process then stops the servers. */
const stopRequest = new AbortController();

async function main(): Promise<number> {
  let options: DemoOptions | undefined;
  try {
    options = parseOptions(process.argv.slice(2), process.stdout.isTTY === true);
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    return 2;
  }
  if (options === undefined) {
    console.log(USAGE);
    return 0;
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (stopRequest.signal.aborted) process.exit(130);
      stopRequest.abort();
    });
  }
  const screen = new Screen();
  try {
    printIntroduction(screen, options);
    await using servers = await startDemoServers(screen, options.postgres);
    return await play(screen, servers, options);
  } catch (error) {
    screen.status([]);
    screen.print(screen.style.red(error instanceof Error ? error.message : String(error)));
    return 1;
  }
}

function printIntroduction(screen: Screen, { postgres, durationMs }: DemoOptions): void {
  const until = durationMs === undefined ? 'Press Ctrl-C to stop.' : `It stops after ${durationMs / 1000} s.`;
  screen.print(
    screen.style.bold('cdc-notifier demo'),
    `A simulated progressor writes to PostgreSQL ${postgres}; the service follows its WAL and produces a record per event to Kafka.`,
    `Everything runs on 127.0.0.1 and is removed at the end. ${until}`,
    '',
  );
}

async function play(screen: Screen, servers: DemoServers, options: DemoOptions): Promise<number> {
  const logFile = join(servers.directory, 'cdc-notifier.log');
  const records: DescribedRecord[] = [];
  const live = new LiveView(screen);
  const service = await step(screen, 'Start cdc-notifier: create the slot and the publications, stream', async () => {
    const cwd = join(servers.directory, 'empty');
    const started = await Service.start({
      configFile: servers.configFile,
      cwd,
      logFile,
      onLog: (line) => live.log(line),
    });
    await waitForStreaming(servers.sql, started, live);
    return started;
  });
  const reader = servers.kafka.follow([...KIND_BY_TOPIC.keys()], {
    keep: false,
    onRecords: (batch) => {
      const described = batch.map(describe);
      records.push(...described);
      live.show(described);
    },
  });
  try {
    const writer = new ProgressorWriter({
      sql: servers.sql,
      namespaces: NAMESPACES,
      seed: options.seed,
      lanes: Math.min(MAX_LANES, Math.max(4, Math.ceil(options.rate / 20))),
      transactionsPerSecond: options.rate,
    });
    screen.print(
      '',
      `Configuration  ${servers.configFile}`,
      `Log            ${logFile}`,
      `Workload       ${options.rate} transactions per second`,
      '',
      live.header(),
    );
    const meter = new Meter(servers, writer, service, records);
    writer.start();
    const writing = writer.finished();
    writing.catch(() => stopRequest.abort());
    await untilStopped(options.durationMs, service, () => meter.show(screen));
    await writer.stop();
    await deliverRest(screen, meter, writer, records, service);
    screen.status([]);
    const crashed = service.hasExited;
    const exit = await step(screen, 'Stop cdc-notifier (SIGTERM)', () => service.stop(STOP_TIMEOUT_MS));
    await reader.catchUp();
    const verdict = judge(writer, records);
    printVerdict(screen, { verdict, writer, reader, exit, crashed, peakBytes: meter.peakBytes });
    return verdict.ok && verdict.expected > 0 && exit === 0 && !crashed ? 0 : 1;
  } finally {
    await reader.close();
    if (!service.hasExited) await service.stop(STOP_TIMEOUT_MS);
  }
}

/** Waits until the slot streams: rows written before its publication exists are not delivered. */
async function waitForStreaming(sql: Sql, service: Service, live: LiveView): Promise<void> {
  const isStreaming = async (): Promise<boolean> => {
    if (service.hasExited) throw new Error(`Cannot start cdc-notifier: exit code ${await service.exited}`);
    if (stopRequest.signal.aborted) throw new Error('Stopped');
    const rows = await sql`SELECT FROM pg_replication_slots WHERE slot_name = ${SLOT} AND active`;
    return rows.length > 0;
  };
  try {
    await waitFor('cdc-notifier streaming', isStreaming, { timeoutMs: START_TIMEOUT_MS, intervalMs: 50 });
  } catch (error) {
    await service.stop(STOP_TIMEOUT_MS);
    const last = live.lastTrouble === undefined ? '' : ` (${live.lastTrouble})`;
    throw new Error(`${(error as Error).message}${last}`);
  }
}

/** Shows the status until the duration is over, Ctrl-C is pressed, or the service exits. */
async function untilStopped(
  durationMs: number | undefined,
  service: Service,
  show: () => Promise<void>,
): Promise<void> {
  const end = performance.now() + (durationMs ?? Number.POSITIVE_INFINITY);
  while (performance.now() < end && !stopRequest.signal.aborted && !service.hasExited) {
    await show();
    await Bun.sleep(Math.max(0, Math.min(STATUS_PERIOD_MS, end - performance.now())));
  }
}

/** Waits until everything that was written has arrived, at most `DELIVERY_TIMEOUT_MS`. */
async function deliverRest(
  screen: Screen,
  meter: Meter,
  writer: ProgressorWriter,
  records: readonly DescribedRecord[],
  service: Service,
): Promise<void> {
  const deadline = performance.now() + DELIVERY_TIMEOUT_MS;
  while (performance.now() < deadline && !service.hasExited) {
    await meter.show(screen);
    if (records.length >= writer.expected.length && judge(writer, records).missing === 0) return;
    await Bun.sleep(100);
  }
}

function judge(writer: ProgressorWriter, records: readonly DescribedRecord[]): Verdict {
  const partitionCounts = new Map(TOPICS.map(({ name, partitions }) => [name, partitions]));
  return compare({ expected: writer.expected, read: records, partitionCounts });
}

function describe(record: KafkaRecord): DescribedRecord {
  return describeRecord(record, KIND_BY_TOPIC.get(record.topic) ?? 'eventsink');
}

/** Prints records as they arrive, and the service's warnings and errors among them. */
class LiveView {
  readonly #screen: Screen;
  lastTrouble: string | undefined;
  #second = 0;
  #linesThisSecond = 0;
  #notShown = 0;

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  /** Names the columns of the lines that `show` prints. */
  header(): string {
    const columns = [pad('time', 8), pad('topic', TOPIC_WIDTH), pad('part@off', 8), pad('key', KEY_WIDTH), 'record'];
    return this.#screen.style.dim(columns.join('  '));
  }

  show(records: readonly DescribedRecord[]): void {
    const now = new Date();
    const second = Math.floor(now.getTime() / 1000);
    const lines: string[] = [];
    if (second !== this.#second) {
      if (this.#notShown > 0) lines.push(this.#screen.style.dim(`  … and ${grouped(this.#notShown)} more`));
      this.#second = second;
      this.#linesThisSecond = 0;
      this.#notShown = 0;
    }
    const shown = records.slice(0, MAX_LINES_PER_SECOND - this.#linesThisSecond);
    this.#linesThisSecond += shown.length;
    this.#notShown += records.length - shown.length;
    for (const record of shown) lines.push(this.#line(record, now));
    if (lines.length > 0) this.#screen.print(...lines);
  }

  log({ level, text }: LogLine): void {
    if (level === 'other') return;
    const { red, yellow } = this.#screen.style;
    this.lastTrouble = text;
    const line = fit(printable(`  cdc-notifier ${level}: ${text}`), this.#screen.columns - 1);
    this.#screen.print(level === 'error' ? red(line) : yellow(line));
  }

  #line(record: DescribedRecord, now: Date): string {
    const { style, columns } = this.#screen;
    const time = now.toTimeString().slice(0, 8);
    const topic = pad(record.topic, TOPIC_WIDTH);
    const place = pad(`${record.partition}@${record.offset}`, 8);
    const key = pad(printable(record.key.toString()), KEY_WIDTH);
    const used = time.length + TOPIC_WIDTH + 8 + KEY_WIDTH + 8;
    const summary = fit(printable(record.summary), columns - used - 1);
    const topicStyle = KIND_BY_TOPIC.get(record.topic) === 'lifecycle' ? style.magenta : style.blue;
    return `${style.dim(time)}  ${topicStyle(topic)}  ${style.dim(place)}  ${style.bold(key)}  ${this.#summaryStyle(record)(summary)}`;
  }

  #summaryStyle({ content, summary }: DescribedRecord): (text: string) => string {
    const { red, green, yellow, dim } = this.#screen.style;
    if (content === undefined || summary.startsWith('failed')) return red;
    if (summary === 'created') return green;
    if (summary === 'working') return yellow;
    if (summary === 'removed') return dim;
    return (text) => text;
  }
}

/** Measures rates, lag and memory, and shows them as the status. */
class Meter {
  peakBytes = 0;
  readonly #servers: DemoServers;
  readonly #writer: ProgressorWriter;
  readonly #service: Service;
  readonly #records: readonly DescribedRecord[];
  readonly #lag = new LagMeter();
  readonly #started = performance.now();
  readonly #counts: { timeMs: number; count: number }[] = [];

  constructor(servers: DemoServers, writer: ProgressorWriter, service: Service, records: readonly DescribedRecord[]) {
    this.#servers = servers;
    this.#writer = writer;
    this.#service = service;
    this.#records = records;
  }

  async show(screen: Screen): Promise<void> {
    const { style } = screen;
    const lag = await this.#measureLag();
    const memory = this.#service.memoryBytes;
    if (memory !== undefined) this.peakBytes = Math.max(this.peakBytes, memory);
    const expected = this.#writer.expected.length;
    const lagText = lag === undefined ? 'lag unknown' : `lag ${byteSize(lag.bytes)}, ${lag.seconds.toFixed(1)} s`;
    const lagStyle = lag === undefined || lag.seconds > 5 ? style.red : lag.seconds > 1 ? style.yellow : style.green;
    const parts: StatusPart[] = [
      { text: clock(performance.now() - this.#started), style: style.bold },
      { text: `${grouped(this.#rate())} records/s`, style: style.cyan },
      { text: lagText, style: lagStyle },
      { text: `${grouped(this.#records.length)} of ${grouped(expected)} records read` },
      { text: `${grouped(this.#writer.rowCount)} rows in ${grouped(this.#writer.transactionCount)} transactions` },
      ...(memory === undefined ? [] : [{ text: `${byteSize(memory)} memory` }]),
      ...(stopRequest.signal.aborted
        ? [{ text: 'stopping', style: style.yellow }]
        : [{ text: 'Ctrl-C stops', style: style.dim }]),
    ];
    screen.status(parts);
  }

  /** Records per second over the last `RATE_WINDOW_MS` */
  #rate(): number {
    const timeMs = performance.now();
    this.#counts.push({ timeMs, count: this.#records.length });
    while ((this.#counts[1]?.timeMs ?? timeMs) < timeMs - RATE_WINDOW_MS) this.#counts.shift();
    const first = this.#counts[0];
    if (first === undefined || timeMs - first.timeMs < STATUS_PERIOD_MS) return 0;
    return ((this.#records.length - first.count) * 1000) / (timeMs - first.timeMs);
  }

  async #measureLag(): Promise<Lag | undefined> {
    try {
      const [row] = await this.#servers.sql<{ current: number; confirmed: number | null }[]>`
        SELECT (pg_current_wal_lsn() - '0/0')::float8 AS current,
          (SELECT (confirmed_flush_lsn - '0/0')::float8 FROM pg_replication_slots WHERE slot_name = ${SLOT}) AS confirmed`;
      if (row === undefined) return undefined;
      return this.#lag.add({
        timeMs: performance.now(),
        currentLsn: row.current,
        confirmedLsn: row.confirmed ?? undefined,
      });
    } catch {
      return undefined;
    }
  }
}

interface Outcome {
  readonly verdict: Verdict;
  readonly writer: ProgressorWriter;
  readonly reader: TopicReader;
  readonly exit: number | NodeJS.Signals;
  /** It exited before it was stopped */
  readonly crashed: boolean;
  readonly peakBytes: number;
}

function printVerdict(screen: Screen, { verdict, writer, exit, crashed, peakBytes }: Outcome): void {
  const { style } = screen;
  const row = (name: string, count: number, mustBeZero: boolean): string => {
    const text = `${pad(name, 34)}${grouped(count).padStart(10)}`;
    return mustBeZero && count > 0 ? style.red(text) : text;
  };
  screen.print(
    '',
    style.bold('Verdict'),
    row('  transactions committed', writer.transactionCount, false),
    row('  rows written', writer.rowCount, false),
    row('  records expected', verdict.expected, false),
    row('  records read', verdict.read, false),
    row('  repeated (allowed)', verdict.duplicates, false),
    row('  missing', verdict.missing, true),
    row('  unexpected', verdict.unexpected, true),
    row('  out of order', verdict.outOfOrder, true),
    row('  in the wrong partition', verdict.wrongPartition, true),
    row('  with a wrong created_at', verdict.wrongTime, true),
    ...verdict.findings.map((finding) => style.red(fit(printable(`    ${finding}`), screen.columns - 1))),
    ...(peakBytes > 0 ? [`  peak memory of cdc-notifier ${byteSize(peakBytes)}`] : []),
  );
  if (crashed) screen.print(style.red(`cdc-notifier exited unexpectedly: ${exit}`));
  else if (exit !== 0) screen.print(style.red(`cdc-notifier exited with ${exit} instead of 0`));
  if (verdict.expected === 0) screen.print(style.red('Nothing was written, so nothing was checked'));
  const good = verdict.ok && verdict.expected > 0 && exit === 0 && !crashed;
  screen.print(
    good
      ? style.green('✓ Every record arrived, in order, in the right partition')
      : style.red('✗ Some records are missing or wrong, see above'),
  );
}

process.exit(await main());
