import { describe, expect, test } from 'bun:test';
import type { ProduceVerdict } from '../../../../src/failure-policy.ts';
import { decideRound, type RoundFailure } from '../../../../src/kafka/produce/round-policy.ts';

/** Failures of batches whose leader is still the one that they were sent to. */
const failures = (...verdicts: readonly ProduceVerdict[]): RoundFailure[] =>
  verdicts.map((verdict) => ({ failure: { verdict, id: verdict }, sentTo: 1, leader: 1 }));

/** A failure that may pass of a batch that was sent to one leader and has another now. */
const moved = (sentTo: number, leader: number): RoundFailure => ({
  failure: { verdict: 'resend', id: 'NOT_LEADER_OR_FOLLOWER' },
  sentTo,
  leader,
});

const history = (retryCount: number, hasFollowed = false) => ({ retryCount, maxRetries: 3, hasFollowed });

describe('decideRound', () => {
  test.each([
    ['everything is acknowledged', [], 0, { action: 'done' }],
    ['everything is acknowledged at the last attempt', [], 3, { action: 'done' }],
    ['a failure that may pass, first attempt', ['resend'], 0, { action: 'resend' }],
    ['a failure that may pass, last retry but one', ['resend', 'resend'], 2, { action: 'resend' }],
    ['a failure that may pass, retries used up', ['resend', 'resend'], 3, { action: 'give-up', index: 0 }],
    ['a refusal, at once', ['refused'], 0, { action: 'give-up', index: 0 }],
    [
      'a refusal among failures that may pass is the one reported',
      ['resend', 'refused'],
      0,
      { action: 'give-up', index: 1 },
    ],
    ['a producer that cannot continue', ['resend', 'restart'], 1, { action: 'give-up', index: 1 }],
  ] as const)('%s', (_, verdicts, retryCount, decision) => {
    expect(decideRound(failures(...verdicts), history(retryCount))).toEqual(decision);
  });

  test.each([
    ['every leader has moved', [moved(1, 2), moved(1, 3)], history(0), 'follow'],
    ['a partition without a leader has one now', [moved(-1, 2)], history(0), 'follow'],
    ['every leader has moved, retries used up', [moved(1, 2)], history(3), 'follow'],
    ['one leader has moved, the other not', [moved(1, 2), moved(3, 3)], history(0), 'follow'],
    ['the leader is gone, and there is no other yet', [moved(1, -1)], history(0), 'resend'],
    ['the leader has moved once more after it was followed', [moved(2, 1)], history(0, true), 'resend'],
    ['the same, retries used up', [moved(2, 1)], history(3, true), 'give-up'],
    ['a refusal beside leaders that have moved', [moved(1, 2), ...failures('refused')], history(0), 'give-up'],
  ] as const)('%s', (_, given, soFar, action) => {
    expect(decideRound(given, soFar).action).toBe(action);
  });

  test('without retries the first failure is the last', () => {
    const given = { retryCount: 0, maxRetries: 0, hasFollowed: false };
    expect(decideRound(failures('resend'), given)).toEqual({ action: 'give-up', index: 0 });
  });
});
