/**
 * Reads topics from the beginning without a consumer group, each partition in offset order, and continues after every
 * restart of the broker.
 */
import { type ClusterMetadata, Consumer, type RecordsBatch } from '@platformatic/kafka';
import { waitFor } from '../process/wait.ts';

/** A record as Kafka stores it. */
export interface KafkaRecord {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  /** Empty also for null */
  readonly key: Buffer;
  /** Empty also for null */
  readonly value: Buffer;
  /** Milliseconds since 1970: the producer's clock, or the broker's in a topic with LogAppendTime */
  readonly timestampMs: number;
}

/** Connection settings of the Kafka client: brokers, TLS, SASL. */
export interface ReaderConnection {
  readonly bootstrapBrokers: string[];
  readonly [setting: string]: unknown;
}

/** Options of `TopicReader`. */
export interface FollowOptions {
  /** Called with new records of one partition, in order */
  readonly onRecords?: ((records: readonly KafkaRecord[]) => void) | undefined;
  /** False: `records` stays empty; `count` still counts. Default true */
  readonly keep?: boolean | undefined;
}

const MAX_WAIT_MS = 250;
const RETRY_DELAY_MS = 100;
const SETTLE_TIMEOUT_MS = 20_000;
const CONTROL_BATCH = 0x20;
const LOG_APPEND_TIME = 0x08;

/** Follows topics live from their first record. */
export class TopicReader implements AsyncDisposable {
  /** Everything read so far, in the order of arrival */
  readonly records: KafkaRecord[] = [];
  /** Number of records read so far */
  count = 0;
  /** Why the last fetch failed; undefined while fetches succeed */
  lastError: unknown;
  readonly #consumer: Consumer;
  readonly #cursor: Cursor;
  readonly #onRecords: ((records: readonly KafkaRecord[]) => void) | undefined;
  readonly #keep: boolean;
  readonly #loop: Promise<void>;
  #closed = false;

  constructor(connection: ReaderConnection, topics: readonly string[], options: FollowOptions = {}) {
    this.#onRecords = options.onRecords;
    this.#keep = options.keep ?? true;
    this.#consumer = createConsumer(connection, topics);
    this.#cursor = new Cursor(this.#consumer, topics);
    this.#loop = this.#run();
  }

  /** Resolves when at least `count` records have been read. */
  async waitForCount(count: number, timeoutMs = 30_000): Promise<void> {
    await waitFor(`${count} records`, () => this.count >= count, { timeoutMs });
  }

  /** Resolves when everything that the topics hold now has been read. */
  async catchUp(timeoutMs = 30_000): Promise<void> {
    const ends = await overLeaderChanges(this.#consumer, () => this.#cursor.ends());
    await waitFor('the end of the topics', () => this.#cursor.hasReached(ends), { timeoutMs });
  }

  /** Stops reading. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#loop;
    await this.#consumer.close(true);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#cursor.fetch((bunch) => {
          this.count += bunch.length;
          if (this.#keep) this.records.push(...bunch);
          this.#onRecords?.(bunch);
        });
        this.lastError = undefined;
      } catch (error) {
        this.lastError = error;
        await Bun.sleep(RETRY_DELAY_MS);
      }
    }
  }
}

/** Reads everything that the topics hold now, sorted by topic, partition and offset. */
export async function readTopics(connection: ReaderConnection, topics: readonly string[]): Promise<KafkaRecord[]> {
  const consumer = createConsumer(connection, topics);
  try {
    const cursor = new Cursor(consumer, topics);
    const ends = await overLeaderChanges(consumer, () => cursor.ends());
    const records: KafkaRecord[] = [];
    while (!cursor.hasReached(ends)) {
      await overLeaderChanges(consumer, () => cursor.fetch((bunch) => records.push(...bunch)));
    }
    const rank = new Map(topics.map((topic, index) => [topic, index]));
    const before = records.filter((record) => record.offset < (ends.get(record.topic)?.[record.partition] ?? 0n));
    return before.sort(
      (a, b) =>
        (rank.get(a.topic) ?? 0) - (rank.get(b.topic) ?? 0) || a.partition - b.partition || Number(a.offset - b.offset),
    );
  } finally {
    await consumer.close(true);
  }
}

/** The number of records of each topic: its high watermarks, exact in topics without deleted records and transactions. */
export async function countRecords(connection: ReaderConnection, topics: readonly string[]): Promise<number[]> {
  const consumer = createConsumer(connection, topics);
  try {
    const ends = await overLeaderChanges(consumer, () => new Cursor(consumer, topics).ends());
    return topics.map((topic) => Number((ends.get(topic) ?? []).reduce((sum, offset) => sum + offset, 0n)));
  } finally {
    await consumer.close(true);
  }
}

/** Repeats a read during leader elections: a broker that was down or paused for long has to be elected again. */
async function overLeaderChanges<T>(consumer: Consumer, read: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + SETTLE_TIMEOUT_MS;
  for (;;) {
    try {
      return await read();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      consumer.clearMetadata();
      await Bun.sleep(RETRY_DELAY_MS);
    }
  }
}

function createConsumer(connection: ReaderConnection, topics: readonly string[]): Consumer {
  const consumer = new Consumer({
    ...connection,
    clientId: 'cdc-notifier-test-reader',
    groupId: 'never-joined',
    autocreateTopics: false,
    retries: 0,
    timeout: 10_000,
    connectTimeout: 5_000,
  });
  for (const topic of topics) consumer.topics.track(topic);
  return consumer;
}

/** The next offset of each partition; a fetch advances it. */
class Cursor {
  readonly #consumer: Consumer;
  readonly #topics: readonly string[];
  /** Next offset to read, by topic and partition */
  readonly #next = new Map<string, bigint[]>();

  constructor(consumer: Consumer, topics: readonly string[]) {
    this.#consumer = consumer;
    this.#topics = topics;
  }

  /** The offset after the last record of each partition, by topic. */
  async ends(): Promise<Map<string, bigint[]>> {
    return this.#consumer.listOffsets({ topics: [...this.#topics] });
  }

  hasReached(ends: ReadonlyMap<string, readonly bigint[]>): boolean {
    for (const [topic, offsets] of ends) {
      const next = this.#next.get(topic);
      if (offsets.some((offset, partition) => (next?.[partition] ?? 0n) < offset)) return false;
    }
    return true;
  }

  /** Waits up to 250 ms for records; calls `give` once for each partition that has some. */
  async fetch(give: (bunch: KafkaRecord[]) => void): Promise<void> {
    const metadata = await this.#consumer.metadata({ topics: [...this.#topics] });
    const names = new Map([...metadata.topics].map(([name, topic]) => [topic.id, name]));
    for (const node of metadata.brokers.keys()) {
      const topics = this.#wanted(metadata, node);
      if (topics.length === 0) continue;
      const response = await this.#consumer.fetch({
        node,
        topics,
        maxWaitTime: MAX_WAIT_MS,
        minBytes: 1,
        maxBytes: 16 * 1024 * 1024,
        isolationLevel: 0,
      });
      for (const { topicId, partitions } of response.responses) {
        const topic = names.get(topicId);
        if (topic === undefined) continue;
        for (const { partitionIndex, records } of partitions) {
          const bunch = this.#take(topic, partitionIndex, records ?? []);
          if (bunch.length > 0) give(bunch);
        }
      }
    }
  }

  #wanted(metadata: ClusterMetadata, node: number) {
    const wanted = [];
    for (const name of this.#topics) {
      const topic = metadata.topics.get(name);
      if (topic === undefined) continue;
      const next = this.#next.get(name) ?? [];
      this.#next.set(name, next);
      const partitions = [];
      for (const [partition, { leader }] of topic.partitions.entries()) {
        next[partition] ??= 0n;
        if (leader !== node) continue;
        partitions.push({
          partition,
          currentLeaderEpoch: -1,
          fetchOffset: next[partition],
          lastFetchedEpoch: -1,
          partitionMaxBytes: 4 * 1024 * 1024,
        });
      }
      if (partitions.length > 0) wanted.push({ topicId: topic.id, partitions });
    }
    return wanted;
  }

  #take(topic: string, partition: number, batches: readonly RecordsBatch[]): KafkaRecord[] {
    const next = this.#next.get(topic) as bigint[];
    const taken: KafkaRecord[] = [];
    for (const batch of batches) {
      const afterBatch = batch.firstOffset + BigInt(batch.lastOffsetDelta) + 1n;
      const start = next[partition] ?? 0n;
      // Brokers send whole batches: the first may begin before the requested offset.
      if (afterBatch <= start) continue;
      if ((batch.attributes & CONTROL_BATCH) === 0) {
        for (const record of batch.records) {
          const offset = batch.firstOffset + BigInt(record.offsetDelta);
          if (offset < start) continue;
          taken.push({
            topic,
            partition,
            offset,
            key: record.key ?? Buffer.alloc(0),
            value: record.value ?? Buffer.alloc(0),
            // With LogAppendTime the broker writes its time into the batch header only.
            timestampMs: Number(
              (batch.attributes & LOG_APPEND_TIME) === 0
                ? batch.firstTimestamp + record.timestampDelta
                : batch.maxTimestamp,
            ),
          });
        }
      }
      next[partition] = afterBatch;
    }
    return taken;
  }
}
