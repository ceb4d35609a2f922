/** What an operator should know about a slot that is prepared nevertheless: lines of the log. */
import type { Logger } from 'pino';
import { formatLsn, type Lsn } from '../../lsn.ts';
import { createdAtLsn } from '../catalog/publications.ts';
import type { AbandonedSlot } from '../catalog/slots.ts';
import type { NamespaceTables } from '../catalog/tables.ts';
import { quoteIdentifier } from '../client/quote.ts';
import type { SlotSnapshot } from '../continuity/check.ts';
import type { SlotLedger } from '../continuity/ledger.ts';
import { dropSlotSql } from './create-slot.ts';
import type { PreparedPublication } from './ensure-publication.ts';
import { statusIndexSql } from './replica-identity.ts';

/**
 * A slot without a reader holds WAL until the disk is full. The statement that drops it is printed only for a slot of this
 * service, which has left a ledger: any other may belong to a program that is just down.
 */
export function warnOfAbandonedSlot({ slot, ...facts }: AbandonedSlot, isOurs: boolean, log: Logger): void {
  if (isOurs) {
    log.warn(
      { event: 'abandoned_slot', abandonedSlot: slot, ...facts, advice: dropSlotSql(slot) },
      'replication slot is not configured, has no reader, and holds WAL; drop it when it is no longer needed',
    );
    return;
  }
  const advice =
    'Find the program that it belongs to, such as another deployment or another replication tool, before anything is dropped; ' +
    'inactiveSince (PostgreSQL 17 and newer) shows how long it has been away';
  log.warn(
    { event: 'abandoned_slot', abandonedSlot: slot, ...facts, advice },
    'replication slot of another program has no reader, and holds WAL',
  );
}

/** FULL loses nothing, but the status index saves nothing until it is used. */
export function warnOfFullIdentity({ namespace, processes }: NamespaceTables, log: Logger): void {
  log.warn(
    {
      event: 'replica_identity_full',
      namespace,
      table: processes.name,
      advice: statusIndexSql(namespace, processes),
    },
    'replica identity of processes is FULL, although the configuration says status_index: every update still carries its old row',
  );
}

/** Nothing on the server distinguishes a first slot from one that was lost together with its ledger: an operator can. */
export function reportCreation(
  { server, publications }: SlotSnapshot,
  { isFirst, confirmedFlushLsn }: { readonly isFirst: boolean; readonly confirmedFlushLsn: Lsn },
  log: Logger,
): void {
  const marked = [...publications.values()].filter((one) => createdAtLsn(one, server) !== undefined);
  // Where an accepted loss ends.
  const lsn = formatLsn(confirmedFlushLsn);
  if (!isFirst || marked.length === 0) {
    log.info({ event: 'slot_created', confirmedFlushLsn: lsn }, 'created replication slot');
    return;
  }
  log.warn(
    {
      event: 'slot_created_late',
      confirmedFlushLsn: lsn,
      publications: marked.map(({ name }) => name),
    },
    'created replication slot although its publications existed before: if there was a slot before, changes after its last confirmation are not delivered',
  );
}

/** A publication that the slot streams for the first time, and that was created before the slot's position. */
export function warnOfPassedRows(
  publications: readonly PreparedPublication[],
  { effective, confirmedFlushLsn }: { readonly effective: SlotLedger; readonly confirmedFlushLsn: Lsn },
  log: Logger,
): void {
  for (const { name, oid, createdAtLsn } of publications) {
    if (effective.left.get(name)?.oid === oid) continue;
    if (effective.publicationOids.has(name) || createdAtLsn === undefined || createdAtLsn >= confirmedFlushLsn)
      continue;
    log.warn(
      {
        event: 'namespace_added_late',
        namespace: name,
        fromLsn: formatLsn(createdAtLsn),
        toLsn: formatLsn(confirmedFlushLsn),
      },
      'the slot streams this namespace for the first time, although its publication is older: this slot does not deliver what was written in between',
    );
  }
}

/** Removing a namespace from a slot has consequences, whether for a while or for good. */
export function warnOfLeftNamespaces({ left }: SlotLedger, effective: SlotLedger | undefined, log: Logger): void {
  const names = [...left.keys()].filter((name) => effective?.publicationOids.has(name));
  if (names.length === 0) return;
  // A namespace that moves to another slot keeps its publication.
  const advice = `If they are removed for good, and no other slot streams them: DROP PUBLICATION ${names.map(quoteIdentifier).join(', ')};`;
  log.warn(
    { event: 'namespaces_left', namespaces: names, advice },
    'the slot continues without namespaces that it was streamed with: what is written meanwhile is a loss when they come back',
  );
}
