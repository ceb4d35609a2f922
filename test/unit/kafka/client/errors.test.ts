import { describe, expect, test } from 'bun:test';
import {
  AuthenticationError,
  MultipleErrors,
  NetworkError,
  ProtocolError,
  protocolErrors,
  ResponseError,
  TimeoutError,
  UserError,
} from '@platformatic/kafka';
import { connectAdvice, isTooLarge, judgeError, judgeErrorCode } from '../../../../src/kafka/client/errors.ts';

describe('judgeErrorCode', () => {
  test('knows every error code of the protocol, and resends what the protocol calls retriable', () => {
    const ours = new Set(['acknowledged', 'restart']);
    for (const { id, code, canRetry } of Object.values(protocolErrors)) {
      const judged = judgeErrorCode(code);
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
    expect(judgeErrorCode(code)).toMatchObject({ id, verdict });
  });

  test('refuses a code that it has never heard of', () => {
    expect(judgeErrorCode(31_000)).toEqual({ verdict: 'refused', id: 'error code 31000' });
  });

  test.each([3, 10, 17, 18, 19, 20, 29, 31, 32, 33, 34, 44, 56, 58, 87])('code %d comes with advice', (code) => {
    expect(judgeErrorCode(code).advice).toBeString();
  });
});

test('isTooLarge is true for the two ways to be refused for size, and for nothing else', () => {
  const tooLarge = Object.values(protocolErrors).filter(({ code }) => isTooLarge(judgeErrorCode(code)));
  expect(tooLarge.map(({ id }) => id)).toEqual(['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE']);
});

describe('judgeError', () => {
  const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });
  test.each([
    ['a timeout, whatever its retry flag says', new TimeoutError('x', { canRetry: false }), 'resend', 'TIMEOUT'],
    ['a lost connection', new NetworkError('Connection closed'), 'resend', 'NETWORK'],
    ['a refused connection by its errno', new NetworkError('x', { cause: refused }), 'resend', 'ECONNREFUSED'],
    ['an errno of its own', refused, 'resend', 'ECONNREFUSED'],
    [
      'a protocol error within an aggregate',
      new MultipleErrors('x', [new ProtocolError('MESSAGE_TOO_LARGE')]),
      'refused',
      'MESSAGE_TOO_LARGE',
    ],
    [
      'a protocol error of a response',
      new ResponseError(0, 11, { '/': [29, null] }, {}),
      'refused',
      'TOPIC_AUTHORIZATION_FAILED',
    ],
    [
      'a failed login behind a network error',
      new NetworkError('x', { cause: new AuthenticationError('x') }),
      'refused',
      'SASL_AUTHENTICATION_FAILED',
    ],
    [
      'a connection that was lost during the login',
      new NetworkError('x', { cause: new AuthenticationError('x', { cause: new NetworkError('Connection closed') }) }),
      'resend',
      'NETWORK',
    ],
    [
      'TLS on one side only',
      new NetworkError('x', { cause: new UserError('x', { cause: refused }) }),
      'refused',
      'TLS_MISMATCH',
    ],
    ['an answer that the library falls over', new TypeError('x'), 'resend', 'UNREADABLE_ANSWER'],
    ['an error of nobody', new Error('x'), 'refused', 'Error'],
  ] as const)('%s', (_, error, verdict, id) => {
    expect(judgeError(error)).toMatchObject({ verdict, id });
  });
});

test.each(['ECONNREFUSED', 'ECONNRESET', 'ERR_TLS_CERT_ALTNAME_INVALID', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'])(
  'connectAdvice knows what to do about %s',
  (id) => {
    expect(connectAdvice(id)).toBeString();
  },
);
