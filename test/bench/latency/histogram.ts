/** Prometheus histograms of the service: observations between two scrapes, and their percentiles. */
import type { ParsedFamily } from '../../support/service/exposition.ts';

/** Observations by ascending upper bound, not cumulative; the last bound is Infinity. */
export type Buckets = readonly { readonly upTo: number; readonly count: number }[];

/** The buckets of a family that has one histogram. */
export function bucketsOf(family: ParsedFamily): Buckets {
  const cumulative = family.samples
    .filter(({ name }) => name === `${family.name}_bucket`)
    .map(({ labels, value }) => ({ upTo: labels.le === '+Inf' ? Infinity : Number(labels.le), value }));
  return cumulative.map(({ upTo, value }, index) => ({ upTo, count: value - (cumulative[index - 1]?.value ?? 0) }));
}

/** The observations after `before`. */
export function bucketsSince(before: Buckets, after: Buckets): Buckets {
  return after.map(({ upTo, count }, index) => ({ upTo, count: count - (before[index]?.count ?? 0) }));
}

/** The number of observations. */
export function countOf(buckets: Buckets): number {
  return buckets.reduce((sum, { count }) => sum + count, 0);
}

/** The number of observations above a bound of the histogram. */
export function countAbove(buckets: Buckets, bound: number): number {
  return countOf(buckets.filter(({ upTo }) => upTo > bound));
}

/** A percentile as `histogram_quantile` of Prometheus computes it, linear within its bucket; NaN without observations. */
export function percentileOf(buckets: Buckets, percent: number): number {
  const rank = (countOf(buckets) * percent) / 100;
  let below = 0;
  for (const [index, { upTo, count }] of buckets.entries()) {
    if (below + count >= rank && count > 0) {
      const from = buckets[index - 1]?.upTo ?? 0;
      return upTo === Infinity ? from : from + ((upTo - from) * (rank - below)) / count;
    }
    below += count;
  }
  return Number.NaN;
}
