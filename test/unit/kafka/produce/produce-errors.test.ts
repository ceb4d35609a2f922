import { describe, expect, test } from 'bun:test';
import { NetworkError, protocolErrors } from '@platformatic/kafka';
import { ByteWriter } from '../../../../src/bytes/writer.ts';
import { SecretError, SinkError } from '../../../../src/errors.ts';
import {
  deliveryError,
  judgeAnswer,
  judgeLeaderless,
  judgeSendError,
} from '../../../../src/kafka/produce/produce-errors.ts';
import { RecordBatch } from '../../../../src/kafka/produce/record-batch.ts';

const codeOf = (id: keyof typeof protocolErrors) => protocolErrors[id]!.code;

describe('judgeSendError', () => {
  test('an error of the library is judged by what it is', () => {
    expect(judgeSendError(new NetworkError('closed'))).toMatchObject({ verdict: 'resend', id: 'NETWORK' });
  });

  test('an error of the service with a cause is judged by its cause', () => {
    const error = new SinkError('Cannot connect', { code: 'x', retriable: true, cause: new NetworkError('closed') });
    expect(judgeSendError(error)).toMatchObject({ verdict: 'resend', id: 'NETWORK' });
  });

  test('an error of the service without a cause keeps its text, code and advice', () => {
    const details = { code: 'broker_unknown', advice: 'Wait' };
    expect(judgeSendError(new SinkError('Cannot reach broker 1', { ...details, retriable: true }))).toEqual({
      verdict: 'resend',
      id: 'Cannot reach broker 1',
      ...details,
    });
    expect(judgeSendError(new SecretError('Cannot read secret'))).toMatchObject({ verdict: 'refused' });
  });
});

test('judgeAnswer has no failure for a batch that is stored, or was stored before', () => {
  expect(judgeAnswer(0)).toBeUndefined();
  expect(judgeAnswer(codeOf('DUPLICATE_SEQUENCE_NUMBER'))).toBeUndefined();
  expect(judgeAnswer(undefined)).toEqual({ verdict: 'resend', id: 'NO_ANSWER' });
  expect(judgeAnswer(codeOf('MESSAGE_TOO_LARGE'))).toMatchObject({ verdict: 'refused', id: 'MESSAGE_TOO_LARGE' });
});

test('judgeLeaderless names the error of the topic if it has one', () => {
  expect(judgeLeaderless(undefined).id).toBe('LEADER_NOT_AVAILABLE');
  expect(judgeLeaderless(0).id).toBe('LEADER_NOT_AVAILABLE');
  expect(judgeLeaderless(codeOf('UNKNOWN_TOPIC_OR_PARTITION')).id).toBe('UNKNOWN_TOPIC_OR_PARTITION');
});

describe('deliveryError', () => {
  const batchOf = (recordCount: number) => {
    const beginning = { firstOrdinal: 1, timestampMs: 0, begunMs: 0 };
    const batch = new RecordBatch({ topic: 'topic', partition: 2 }, Buffer.alloc(64), beginning);
    for (let index = 0; index < recordCount; index++) {
      batch.append(new ByteWriter().copy(Buffer.from('ns process')), new ByteWriter(), { producedCount: 0 });
    }
    return batch;
  };
  const errorOf = (id: keyof typeof protocolErrors, recordCount = 2) =>
    deliveryError(batchOf(recordCount), judgeAnswer(codeOf(id))!, { kafkaClient: 'main', attemptCount: 4 });

  test('says what happened, how often it was tried, and where', () => {
    expect(errorOf('NOT_ENOUGH_REPLICAS')).toMatchObject({
      message: 'Cannot deliver a batch of 2: NOT_ENOUGH_REPLICAS after 4 attempts',
      code: 'produce_not_acknowledged',
      retriable: true,
      advice: expect.stringContaining('min.insync.replicas'),
      place: { kafkaClient: 'main', topic: 'topic', partition: 2, key: undefined },
    });
  });

  test('names the key of a record that alone is too large', () => {
    expect(errorOf('MESSAGE_TOO_LARGE', 1)).toMatchObject({ code: 'record_too_large', place: { key: 'ns process' } });
    expect(errorOf('MESSAGE_TOO_LARGE')).toMatchObject({ code: 'batch_too_large', place: { key: undefined } });
  });

  test.each([
    ['UNKNOWN_TOPIC_OR_PARTITION', 'topic_missing', true],
    ['TOPIC_AUTHORIZATION_FAILED', 'topic_not_authorized', false],
    ['OUT_OF_ORDER_SEQUENCE_NUMBER', 'producer_rejected', true],
    ['INVALID_RECORD', 'produce_refused', false],
  ] as const)('%s has code %s', (id, code, retriable) => {
    expect(errorOf(id)).toMatchObject({ code, retriable });
  });
});
