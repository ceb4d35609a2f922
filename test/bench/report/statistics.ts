/** Order statistics of measurements. */

/** The smallest value that at least `percent` of all values do not exceed; NaN without values. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((sorted.length * percent) / 100) - 1)] ?? Number.NaN;
}

/** The middle value, or the lower of the two middle ones; NaN without values. */
export function median(values: readonly number[]): number {
  return percentile(values, 50);
}
