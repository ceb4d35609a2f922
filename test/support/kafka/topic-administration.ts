/** What the broker says about a topic: how many records, and when each was appended. */
import { Consumer } from '@platformatic/kafka';

/** Bit of a batch's attributes: its timestamp is the time of the append by the leader, not the producer's */
const LOG_APPEND_TIME = 0x08;

function connect(bootstrap: string): Consumer {
  return new Consumer({
    bootstrapBrokers: [bootstrap],
    clientId: 'cdc-notifier-bench',
    groupId: 'never-joined',
    autocreateTopics: false,
    retries: 3,
  });
}

/** Records of each topic, by high watermarks: in a new topic without transactions offsets count records. */
export async function countRecords(bootstrap: string, topics: readonly string[]): Promise<number[]> {
  const consumer = connect(bootstrap);
  try {
    for (const topic of topics) consumer.topics.track(topic);
    const ends = await consumer.listOffsets({ topics: [...topics] });
    return topics.map((topic) => Number((ends.get(topic) ?? []).reduce((sum, offset) => sum + offset, 0n)));
  } finally {
    await consumer.close(true);
  }
}

/** A record by key and by the clock of the broker. */
export interface AppendedRecord {
  readonly key: string;
  /** Milliseconds since 1970, cut off to whole ones by the broker */
  readonly appendedMs: number;
}

/** All records of a topic whose `message.timestamp.type` is `LogAppendTime`, partition by partition in order. */
export async function readAppendTimes(bootstrap: string, topic: string): Promise<AppendedRecord[]> {
  const consumer = connect(bootstrap);
  try {
    consumer.topics.track(topic);
    const ends = (await consumer.listOffsets({ topics: [topic] })).get(topic) ?? [];
    const metadata = await consumer.metadata({ topics: [topic] });
    const description = metadata.topics.get(topic);
    if (description === undefined) throw new Error(`Cannot read topic ${topic}: the broker does not know it`);
    const records: AppendedRecord[] = [];
    for (const [partition, end] of ends.entries()) {
      const leader = description.partitions[partition]?.leader as number;
      for (let next = 0n; next < end; ) {
        const response = await consumer.fetch({
          node: leader,
          topics: [
            {
              topicId: description.id,
              partitions: [
                {
                  partition,
                  currentLeaderEpoch: -1,
                  fetchOffset: next,
                  lastFetchedEpoch: -1,
                  partitionMaxBytes: 4 * 1024 * 1024,
                },
              ],
            },
          ],
          maxWaitTime: 1_000,
          minBytes: 1,
          maxBytes: 16 * 1024 * 1024,
          isolationLevel: 0,
        });
        const batches = response.responses.flatMap((one) => one.partitions).flatMap((one) => one.records ?? []);
        for (const batch of batches) {
          if ((batch.attributes & LOG_APPEND_TIME) === 0) throw new Error(`Topic ${topic} has no LogAppendTime`);
          next = batch.firstOffset + BigInt(batch.lastOffsetDelta) + 1n;
          for (const { key } of batch.records) {
            records.push({ key: (key ?? Buffer.alloc(0)).toString(), appendedMs: Number(batch.maxTimestamp) });
          }
        }
      }
    }
    return records;
  } finally {
    await consumer.close(true);
  }
}
