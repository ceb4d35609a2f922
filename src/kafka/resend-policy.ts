/** Whether a round that Kafka did not acknowledge whole is sent again: the failure cycle of the specification, pure. */
import type { KafkaFailure } from './kafka-errors.ts';

/**
 * - `done`: everything is acknowledged
 * - `resend`: the same batches go out again, `resend_timeout` later
 * - `give-up`: replication of the slot stops and starts again; `index` tells which failure is why
 */
export type RoundDecision =
  | { readonly action: 'done' }
  | { readonly action: 'resend' }
  | { readonly action: 'give-up'; readonly index: number };

/**
 * @param failures of the batches that were not acknowledged, in any order
 * @param retryCount how often the round was sent again already
 */
export function decideRound(failures: readonly KafkaFailure[], retryCount: number, maxRetries: number): RoundDecision {
  if (failures.length === 0) return { action: 'done' };
  const hopeless = failures.findIndex(({ verdict }) => verdict !== 'resend');
  if (hopeless >= 0) return { action: 'give-up', index: hopeless };
  return retryCount < maxRetries ? { action: 'resend' } : { action: 'give-up', index: 0 };
}
