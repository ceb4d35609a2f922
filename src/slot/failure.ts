/** What follows when an attempt to stream has failed: one table over the classes of errors, pure. */

import { InvalidRowError, LossError, MalformedError, SecretError, SetupError, SinkError } from '../errors.ts';
import { judgeSourceError, type SourceFailureReason } from '../failure-policy.ts';

/** Why an attempt ended, in one word or two: a label of the metrics, so that there are few of them. */
export type FailureReason =
  | SourceFailureReason
  | 'loss'
  | 'invalid-row'
  | 'malformed'
  | 'setup'
  | 'secret'
  | 'kafka-unavailable'
  | 'kafka-refused';

/**
 * - `retry`: another attempt after `reconnect_timeout`; it may pass by itself
 * - `standby`: another process has the slot; wait until it is released
 * - `stop`: a person has to mend something; looked at again every `reconnect_timeout`, but nothing will be passed over
 */
export type FailureAction = 'retry' | 'standby' | 'stop';

/** A judged failure. */
export interface FailureVerdict {
  readonly action: FailureAction;
  readonly reason: FailureReason;
}

/** Judges by class, SQLSTATE, errno and Kafka's error code, never by text. */
export function judgeFailure(error: unknown): FailureVerdict {
  if (error instanceof LossError) return { action: 'stop', reason: 'loss' };
  if (error instanceof InvalidRowError) return { action: 'stop', reason: 'invalid-row' };
  if (error instanceof MalformedError) return { action: 'stop', reason: 'malformed' };
  if (error instanceof SetupError) return { action: error.mayPass ? 'retry' : 'stop', reason: 'setup' };
  if (error instanceof SecretError) return { action: 'retry', reason: 'secret' };
  if (error instanceof SinkError) {
    return error.retriable
      ? { action: 'retry', reason: 'kafka-unavailable' }
      : { action: 'stop', reason: 'kafka-refused' };
  }
  return judgeSourceError(error);
}
