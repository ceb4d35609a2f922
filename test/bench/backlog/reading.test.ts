import { expect, test } from 'bun:test';
import { eventBacklog } from '../workload/workloads.ts';
import { type BacklogResult, type Reading, ratioTo, summaryOf } from './reading.ts';

const backlog = eventBacklog({ id: 'x', title: 'x', eventCount: 1_000, eventsPerTransaction: 100, payloadBytes: 270 });

function reading(seconds: number, more: Partial<Reading> = {}): Reading {
  return { seconds, cpuMicros: seconds * 1_000, walsenderCpuMicros: 0, peakRssBytes: seconds, ...more };
}

const result: BacklogResult = {
  backlog,
  walBytes: 1,
  readings: new Map([
    ['cdc-notifier', [reading(5), reading(2, { idleRssBytes: 7 }), reading(4)]],
    ['pg_recvlogical', []],
    ['throw-away', [reading(3), reading(1, { setting: 'small' }), reading(2)]],
  ]),
};

test('summaryOf gives medians of the readings and the largest memory', () => {
  expect(summaryOf(result, 'cdc-notifier')).toMatchObject({
    seconds: 4,
    rowsPerSecond: 250,
    cpuMicrosPerRow: 4,
    cpuMicrosPerTransaction: 400,
    brokerCpuMicrosPerRow: undefined,
    peakRssBytes: 5,
    idleRssBytes: 7,
  });
});

test('summaryOf gives the best reading of a ceiling, with its options', () => {
  expect(summaryOf(result, 'throw-away')).toMatchObject({ seconds: 1, setting: 'small' });
});

test('a ratio is undefined when a reader is missing', () => {
  expect(ratioTo(result, 'throw-away')).toBe(0.25);
  expect(ratioTo(result, 'pg_recvlogical')).toBeUndefined();
});
