/** Whether a round that Kafka did not fully acknowledge is sent again: the failure cycle of the specification, pure. */
import type { ProduceFailure } from './produce-errors.ts';

/**
 * What to do after an attempt:
 * - `done`: everything is acknowledged
 * - `follow`: some of the partitions have new leaders: send the same batches again at once; this counts as no retry
 * - `resend`: send the same batches again, `resend_timeout` later
 * - `give-up`: replication of the slot stops and starts again; `index` is that of the failure to report
 */
export type RoundDecision =
  | { readonly action: 'done' }
  | { readonly action: 'follow' }
  | { readonly action: 'resend' }
  | { readonly action: 'give-up'; readonly index: number };

/** Why a batch was not acknowledged, and where it was sent. */
export interface RoundFailure {
  readonly failure: ProduceFailure;
  /** Broker id of the leader that it was sent to, -1 if its partition had none */
  readonly sentTo: number;
  /** The leader in the metadata read since, -1 if there is none */
  readonly leader: number;
}

/** The attempts of a round so far. */
export interface RoundHistory {
  /** How often the round was resent after `resend_timeout` */
  readonly retryCount: number;
  readonly maxRetries: number;
  /** True if the last attempt followed the leaders: two brokers that name each other must not cause an endless loop */
  readonly hasFollowed: boolean;
}

/** @param failures one for each batch that was not acknowledged, in any order */
export function decideRound(failures: readonly RoundFailure[], history: RoundHistory): RoundDecision {
  if (failures.length === 0) return { action: 'done' };
  const hopeless = failures.findIndex(({ failure }) => failure.verdict !== 'resend');
  if (hopeless >= 0) return { action: 'give-up', index: hopeless };
  const hasLeaderMoved = failures.some(({ sentTo, leader }) => leader >= 0 && leader !== sentTo);
  if (hasLeaderMoved && !history.hasFollowed) return { action: 'follow' };
  return history.retryCount < history.maxRetries ? { action: 'resend' } : { action: 'give-up', index: 0 };
}
