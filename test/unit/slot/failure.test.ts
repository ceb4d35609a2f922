import { describe, expect, test } from 'bun:test';
import {
  InvalidRowError,
  LossError,
  MalformedError,
  MissingOldTupleError,
  RecordTooLargeError,
  SecretError,
  SetupError,
  SinkError,
  SourceError,
} from '../../../src/errors.ts';
import { judgeFailure } from '../../../src/slot/failure.ts';

describe('judgeFailure', () => {
  const cases = [
    [new LossError('x'), 'stop', 'loss'],
    [new InvalidRowError('x'), 'stop', 'invalid-row'],
    [new MissingOldTupleError('x'), 'stop', 'invalid-row'],
    [new RecordTooLargeError('x'), 'stop', 'invalid-row'],
    [new MalformedError('pgoutput', 0, 'x'), 'stop', 'malformed'],
    [new SetupError('x'), 'stop', 'setup'],
    [new SecretError('x'), 'retry', 'secret'],
    [new SinkError('x', { retriable: true }), 'retry', 'kafka-unavailable'],
    [new SinkError('x', { retriable: false }), 'stop', 'kafka-refused'],
  ] as const;
  test('SetupError with mayPass: retry (setup)', () => {
    expect(judgeFailure(new SetupError('x', { mayPass: true }))).toEqual({ action: 'retry', reason: 'setup' });
  });
  for (const [error, action, reason] of cases) {
    const kind = error instanceof SinkError ? `SinkError, ${error.retriable ? '' : 'not '}retriable` : error.name;
    test(`${kind}: ${action} (${reason})`, () => {
      expect(judgeFailure(error)).toEqual({ action, reason });
    });
  }

  test('errors of the server and the network are judged by their code, and retried without a known code', () => {
    expect(judgeFailure(new SourceError('x')).action).toBe('retry');
    expect(judgeFailure(new Error('x')).action).toBe('retry');
    expect(judgeFailure(Object.assign(new Error('x'), { code: 'ECONNREFUSED' })).action).toBe('retry');
  });
});
