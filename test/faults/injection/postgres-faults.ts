/** What happens to PostgreSQL. */
import { expect } from 'bun:test';
import { waitFor } from '../../support/process/wait.ts';
import type { Scene } from '../fixture/fault-fixture.ts';
import { ALWAYS, BUSY, type Fault } from './fault.ts';
import { HUGE } from './moments.ts';
import { cameBack, startCount, withServerSetting } from './steps.ts';

/** A database must be down so soon after it was asked to, whatever Kafka does. */
const SHUTDOWN_LIMIT_MS = 10_000;
/** Longer than any `wal_sender_timeout` here */
const LONG_MS = 5_000;

/** Restarts, crashes, and a walsender that must not lose its patience. */
export const POSTGRES_FAULTS: readonly Fault[] = [
  {
    name: 'PostgreSQL is restarted fast',
    strikes: 'PostgreSQL',
    moments: ALWAYS,
    inject: (scene) => cameBack(scene, () => restartFast(scene)),
  },
  {
    name: 'PostgreSQL is restarted fast while Kafka is stuck',
    moments: BUSY,
    // Else the service would leave by itself, for want of Kafka.
    settings: { max_retries: 100 },
    inject: (scene) =>
      cameBack(scene, async () => {
        scene.stage.broker.pause();
        try {
          await scene.workload.advance(50);
          await restartFast(scene);
        } finally {
          scene.stage.broker.resume();
        }
      }),
  },
  {
    name: 'PostgreSQL crashes',
    strikes: 'PostgreSQL',
    moments: ALWAYS,
    inject: (scene) => cameBack(scene, () => scene.stage.postgres.restart('immediate')),
  },
  {
    name: 'the walsender is terminated',
    strikes: 'PostgreSQL',
    moments: ALWAYS,
    inject: (scene) =>
      cameBack(scene, async () => {
        const admin = scene.stage.postgres.sql(scene.database.name, { max: 1 });
        await admin`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = ${scene.slot}`;
        await admin.end();
      }),
  },
  {
    name: 'wal_sender_timeout is 2 s and Kafka is stuck for longer',
    moments: BUSY,
    settings: { max_retries: 100 },
    inject: (scene) => outlastFrozenKafka(scene, '2s'),
  },
  {
    name: 'wal_sender_timeout is 0 and Kafka is stuck for long',
    moments: BUSY,
    settings: { max_retries: 100 },
    inject: (scene) => outlastFrozenKafka(scene, '0'),
  },
  {
    name: 'the sending of a transaction outlasts wal_sender_timeout several times',
    moments: ['load'],
    inject: (scene) =>
      withServerSetting(scene, ['wal_sender_timeout', '1s'], async () => {
        await scene.start();
        const starts = startCount(scene.service);
        await scene.workload.stop();
        for (const proxy of scene.kafkaProxies) proxy.latency(500);
        try {
          await scene.workload.writeHuge(HUGE);
          await scene.confirmed();
        } finally {
          for (const proxy of scene.kafkaProxies) await proxy.heal();
        }
        expect(startCount(scene.service)).toBe(starts);
      }),
  },
];

async function restartFast({ stage: { postgres } }: Scene): Promise<void> {
  const stopped = postgres.stop('fast');
  try {
    await waitFor('the end of PostgreSQL', () => postgres.pid === undefined, { timeoutMs: SHUTDOWN_LIMIT_MS });
  } finally {
    // Also when it was in vain: the scenes that follow need a server.
    await postgres.stop('immediate');
    await stopped;
    await postgres.start();
  }
}

/** Kafka is frozen for far longer than `wal_sender_timeout`, and replication must not have been begun again. */
async function outlastFrozenKafka(scene: Scene, walSenderTimeout: string): Promise<void> {
  const { workload, stage } = scene;
  await withServerSetting(scene, ['wal_sender_timeout', walSenderTimeout], async () => {
    // A session goes by what the server said when it began.
    await scene.start();
    const starts = startCount(scene.service);
    workload.start();
    stage.broker.pause();
    try {
      await workload.advance(200);
      await scene.saysNotReady();
      await Bun.sleep(LONG_MS);
    } finally {
      stage.broker.resume();
    }
    await scene.confirmed();
    expect(startCount(scene.service)).toBe(starts);
  });
}
