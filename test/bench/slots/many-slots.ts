/**
 * Many slots of several databases in one process. All of them stream before the same amount is committed for each at one
 * moment: so they start together, unlike with a backlog that exists when each slot starts.
 */
import type { Sql } from 'postgres';
import { cpuMicros, peakRssBytes } from '../../support/process/process-usage.ts';
import { waitFor } from '../../support/process/wait.ts';
import { type Environment, PARTITION_COUNT } from '../environment.ts';
import { type NotifierTarget, startNotifier } from '../service/notifier.ts';
import { dropSlot, endOfWal } from '../service/replication-slots.ts';
import { createTopics, deleteTopics } from '../service/slot-topics.ts';
import { prepareSharedEvents, type SharedEvents, writeSharedEvents } from '../workload/workloads.ts';

/** The same rows for each namespace; each slot has one namespace. */
export interface SlotsBacklog {
  /** Part of the names of databases and topics */
  readonly id: string;
  readonly slotCount: number;
  readonly databaseCount: number;
  readonly eventsPerSlot: number;
  readonly payloadBytes: number;
}

/** A cluster that stops answering when all slots stream. */
export interface StuckCluster {
  readonly bootstrap: string;
  createTopic(name: string, options: { readonly partitions: number }): Promise<void>;
  freeze(): void;
}

/** One slot, from the commit to the confirmation of its end. */
export interface SlotReading {
  readonly slot: number;
  readonly seconds: number;
  readonly rowsPerSecond: number;
}

/** All slots together. */
export interface SlotsReading {
  /** In slot order, without the one whose cluster is stuck */
  readonly slots: readonly SlotReading[];
  /** To the last confirmation */
  readonly seconds: number;
  readonly rowCount: number;
  /** Since the commit */
  readonly cpuMicros: number;
  readonly peakRssBytes: number;
}

/** Of one namespace, before it is another's turn */
const EVENTS_AT_ONCE = 250;
const READING_TIMEOUT_MS = 300_000;
const POLL_MS = 20;

/** Databases with namespaces for many slots; disposal closes its connections. */
export class ManySlots implements AsyncDisposable {
  readonly #environment: Environment;
  readonly #backlog: SlotsBacklog;
  /** One client per database */
  readonly #sqls: readonly Sql[];
  #writtenCount = 0;

  private constructor(environment: Environment, backlog: SlotsBacklog) {
    this.#environment = environment;
    this.#backlog = backlog;
    const options = { max: 2, connection: { synchronous_commit: 'off' as const } };
    this.#sqls = Array.from({ length: backlog.databaseCount }, (_, index) =>
      environment.postgres.sql(this.#databaseName(index), options),
    );
  }

  /** Creates databases and namespaces. */
  static async prepare(environment: Environment, backlog: SlotsBacklog): Promise<ManySlots> {
    const { slotCount, databaseCount } = backlog;
    environment.progress(`${slotCount} slots over ${databaseCount} databases: preparing`);
    const many = new ManySlots(environment, backlog);
    for (const index of many.#sqls.keys()) await environment.postgres.createDatabase(many.#databaseName(index));
    await Promise.all(many.#sqls.map((sql, index) => prepareSharedEvents(sql, many.#eventsOf(index))));
    return many;
  }

  /** Reads with the first `slotCount` slots; the first may produce to a cluster that gets stuck. */
  async read(run: string, slotCount: number, stuck?: StuckCluster): Promise<SlotsReading> {
    const targets = await Promise.all(
      Array.from({ length: slotCount }, (_, slot) => this.#makeTarget(run, slot, slot === 0 ? stuck : undefined)),
    );
    const moving = stuck === undefined ? targets : targets.slice(1);
    const { eventsPerSlot } = this.#backlog;
    try {
      await using program = await startNotifier(this.#environment, targets);
      stuck?.freeze();
      const { committedMs, end } = await program.while(this.#write());
      const cpuBefore = cpuMicros(program.pid) as number;
      const endsMs = await program.while(this.#confirmations(moving, end));
      const seconds = endsMs.map((endMs) => (endMs - committedMs) / 1000);
      const reading: SlotsReading = {
        slots: seconds.map((slotSeconds, index) => ({
          slot: index + targets.length - moving.length,
          seconds: slotSeconds,
          rowsPerSecond: eventsPerSlot / slotSeconds,
        })),
        seconds: Math.max(...seconds),
        rowCount: moving.length * eventsPerSlot,
        cpuMicros: (cpuMicros(program.pid) as number) - cpuBefore,
        peakRssBytes: peakRssBytes(program.pid) as number,
      };
      // With a stuck cluster a graceful stop would wait for the records in flight.
      if (stuck === undefined) await program.stop();
      await this.#check(moving);
      return reading;
    } finally {
      await Promise.all(targets.map(({ slot }) => dropSlot(this.#sqls[0] as Sql, slot)));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const sql of this.#sqls) await sql.end({ timeout: 1 });
  }

  /** One transaction per database, committed together: walsenders send nothing of them before. */
  async #write(): Promise<{ readonly committedMs: number; readonly end: string }> {
    const written = Promise.withResolvers<void>();
    const firstEvent = this.#writtenCount;
    let openCount = this.#sqls.length;
    await Promise.all(
      this.#sqls.map((sql, index) =>
        sql.begin(async (transaction) => {
          await writeSharedEvents(transaction, this.#eventsOf(index), firstEvent);
          openCount--;
          if (openCount === 0) written.resolve();
          await written.promise;
        }),
      ),
    );
    const committedMs = Date.now();
    this.#writtenCount += this.#backlog.eventsPerSlot;
    return { committedMs, end: await endOfWal(this.#sqls[0] as Sql) };
  }

  async #makeTarget(run: string, slot: number, stuck: StuckCluster | undefined): Promise<NotifierTarget> {
    const database = this.#databaseName(slot % this.#sqls.length);
    const created = await createTopics(this.#environment, { database, slot: `bench_${run}_${slot}` });
    const target = { ...created, namespaces: [namespaceName(slot)] };
    if (stuck === undefined) return target;
    for (const topic of [target.eventsTopic, target.lifecycleTopic]) {
      await stuck.createTopic(topic, { partitions: PARTITION_COUNT });
    }
    return { ...target, bootstrap: stuck.bootstrap };
  }

  /** When each slot was confirmed up to an LSN, in milliseconds since 1970. */
  async #confirmations(targets: readonly NotifierTarget[], end: string): Promise<number[]> {
    const endsMs = new Map<string, number>();
    const sql = this.#sqls[0] as Sql;
    await waitFor(
      'the confirmation of every slot',
      async () => {
        const rows = await sql`SELECT slot_name FROM pg_replication_slots WHERE confirmed_flush_lsn >= ${end}::pg_lsn`;
        const nowMs = Date.now();
        for (const { slot_name } of rows) if (!endsMs.has(slot_name)) endsMs.set(slot_name, nowMs);
        return targets.every(({ slot }) => endsMs.has(slot));
      },
      { timeoutMs: READING_TIMEOUT_MS, intervalMs: POLL_MS },
    );
    return targets.map(({ slot }) => endsMs.get(slot) as number);
  }

  async #check(targets: readonly NotifierTarget[]): Promise<void> {
    const topics = targets.map(({ eventsTopic }) => eventsTopic);
    const counts = await this.#environment.kafka.countRecords(topics);
    for (const [index, topic] of topics.entries()) {
      if (counts[index] === this.#backlog.eventsPerSlot) continue;
      throw new Error(`${topic}: ${counts[index]} records arrived, not ${this.#backlog.eventsPerSlot}`);
    }
    await Promise.all(targets.map((target) => deleteTopics(this.#environment, target)));
  }

  #databaseName(index: number): string {
    return `bench_${this.#backlog.id}_${index}`;
  }

  #eventsOf(databaseIndex: number): SharedEvents {
    const { slotCount, databaseCount, eventsPerSlot, payloadBytes } = this.#backlog;
    const slots = Array.from({ length: slotCount }, (_, slot) => slot);
    const namespaces = slots.filter((slot) => slot % databaseCount === databaseIndex).map(namespaceName);
    return { namespaces, eventsPerNamespace: eventsPerSlot, eventsAtOnce: EVENTS_AT_ONCE, payloadBytes };
  }
}

function namespaceName(slot: number): string {
  return `namespace_${slot}`;
}
