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
  test('SetupError of what may pass: retry (setup)', () => {
    expect(judgeFailure(new SetupError('x', { mayPass: true }))).toEqual({ action: 'retry', reason: 'setup' });
  });
  for (const [error, action, reason] of cases) {
    const kind = error instanceof SinkError ? `SinkError, ${error.retriable ? '' : 'not '}retriable` : error.name;
    test(`${kind}: ${action} (${reason})`, () => {
      expect(judgeFailure(error)).toEqual({ action, reason });
    });
  }

  test('whatever comes from the server or the network is judged by its code, and tried again when nothing is known', () => {
    expect(judgeFailure(new SourceError('x')).action).toBe('retry');
    expect(judgeFailure(new Error('x')).action).toBe('retry');
    expect(judgeFailure(Object.assign(new Error('x'), { code: 'ECONNREFUSED' })).action).toBe('retry');
  });
});
