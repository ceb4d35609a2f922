/**
 * Which of two configurations of a slot is the newer one. A hash has no order, and clocks of two machines have none either:
 * the order is the one in which configurations first took the slot, as its ledger has it. One that never took it is the
 * newest. Pure.
 */
import { createHash } from 'node:crypto';
import type { NamespaceConfig } from '../../config/config.ts';

/** An advisory lock has 32 bits for it. */
const ID_DIGITS = 8;
/** The ledger is one comment. A configuration that was forgotten counts as the newest when it comes back */
const MAX_KNOWN = 8;

/**
 * Identifies what decides the contents of a slot's stream: namespaces, publications, topics, and what becomes of rows. Not
 * addresses, passwords or timeouts, nor the order of the file: those may differ between processes that replace each other.
 */
export function configurationId(namespaces: ReadonlyMap<string, NamespaceConfig>): string {
  const entries = Array.from(namespaces, ([name, namespace]) => [
    name,
    namespace.kafkaClient,
    namespace.eventsinkTopic,
    namespace.lifecycleTopic,
    namespace.parkingTopic ?? null,
    namespace.onInvalid,
    namespace.onMissingOldTuple,
    namespace.replicaIdentity,
    namespace.publishColumns,
  ]);
  entries.sort(([one], [other]) => (one! < other! ? -1 : 1));
  return createHash('sha256').update(JSON.stringify(entries)).digest('hex').slice(0, ID_DIGITS);
}

/** Those of the order, oldest first, that are newer than this one. */
export function newerConfigurations(order: readonly string[], own: string): readonly string[] {
  const index = order.indexOf(own);
  return index < 0 ? [] : order.slice(index + 1);
}

/** The order once this configuration has taken the slot. */
export function withConfiguration(order: readonly string[], own: string): readonly string[] {
  return order.includes(own) ? order : [...order, own].slice(-MAX_KNOWN);
}

/** The order once this configuration has proved to be the one that is meant: after a rollback. */
export function withNewest(order: readonly string[], own: string): readonly string[] {
  return [...order.filter((one) => one !== own), own];
}
