import { describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { SetupError, SlotInUseError, SourceError } from '../../src/errors.ts';
import { explainSourceError, judgeSourceError } from '../../src/failure-policy.ts';

/** An error as the driver makes it of what the server sent; its types hide the constructor. */
function serverError(code: string): Error {
  const PostgresError = postgres.PostgresError as unknown as new (fields: object) => Error;
  return new PostgresError({ code, message: 'text in any language', detail: 'row values', query: 'SELECT secret' });
}

describe('explainSourceError', () => {
  test.each([
    ['28P01', 'does not let us in'],
    ['28000', 'does not let us in'],
    ['3D000', 'the database does not exist'],
    ['42501', 'lacks a right'],
    ['53300', 'walsender'],
    ['55006', 'another process streams'],
    ['55000', 'cannot be used'],
    ['57P01', 'the server ended the connection'],
    ['57P02', 'stopping or starting'],
    ['57P03', 'stopping or starting'],
    ['58P01', 'misses a file'],
    ['08006', 'the connection failed'],
  ])('explains SQLSTATE %s', (code, what) => {
    const error = explainSourceError(serverError(code));
    expect(error.message).toContain(what);
    expect(error.message).toContain(`SQLSTATE ${code}`);
    expect(error.message).not.toContain('text in any language');
  });

  test.each([
    ['ECONNREFUSED', 'nobody listens'],
    ['ENOTFOUND', 'does not resolve'],
    ['CONNECTION_CLOSED', 'was closed'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'another host name'],
  ])('explains %s', (code, what) => {
    const error = explainSourceError(Object.assign(new Error('x'), { code }));
    expect(error.message).toContain(what);
    expect(error.message).toContain(code);
  });

  test('names the code of what it cannot explain, and keeps the error as the cause', () => {
    const cause = serverError('XX000');
    const error = explainSourceError(cause);
    expect(error.message).toBe('Cannot follow PostgreSQL: unexpected error (SQLSTATE XX000)');
    expect(error.cause).toBe(cause);
  });

  test('leaves errors alone that were raised on purpose', () => {
    const error = new SetupError('Cannot prepare slot: x');
    expect(explainSourceError(error)).toBe(error);
  });
});

describe('judgeSourceError', () => {
  const failed = (code: string): Error => Object.assign(new Error('text in any language'), { code });

  test.each([
    ['08006', 'retry', 'not-reachable'],
    ['25006', 'retry', 'not-primary'],
    ['28P01', 'stop', 'authentication'],
    ['28000', 'stop', 'authentication'],
    ['3D000', 'stop', 'configuration'],
    ['40P01', 'retry', 'server-busy'],
    ['42501', 'stop', 'privilege'],
    ['42704', 'retry', 'object-missing'],
    ['53100', 'retry', 'server-busy'],
    ['53300', 'retry', 'server-busy'],
    ['55000', 'retry', 'wal-missing'],
    ['55006', 'standby', 'slot-in-use'],
    ['55P03', 'retry', 'server-busy'],
    ['57014', 'retry', 'server-busy'],
    ['57P01', 'retry', 'server-stopping'],
    ['57P02', 'retry', 'server-stopping'],
    ['57P03', 'retry', 'server-stopping'],
    ['58P01', 'stop', 'wal-missing'],
    ['XX000', 'retry', 'source'],
  ] as const)('judges SQLSTATE %s as %s, %s', (code, action, reason) => {
    expect(judgeSourceError(serverError(code))).toEqual({ action, reason });
    expect(judgeSourceError(explainSourceError(serverError(code)))).toEqual({ action, reason });
  });

  test.each([
    ['ECONNREFUSED', 'retry', 'not-reachable'],
    ['ENOTFOUND', 'retry', 'not-reachable'],
    ['EAI_AGAIN', 'retry', 'not-reachable'],
    ['EHOSTUNREACH', 'retry', 'not-reachable'],
    ['ENETUNREACH', 'retry', 'not-reachable'],
    ['ETIMEDOUT', 'retry', 'not-reachable'],
    ['CONNECT_TIMEOUT', 'retry', 'not-reachable'],
    ['ECONNRESET', 'retry', 'connection-lost'],
    ['EPIPE', 'retry', 'connection-lost'],
    ['CONNECTION_CLOSED', 'retry', 'connection-lost'],
    ['CONNECTION_ENDED', 'retry', 'connection-lost'],
    ['CONNECTION_DESTROYED', 'retry', 'connection-lost'],
    ['SASL_SIGNATURE_MISMATCH', 'stop', 'authentication'],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'stop', 'tls'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'stop', 'tls'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'stop', 'tls'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'stop', 'tls'],
    ['ERR_BORINGSSL', 'stop', 'tls'],
    ['ERR_OSSL_X509_KEY_VALUES_MISMATCH', 'stop', 'tls'],
    ['CERT_HAS_EXPIRED', 'stop', 'tls'],
    ['ESOMETHING', 'retry', 'source'],
  ] as const)('judges %s as %s, %s', (code, action, reason) => {
    expect(judgeSourceError(failed(code))).toEqual({ action, reason });
  });

  test('judges what the service raised itself by its class or its cause', () => {
    expect(judgeSourceError(new SlotInUseError('Cannot prepare slot: x'))).toEqual({
      action: 'standby',
      reason: 'slot-in-use',
    });
    const caused = new SourceError('Cannot look', { cause: serverError('57P01') });
    expect(judgeSourceError(caused)).toEqual({ action: 'retry', reason: 'server-stopping' });
    expect(judgeSourceError(new SourceError('Cannot start'))).toEqual({ action: 'retry', reason: 'source' });
    expect(judgeSourceError('text')).toEqual({ action: 'retry', reason: 'source' });
  });
});
