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
import { SinkError } from '../../../../src/errors.ts';
import { identify, identifyCode } from '../../../../src/kafka/client/errors.ts';

describe('identifyCode', () => {
  test('knows every error code of the protocol and its retriable flag', () => {
    for (const { id, code, canRetry } of Object.values(protocolErrors)) {
      expect(identifyCode(code)).toEqual({ id, isRetriable: canRetry });
    }
  });

  test('names an unknown code by its number', () => {
    expect(identifyCode(31_000)).toEqual({ id: 'error code 31000', isRetriable: false });
  });
});

describe('identify', () => {
  const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED' });
  test.each([
    ['a timeout, also with a negative retry flag', new TimeoutError('x', { canRetry: false }), true, 'TIMEOUT'],
    ['a lost connection', new NetworkError('Connection closed'), true, 'NETWORK'],
    ['a refused connection by its errno', new NetworkError('x', { cause: refused }), true, 'ECONNREFUSED'],
    ['an errno of its own', refused, true, 'ECONNREFUSED'],
    [
      'a protocol error within an aggregate',
      new MultipleErrors('x', [new ProtocolError('MESSAGE_TOO_LARGE')]),
      false,
      'MESSAGE_TOO_LARGE',
    ],
    [
      'a protocol error of a response',
      new ResponseError(0, 11, { '/': [29, null] }, {}),
      false,
      'TOPIC_AUTHORIZATION_FAILED',
    ],
    [
      'a failed login inside a network error',
      new NetworkError('x', { cause: new AuthenticationError('x') }),
      false,
      'SASL_AUTHENTICATION_FAILED',
    ],
    [
      'a connection that was lost during the login',
      new NetworkError('x', { cause: new AuthenticationError('x', { cause: new NetworkError('Connection closed') }) }),
      true,
      'NETWORK',
    ],
    [
      'TLS on one side only',
      new NetworkError('x', { cause: new UserError('x', { cause: refused }) }),
      false,
      'TLS_MISMATCH',
    ],
    [
      'a connection that ends within the TLS handshake',
      new NetworkError('x', {
        cause: new UserError('x', { cause: Object.assign(new Error('x'), { code: 'ECONNRESET' }) }),
      }),
      true,
      'TLS_HANDSHAKE_CLOSED',
    ],
    ['an answer that the library cannot parse', new TypeError('x'), true, 'UNREADABLE_ANSWER'],
    ['an error of unknown kind', new Error('x'), false, 'Error'],
  ] as const)('%s', (_, error, isRetriable, id) => {
    expect(identify(error)).toEqual({ id, isRetriable });
  });
});

test('an error of the service is no errno, although it has a code', () => {
  expect(identify(new SinkError('x', { code: 'broker_unreachable', retriable: false }))).toEqual({
    id: 'SinkError',
    isRetriable: false,
  });
});
