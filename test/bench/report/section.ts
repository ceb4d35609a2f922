/** What one measurement leaves for the report. */

/** Something that was asked for, and what came out. */
export interface Verdict {
  /** What was measured, such as `a: peak RSS` */
  readonly what: string;
  /** As `at most 160 MB` */
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

/** Judges a figure that must not be above a limit. */
export function atMost(what: string, value: number, limit: number, unit: string, digits = 0): Verdict {
  return {
    what,
    wanted: `at most ${limit} ${unit}`,
    reached: `${value.toFixed(digits)} ${unit}`,
    met: value <= limit,
  };
}

/** Judges a figure that must not be below a limit. */
export function atLeast(what: string, value: number, limit: number, unit: string, digits = 2): Verdict {
  return {
    what,
    wanted: `at least ${limit.toFixed(digits)}${unit}`,
    reached: `${value.toFixed(digits)}${unit}`,
    met: value >= limit,
  };
}
