/** Many slots of several databases, read side by side by one process. */
import type { Sql } from 'postgres';
import { waitFor } from '../support/wait.ts';
import type { ChildProgram } from './child-program.ts';
import { type Environment, PARTITION_COUNT } from './environment.ts';
import { type NotifierTarget, STREAMING, spawnNotifier, startNotifier } from './notifier.ts';
import { cpuMicros, peakRssBytes } from './process-usage.ts';
import { copySlot, dropSlot, endOfWal } from './replication-slots.ts';
import { type SlotsSample, slotEnds, slotRates } from './slot-rates.ts';
import { createTopics, deleteTopics } from './slot-topics.ts';
import { countRecords } from './topics.ts';
import { prepareSharedEvents, writeSharedEvents } from './workloads.ts';

/** What is written: the same for each namespace, of which each slot has one. */
export interface SlotsBacklog {
  /** Part of the names of databases and topics */
  readonly id: string;
  readonly slotCount: number;
  readonly databaseCount: number;
  readonly eventsPerSlot: number;
  readonly payloadBytes: number;
}

/** A cluster that does not answer any more as soon as its slot streams. */
export interface StuckCluster {
  readonly bootstrap: string;
  createTopic(name: string, options: { readonly partitions: number }): Promise<void>;
  freeze(): void;
}

/** Of one slot. */
export interface SlotReading {
  readonly slot: number;
  /** From the moment when it streams to the confirmation of its end */
  readonly seconds: number;
  /** While all of them were at work */
  readonly rowsPerSecond: number;
}

/** Of all slots together. */
export interface SlotsReading {
  /** In the order of the slots; without the one whose cluster is stuck */
  readonly slots: readonly SlotReading[];
  /** From the first slot that streams to the last confirmation */
  readonly seconds: number;
  readonly rowCount: number;
  readonly cpuMicros: number;
  readonly peakRssBytes: number;
}

const EVENTS_PER_TRANSACTION = 250;
const BASE_SLOT = 'bench_base';
const READING_TIMEOUT_MS = 300_000;
const POLL_MS = 50;

/** A backlog of many slots, written; disposal drops what holds it. */
export class ManySlots implements AsyncDisposable {
  readonly #environment: Environment;
  readonly #backlog: SlotsBacklog;
  /** A client of each database */
  readonly #sqls: readonly Sql[];
  #start = '';
  #end = '';

  private constructor(environment: Environment, backlog: SlotsBacklog, sqls: readonly Sql[]) {
    this.#environment = environment;
    this.#backlog = backlog;
    this.#sqls = sqls;
  }

  /** Makes databases and namespaces, and writes the backlog behind one slot of each database. */
  static async prepare(environment: Environment, backlog: SlotsBacklog): Promise<ManySlots> {
    const { postgres, progress } = environment;
    const databases = Array.from({ length: backlog.databaseCount }, (_, index) => databaseName(backlog, index));
    const sqls = databases.map((database) =>
      postgres.sql(database, { max: 2, connection: { synchronous_commit: 'off' } }),
    );
    const many = new ManySlots(environment, backlog, sqls);
    try {
      progress(`${backlog.slotCount} slots over ${databases.length} databases: preparing`);
      for (const database of databases) await postgres.createDatabase(database);
      await Promise.all(sqls.map((sql, index) => prepareSharedEvents(sql, many.#eventsOf(index))));
      await many.#makeBaseSlots(databases);
      // All databases at once, and their namespaces in turn: what a slot has to send stands everywhere in the WAL.
      many.#start = await endOfWal(sqls[0] as Sql);
      await Promise.all(sqls.map((sql, index) => writeSharedEvents(sql, many.#eventsOf(index))));
      many.#end = await endOfWal(sqls[0] as Sql);
      return many;
    } catch (error) {
      await many[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Reads by the first `slotCount` slots; the first of them may write to a cluster that gets stuck. */
  async read(run: string, slotCount: number, stuck?: StuckCluster): Promise<SlotsReading> {
    const targets = await Promise.all(
      Array.from({ length: slotCount }, (_, slot) => this.#makeTarget(run, slot, slot === 0 ? stuck : undefined)),
    );
    try {
      await using program = await spawnNotifier(this.#environment, targets);
      const firstMoving = stuck === undefined ? 0 : 1;
      const moving = targets.slice(firstMoving);
      const following = program.while(this.#followConfirmations(moving));
      following.catch(() => {}); // awaited below
      if (stuck !== undefined) {
        await waitFor('the slot whose cluster is to be stuck', () => startOf(program, targets[0]), { intervalMs: 1 });
        stuck.freeze();
      }
      await program.line(STREAMING, targets.length);
      const startsMs = moving.map((target) => startOf(program, target) as number);
      const samples = await following;
      const endsMs = slotEnds(samples);
      const rates = slotRates(samples, startsMs);
      const { eventsPerSlot } = this.#backlog;
      const reading: SlotsReading = {
        slots: moving.map((_, index) => ({
          slot: index + firstMoving,
          seconds: ((endsMs[index] as number) - (startsMs[index] as number)) / 1000,
          rowsPerSecond: (rates[index] as number) * eventsPerSlot,
        })),
        seconds: (Math.max(...endsMs) - Math.min(...startsMs)) / 1000,
        rowCount: moving.length * eventsPerSlot,
        cpuMicros: cpuMicros(program.pid) as number,
        peakRssBytes: peakRssBytes(program.pid) as number,
      };
      // With a cluster that is stuck it would wait for what is in flight.
      if (stuck === undefined) await program.stop();
      await this.#check(moving);
      return reading;
    } finally {
      await Promise.all(targets.map(({ slot }, index) => dropSlot(this.#sqlOf(index), slot)));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const sql of this.#sqls) {
      await dropSlot(sql, `${BASE_SLOT}_${this.#sqls.indexOf(sql)}`);
      await sql.end({ timeout: 1 });
    }
  }

  /** One slot for each database, made by the service with everything that belongs to it. */
  async #makeBaseSlots(databases: readonly string[]): Promise<void> {
    const targets = await Promise.all(
      databases.map(async (database, index) => {
        const target = await createTopics(
          this.#environment,
          { database, slot: `${BASE_SLOT}_${index}` },
          { partitions: 1 },
        );
        return { ...target, namespaces: this.#eventsOf(index).namespaces };
      }),
    );
    {
      await using program = await startNotifier(this.#environment, targets);
      await program.stop();
    }
    await Promise.all(targets.map((target) => deleteTopics(this.#environment, target)));
  }

  /** A copy of the database's slot, and topics, for one namespace. */
  async #makeTarget(run: string, slot: number, stuck: StuckCluster | undefined): Promise<NotifierTarget> {
    const index = slot % this.#sqls.length;
    const database = databaseName(this.#backlog, index);
    const name = `bench_${run}_${slot}`;
    await copySlot(this.#sqlOf(slot), `${BASE_SLOT}_${index}`, name);
    const target = await createTopics(this.#environment, { database, slot: name });
    const namespaces = [namespaceName(slot)];
    if (stuck === undefined) return { ...target, namespaces };
    for (const topic of [target.eventsTopic, target.lifecycleTopic]) {
      await stuck.createTopic(topic, { partitions: PARTITION_COUNT });
    }
    return { ...target, namespaces, bootstrap: stuck.bootstrap };
  }

  /** Looks at the slots until all of them are confirmed to the end. */
  async #followConfirmations(targets: readonly NotifierTarget[]): Promise<readonly SlotsSample[]> {
    const samples: SlotsSample[] = [];
    const sql = this.#sqlOf(0);
    await waitFor(
      'the confirmation of every slot',
      async () => {
        const rows = await sql`
          SELECT slot_name, ((confirmed_flush_lsn - ${this.#start}::pg_lsn) /
            (${this.#end}::pg_lsn - ${this.#start}::pg_lsn))::float8 AS part
          FROM pg_replication_slots`;
        const parts = new Map(rows.map(({ slot_name, part }) => [String(slot_name), Number(part)]));
        samples.push({ atMs: Date.now(), parts: targets.map(({ slot }) => parts.get(slot) ?? 0) });
        return samples.at(-1)?.parts.every((part) => part >= 1);
      },
      { timeoutMs: READING_TIMEOUT_MS, intervalMs: POLL_MS },
    );
    return samples;
  }

  async #check(targets: readonly NotifierTarget[]): Promise<void> {
    const topics = targets.map(({ eventsTopic }) => eventsTopic);
    const counts = await countRecords(this.#environment.kafka.bootstrap, topics);
    for (const [index, topic] of topics.entries()) {
      if (counts[index] === this.#backlog.eventsPerSlot) continue;
      throw new Error(`${topic}: ${counts[index]} records arrived, not ${this.#backlog.eventsPerSlot}`);
    }
    await Promise.all(targets.map((target) => deleteTopics(this.#environment, target)));
  }

  #sqlOf(slot: number): Sql {
    return this.#sqls[slot % this.#sqls.length] as Sql;
  }

  #eventsOf(databaseIndex: number) {
    const { slotCount, databaseCount, eventsPerSlot, payloadBytes } = this.#backlog;
    const slots = Array.from({ length: slotCount }, (_, slot) => slot);
    const namespaces = slots.filter((slot) => slot % databaseCount === databaseIndex).map(namespaceName);
    const eventsPerTransaction = EVENTS_PER_TRANSACTION;
    return { namespaces, eventsPerNamespace: eventsPerSlot, eventsPerTransaction, payloadBytes };
  }
}

function databaseName({ id }: SlotsBacklog, index: number): string {
  return `bench_${id}_${index}`;
}

function namespaceName(slot: number): string {
  return `namespace_${slot}`;
}

/** When the service said that it streams a slot, in milliseconds since 1970; undefined as long as it has not. */
function startOf(program: ChildProgram, target: NotifierTarget | undefined): number | undefined {
  for (const line of program.linesWith(STREAMING)) {
    const { slot, time } = JSON.parse(line) as { slot?: string; time: string };
    if (slot === target?.slot) return Date.parse(time);
  }
  return undefined;
}
