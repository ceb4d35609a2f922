import { describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import {
  InvalidRowError,
  LossError,
  MalformedError,
  MissingOldTupleError,
  RecordTooLargeError,
  SecretError,
  SetupError,
  SinkError,
  SlotInUseError,
  SourceError,
} from '../../src/errors.ts';
import { explainFailure, judgeFailure } from '../../src/failure-policy.ts';

/** An error as the driver makes it of what the server sent; its types hide the constructor. */
function serverError(code: string): Error {
  const PostgresError = postgres.PostgresError as unknown as new (fields: object) => Error;
  return new PostgresError({ code, message: 'text in any language', detail: 'row values', query: 'SELECT secret' });
}

describe('explainFailure', () => {
  test('a row that the server cannot send is named by its LSN, and status_index is the advice', () => {
    const where = 'slot "s", output plugin "pgoutput", in the change callback, associated LSN 16/B374D848';
    const error = explainFailure(Object.assign(serverError('54000'), { where }));
    expect(error.place).toEqual({ lsn: '16/B374D848' });
    expect(error.advice).toContain('replica_identity: status_index');
    expect(judgeFailure(error)).toEqual({ action: 'needs_operator', reason: 'row-too-large' });
  });

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
    const error = explainFailure(serverError(code));
    expect(error.message).toContain(what);
    expect(error.message).toContain(`SQLSTATE ${code}`);
    expect(error.message).not.toContain('text in any language');
  });

  test.each([
    ['ECONNREFUSED', 'no process listens'],
    ['ENOTFOUND', 'does not resolve'],
    ['CONNECTION_CLOSED', 'was closed'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'another host name'],
  ])('explains %s', (code, what) => {
    const error = explainFailure(Object.assign(new Error('x'), { code }));
    expect(error.message).toContain(what);
    expect(error.message).toContain(code);
  });

  test('names the code of what it cannot explain, and keeps the error as the cause', () => {
    const cause = serverError('XX000');
    const error = explainFailure(cause);
    expect(error.message).toBe('Cannot follow PostgreSQL: unexpected error (SQLSTATE XX000)');
    expect(error.cause).toBe(cause);
  });

  test('leaves errors alone that were raised on purpose', () => {
    const error = new SetupError('Cannot prepare slot: x', { code: 'x' });
    expect(explainFailure(error)).toBe(error);
  });
});

describe('judgeFailure', () => {
  const failed = (code: string): Error => Object.assign(new Error('text in any language'), { code });

  test.each([
    ['08006', 'retry', 'not-reachable'],
    ['25006', 'retry', 'not-primary'],
    ['28P01', 'needs_operator', 'authentication'],
    ['28000', 'needs_operator', 'authentication'],
    ['3D000', 'needs_operator', 'configuration'],
    ['40P01', 'retry', 'server-busy'],
    ['42501', 'needs_operator', 'privilege'],
    ['42704', 'retry', 'object-missing'],
    ['53100', 'retry', 'server-busy'],
    ['53300', 'retry', 'server-busy'],
    ['55000', 'retry', 'wal-missing'],
    ['55006', 'wait_for_slot', 'slot-in-use'],
    ['55P03', 'retry', 'server-busy'],
    ['57014', 'retry', 'server-busy'],
    ['57P01', 'retry', 'server-stopping'],
    ['57P02', 'retry', 'server-stopping'],
    ['57P03', 'retry', 'server-stopping'],
    ['58P01', 'needs_operator', 'wal-missing'],
    ['XX000', 'retry', 'source'],
  ] as const)('judges SQLSTATE %s as %s, %s', (code, action, reason) => {
    expect(judgeFailure(serverError(code))).toEqual({ action, reason });
    expect(judgeFailure(explainFailure(serverError(code)))).toEqual({ action, reason });
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
    ['SASL_SIGNATURE_MISMATCH', 'needs_operator', 'authentication'],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'needs_operator', 'tls'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'needs_operator', 'tls'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'needs_operator', 'tls'],
    ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'needs_operator', 'tls'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'needs_operator', 'tls'],
    ['ERR_BORINGSSL', 'needs_operator', 'tls'],
    ['ERR_OSSL_X509_KEY_VALUES_MISMATCH', 'needs_operator', 'tls'],
    ['CERT_HAS_EXPIRED', 'needs_operator', 'tls'],
    ['CERT_NOT_YET_VALID', 'needs_operator', 'tls'],
    ['INVALID_PURPOSE', 'needs_operator', 'tls'],
    ['ESOMETHING', 'retry', 'source'],
  ] as const)('judges %s as %s, %s', (code, action, reason) => {
    expect(judgeFailure(failed(code))).toEqual({ action, reason });
  });

  test('judges what the service raised itself by its class or its cause', () => {
    expect(judgeFailure(new SlotInUseError('Cannot prepare slot: x', { code: 'x' }))).toEqual({
      action: 'wait_for_slot',
      reason: 'slot-in-use',
    });
    const caused = new SourceError('Cannot look', { code: 'x', cause: serverError('57P01') });
    expect(judgeFailure(caused)).toEqual({ action: 'retry', reason: 'server-stopping' });
    expect(judgeFailure(new SourceError('Cannot start', { code: 'x' }))).toEqual({ action: 'retry', reason: 'source' });
    expect(judgeFailure('text')).toEqual({ action: 'retry', reason: 'source' });
  });
});

describe('judgeFailure by class', () => {
  const cases = [
    [new LossError('x'), 'needs_operator', 'loss'],
    [new InvalidRowError('x', { code: 'x' }), 'needs_operator', 'invalid-row'],
    [new MissingOldTupleError('x'), 'needs_operator', 'invalid-row'],
    [new RecordTooLargeError('x'), 'needs_operator', 'invalid-row'],
    [new MalformedError('pgoutput', 0, 'x'), 'needs_operator', 'malformed'],
    [new SetupError('x', { code: 'x' }), 'needs_operator', 'setup'],
    [new SetupError('x', { code: 'x', isHazard: true }), 'needs_operator', 'hazard'],
    [new SecretError('x'), 'retry', 'secret'],
    [new SinkError('x', { code: 'x', retriable: true }), 'retry', 'kafka-unavailable'],
    [new SinkError('x', { code: 'x', retriable: false }), 'needs_operator', 'kafka-refused'],
  ] as const;
  test('SetupError of what may pass: retry (setup)', () => {
    expect(judgeFailure(new SetupError('x', { code: 'x', mayPass: true }))).toEqual({
      action: 'retry',
      reason: 'setup',
    });
  });
  for (const [error, action, reason] of cases) {
    const kind = error instanceof SinkError ? `SinkError, ${error.retriable ? '' : 'not '}retriable` : error.name;
    test(`${kind}: ${action} (${reason})`, () => {
      expect(judgeFailure(error)).toEqual({ action, reason });
    });
  }

  test('whatever comes from the server or the network is judged by its code, and tried again when nothing is known', () => {
    expect(judgeFailure(new SourceError('x', { code: 'x' })).action).toBe('retry');
    expect(judgeFailure(new Error('x')).action).toBe('retry');
    expect(judgeFailure(Object.assign(new Error('x'), { code: 'ECONNREFUSED' })).action).toBe('retry');
  });
});
