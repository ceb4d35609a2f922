/** Reads a JUnit report of `bun test`. */

/** What a report says of its tests. */
export interface TestCounts {
  readonly passed: number;
  /** `FILE > NAME` of each test that failed */
  readonly failed: readonly string[];
  readonly skipped: number;
}

/** Counts the test cases of a report; one with a `failure` or `error` element has failed. */
export function countTests(report: string): TestCounts {
  let passed = 0;
  let skipped = 0;
  const failed: string[] = [];
  for (const [, head = '', body] of report.matchAll(/<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)) {
    if (body !== undefined && /<(failure|error)\b/.test(body))
      failed.push(`${attribute(head, 'file')} > ${attribute(head, 'name')}`);
    else if (body !== undefined && /<skipped\b/.test(body)) skipped++;
    else passed++;
  }
  return { passed, failed, skipped };
}

const ENTITIES: Readonly<Record<string, string>> = { quot: '"', apos: "'", lt: '<', gt: '>', amp: '&' };

function attribute(head: string, name: string): string {
  const value = new RegExp(`\\b${name}="([^"]*)"`).exec(head)?.[1] ?? '';
  return value.replace(/&(\w+);/g, (entity, key: string) => ENTITIES[key] ?? entity);
}
