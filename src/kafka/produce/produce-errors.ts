/** What the answer to a Produce request means for its batches, and the error when they cannot be delivered. */
import { NotifierError, SinkError } from '../../errors.ts';
import { connectAdvice, isTooLarge, judgeKafkaError, type KafkaFailure } from '../../failure-policy.ts';
import { codeOf, identify, identifyCode } from '../client/errors.ts';
import type { RecordBatch } from './record-batch.ts';

/** Kafka's error code for a partition without a leader */
const LEADER_NOT_AVAILABLE = 5;

/** Why a batch was not acknowledged. */
export interface ProduceFailure extends KafkaFailure {
  /** Code of the error of this service that it comes from, if it does */
  readonly code?: string | undefined;
}

/** A broker that no longer leads a partition of its request has not answered. */
export const FORMER_LEADER_SILENT: ProduceFailure = { verdict: 'resend', id: 'FORMER_LEADER_SILENT' };

/** A batch that the brokers do not take although it is alone in its request. */
export const REQUEST_TOO_LARGE: ProduceFailure = {
  verdict: 'refused',
  id: 'REQUEST_TOO_LARGE',
  advice: 'Raise socket.request.max.bytes of the brokers, on which they close the connection',
};

/** Judges the error that a Produce request ended with instead of an answer. */
export function judgeSendError(error: unknown): ProduceFailure {
  // An error without a cause was raised by this service: its own text says most.
  if (!(error instanceof NotifierError) || error.cause !== undefined) {
    if (!(error instanceof SinkError)) return judgeKafkaError(identify(error));
    // Of the connection: it knows whose address it is.
    return { ...judgeKafkaError(identify(error.cause)), advice: error.advice };
  }
  const verdict = error instanceof SinkError && error.retriable ? 'resend' : 'refused';
  return { verdict, id: error.message, advice: error.advice, code: error.code };
}

/**
 * Judges the error code that an answer has for a batch; undefined = the batch is acknowledged.
 * @param code undefined when the answer does not mention the batch
 */
export function judgeAnswer(code: number | undefined): ProduceFailure | undefined {
  if (code === 0) return undefined;
  if (code === undefined) return { verdict: 'resend', id: 'NO_ANSWER' };
  const failure = judgeKafkaError(identifyCode(code));
  return failure.verdict === 'acknowledged' ? undefined : failure;
}

/**
 * Judges a partition without a leader.
 * @param topicErrorCode of its topic in the metadata: the topic itself may be gone
 */
export function judgeLeaderless(topicErrorCode: number | undefined): ProduceFailure {
  return judgeKafkaError(identifyCode(topicErrorCode || LEADER_NOT_AVAILABLE));
}

/** The error that ends a producer: this batch was not acknowledged, and no resend follows. */
export function deliveryError(
  batch: RecordBatch,
  failure: ProduceFailure,
  { kafkaClient, attemptCount }: { readonly kafkaClient: string; readonly attemptCount: number },
): SinkError {
  const { topic, partition, recordCount, firstKey } = batch;
  return new SinkError(`Cannot deliver a batch of ${recordCount}: ${failure.id} after ${attemptCount} attempts`, {
    code: failureCode(batch, failure),
    retriable: failure.verdict !== 'refused',
    advice: failure.advice ?? connectAdvice(failure.id),
    place: { kafkaClient, topic, partition, key: isTooLarge(failure) && recordCount === 1 ? firstKey : undefined },
  });
}

function failureCode({ recordCount }: RecordBatch, failure: ProduceFailure): string {
  if (failure.code !== undefined) return failure.code;
  if (isTooLarge(failure)) return recordCount === 1 ? 'record_too_large' : 'batch_too_large';
  if (failure.verdict === 'restart') return 'producer_rejected';
  return codeOf(failure.id, failure.verdict === 'resend' ? 'produce_not_acknowledged' : 'produce_refused');
}
