/**
 * A writer that behaves like progressor: processes start, make steps of one short transaction each, fail, are repaired and
 * are removed. It records what every committed change must lead to. All its decisions follow from its seed.
 */
import type { ReservedSql, Sql } from 'postgres';
import { encodePayload, int, randomValue, seededRandom, str, type Value } from '../codecs/etf.ts';
import { eventContent, lifecycleContent } from '../codecs/record-text.ts';
import type { ExpectedRecord, SecondsRange } from '../codecs/verdict.ts';
import { type Generation, tablesOf } from './tables.ts';

/** A namespace to write to, and the topics where its records must arrive. */
export interface WriterNamespace {
  readonly namespace: string;
  readonly eventsinkTopic: string;
  readonly lifecycleTopic: string;
  /** Which statuses and columns the tables have; default `new` */
  readonly generation?: Generation | undefined;
}

/** Options of `ProgressorWriter`. */
export interface WriterOptions {
  /** A client of the database that may open `lanes` connections */
  readonly sql: Sql;
  readonly namespaces: readonly WriterNamespace[];
  /** Default 1 */
  readonly seed?: number | undefined;
  /** Number of concurrent transactions; each lane has processes of its own. Default 4 */
  readonly lanes?: number | undefined;
  /** Transactions per second over all lanes; default: as fast as possible */
  readonly transactionsPerSecond?: number | undefined;
  /** Prefix of every process id, so that several writers can share a namespace; default empty */
  readonly processIdPrefix?: string | undefined;
}

/** A server session; the start time distinguishes it from a later one with the same pid. */
interface Backend {
  readonly pid: number;
  readonly start: string;
}

/** A connection inside a transaction */
type Statements = ReservedSql;

interface Process {
  readonly target: WriterNamespace;
  readonly id: string;
  status: 'init' | 'running' | 'error';
  nextEventId: number;
  /** The task that waits or runs for it */
  taskId: string;
  taskState: 'waiting' | 'running';
}

/** A record that a transaction must lead to; without `createdAt` the commit time applies. */
type Outcome = Omit<ExpectedRecord, 'createdAt'> & { readonly createdAt?: SecondsRange };

interface Transaction {
  /** Row changes of processes and events tables */
  readonly rowCount: number;
  readonly outcomes: readonly Outcome[];
  readonly run: (tx: Statements) => Promise<void>;
  /** True when the database contains its effect */
  readonly isCommitted: (sql: Sql) => Promise<boolean>;
  /** Called after the commit */
  readonly applied: () => void;
}

const MAX_LIVE_PROCESSES = 40;
/** event_id is a smallint */
const MAX_EVENTS = 32_000;
const RETRY_DELAY_MS = 100;

/** Writes transactions in several lanes and records what they must lead to. */
export class ProgressorWriter {
  /** What the committed transactions must lead to, for each key in commit order */
  readonly expected: ExpectedRecord[] = [];
  transactionCount = 0;
  /** Committed row changes of processes and events tables */
  rowCount = 0;
  /** Transactions whose outcome was unknown after a lost connection and had to be looked up */
  uncertainCount = 0;
  readonly #options: WriterOptions;
  #lanes: Promise<void>[] = [];
  #stopped = false;

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  /** Starts to write; stops by itself after `transactions`. */
  start(transactions = Number.POSITIVE_INFINITY): void {
    const lanes = this.#options.lanes ?? 4;
    for (let lane = 0; lane < lanes; lane++) {
      const share = Math.floor(transactions / lanes) + (lane < transactions % lanes ? 1 : 0);
      this.#lanes.push(this.#runLane(lane, Number.isFinite(transactions) ? share : transactions));
    }
  }

  /** Resolves when all lanes have ended; rejects when the database refused a statement. */
  async finished(): Promise<void> {
    await Promise.all(this.#lanes);
  }

  /** Ends the lanes after their current transactions. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.finished();
  }

  /** Writes so many transactions and resolves when all are committed. */
  async write(transactions: number): Promise<void> {
    this.#lanes = [];
    this.start(transactions);
    await this.finished();
  }

  async #runLane(index: number, transactions: number): Promise<void> {
    const { namespaces, seed = 1, lanes = 4, transactionsPerSecond, processIdPrefix = '' } = this.#options;
    // Each `start` uses new numbers: process ids must not repeat.
    const salt = this.transactionCount;
    const prefix = `${processIdPrefix}${salt.toString(36)}${String.fromCharCode(97 + (index % 26))}${index}`;
    const script = new Script(seededRandom(seed * 7919 + index * 104_729 + salt), namespaces, prefix);
    const periodMs = transactionsPerSecond === undefined ? 0 : (1000 * lanes) / transactionsPerSecond;
    let due = performance.now() + (periodMs * index) / lanes;
    for (let count = 0; count < transactions && !this.#stopped; count++) {
      const now = performance.now();
      if (due > now) await Bun.sleep(due - now);
      // After a pause the rate stays the same, without a burst to catch up.
      due = Math.max(due + periodMs, now);
      if (this.#stopped) return;
      await this.#commit(script.next());
    }
  }

  async #commit(transaction: Transaction): Promise<void> {
    const from = Math.floor(Date.now() / 1000);
    while (!(await this.#attempt(transaction))) {
      if (this.#stopped) return;
    }
    const committed = { from, to: Math.floor(Date.now() / 1000) };
    transaction.applied();
    this.transactionCount++;
    this.rowCount += transaction.rowCount;
    for (const outcome of transaction.outcomes) this.expected.push({ createdAt: committed, ...outcome });
  }

  /** True when it was committed; false when it certainly was not, because the connection was lost. */
  async #attempt(transaction: Transaction): Promise<boolean> {
    let backend: Backend | undefined;
    try {
      // Not sql.begin: after a lost connection the driver (postgres 3.4.9) sends ROLLBACK on it, in a timer, where the error
      // cannot be caught.
      const tx = await this.#options.sql.reserve();
      await tx`BEGIN`;
      [backend] = await tx<Backend[]>`
        SELECT pid, backend_start::text AS start FROM pg_stat_activity WHERE pid = pg_backend_pid()`;
      await transaction.run(tx);
      await tx`COMMIT`;
      tx.release();
      return true;
    } catch (error) {
      // A lost connection is not released: the pool would hand it out again.
      if (!isConnectionError(error)) throw error;
      await Bun.sleep(RETRY_DELAY_MS);
      if (backend === undefined) return false;
      this.uncertainCount++;
      return this.#wasCommitted(transaction, backend);
    }
  }

  /**
   * The connection was lost between BEGIN and the answer to COMMIT: only the server knows the outcome. The rows decide, not
   * the transaction id: after a crash the server reuses ids that it never flushed.
   */
  async #wasCommitted(transaction: Transaction, { pid, start }: Backend): Promise<boolean> {
    const { sql } = this.#options;
    for (;;) {
      try {
        const alive =
          await sql`SELECT FROM pg_stat_activity WHERE pid = ${pid} AND backend_start = ${start}::text::timestamptz`;
        if (alive.length === 0) return await transaction.isCommitted(sql);
      } catch (error) {
        if (!isConnectionError(error)) throw error;
      }
      await Bun.sleep(RETRY_DELAY_MS);
    }
  }
}

async function exists(query: Promise<readonly unknown[]>): Promise<boolean> {
  return (await query).length > 0;
}

/** Errors of the driver's connections, and the server's states of starting and stopping. */
function isConnectionError(error: unknown): boolean {
  const code = (error as { code?: unknown }).code;
  return (
    typeof code === 'string' && (/^(CONNECTION_|CONNECT_|ECONN|EPIPE|ETIMEDOUT)/.test(code) || /^(57P|08)/.test(code))
  );
}

/** Decides what one lane does next; called for the next transaction only after the last one was committed. */
class Script {
  readonly #random: () => number;
  readonly #namespaces: readonly WriterNamespace[];
  readonly #prefix: string;
  readonly #live: Process[] = [];
  #started = 0;
  #failed = 0;

  constructor(random: () => number, namespaces: readonly WriterNamespace[], prefix: string) {
    this.#random = random;
    this.#namespaces = namespaces;
    this.#prefix = prefix;
  }

  next(): Transaction {
    const share = this.#random();
    if (this.#live.length < 3 || (share < 0.12 && this.#live.length < MAX_LIVE_PROCESSES)) return this.#start();
    const process = this.#pick(this.#live);
    const choice = this.#random();
    if (process.nextEventId > MAX_EVENTS) return this.#remove(process);
    if (process.status === 'error') return choice < 0.75 ? this.#step(process) : this.#remove(process);
    if (choice < 0.08) return this.#fail(process);
    if (choice < 0.14) return this.#remove(process);
    return this.#step(process);
  }

  #start(): Transaction {
    const target = this.#pick(this.#namespaces);
    const names = tablesOf(target.namespace);
    const isNew = target.generation !== 'old';
    const status = isNew ? 'init' : 'running';
    const id = this.#newId();
    const process: Process = { target, id, status, nextEventId: 1, taskId: '', taskState: 'running' };
    return {
      rowCount: 1,
      outcomes: [lifecycle(process, 'created')],
      run: async (tx) => {
        const newColumns = isNew ? { previous_status: status, status_changed_at: new Date() } : {};
        await tx`INSERT INTO ${tx(names.processes)} ${tx({ process_id: id, status, ...newColumns })}`;
        const [task] = await tx<{ task_id: string }[]>`
          INSERT INTO ${tx(names.tasks)}
            (process_id, task_type, status, scheduled_time, running_time, args, last_retry_interval, attempts_count)
          VALUES (${id}, 'init', 'running', now(), now(), ${Buffer.from('args')}, 0, 0) RETURNING task_id`;
        process.taskId = task?.task_id as string;
        await tx`
          INSERT INTO ${tx(names.running)}
            (process_id, task_id, task_type, status, scheduled_time, running_time, last_retry_interval, attempts_count)
          VALUES (${id}, ${process.taskId}, 'init', 'running', now(), now(), 0, 0)`;
      },
      isCommitted: (sql) => exists(sql`SELECT FROM ${sql(names.processes)} WHERE process_id = ${id}`),
      applied: () => this.#live.push(process),
    };
  }

  /** A step of a running process or the repair of a failed one: events and processes row in one transaction. */
  #step(process: Process): Transaction {
    const { target, id } = process;
    const names = tablesOf(target.namespace);
    const repaired = process.status === 'error';
    const events = Array.from({ length: this.#eventCount() }, (_, index) => this.#event(process, index));
    const nextState = this.#random() < 0.3 ? 'waiting' : 'running';
    let nextTaskId = '';
    return {
      rowCount: 1 + events.length,
      outcomes: [...(repaired ? [lifecycle(process, 'working')] : []), ...events.map(({ outcome }) => outcome)],
      run: async (tx) => {
        await this.#setStatus(tx, process, 'running', null);
        for (const { insert } of events) await insert(tx);
        await this.#finishTask(tx, process, 'finished');
        const [task] = await tx<{ task_id: string }[]>`
          INSERT INTO ${tx(names.tasks)} (process_id, task_type, status, scheduled_time, last_retry_interval, attempts_count)
          VALUES (${id}, 'timeout', ${nextState}, now(), 0, 0) RETURNING task_id`;
        nextTaskId = task?.task_id as string;
        if (nextState === 'waiting') {
          await tx`
            INSERT INTO ${tx(names.schedule)}
              (task_id, process_id, task_type, status, scheduled_time, last_retry_interval, attempts_count)
            VALUES (${nextTaskId}, ${id}, 'timeout', 'waiting', now(), 0, 0)`;
        } else {
          await tx`
            INSERT INTO ${tx(names.running)}
              (process_id, task_id, task_type, status, scheduled_time, running_time, last_retry_interval, attempts_count)
            VALUES (${id}, ${nextTaskId}, 'timeout', 'running', now(), now(), 0, 0)`;
        }
      },
      isCommitted: (sql) => this.#isTaskFinished(sql, process),
      applied: () => {
        process.status = 'running';
        process.nextEventId += events.length;
        process.taskId = nextTaskId;
        process.taskState = nextState;
      },
    };
  }

  #fail(process: Process): Transaction {
    // Without a detail the reason in the record is "unknown".
    const detail = this.#random() < 0.15 ? null : this.#detail();
    return {
      rowCount: 1,
      outcomes: [lifecycle(process, 'failed', detail ?? 'unknown')],
      run: async (tx) => {
        await this.#setStatus(tx, process, 'error', detail);
        await this.#finishTask(tx, process, 'error');
      },
      isCommitted: (sql) => this.#isTaskFinished(sql, process),
      applied: () => {
        process.status = 'error';
        process.taskState = 'waiting';
      },
    };
  }

  #remove(process: Process): Transaction {
    const names = tablesOf(process.target.namespace);
    const { id } = process;
    return {
      rowCount: process.nextEventId,
      outcomes: [lifecycle(process, 'removed')],
      run: async (tx) => {
        await tx`UPDATE ${tx(names.processes)} SET corrupted_by = NULL WHERE process_id = ${id} AND corrupted_by IS NOT NULL`;
        for (const name of [names.events, names.running, names.schedule, names.tasks, names.processes]) {
          await tx`DELETE FROM ${tx(name)} WHERE process_id = ${id}`;
        }
      },
      isCommitted: async (sql) => !(await exists(sql`SELECT FROM ${sql(names.processes)} WHERE process_id = ${id}`)),
      applied: () => {
        this.#live.splice(this.#live.indexOf(process), 1);
      },
    };
  }

  async #setStatus(tx: Statements, process: Process, status: Process['status'], detail: string | null): Promise<void> {
    const { target, id } = process;
    const processes = tx(tablesOf(target.namespace).processes);
    const corruptedBy = status === 'error' ? process.taskId : null;
    const auxState = Buffer.from(`state after ${process.nextEventId - 1}`);
    if (target.generation === 'old') {
      await tx`
        UPDATE ${processes} SET status = ${status}, detail = ${detail}, aux_state = ${auxState}, corrupted_by = ${corruptedBy}
        WHERE process_id = ${id}`;
      return;
    }
    await tx`
      UPDATE ${processes}
      SET status = ${status}, detail = ${detail}, aux_state = ${auxState}, corrupted_by = ${corruptedBy},
        previous_status = status,
        status_changed_at = CASE WHEN status = ${status}::process_status THEN status_changed_at ELSE now() END
      WHERE process_id = ${id}`;
  }

  async #finishTask(tx: Statements, process: Process, status: 'finished' | 'error'): Promise<void> {
    const names = tablesOf(process.target.namespace);
    await tx`
      UPDATE ${tx(names.tasks)} SET status = ${status}, finished_time = now(), response = ${Buffer.from(this.#response(process))}
      WHERE task_id = ${process.taskId}`;
    const place = process.taskState === 'running' ? names.running : names.schedule;
    await tx`DELETE FROM ${tx(place)} WHERE task_id = ${process.taskId}`;
  }

  /** True when the task of this step has ended: every step ends its task. */
  #isTaskFinished(sql: Sql, process: Process): Promise<boolean> {
    const tasks = sql(tablesOf(process.target.namespace).tasks);
    return exists(
      sql`SELECT FROM ${tasks} WHERE task_id = ${process.taskId} AND response = ${Buffer.from(this.#response(process))}`,
    );
  }

  /** Differs between a failure and its repair, which end the same task. */
  #response(process: Process): string {
    return `${process.status} ${process.nextEventId}`;
  }

  #event(process: Process, index: number): { outcome: Outcome; insert: (tx: Statements) => Promise<void> } {
    const { target, id } = process;
    const eventId = process.nextEventId + index;
    const data = sampleValue(this.#random, eventId);
    const payload = this.#payload(data);
    const { metadata, formatVersion } = this.#pick(METADATA);
    const { timestamp, createdAt } = this.#timestamp();
    const events = tablesOf(target.namespace).events;
    const { taskId } = process;
    return {
      outcome: {
        topic: target.eventsinkTopic,
        key: `${target.namespace} ${id}`,
        content: eventContent({ namespace: target.namespace, processId: id, eventId, formatVersion, data }),
        ...(createdAt === undefined ? {} : { createdAt }),
      },
      insert: async (tx) => {
        await tx`
          INSERT INTO ${tx(events)} (process_id, task_id, event_id, "timestamp", metadata, payload)
          VALUES (${id}, ${taskId}, ${eventId}, ${timestamp}::text::timestamptz, ${metadata}::text::jsonb, ${payload})`;
      },
    };
  }

  #payload(data: Value): Buffer {
    const random = this.#random;
    return encodePayload(data, {
      atoms: this.#pick(['atom', 'small', 'utf8', 'smallUtf8'] as const),
      floats: random() < 0.1 ? 'text' : 'new',
      compressed: random() < 0.1,
    });
  }

  /** Mostly the current second, as progressor writes it; sometimes with a fraction, long ago, or NULL. */
  #timestamp(): { timestamp: string | null; createdAt?: SecondsRange } {
    const share = this.#random();
    if (share < 0.03) return { timestamp: null };
    let seconds = Math.floor(Date.now() / 1000);
    if (share < 0.06) seconds = Math.floor(this.#random() * 4e9) - 1e9;
    const fraction = share < 0.2 ? `.${String(Math.floor(this.#random() * 1e6)).padStart(6, '0')}` : '';
    const timestamp = `${new Date(seconds * 1000).toISOString().slice(0, 19)}${fraction}Z`;
    return { timestamp, createdAt: { from: seconds, to: seconds } };
  }

  #eventCount(): number {
    const share = this.#random();
    if (share < 0.7) return 1;
    if (share < 0.97) return 2 + Math.floor(this.#random() * 3);
    return 5 + Math.floor(this.#random() * 20);
  }

  /** Unique, so that a repeated record cannot stand in for a lost failure. */
  #detail(): string {
    this.#failed++;
    const reason = this.#pick([
      'timeout',
      'badmatch in step',
      'ошибка процессора',
      'quote " and \\ and \'',
      'x'.repeat(3000),
    ]);
    return `${reason} #${this.#prefix}${this.#failed}`;
  }

  #newId(): string {
    this.#started++;
    const id = `${this.#prefix}-${this.#started.toString(36)}${Math.floor(this.#random() * 46_656).toString(36)}`;
    const share = this.#random();
    if (share < 0.02) return `${id} Счёт/№ "5"`;
    if (share < 0.03) return id.padEnd(80, '-');
    return id;
  }

  #pick<T>(choices: readonly T[]): T {
    return choices[Math.floor(this.#random() * choices.length)] as T;
  }
}

/** Forms of metadata with the format_version of each; the usual form is listed several times. */
const METADATA: readonly { readonly metadata: string | null; readonly formatVersion: number | undefined }[] = [
  { metadata: '{"format_version": 1}', formatVersion: 1 },
  { metadata: '{"format_version": 1}', formatVersion: 1 },
  { metadata: '{"format_version": 1}', formatVersion: 1 },
  { metadata: '{"format_version": 2, "otel": {"format_version": 9}}', formatVersion: 2 },
  { metadata: '{"a": "format_version", "format_version": -2147483648}', formatVersion: -2_147_483_648 },
  { metadata: '{"format_version": null}', formatVersion: undefined },
  { metadata: '{}', formatVersion: undefined },
  { metadata: '[1]', formatVersion: undefined },
  { metadata: null, formatVersion: undefined },
];

function lifecycle(process: Process, change: 'created' | 'removed' | 'working' | 'failed', reason?: string): Outcome {
  const { namespace, lifecycleTopic } = process.target;
  const content = lifecycleContent({ namespace, processId: process.id, change, reason });
  return { topic: lifecycleTopic, key: `${namespace} ${process.id}`, content };
}

/** Payloads of the shapes that services store in events, and sometimes a random term. */
function sampleValue(random: () => number, eventId: number): Value {
  const below = (limit: number): number => Math.floor(random() * limit);
  const bytes = (length: number): Buffer => Buffer.from(Array.from({ length }, () => below(256)));
  const field = (name: string, value: Value): [Value, Value] => [str(name), value];
  switch (below(9)) {
    case 0:
    case 1:
    case 2:
      // As a Thrift service stores it: a marker with the content type, then the encoded event
      return {
        arr: [
          { obj: [field('ct', str('application/x-erlang-binary')), field('vsn', int(6))] },
          { bin: bytes(120 + below(200)) },
        ],
      };
    case 3:
    case 4:
      return {
        obj: [
          field('type', str('invoice_payment_started')),
          field('amount', int(BigInt(below(10_000_000)))),
          field('currency', str('RUB')),
          field('shop', str('Магазин №7')),
          field('final', { b: random() < 0.5 }),
          field('fee', { flt: below(1000) / 8 }),
          field('parent', { nl: {} }),
        ],
      };
    case 5:
      return str(`event ${eventId} of this process`);
    case 6:
      return int(2n ** 63n - 1n - BigInt(below(1000)));
    case 7:
      return { obj: Array.from({ length: 33 + below(20) }, (_, index) => field(`field_${index}`, int(index))) };
    default:
      return randomValue(random, 5);
  }
}
