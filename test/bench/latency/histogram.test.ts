import { describe, expect, test } from 'bun:test';
import { parseExposition } from '../../support/service/exposition.ts';
import { type Buckets, bucketsOf, bucketsSince, countAbove, countOf, percentileOf } from './histogram.ts';

const TEXT = `# HELP latency_seconds A latency
# TYPE latency_seconds histogram
latency_seconds_bucket{slot="a",le="0.001"} 2
latency_seconds_bucket{slot="a",le="0.003"} 8
latency_seconds_bucket{slot="a",le="+Inf"} 10
latency_seconds_sum{slot="a"} 1
latency_seconds_count{slot="a"} 10
`;

const BUCKETS: Buckets = [
  { upTo: 0.001, count: 2 },
  { upTo: 0.003, count: 6 },
  { upTo: Infinity, count: 2 },
];

test('bucketsOf gives the count of each bucket, not cumulative ones', () => {
  expect(bucketsOf(parseExposition(TEXT).get('latency_seconds')!)).toEqual(BUCKETS);
});

test('bucketsSince subtracts earlier observations', () => {
  const before = BUCKETS.map((bucket) => ({ ...bucket, count: 1 }));
  expect(bucketsSince(before, BUCKETS).map(({ count }) => count)).toEqual([1, 5, 1]);
});

test('countOf counts all observations, countAbove those above a bound', () => {
  expect([countOf(BUCKETS), countAbove(BUCKETS, 0.001), countAbove(BUCKETS, 0.003)]).toEqual([10, 8, 2]);
});

describe('percentileOf', () => {
  test.each([
    [10, 0.0005],
    [20, 0.001],
    [50, 0.002],
    [80, 0.003],
  ])('interpolates: %s %%', (percent, seconds) => {
    expect(percentileOf(BUCKETS, percent)).toBeCloseTo(seconds, 9);
  });

  test('of observations above the largest bound is unknown', () => {
    expect(percentileOf(BUCKETS, 99)).toBe(0.003);
  });

  test('of no observations is NaN', () => {
    expect(percentileOf([], 50)).toBeNaN();
  });
});
