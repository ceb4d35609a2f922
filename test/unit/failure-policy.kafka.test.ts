import { describe, expect, test } from 'bun:test';
import { protocolErrors } from '@platformatic/kafka';
import { connectAdvice, isTooLarge, judgeKafkaError } from '../../src/failure-policy.ts';
import { identifyCode } from '../../src/kafka/client/errors.ts';

const judgeCode = (code: number) => judgeKafkaError(identifyCode(code));

describe('judgeKafkaError', () => {
  test('knows every error code of the protocol, and resends what the protocol calls retriable', () => {
    const ours = new Set(['acknowledged', 'restart']);
    for (const { id, code, canRetry } of Object.values(protocolErrors)) {
      const judged = judgeCode(code);
      expect(judged.id).toBe(id);
      if (canRetry && !ours.has(judged.verdict)) expect([id, judged.verdict]).toEqual([id, 'resend']);
    }
  });

  test.each([
    ['UNKNOWN_TOPIC_OR_PARTITION', 3, 'resend'],
    ['LEADER_NOT_AVAILABLE', 5, 'resend'],
    ['NOT_LEADER_OR_FOLLOWER', 6, 'resend'],
    ['REQUEST_TIMED_OUT', 7, 'resend'],
    ['BROKER_NOT_AVAILABLE', 8, 'resend'],
    ['MESSAGE_TOO_LARGE', 10, 'refused'],
    ['RECORD_LIST_TOO_LARGE', 18, 'refused'],
    ['NOT_ENOUGH_REPLICAS', 19, 'resend'],
    ['NOT_ENOUGH_REPLICAS_AFTER_APPEND', 20, 'resend'],
    ['TOPIC_AUTHORIZATION_FAILED', 29, 'refused'],
    ['CLUSTER_AUTHORIZATION_FAILED', 31, 'refused'],
    ['KAFKA_STORAGE_ERROR', 56, 'resend'],
    ['SASL_AUTHENTICATION_FAILED', 58, 'refused'],
    ['FENCED_LEADER_EPOCH', 74, 'resend'],
    ['THROTTLING_QUOTA_EXCEEDED', 89, 'resend'],
    ['PRODUCER_FENCED', 90, 'restart'],
    ['OUT_OF_ORDER_SEQUENCE_NUMBER', 45, 'restart'],
    ['DUPLICATE_SEQUENCE_NUMBER', 46, 'acknowledged'],
    ['UNKNOWN_PRODUCER_ID', 59, 'restart'],
  ] as const)('%s (%d) is %s', (id, code, verdict) => {
    expect(judgeCode(code)).toMatchObject({ id, verdict });
  });

  test.each([
    ['NETWORK', true, 'resend'],
    ['TIMEOUT', true, 'resend'],
    ['ECONNREFUSED', true, 'resend'],
    ['UNREADABLE_ANSWER', true, 'resend'],
    ['TLS_MISMATCH', false, 'refused'],
    ['TLS_HANDSHAKE_CLOSED', true, 'resend'],
    ['SASL_AUTHENTICATION_FAILED', false, 'refused'],
    ['Error', false, 'refused'],
  ] as const)('%s (retriable: %s) is %s', (id, isRetriable, verdict) => {
    expect(judgeKafkaError({ id, isRetriable })).toMatchObject({ id, verdict });
  });

  test('refuses an unknown code', () => {
    expect(judgeCode(31_000)).toEqual({ verdict: 'refused', id: 'error code 31000' });
  });

  test.each([3, 10, 17, 18, 19, 20, 29, 31, 32, 33, 34, 44, 56, 58, 87])('code %d comes with advice', (code) => {
    expect(judgeCode(code).advice).toBeString();
  });
});

test('isTooLarge is true for the two ways to be refused for size, and for nothing else', () => {
  const tooLarge = Object.values(protocolErrors).filter(({ code }) => isTooLarge(judgeCode(code)));
  expect(tooLarge.map(({ id }) => id)).toEqual(['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE']);
});

test.each(['ECONNREFUSED', 'ECONNRESET', 'ERR_TLS_CERT_ALTNAME_INVALID', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'])(
  'connectAdvice knows what to do about %s',
  (id) => {
    expect(connectAdvice(id)).toBeString();
  },
);
