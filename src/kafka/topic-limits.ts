/** What topics take at most: what Kafka lets us read of it, and what was learned from its refusals. */

/** Kept by a slot from session to session; all sizes in bytes, by topic. */
export interface TopicLimits {
  /** Largest batch, as far as Kafka lets us read it */
  readonly maxMessageBytes: Map<string, number>;
  /** Sizes at which batches are closed because Kafka refused larger ones */
  readonly learnedBatchBytes: Map<string, number>;
  /** Size of the smallest batch of one record that Kafka refused as too large; none of that size is sent until that is forgotten */
  readonly refusedRecordBytes: Map<string, number>;
}

/** Limits of which nothing is known yet. */
export function createTopicLimits(): TopicLimits {
  return { maxMessageBytes: new Map(), learnedBatchBytes: new Map(), refusedRecordBytes: new Map() };
}

/** Takes up what was read. What was learned under a lower limit is not worth anything any more. */
export function takeUpLimits(limits: TopicLimits, found: ReadonlyMap<string, number>): void {
  const { maxMessageBytes, learnedBatchBytes, refusedRecordBytes } = limits;
  for (const [topic, bytes] of found) {
    if (bytes > (maxMessageBytes.get(topic) ?? bytes)) {
      learnedBatchBytes.delete(topic);
      refusedRecordBytes.delete(topic);
    }
    maxMessageBytes.set(topic, bytes);
  }
}
