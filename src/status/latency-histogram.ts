/**
 * Upper bounds of the buckets in seconds, inclusive: from half a millisecond to a minute, close together up to 20 ms, where
 * the percentiles of a stream without a backlog are.
 */
export const LATENCY_BOUNDS_SECONDS: readonly number[] = [
  0.0005, 0.001, 0.0015, 0.002, 0.0025, 0.003, 0.004, 0.005, 0.0065, 0.008, 0.01, 0.012, 0.015, 0.02, 0.025, 0.035,
  0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
];

/**
 * A histogram of latencies. An observation costs the record path a loop over a few numbers: it hashes no labels and
 * allocates nothing. `metrics.ts` reads it on scrape.
 */
export class LatencyHistogram {
  /** Observations by bucket, not cumulative; the last bucket is for those above every bound */
  readonly counts = new Float64Array(LATENCY_BOUNDS_SECONDS.length + 1);
  sumSeconds = 0;

  /** Adds an observation; a negative latency (two clocks that disagree) counts as 0. */
  observe(seconds: number): void {
    const latency = Math.max(0, seconds);
    let bucket = 0;
    while (bucket < LATENCY_BOUNDS_SECONDS.length && latency > LATENCY_BOUNDS_SECONDS[bucket]!) bucket++;
    this.counts[bucket]!++;
    this.sumSeconds += latency;
  }
}
