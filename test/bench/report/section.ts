/** The part of a measurement in the report. */

/** A requirement and the measured figure. */
export interface Verdict {
  /** Subject, such as `a: peak RSS` */
  readonly what: string;
  /** Such as `at most 160 MB` */
  readonly wanted: string;
  readonly reached: string;
  readonly met: boolean;
}

/** Figures of one measurement. */
export interface Section {
  /** Its name in the JSON */
  readonly name: string;
  readonly lines: readonly string[];
  readonly verdicts: readonly Verdict[];
  /** Everything as plain data */
  readonly figures: unknown;
}

/** A figure that must not exceed a limit. */
export function atMost(what: string, value: number, limit: number, unit: string, digits = 0): Verdict {
  return {
    what,
    wanted: `at most ${limit} ${unit}`,
    reached: `${value.toFixed(digits)} ${unit}`,
    met: value <= limit,
  };
}

/** A figure that must reach a limit. */
export function atLeast(what: string, value: number, limit: number, unit: string, digits = 2): Verdict {
  return {
    what,
    wanted: `at least ${limit.toFixed(digits)}${unit}`,
    reached: `${value.toFixed(digits)}${unit}`,
    met: value >= limit,
  };
}
