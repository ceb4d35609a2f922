/**
 * Faults that lose changes: the service must stop, report the lost range, and continue when that loss is accepted.
 * Everything outside the reported range must arrive.
 */
import { expect } from 'bun:test';
import { parseLsn } from '../../../src/lsn.ts';
import { waitFor } from '../../support/process/wait.ts';
import { type BinaryLogLine, STARTED } from '../../support/service/binary.ts';
import { startService } from '../../support/service/binary-fixture.ts';
import type { FaultFixture, Mark } from '../fixture/fault-fixture.ts';
import { BUSY, type Fault } from './fault.ts';
import { withServerSetting } from './steps.ts';

/** Slots and publications that are dropped, advanced, created again or invalidated. */
export const LOSS_FAULTS: readonly Fault[] = [
  {
    name: 'the slot is invalidated by max_slot_wal_keep_size',
    moments: BUSY,
    inject: async (fixture) => {
      const since = fixture.mark();
      fixture.servers.broker.pause();
      try {
        await fixture.workload.advance(50);
        await fixture.workload.stop();
        await invalidateSlot(fixture);
      } finally {
        fixture.servers.broker.resume();
      }
      await acceptLoss(fixture, { since });
    },
  },
  {
    name: 'the slot is dropped and created again while the service is down',
    moments: BUSY,
    inject: async (fixture) => {
      await fixture.service.stop();
      await fixture.workload.advance(50);
      const { sql } = fixture.database;
      await sql`SELECT pg_drop_replication_slot(${fixture.slot})`;
      await fixture.workload.advance(50);
      await sql`SELECT pg_create_logical_replication_slot(${fixture.slot}, 'pgoutput')`;
      await fixture.workload.advance(50);
      await acceptLoss(fixture);
    },
  },
  {
    name: 'the slot is advanced while the service is down',
    moments: BUSY,
    inject: async (fixture) => {
      await fixture.service.stop();
      await fixture.workload.advance(50);
      await fixture.database.sql`SELECT pg_replication_slot_advance(${fixture.slot}, pg_current_wal_lsn())`;
      await acceptLoss(fixture);
    },
  },
  {
    name: 'a publication is dropped while it is in use',
    moments: BUSY,
    inject: async (fixture) => {
      const since = fixture.mark();
      fixture.workload.start();
      await fixture.database.sql`DROP PUBLICATION invoice`;
      await fixture.workload.advance(50);
      await acceptLoss(fixture, { since, namespace: 'invoice' });
    },
  },
  {
    name: 'a publication is dropped and created again while the service is down',
    moments: BUSY,
    inject: async (fixture) => {
      await fixture.service.stop();
      const { sql } = fixture.database;
      await sql`DROP PUBLICATION invoice`;
      await fixture.workload.advance(50);
      await sql.unsafe(`CREATE PUBLICATION invoice FOR TABLE invoice_processes, invoice_events
        WITH (publish = 'insert, update, delete')`);
      await fixture.workload.advance(50);
      await acceptLoss(fixture, { namespace: 'invoice' });
    },
  },
];

/** Writes WAL until the server invalidates the slot, while the oracle's slot is advanced. */
async function invalidateSlot(fixture: FaultFixture): Promise<void> {
  const { servers, database, journal, slot } = fixture;
  const admin = servers.postgres.sql(database.name, { max: 1 });
  try {
    await withServerSetting(fixture, ['max_slot_wal_keep_size', '64MB'], async () => {
      await waitFor(
        `the end of slot ${slot}`,
        async () => {
          await admin`SELECT pg_logical_emit_message(false, 'faults', 'a segment ends here')`;
          await admin`SELECT pg_switch_wal()`;
          await journal.drain();
          await admin`CHECKPOINT`;
          await journal.drain();
          const [row] = await admin`SELECT wal_status FROM pg_replication_slots WHERE slot_name = ${slot}`;
          return row?.wal_status === 'lost';
        },
        { timeoutMs: 60_000 },
      );
    });
  } finally {
    await admin.end();
  }
}

/**
 * Expects the service to stop and report the loss, before and after a restart, and to continue only when the configuration
 * accepts the reported LSN. Only changes in the reported range may be missing afterwards.
 */
async function acceptLoss(
  fixture: FaultFixture,
  { since, namespace }: { readonly since?: Mark; readonly namespace?: string } = {},
): Promise<void> {
  const isLoss = ({ error }: BinaryLogLine): boolean => error?.name === 'LossError';
  // Changes that are committed while the loss is accepted must arrive as well.
  fixture.workload.start();
  if (since !== undefined) await fixture.waitForLine('the loss', isLoss, since);
  await fixture.service[Symbol.asyncDispose]();
  const service = await startService(fixture.config);
  fixture.handOver(service);
  const mark = { service, line: 0 };
  const { error } = await fixture.waitForLine('the loss, still', isLoss, mark);
  await fixture.saysNotHealthy();
  expect(service.lines.some(({ msg }) => msg === STARTED)).toBe(false);
  const { lsn } = error!.place as { readonly lsn: string };
  await fixture.start({ ...fixture.config, slots: { db: { [fixture.slot]: { accept_loss_after: lsn } } } });
  const acceptance = fixture.service.lines.findLast(({ level, fromLsn }) => level === 'warn' && fromLsn === lsn);
  expect(acceptance).toBeDefined();
  fixture.accepted.push({ fromLsn: parseLsn(lsn), toLsn: parseLsn(acceptance?.toLsn as string), namespace });
}
