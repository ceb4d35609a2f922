/**
 * Processes with an older and a newer configuration of one slot, alive together: the newer one has a namespace more, whose
 * rows would be lost if the older one took the slot. Real servers.
 */
import { describe, expect, test } from 'bun:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { waitFor } from '../../support/process/wait.ts';
import { useKafka, usePostgres } from '../../support/service/file-servers.ts';
import type { LogLine } from '../../support/service/recording-logger.ts';
import { startServiceProcess } from '../../support/service/service-process.ts';
import {
  type Emitted,
  event,
  inOrder,
  insertEvent,
  openStreamFixture,
  type StreamFixture,
} from '../../support/service/stream-fixture.ts';

const OLD = { slots: { one: ['orders'] } };
const NEW = { slots: { one: ['orders', 'invoice'] } };
const TIMEOUT_MS = 120_000;
/** Longer than a superseded process waits for newer ones when it sees none */
const LONGER_THAN_ABSENCE_MS = 4_000;

const kafka = useKafka();

function sees({ log }: { readonly log: readonly LogLine[] }, name: string, code?: string): Promise<LogLine> {
  return waitFor(`the event ${name}`, () => log.find((line) => line.event === name && line.code === code));
}

function has({ log }: { readonly log: readonly LogLine[] }, name: string): boolean {
  return log.some((line) => line.event === name);
}

describe.each([14, 18] as const)('on PostgreSQL %d', (major) => {
  const postgres = usePostgres(major);
  const openFixture = () => openStreamFixture({ postgres: postgres(), kafka: kafka(), slots: NEW.slots });

  /** Commits an event of each namespace. */
  async function write(fixture: StreamFixture, id: string, namespaces = NEW.slots.one): Promise<Emitted[]> {
    const createdAt = await fixture.commit(async (tx) => {
      for (const namespace of namespaces) await insertEvent(tx, namespace, id, 1);
    });
    return namespaces.map((namespace) => event(namespace, id, { eventId: 1, createdAt }));
  }

  /** Connections that show a configuration, with the pid of each. */
  async function shown(fixture: StreamFixture): Promise<number[]> {
    const rows = await fixture.sql`
      SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
    return rows.map(({ pid }) => pid as number);
  }

  test(
    'the older one leaves the slot to a newer one that is alive, and takes it with a warning when all newer ones are gone',
    async () => {
      await using fixture = await openFixture();
      const old = fixture.start(OLD);
      await sees(old, 'replication_started');
      await using first = await startServiceProcess(fixture.serviceOptions(NEW));
      await sees(first, 'standing_by');
      await old.stop();
      await sees(first, 'replication_started');
      const expected = await write(fixture, 'p1');
      await fixture.confirmed('one');
      const older = fixture.start(OLD);
      await sees(older, 'standing_by');
      await using second = await startServiceProcess(fixture.serviceOptions(NEW));
      await sees(second, 'standing_by');

      // A control connection that is opened again shows the configuration again.
      const before = await waitFor('three processes', async () => {
        const pids = await shown(fixture);
        return pids.length === 3 ? pids : undefined;
      });
      await fixture.sql`SELECT pg_terminate_backend(pid) FROM unnest(${before}::int[]) AS pid`;
      await waitFor('three processes again', async () => {
        const pids = await shown(fixture);
        return pids.length === 3 && pids.every((pid) => !before.includes(pid));
      });
      await sees(second, 'standing_by');

      // Alive, and too slow to be there first.
      second.signal('SIGSTOP');
      await first.kill();
      expected.push(...(await write(fixture, 'p2')));
      const decided = () => has(older, 'configuration_superseded') || has(older, 'replication_started');
      await waitFor('what the older one does with the free slot', decided);
      await sleep(LONGER_THAN_ABSENCE_MS);
      expect(has(older, 'replication_started')).toBe(false);
      second.signal('SIGCONT');
      await sees(second, 'replication_started');
      await fixture.confirmed('one');
      expect(inOrder([...new Set(await fixture.emitted())])).toEqual(inOrder(expected));
      expect(older.failures().filter(({ name }) => name === 'LossError')).toEqual([]);

      await second.kill();
      await sees(older, 'slot_warning', 'configuration_superseded');
      expected.push(...(await write(fixture, 'p3', ['orders'])));
      await fixture.confirmed('one');
      expect(await fixture.emitted()).toEqual(expect.arrayContaining(expected));
      expect(older.failures().filter(({ name }) => name === 'LossError')).toEqual([]);
      expect(older.log.filter(({ event: name }) => name === 'configuration_superseded').length).toBeLessThanOrEqual(2);
    },
    TIMEOUT_MS,
  );

  test(
    'all processes go back to the older configuration without an edit',
    async () => {
      await using fixture = await openFixture();
      const former = fixture.start(OLD);
      await sees(former, 'replication_started');
      await former.stop();
      const newer = [fixture.start(NEW), fixture.start(NEW)];
      await waitFor('a stream', () => newer.some((service) => has(service, 'replication_started')));
      const expected = await write(fixture, 'p1');
      await fixture.confirmed('one');
      const older = [fixture.start(OLD), fixture.start(OLD)];
      for (const service of older) await sees(service, 'standing_by');
      for (const service of newer) await service.stop();
      expected.push(...(await write(fixture, 'p2', ['orders'])));
      const holder = await waitFor('the takeover', () => older.find((service) => has(service, 'replication_started')));
      const peer = older.find((service) => service !== holder)!;
      await sees(holder, 'slot_warning', 'configuration_superseded');
      await fixture.confirmed('one');
      await holder.stop();
      await sees(peer, 'replication_started');
      expected.push(...(await write(fixture, 'p3', ['orders'])));
      await fixture.confirmed('one');
      expect(await fixture.emitted()).toEqual(inOrder(expected));
      expect(older.flatMap((service) => service.failures())).toEqual([]);
    },
    TIMEOUT_MS,
  );

  test(
    'a newer one that never took the slot holds nobody up',
    async () => {
      await using fixture = await openFixture();
      const old = fixture.start(OLD);
      await sees(old, 'replication_started');
      const standby = fixture.start(OLD);
      await sees(standby, 'standing_by');
      await using newer = await startServiceProcess(fixture.serviceOptions(NEW));
      await sees(newer, 'standing_by');
      newer.signal('SIGSTOP');
      await old.stop();
      await sees(standby, 'replication_started');
      expect(has(standby, 'configuration_superseded')).toBe(false);
      newer.signal('SIGCONT');
    },
    TIMEOUT_MS,
  );
});
