import { describe, expect, test } from 'bun:test';
import { isStatusDue, judgeSilence, livenessTimings } from '../../../../src/postgres/replication/liveness.ts';

describe('livenessTimings', () => {
  test.each([
    [60_000, { statusIntervalMs: 15_000, answerTimeoutMs: 120_000 }],
    [30_000, { statusIntervalMs: 10_000, answerTimeoutMs: 60_000 }],
    [2_000, { statusIntervalMs: 2_000 / 3, answerTimeoutMs: 4_000 }],
    [0, { statusIntervalMs: 10_000, answerTimeoutMs: 30_000 }],
  ])('wal_sender_timeout %d', (walSenderTimeoutMs, timings) => {
    expect(livenessTimings(walSenderTimeoutMs)).toEqual(timings);
  });

  test.each([
    [60_000, 1, 240_000],
    [60_000, 4, 1_920_000],
    [60_000, 100, 1_920_000],
    [0, 2, 120_000],
  ])('wal_sender_timeout %d after %d silent ends', (walSenderTimeoutMs, silentEndCount, answerTimeoutMs) => {
    const { statusIntervalMs } = livenessTimings(walSenderTimeoutMs);
    expect(livenessTimings(walSenderTimeoutMs, silentEndCount)).toEqual({ statusIntervalMs, answerTimeoutMs });
  });
});

describe('isStatusDue', () => {
  const quiet = {
    nowMs: 1_000,
    lastSentMs: 1_000,
    flushedMoved: false,
    numbersMoved: false,
    replyRequested: false,
    statusIntervalMs: 10_000,
  };
  test.each([
    ['nothing new', {}, false],
    ['the confirmed LSN has moved', { flushedMoved: true, numbersMoved: true }, true],
    ['only the received LSN has moved', { numbersMoved: true }, false],
    ['asked, and there is news', { replyRequested: true, numbersMoved: true }, true],
    ['asked again at once without news', { replyRequested: true }, false],
    ['asked 99 ms after the last one without news', { replyRequested: true, nowMs: 1_099 }, false],
    ['asked 100 ms after the last one without news', { replyRequested: true, nowMs: 1_100 }, true],
    ['one interval without a status', { nowMs: 11_000 }, true],
    ['just short of the interval', { nowMs: 10_999 }, false],
  ] as const)('%s', (_, change, due) => {
    expect(isStatusDue({ ...quiet, ...change })).toBe(due);
  });
});

describe('judgeSilence', () => {
  const timings = { statusIntervalMs: 10_000, answerTimeoutMs: 60_000 };
  const silence = { nowMs: 100_000, lastInboundMs: 100_000, askedMs: undefined, pausedByUs: false };
  test.each([
    ['bytes just came in', {}, 'fine'],
    ['less than one interval of silence', { lastInboundMs: 90_001 }, 'fine'],
    ['one interval of silence', { lastInboundMs: 90_000 }, 'ask'],
    ['asked, the answer has time', { lastInboundMs: 50_000, askedMs: 60_000 }, 'fine'],
    ['asked, no answer for too long', { lastInboundMs: 20_000, askedMs: 40_000 }, 'dead'],
    ['silence because we do not read', { lastInboundMs: 0, askedMs: 1, pausedByUs: true }, 'fine'],
    // A process that was stopped (SIGSTOP) for long must ask before it judges.
    ['the clock jumped before any request', { lastInboundMs: 0 }, 'ask'],
  ] as const)('%s', (_, change, verdict) => {
    expect(judgeSilence({ ...silence, ...change }, timings)).toBe(verdict);
  });
});
