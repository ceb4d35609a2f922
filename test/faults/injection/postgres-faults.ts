/** Faults of PostgreSQL. */
import { expect } from 'bun:test';
import { waitFor } from '../../support/process/wait.ts';
import { PASSWORD, ROLE, WRONG_PASSWORD } from '../../support/service/binary-fixture.ts';
import type { FaultFixture } from '../fixture/fault-fixture.ts';
import { ALWAYS, BUSY, type Fault } from './fault.ts';
import { HUGE } from './moments.ts';
import { cameBack, noticed, sessionsSince, walsenderPid, withServerSetting } from './steps.ts';

/** Maximum time of a fast shutdown, also while Kafka is stuck. */
const SHUTDOWN_LIMIT_MS = 10_000;
/** Longer than every `wal_sender_timeout` here */
const LONG_MS = 5_000;

/** Restarts, crashes, a terminated walsender, long waits that must not end it, and what others do to the role and the tables. */
export const POSTGRES_FAULTS: readonly Fault[] = [
  {
    name: 'PostgreSQL is restarted fast',
    side: 'PostgreSQL',
    moments: ALWAYS,
    inject: (fixture) => cameBack(fixture, () => restartFast(fixture)),
  },
  {
    name: 'PostgreSQL is restarted fast while Kafka is stuck',
    moments: BUSY,
    // With fewer retries the service would end the session itself.
    settings: { max_retries: 100 },
    inject: (fixture) =>
      cameBack(fixture, async () => {
        fixture.servers.broker.pause();
        try {
          await fixture.workload.advance(50);
          await restartFast(fixture);
        } finally {
          fixture.servers.broker.resume();
        }
      }),
  },
  {
    name: 'PostgreSQL crashes',
    side: 'PostgreSQL',
    moments: ALWAYS,
    inject: (fixture) => cameBack(fixture, () => fixture.servers.postgres.restart('immediate')),
  },
  {
    name: 'the walsender is terminated',
    side: 'PostgreSQL',
    moments: ALWAYS,
    inject: (fixture) =>
      cameBack(fixture, async () => {
        const admin = fixture.servers.postgres.sql(fixture.database.name, { max: 1 });
        await admin`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = ${fixture.slot}`;
        await admin.end();
      }),
  },
  {
    name: 'the password of the role is another one for a while',
    moments: ALWAYS,
    inject: (fixture) =>
      cameBack(fixture, async (since) => {
        const { servers, workload } = fixture;
        workload.start();
        const admin = servers.postgres.sql('postgres', { max: 1 });
        try {
          await admin.unsafe(`ALTER ROLE ${ROLE} PASSWORD '${WRONG_PASSWORD}'`);
          await admin`SELECT pg_terminate_backend(${(await walsenderPid(fixture))!})`;
          await noticed(fixture, since);
          await fixture.saysNotReady();
        } finally {
          await admin.unsafe(`ALTER ROLE ${ROLE} PASSWORD '${PASSWORD}'`);
          await admin.end();
        }
      }),
  },
  {
    name: 'another program publishes every table, without updates',
    side: 'PostgreSQL',
    moments: BUSY,
    inject: async (fixture) => {
      const { database, servers, workload } = fixture;
      workload.start();
      const admin = servers.postgres.sql(database.name, { max: 1 });
      try {
        await admin`CREATE PUBLICATION others FOR ALL TABLES WITH (publish = 'insert')`;
        await workload.advance(100);
        await admin`DROP PUBLICATION others`;
        await workload.advance(50);
      } finally {
        await admin.end();
      }
    },
  },
  {
    name: "progressor's tables get a column and an index, and are rewritten",
    side: 'PostgreSQL',
    moments: BUSY,
    inject: async ({ database: { sql }, workload }) => {
      workload.start();
      for (const table of ['invoice_processes', 'invoice_events']) {
        await sql.unsafe(`ALTER TABLE ${table} ADD COLUMN note text DEFAULT 'none'`);
        await workload.advance(20);
        await sql.unsafe(`CREATE INDEX ON ${table} (note)`);
        await sql.unsafe(`VACUUM FULL ${table}`);
        await workload.advance(20);
        await sql.unsafe(`ALTER TABLE ${table} DROP COLUMN note`);
        await workload.advance(20);
      }
    },
  },
  {
    name: 'wal_sender_timeout is 2 s and Kafka is stuck for longer',
    moments: BUSY,
    settings: { max_retries: 100 },
    inject: (fixture) => outlastFrozenKafka(fixture, '2s'),
  },
  {
    name: 'wal_sender_timeout is 0 and Kafka is stuck for 5 s',
    moments: BUSY,
    settings: { max_retries: 100 },
    inject: (fixture) => outlastFrozenKafka(fixture, '0'),
  },
  {
    name: 'the delivery of a transaction takes several times wal_sender_timeout',
    moments: ['load'],
    inject: (fixture) =>
      withServerSetting(fixture, ['wal_sender_timeout', '1s'], async () => {
        await fixture.start();
        const since = fixture.mark();
        await fixture.workload.stop();
        for (const proxy of fixture.kafkaProxies) proxy.latency(500);
        try {
          await fixture.workload.writeHuge(HUGE);
          await fixture.confirmed();
        } finally {
          for (const proxy of fixture.kafkaProxies) await proxy.heal();
        }
        expect(sessionsSince(since)).toEqual([]);
      }),
  },
];

async function restartFast({ servers: { postgres } }: FaultFixture): Promise<void> {
  const stopped = postgres.stop('fast');
  try {
    await waitFor('the end of PostgreSQL', () => postgres.pid === undefined, { timeoutMs: SHUTDOWN_LIMIT_MS });
  } finally {
    // Also after a timeout: the next runs need a server.
    await postgres.stop('immediate');
    await stopped;
    await postgres.start();
  }
}

/** Freezes Kafka for much longer than `wal_sender_timeout`; the session must survive. */
async function outlastFrozenKafka(fixture: FaultFixture, walSenderTimeout: string): Promise<void> {
  const { workload, servers } = fixture;
  await withServerSetting(fixture, ['wal_sender_timeout', walSenderTimeout], async () => {
    // A session uses the value of its start.
    await fixture.start();
    const since = fixture.mark();
    workload.start();
    servers.broker.pause();
    try {
      await workload.advance(200);
      await fixture.saysNotReady();
      await Bun.sleep(LONG_MS);
    } finally {
      servers.broker.resume();
    }
    await fixture.confirmed();
    expect(sessionsSince(since)).toEqual([]);
  });
}
