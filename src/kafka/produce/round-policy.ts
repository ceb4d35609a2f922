/** Whether a round that Kafka did not acknowledge whole is sent again: the failure cycle of the specification, pure. */
import type { KafkaFailure } from '../../failure-policy.ts';

/**
 * - `done`: everything is acknowledged
 * - `follow`: the same batches go out again at once, to the new leaders of their partitions; no retry is counted
 * - `resend`: the same batches go out again, `resend_timeout` later
 * - `give-up`: replication of the slot stops and starts again; `index` tells which failure is why
 */
export type RoundDecision =
  | { readonly action: 'done' }
  | { readonly action: 'follow' }
  | { readonly action: 'resend' }
  | { readonly action: 'give-up'; readonly index: number };

/** A batch that was not acknowledged, and where it went. */
export interface RoundFailure {
  readonly failure: KafkaFailure;
  /** Broker id of the leader that it was sent to; -1 when its partition had none */
  readonly sentTo: number;
  /** The leader by what the cluster says since; -1 while there is none */
  readonly leader: number;
}

/** How the round has fared so far. */
export interface RoundHistory {
  /** How often the round was sent again `resend_timeout` later already */
  readonly retryCount: number;
  readonly maxRetries: number;
  /** True when the last attempt followed the leaders. Brokers that each name the other would be asked without end */
  readonly hasFollowed: boolean;
}

/** @param failures of the batches that were not acknowledged, in any order */
export function decideRound(failures: readonly RoundFailure[], history: RoundHistory): RoundDecision {
  if (failures.length === 0) return { action: 'done' };
  const hopeless = failures.findIndex(({ failure }) => failure.verdict !== 'resend');
  if (hopeless >= 0) return { action: 'give-up', index: hopeless };
  const haveLeadersMoved = failures.every(({ sentTo, leader }) => leader >= 0 && leader !== sentTo);
  if (haveLeadersMoved && !history.hasFollowed) return { action: 'follow' };
  return history.retryCount < history.maxRetries ? { action: 'resend' } : { action: 'give-up', index: 0 };
}
