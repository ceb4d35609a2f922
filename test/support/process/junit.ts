/** Counts of a JUnit report as `bun test` writes it. */

/** How many tests ended in which way. */
export interface TestCounts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** Counts the test cases of a report; a case that holds a failure or an error has failed. */
export function countTests(report: string): TestCounts {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const [, body] of report.matchAll(/<testcase\b[^>]*?(?:\/>|>([\s\S]*?)<\/testcase>)/g)) {
    if (body === undefined) counts.passed++;
    else if (/<(failure|error)\b/.test(body)) counts.failed++;
    else if (/<skipped\b/.test(body)) counts.skipped++;
    else counts.passed++;
  }
  return counts;
}
