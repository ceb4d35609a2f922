import { expect, test } from 'bun:test';
import { countTests } from './junit.ts';

test('countTests counts a case by the elements inside it, and names what failed', () => {
  const report = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="bun test" tests="5" assertions="3" failures="2" skipped="1" time="0.02">
  <testsuite name="a.test.ts" tests="5">
    <testsuite name="a &gt; b"><testcase name="one /&gt;" classname="a" time="0" file="a.test.ts" assertions="1" /></testsuite>
    <testcase name="says &quot;two&quot;" classname="a" time="0" file="a.test.ts"><failure type="AssertionError" /></testcase>
    <testcase name="three" classname="a" time="0">
      <skipped />
    </testcase>
    <testcase name="four" classname="a" time="0" file="b.test.ts"><error message="x">y</error></testcase>
    <testcase name="five" classname="a" time="0"></testcase>
  </testsuite>
</testsuites>`;
  expect(countTests(report)).toEqual({
    passed: 2,
    failed: ['a.test.ts > says "two"', 'b.test.ts > four'],
    skipped: 1,
  });
});

test('countTests counts no case in an empty report', () => {
  expect(countTests('')).toEqual({ passed: 0, failed: [], skipped: 0 });
});
