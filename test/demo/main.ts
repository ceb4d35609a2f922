/**
 * The whole service at work: real servers, the compiled binary, a writer that behaves as progressor, and on the screen
 * what arrives in Kafka. It ends with a comparison of everything written with everything read.
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
import { type LogLine, Service } from './service.ts';
import { NAMESPACES, SLOT, type Stage, setStage, TOPICS } from './stage.ts';
import { byteSize, clock, fit, grouped, pad, printable } from './text.ts';

const START_TIMEOUT_MS = 60_000;
const DELIVERY_TIMEOUT_MS = 20_000;
/** A little over the service's own shutdown_timeout */
const STOP_TIMEOUT_MS = 25_000;
const STATUS_PERIOD_MS = 250;
const RATE_WINDOW_MS = 3_000;
/** More than this nobody can read; the rest is counted */
const MAX_LINES_PER_SECOND = 40;

/** As many as the client of the stage has connections to spare */
const MAX_LANES = 16;

const KIND_BY_TOPIC = new Map(TOPICS.map(({ name, kind }) => [name, kind]));
const TOPIC_WIDTH = Math.max(...TOPICS.map(({ name }) => name.length));
const KEY_WIDTH = 28;

/** Set by the first Ctrl-C; the second leaves the cleaning up to the guardian. */
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
    await using stage = await setStage(screen, options.postgres);
    return await play(screen, stage, options);
  } catch (error) {
    screen.status([]);
    screen.print(screen.style.red(error instanceof Error ? error.message : String(error)));
    return 1;
  }
}

async function play(screen: Screen, stage: Stage, options: DemoOptions): Promise<number> {
  const logFile = join(stage.directory, 'cdc-notifier.log');
  const records: DescribedRecord[] = [];
  const live = new LiveView(screen);
  const service = await step(screen, 'cdc-notifier', async () => {
    const cwd = join(stage.directory, 'empty');
    const started = await Service.start({
      configFile: stage.configFile,
      cwd,
      logFile,
      onLog: (line) => live.log(line),
    });
    await waitForStreaming(stage.sql, started, live);
    return started;
  });
  const reader = stage.kafka.follow([...KIND_BY_TOPIC.keys()], {
    keep: false,
    onRecords: (bunch) => {
      const described = bunch.map(describe);
      records.push(...described);
      live.show(described);
    },
  });
  try {
    const writer = new ProgressorWriter({
      sql: stage.sql,
      namespaces: NAMESPACES,
      seed: options.seed,
      lanes: Math.min(MAX_LANES, Math.max(4, Math.ceil(options.rate / 20))),
      transactionsPerSecond: options.rate,
    });
    const until = options.durationMs === undefined ? 'Ctrl-C stops' : `for ${options.durationMs / 1000} s`;
    screen.print(`  ${options.rate} transactions a second, ${until}; log in ${logFile}`, '');
    const meter = new Meter(stage, writer, service, records);
    writer.start();
    const writing = writer.finished();
    writing.catch(() => stopRequest.abort());
    await untilStopped(options.durationMs, service, () => meter.show(screen));
    await writer.stop();
    await deliverRest(screen, meter, writer, records, service);
    screen.status([]);
    const crashed = service.hasExited;
    const exit = await step(screen, 'cdc-notifier stopped by SIGTERM', () => service.stop(STOP_TIMEOUT_MS));
    await reader.catchUp();
    const verdict = judge(writer, records);
    printVerdict(screen, { verdict, writer, reader, exit, crashed, peakBytes: meter.peakBytes });
    return verdict.ok && verdict.expected > 0 && exit === 0 && !crashed ? 0 : 1;
  } finally {
    await reader.close();
    if (!service.hasExited) await service.stop(STOP_TIMEOUT_MS);
  }
}

/** Nothing is owed from before a publication exists, so nothing is written before the slot streams. */
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

/** Shows the status until the time is over, somebody asks for the end, or the service is gone. */
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

/** Waits until everything that was written has arrived, or for as long as one may expect that to take. */
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

/** Prints records as they come, and the service's complaints among them. */
class LiveView {
  readonly #screen: Screen;
  lastTrouble: string | undefined;
  #second = 0;
  #linesThisSecond = 0;
  #notShown = 0;

  constructor(screen: Screen) {
    this.#screen = screen;
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

/** Measures how it goes, and shows it as the status. */
class Meter {
  peakBytes = 0;
  readonly #stage: Stage;
  readonly #writer: ProgressorWriter;
  readonly #service: Service;
  readonly #records: readonly DescribedRecord[];
  readonly #lag = new LagMeter();
  readonly #started = performance.now();
  readonly #counts: { timeMs: number; count: number }[] = [];

  constructor(stage: Stage, writer: ProgressorWriter, service: Service, records: readonly DescribedRecord[]) {
    this.#stage = stage;
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

  /** Records a second over the last moments */
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
      const [row] = await this.#stage.sql<{ current: number; confirmed: number | null }[]>`
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
  /** It ended by itself, before it was asked to */
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
    row('  duplicates (allowed)', verdict.duplicates, false),
    row('  missing', verdict.missing, true),
    row('  unexpected', verdict.unexpected, true),
    row('  out of order', verdict.outOfOrder, true),
    row('  in a wrong partition', verdict.wrongPartition, true),
    row('  with a wrong created_at', verdict.wrongTime, true),
    ...verdict.findings.map((finding) => style.red(fit(printable(`    ${finding}`), screen.columns - 1))),
    ...(peakBytes > 0 ? [`  peak memory of cdc-notifier ${byteSize(peakBytes)}`] : []),
  );
  if (crashed) screen.print(style.red(`cdc-notifier ended by itself: ${exit}`));
  else if (exit !== 0) screen.print(style.red(`cdc-notifier ended with ${exit} instead of 0`));
  if (verdict.expected === 0) screen.print(style.red('Nothing was written, so nothing was shown'));
  const good = verdict.ok && verdict.expected > 0 && exit === 0 && !crashed;
  screen.print(
    good
      ? style.green('✓ Everything written arrived, in order, where it belongs')
      : style.red('✗ Not everything is as it must be'),
  );
}

process.exit(await main());
