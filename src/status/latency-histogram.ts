/**
 * A histogram of latencies that costs the record path a loop over a few numbers: no labels are hashed and nothing is
 * allocated. `metrics.ts` hands it to prom-client when somebody asks.
 */

/**
 * Upper bounds of the buckets in seconds, inclusive: from half a millisecond to a minute, and close together up to 20 ms,
 * where the percentiles of a stream lie that keeps up.
 */
export const LATENCY_BOUNDS_SECONDS: readonly number[] = [
  0.0005, 0.001, 0.0015, 0.002, 0.0025, 0.003, 0.004, 0.005, 0.0065, 0.008, 0.01, 0.012, 0.015, 0.02, 0.025, 0.035,
  0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
];

/** See the head of this file. */
export class LatencyHistogram {
  /** Observations by bucket, each for itself (not added up); the last one is for those above every bound */
  readonly counts = new Float64Array(LATENCY_BOUNDS_SECONDS.length + 1);
  sumSeconds = 0;

  /** A negative latency (two clocks that disagree) counts as none. */
  observe(seconds: number): void {
    const latency = Math.max(0, seconds);
    let bucket = 0;
    while (bucket < LATENCY_BOUNDS_SECONDS.length && latency > LATENCY_BOUNDS_SECONDS[bucket]!) bucket++;
    this.counts[bucket]!++;
    this.sumSeconds += latency;
  }
}
