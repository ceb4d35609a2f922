/**
 * A writer that makes every shape of transaction that the service may meet, from a seed: interleaved lanes, aborts,
 * savepoints, prepared transactions, big and toasted rows, huge transactions, the whole walk of a process's status.
 * It keeps no truth (the journal does), so an unknown outcome of a COMMIT is no matter: it looks and goes on.
 */
import postgres, { type ISql, type Options, type ReservedSql, type Sql } from 'postgres';
import { encodePayload, int, randomValue, seededRandom, str, type Value } from '../support/codecs/etf.ts';
import { waitFor } from '../support/process/wait.ts';
import { type Generation, migrateNamespace, tablesOf } from '../support/progressor/tables.ts';

/** A namespace to write to. */
export interface WorkloadNamespace {
  readonly namespace: string;
  /** `old` until it is migrated */
  generation: Generation;
}

/** What to write, and to where. */
export interface WorkloadOptions {
  /** The database, without `max` */
  readonly connection: Options<Record<string, never>>;
  readonly namespaces: readonly WorkloadNamespace[];
  readonly seed: number;
}

/** How often each shape of transaction was written (aborted ones too). */
export type TransactionCounts = Readonly<Record<Shape, number>>;

type Shape = keyof typeof WEIGHTS;
type Random = () => number;

interface Process {
  readonly target: WorkloadNamespace;
  readonly id: string;
  status: string;
  /** Each process fails and is repaired once at most: a second repair would look like a repeat of the first */
  repaired: boolean;
  nextEventId: number;
}

/** How often a lane chooses which shape. */
const WEIGHTS = {
  start: 14,
  step: 34,
  shared: 14,
  detail: 6,
  fail: 10,
  remove: 5,
  abort: 6,
  savepoint: 6,
  prepared: 5,
  big: 0.6,
};
/** Transactions that may run at once */
const LANES = 4;
const TRANSACTIONS_PER_SECOND = 200;
const MAX_LIVE_PROCESSES = 12;
const MAX_EVENTS = 2_000;
const HUGE_EVENTS = 5_000;
const MAX_EVENTS_OF_A_STEP = 50;
const RETRY_DELAY_MS = 50;
const LOCK_TIMEOUT_MS = 1_000;
/** event_id is a smallint: a process that lanes share is left for another one when a lane has used up its part. */
const SHARED_EVENTS_OF_A_LANE = 4_000;

/** lock_not_available, deadlock_detected: the transaction is over and another may follow */
const LOCK_STATES = new Set(['55P03', '40P01']);

/** See the head of this file. */
export class Workload implements AsyncDisposable {
  readonly counts: Record<Shape, number> = { ...WEIGHTS };
  /** Transactions that ended, whichever way */
  transactionCount = 0;
  readonly #options: WorkloadOptions;
  readonly #lanes: readonly Lane[];
  readonly #random: Random;
  #running: Promise<void>[] = [];
  #stopped = true;
  #hugeCount = 0;

  constructor(options: WorkloadOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    for (const shape of Object.keys(WEIGHTS) as Shape[]) this.counts[shape] = 0;
    this.#lanes = Array.from({ length: LANES }, (_, index) => new Lane(options, index));
  }

  /** Begins to write, or goes on. */
  start(): void {
    if (!this.#stopped) return;
    this.#stopped = false;
    this.#running = this.#lanes.map((lane) => this.#run(lane));
  }

  /** Ends every lane after its transaction and what it has prepared; rejects when the database refused a statement. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
    this.#running = [];
  }

  /** Resolves when so many further transactions have ended; the workload must run. */
  async advance(transactions: number): Promise<void> {
    const enough = this.transactionCount + transactions;
    const failed = Promise.all(this.#running).then(() => Promise.reject(new Error('The workload has ended')));
    failed.catch(() => {});
    await Promise.race([failed, waitFor('load', () => this.transactionCount >= enough, { timeoutMs: 120_000 })]);
  }

  /**
   * Commits one transaction of many events (default 5,000) of a new process. Not over a lost connection: it is for
   * moments when the database is well.
   */
  async writeHuge({ events = HUGE_EVENTS, payloadBytes = 16 } = {}): Promise<void> {
    await using client = openClient(this.#options.connection);
    this.#hugeCount++;
    const target = pick(this.#random, this.#options.namespaces);
    const id = `huge-${this.#hugeCount}`;
    const { events: table } = tablesOf(target.namespace);
    // The payload of {bin, Bytes}, as term_to_binary writes it
    const head = Buffer.from([131, 104, 2, 119, 3, 98, 105, 110, 109, 0, 0, 0, 0]);
    head.writeUInt32BE(payloadBytes, 9);
    await client.sql.begin(async (tx) => {
      await insertProcess(tx, target, id, 'running');
      await tx`
        INSERT INTO ${tx(table)} (process_id, task_id, event_id, payload)
        SELECT ${id}::text, 1, n, ${head}::bytea || substr(decode(repeat(md5(n::text || ${id}::text), ${Math.ceil(payloadBytes / 16)}::int), 'hex'), 1, ${payloadBytes}::int)
        FROM generate_series(1, ${events}::int) n`;
    });
    this.transactionCount++;
  }

  /** Brings every old namespace to the new generation of tables, as progressor does it, while the lanes write on. */
  async migrate(): Promise<void> {
    await using client = openClient({
      ...this.#options.connection,
      connection: { lock_timeout: LOCK_TIMEOUT_MS },
    });
    for (const target of this.#options.namespaces.filter(({ generation }) => generation === 'old')) {
      await waitFor('the lock of a migration', () => tryToMigrate(client.sql, target.namespace), { timeoutMs: 60_000 });
      target.generation = 'new';
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop().catch(() => {});
  }

  async #run(lane: Lane): Promise<void> {
    const periodMs = (1000 * LANES) / TRANSACTIONS_PER_SECOND;
    let due = performance.now();
    try {
      while (!this.#stopped) {
        const now = performance.now();
        if (due > now) await Bun.sleep(due - now);
        due = Math.max(due + periodMs, now);
        const shape = await lane.next();
        if (shape === undefined) continue;
        this.counts[shape]++;
        this.transactionCount++;
      }
      await lane.settle();
    } finally {
      await lane.close();
    }
  }
}

/** One connection and the processes that nobody else writes to. */
class Lane {
  readonly #options: WorkloadOptions;
  readonly #index: number;
  readonly #random: Random;
  readonly #prefix: string;
  #live: Process[] = [];
  #client: Client | undefined;
  #tx: ReservedSql | undefined;
  #started = 0;
  #failed = 0;
  #events = 0;
  #shared = 0;
  readonly #sharedKnown = new Set<string>();

  constructor(options: WorkloadOptions, index: number) {
    this.#options = options;
    this.#index = index;
    this.#prefix = `lane${index}-`;
    this.#random = seededRandom(options.seed * 7919 + index * 104_729);
  }

  /** Runs one transaction to its end, whichever; undefined when the connection was lost. */
  async next(): Promise<Shape | undefined> {
    let shape: Shape | undefined;
    await this.#attempt(async () => {
      shape = this.#choose();
      await this.#transact(shape);
    });
    return shape;
  }

  /** Leaves nothing prepared behind. */
  async settle(): Promise<void> {
    while (!(await this.#attempt(() => this.#resolvePrepared()))) await Bun.sleep(RETRY_DELAY_MS);
  }

  async close(): Promise<void> {
    this.#tx = undefined;
    await this.#client?.[Symbol.asyncDispose]();
    this.#client = undefined;
  }

  /** False when the connection was lost, or a lock was not to be had: then the next attempt looks at what there is. */
  async #attempt(work: () => Promise<void>): Promise<boolean> {
    try {
      if (this.#tx === undefined) {
        await this.close();
        await this.#connect();
      }
      await work();
      return true;
    } catch (error) {
      await this.close();
      const { code } = error as { readonly code?: string };
      // not_null_violation: the tables were migrated a moment ago
      if (code === '23502') for (const target of this.#options.namespaces) target.generation = 'new';
      else if (!isConnectionError(error) && !LOCK_STATES.has(code ?? '')) throw error;
      await Bun.sleep(RETRY_DELAY_MS);
      return false;
    }
  }

  async #connect(): Promise<void> {
    this.#client = openClient({
      ...this.#options.connection,
      connection: { lock_timeout: 10 * LOCK_TIMEOUT_MS },
      // The driver (3.4.9) would write to a reserved connection that is gone, in a timer, where nobody can catch the error.
      onclose: () => {
        this.#tx = undefined;
      },
    });
    this.#tx = await this.#client.sql.reserve();
    await this.#resolvePrepared();
    this.#live = [];
    for (const target of this.#options.namespaces) {
      const names = tablesOf(target.namespace);
      const rows = await this.#tx<{ id: string; status: string; repaired: boolean; next: number }[]>`
        SELECT process_id AS id, status::text, aux_state IS NOT NULL AS repaired,
          (SELECT coalesce(max(event_id), 0) + 1 FROM ${this.#tx(names.events)} e WHERE e.process_id = p.process_id) AS next
        FROM ${this.#tx(names.processes)} p WHERE process_id LIKE ${`${this.#prefix}%`}`;
      this.#live.push(
        ...rows.map(({ id, status, repaired, next }) => ({ target, id, status, repaired, nextEventId: next })),
      );
    }
  }

  async #resolvePrepared(): Promise<void> {
    const tx = this.#tx as ReservedSql;
    const prepared = await tx<{ gid: string }[]>`
      SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE ${`${this.#prefix}%`}`;
    for (const { gid } of prepared)
      await tx.unsafe(`${this.#random() < 0.5 ? 'COMMIT' : 'ROLLBACK'} PREPARED '${gid}'`);
  }

  #choose(): Shape {
    if (this.#live.length < 3) return 'start';
    const total = Object.values(WEIGHTS).reduce((sum, weight) => sum + weight, 0);
    let rest = this.#random() * total;
    for (const [shape, weight] of Object.entries(WEIGHTS)) {
      rest -= weight;
      if (rest < 0) return shape as Shape;
    }
    return 'step';
  }

  async #transact(shape: Shape): Promise<void> {
    const random = this.#random;
    const process = this.#live.length > 0 ? pick(random, this.#live) : undefined;
    if (process === undefined || (shape === 'start' && this.#live.length < MAX_LIVE_PROCESSES)) {
      return await this.#start();
    }
    switch (shape) {
      case 'shared':
        return await this.#shareEvents();
      case 'detail':
        return await this.#note(process);
      case 'fail':
        return await this.#fail(process);
      case 'remove':
        return await this.#remove(process);
      case 'abort':
        return await this.#rolledBack(process);
      case 'savepoint':
        return await this.#partly(process);
      case 'prepared':
        return await this.#prepare(process);
      case 'big':
        return await this.#step(process, 100_000 + Math.floor(random() * 500_000));
      default:
        return await (process.nextEventId > MAX_EVENTS ? this.#remove(process) : this.#step(process));
    }
  }

  async #start(): Promise<void> {
    const target = pick(this.#random, this.#options.namespaces);
    this.#started++;
    const id = `${this.#prefix}${this.#started}${this.#random() < 0.05 ? ' Счёт/№ "5"' : ''}`;
    const status = target.generation === 'new' ? 'init' : 'running';
    await this.#commit((tx) => insertProcess(tx, target, id, status));
    this.#live.push({ target, id, status, repaired: false, nextEventId: 1 });
  }

  /** Events and status of a running process in one transaction; of a failed one, its repair. */
  async #step(process: Process, payloadBytes?: number): Promise<void> {
    const applied = await this.#commit((tx) => this.#advance(tx, process, payloadBytes));
    applied();
  }

  /** Returns what is to be done when it is committed. */
  async #advance(tx: ReservedSql, process: Process, payloadBytes?: number): Promise<() => void> {
    const repaired = process.repaired || process.status === 'error';
    const events = payloadBytes === undefined ? this.#eventCount() : 1;
    for (let index = 0; index < events; index++) {
      await this.#insertEvent(tx, process, process.nextEventId + index, payloadBytes);
    }
    // The detail stays as it is: when it is toasted, the new tuple says only that it is unchanged.
    await this.#setStatus(tx, process, 'running', { repaired });
    return () => {
      process.status = 'running';
      process.repaired = repaired;
      process.nextEventId += events;
    };
  }

  /** A detail of a process that has not failed: nothing to tell, until it fails without another detail. */
  async #note(process: Process): Promise<void> {
    const { status, repaired } = process;
    await this.#commit((tx) => this.#setStatus(tx, process, status, { detail: this.#detail(), repaired }));
  }

  async #fail(process: Process): Promise<void> {
    if (process.repaired || process.status === 'error') return await this.#step(process);
    const share = this.#random();
    const detail = share < 0.15 ? null : share < 0.5 ? undefined : this.#detail();
    await this.#commit((tx) => this.#setStatus(tx, process, 'error', { detail, repaired: false }));
    process.status = 'error';
  }

  async #remove(process: Process): Promise<void> {
    const names = tablesOf(process.target.namespace);
    await this.#commit(async (tx) => {
      await tx`DELETE FROM ${tx(names.events)} WHERE process_id = ${process.id}`;
      await tx`DELETE FROM ${tx(names.processes)} WHERE process_id = ${process.id}`;
    });
    this.#live.splice(this.#live.indexOf(process), 1);
  }

  async #rolledBack(process: Process): Promise<void> {
    const tx = this.#tx as ReservedSql;
    await tx`BEGIN`;
    await this.#advance(tx, process);
    await tx`ROLLBACK`;
  }

  /** A step around a failure and events that are taken back. */
  async #partly(process: Process): Promise<void> {
    const applied = await this.#commit(async (tx) => {
      await tx`SAVEPOINT before_failure`;
      await this.#insertEvent(tx, process, process.nextEventId);
      await this.#setStatus(tx, process, process.status === 'error' ? 'running' : 'error', {
        repaired: process.repaired,
      });
      await tx`ROLLBACK TO SAVEPOINT before_failure`;
      await tx`SAVEPOINT kept`;
      const whenCommitted = await this.#advance(tx, process);
      await tx`RELEASE SAVEPOINT kept`;
      return whenCommitted;
    });
    applied();
  }

  /** Committed, or rolled back, in a second step, with a transaction of the same lane in between. */
  async #prepare(process: Process): Promise<void> {
    const tx = this.#tx as ReservedSql;
    const gid = `${this.#prefix}${this.#events}`;
    await tx`BEGIN`;
    const applied = await this.#advance(tx, process);
    await tx.unsafe(`PREPARE TRANSACTION '${gid}'`);
    await this.#shareEvents();
    const commits = this.#random() < 0.7;
    await tx.unsafe(`${commits ? 'COMMIT' : 'ROLLBACK'} PREPARED '${gid}'`);
    if (commits) applied();
  }

  /**
   * Events of a process that all lanes write to at once, its row untouched: its transactions commit in another order
   * than their rows were made.
   */
  async #shareEvents(): Promise<void> {
    const target = pick(this.#random, this.#options.namespaces);
    const left = SHARED_EVENTS_OF_A_LANE - (this.#shared % SHARED_EVENTS_OF_A_LANE);
    if (left < MAX_EVENTS_OF_A_STEP) this.#shared += left;
    const id = `shared-${Math.floor(this.#shared / SHARED_EVENTS_OF_A_LANE)}`;
    if (!this.#sharedKnown.has(`${target.namespace} ${id}`)) {
      await this.#commit((tx) => insertProcess(tx, target, id, 'running'));
      this.#sharedKnown.add(`${target.namespace} ${id}`);
    }
    const shared: Process = { target, id, status: 'running', repaired: false, nextEventId: 0 };
    await this.#commit(async (tx) => {
      for (let count = this.#eventCount(); count > 0; count--) {
        // Never given out twice, whatever became of the transaction
        const eventId = this.#index * SHARED_EVENTS_OF_A_LANE + (this.#shared++ % SHARED_EVENTS_OF_A_LANE);
        await this.#insertEvent(tx, shared, eventId);
      }
    });
  }

  /** Not `sql.begin`: it answers a lost connection with a ROLLBACK on it, whose failure nobody can catch (postgres 3.4.9). */
  async #commit<T>(work: (tx: ReservedSql) => Promise<T>): Promise<T> {
    const tx = this.#tx as ReservedSql;
    await tx`BEGIN`;
    const result = await work(tx);
    await tx`COMMIT`;
    return result;
  }

  async #insertEvent(tx: ReservedSql, { target, id }: Process, eventId: number, payloadBytes?: number): Promise<void> {
    const random = this.#random;
    const payload = encodePayload(this.#value(payloadBytes), {
      atoms: pick(random, ['atom', 'small', 'utf8', 'smallUtf8'] as const),
      floats: random() < 0.1 ? 'text' : 'new',
      compressed: random() < 0.1,
    });
    await tx`
      INSERT INTO ${tx(tablesOf(target.namespace).events)} (process_id, task_id, event_id, "timestamp", metadata, payload)
      VALUES (${id}, 1, ${eventId}, ${this.#timestamp()}::text::timestamptz, ${pick(random, METADATA)}::text::jsonb, ${payload})`;
  }

  /** Says something that no other event of the lane says, so that a record of a transaction that was rolled back is seen. */
  #value(payloadBytes: number | undefined): Value {
    const random = this.#random;
    this.#events++;
    const rest =
      payloadBytes === undefined
        ? pick(random, [() => randomValue(random, 4), () => randomValue(random, 4), () => this.#toasted()])()
        : { bin: randomBytes(random, payloadBytes) };
    return { arr: [str(`event ${this.#events} of this process`), int(this.#index), rest] };
  }

  /** Mostly small, sometimes over 8 kB, which is stored out of line */
  #toasted(): Value {
    const random = this.#random;
    return { bin: randomBytes(random, random() < 0.15 ? 9_000 + Math.floor(random() * 12_000) : 100) };
  }

  async #setStatus(
    tx: ReservedSql,
    { target, id, status: previous }: Process,
    status: string,
    { detail, repaired }: { readonly detail?: string | null | undefined; readonly repaired: boolean },
  ): Promise<void> {
    const changed = target.generation === 'new' ? { previous_status: previous, status_changed_at: new Date() } : {};
    const columns = {
      status,
      aux_state: repaired ? Buffer.from('repaired') : null,
      ...changed,
      ...(detail === undefined ? {} : { detail }),
    };
    await tx`UPDATE ${tx(tablesOf(target.namespace).processes)} SET ${tx(columns)} WHERE process_id = ${id}`;
  }

  /** Each one once, so that no repeat can pass for a failure that was lost; of hex, so that it cannot be compressed away. */
  #detail(): string {
    const random = this.#random;
    this.#failed++;
    const text = random() < 0.3 ? randomBytes(random, 6_000).toString('hex') : 'badmatch in step';
    return `${text} #${this.#prefix}${this.#failed}`;
  }

  #timestamp(): string | null {
    const share = this.#random();
    if (share < 0.05) return null;
    const seconds = share < 0.1 ? Math.floor(this.#random() * 4e9) - 1e9 : Math.floor(Date.now() / 1000);
    const fraction = share < 0.3 ? `.${String(Math.floor(this.#random() * 1e6)).padStart(6, '0')}` : '';
    return `${new Date(seconds * 1000).toISOString().slice(0, 19)}${fraction}Z`;
  }

  #eventCount(): number {
    const share = this.#random();
    return share < 0.7
      ? 1
      : share < 0.97
        ? 2 + Math.floor(this.#random() * 3)
        : 10 + Math.floor(this.#random() * (MAX_EVENTS_OF_A_STEP - 10));
  }
}

const METADATA: readonly (string | null)[] = [
  '{"format_version": 1}',
  '{"format_version": 1}',
  '{"format_version": 2, "otel": {"format_version": 9}}',
  '{"format_version": null}',
  '{}',
  '[1]',
  null,
];

interface Client extends AsyncDisposable {
  readonly sql: Sql;
}

/** One connection, made anew after each loss: what the driver would do by itself would take a transaction apart. */
function openClient(connection: Options<Record<string, never>>): Client {
  const options = { onnotice: () => {}, connect_timeout: 5, ...connection, max: 1 };
  const sql = postgres(options as Options<Record<string, never>>) as unknown as Sql;
  return { sql, [Symbol.asyncDispose]: () => sql.end({ timeout: 0 }) };
}

async function insertProcess(tx: ISql, target: WorkloadNamespace, id: string, status: string): Promise<void> {
  const changed = target.generation === 'new' ? { previous_status: status, status_changed_at: new Date() } : {};
  await tx`
    INSERT INTO ${tx(tablesOf(target.namespace).processes)} ${tx({ process_id: id, status, ...changed })}
    ON CONFLICT DO NOTHING`;
}

/** False when somebody held a lock for too long. Its steps are transactions of their own: a first may be done already. */
async function tryToMigrate(sql: Sql, namespace: string): Promise<boolean> {
  try {
    await migrateNamespace(sql, namespace);
    return true;
  } catch (error) {
    const { code } = error as { readonly code?: string };
    if (code === '42701') return true; // duplicate_column
    if (LOCK_STATES.has(code ?? '')) return false;
    throw error;
  }
}

/** Errors of the driver's connections, and the server's states of starting and stopping. */
function isConnectionError(error: unknown): boolean {
  const { code } = error as { readonly code?: unknown };
  return typeof code === 'string' && /^(CONNECTION_|CONNECT_|ECONN|EPIPE|ETIMEDOUT|57P|08)/.test(code);
}

function randomBytes(random: Random, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let offset = 0; offset + 4 <= length; offset += 4) bytes.writeUInt32LE(Math.floor(random() * 2 ** 32), offset);
  return bytes;
}

function pick<T>(random: Random, choices: readonly T[]): T {
  return choices[Math.floor(random() * choices.length)] as T;
}
