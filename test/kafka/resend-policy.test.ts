import { describe, expect, test } from 'bun:test';
import type { KafkaFailure, ProduceVerdict } from '../../src/kafka/kafka-errors.ts';
import { decideRound } from '../../src/kafka/resend-policy.ts';

const failures = (...verdicts: readonly ProduceVerdict[]): KafkaFailure[] =>
  verdicts.map((verdict) => ({ verdict, id: verdict }));

describe('decideRound', () => {
  test.each([
    ['everything is acknowledged', [], 0, { action: 'done' }],
    ['everything is acknowledged at the last try', [], 3, { action: 'done' }],
    ['a failure that may pass, first try', ['resend'], 0, { action: 'resend' }],
    ['a failure that may pass, last retry but one', ['resend', 'resend'], 2, { action: 'resend' }],
    ['a failure that may pass, retries used up', ['resend', 'resend'], 3, { action: 'give-up', index: 0 }],
    ['a refusal, at once', ['refused'], 0, { action: 'give-up', index: 0 }],
    [
      'a refusal among failures that may pass is what is reported',
      ['resend', 'refused'],
      0,
      { action: 'give-up', index: 1 },
    ],
    ['a producer that cannot go on', ['resend', 'restart'], 1, { action: 'give-up', index: 1 }],
  ] as const)('%s', (_, verdicts, retryCount, decision) => {
    expect(decideRound(failures(...verdicts), retryCount, 3)).toEqual(decision);
  });

  test('without retries the first failure is the last', () => {
    expect(decideRound(failures('resend'), 0, 0)).toEqual({ action: 'give-up', index: 0 });
  });
});
