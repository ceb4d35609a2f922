import { describe, expect, test } from 'bun:test';
import { LATENCY_BOUNDS_SECONDS, LatencyHistogram } from '../../../src/status/latency-histogram.ts';

describe('LatencyHistogram', () => {
  const last = LATENCY_BOUNDS_SECONDS.length;
  test.each([
    ['nothing', 0, 0],
    ['a bound, which is inclusive', 0.0005, 0],
    ['just above a bound', 0.000501, 1],
    ['the last bound', 60, last - 1],
    ['above every bound', 3600, last],
    ['less than nothing: two clocks disagree', -1, 0],
  ])('counts %s', (_what, seconds, bucket) => {
    const histogram = new LatencyHistogram();
    histogram.observe(seconds);
    expect(histogram.counts[bucket]).toBe(1);
    expect(histogram.counts.reduce((sum, count) => sum + count)).toBe(1);
    expect(histogram.sumSeconds).toBe(Math.max(0, seconds));
  });

  test('bounds ascend', () => {
    expect(LATENCY_BOUNDS_SECONDS).toEqual([...LATENCY_BOUNDS_SECONDS].sort((one, other) => one - other));
  });
});
