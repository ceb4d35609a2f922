/** What topics take at most: what Kafka lets us read of it, and what was learned from its refusals. */

/** Size of a batch of one record, its header included, in bytes. */
export interface RecordBatchSize {
  /** Uncompressed */
  readonly plainBytes: number;
  /** As it goes over the wire; `plainBytes` without compression */
  readonly wireBytes: number;
}

/** Kept by a slot from session to session; all sizes in bytes, by topic. */
export interface TopicLimits {
  /** Largest batch, as far as Kafka lets us read it */
  readonly maxMessageBytes: Map<string, number>;
  /** Sizes at which batches are closed because Kafka refused larger ones */
  readonly learnedBatchBytes: Map<string, number>;
  /** Sizes of the smallest batch of one record that Kafka refused as too large; see `noteRefusedRecord` */
  readonly refusedRecords: Map<string, RecordBatchSize>;
}

/** Limits of which nothing is known yet. */
export function createTopicLimits(): TopicLimits {
  return { maxMessageBytes: new Map(), learnedBatchBytes: new Map(), refusedRecords: new Map() };
}

/** Takes up what was read. What was learned under a lower limit is not worth anything any more. */
export function takeUpLimits(limits: TopicLimits, found: ReadonlyMap<string, number>): void {
  const { maxMessageBytes, learnedBatchBytes, refusedRecords } = limits;
  for (const [topic, bytes] of found) {
    if (bytes > (maxMessageBytes.get(topic) ?? bytes)) {
      learnedBatchBytes.delete(topic);
      refusedRecords.delete(topic);
    }
    maxMessageBytes.set(topic, bytes);
  }
}

/**
 * Remembers that Kafka refused a record: until that is forgotten none is sent that is as large by both measures. The
 * topic's limit is held against what is sent, and against what the broker makes of it where the topic's
 * `compression.type` is another one: nobody tells which of the two it was.
 */
export function noteRefusedRecord({ refusedRecords }: TopicLimits, topic: string, size: RecordBatchSize): void {
  const known = refusedRecords.get(topic) ?? size;
  refusedRecords.set(topic, {
    plainBytes: Math.min(known.plainBytes, size.plainBytes),
    wireBytes: Math.min(known.wireBytes, size.wireBytes),
  });
}

/** A limit that a record is too large for. */
export interface ExceededLimit {
  readonly limitBytes: number;
  /** What it would have to be for the record */
  readonly neededBytes: number;
}

/** The limit that a batch of one record exceeds, as far as limits are known; undefined when the topic may take it. */
export function exceededLimit(
  { maxMessageBytes, refusedRecords }: TopicLimits,
  topic: string,
  { plainBytes, wireBytes }: RecordBatchSize,
): ExceededLimit | undefined {
  const limitBytes = maxMessageBytes.get(topic);
  if (limitBytes !== undefined && wireBytes > limitBytes) return { limitBytes, neededBytes: wireBytes };
  const refused = refusedRecords.get(topic);
  if (refused === undefined || plainBytes < refused.plainBytes || wireBytes < refused.wireBytes) return undefined;
  // Without knowing which measure it was, only the larger one is certain to be enough.
  return { limitBytes: refused.plainBytes - 1, neededBytes: plainBytes };
}
