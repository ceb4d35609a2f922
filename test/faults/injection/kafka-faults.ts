/** What happens to a single broker and its topics. */
import { waitFor } from '../../support/process/wait.ts';
import { ALWAYS, BUSY, type Fault } from './fault.ts';
import { cameBack, noticed } from './steps.ts';

const GROWN_PARTITIONS = 5;

/** Stopped, killed, frozen, out of space, and with more partitions than before. */
export const KAFKA_FAULTS: readonly Fault[] = [
  {
    name: 'the broker is stopped and started again',
    strikes: 'Kafka',
    moments: ALWAYS,
    inject: async ({ stage: { broker } }) => {
      await broker.stop();
      await broker.start();
    },
  },
  {
    name: 'the broker is killed',
    strikes: 'Kafka',
    moments: ALWAYS,
    inject: async ({ stage: { broker } }) => {
      await broker.kill();
      await broker.start();
    },
  },
  {
    name: 'the broker is frozen until the service gives up',
    strikes: 'Kafka',
    moments: BUSY,
    settings: { max_retries: 1 },
    inject: (scene) =>
      cameBack(scene, async (since) => {
        scene.workload.start();
        scene.stage.broker.pause();
        try {
          await noticed(scene, since);
          await scene.saysNotReady();
        } finally {
          scene.stage.broker.resume();
        }
      }),
  },
  {
    name: 'the disk of the broker is full',
    strikes: 'Kafka',
    moments: BUSY,
    inject: async ({ stage: { broker }, workload }) => {
      workload.start();
      // As on a full disk, the first write that does not fit fails; the broker then gives its only disk up, and ends.
      const { exitCode, stderr } = Bun.spawnSync(['prlimit', '--pid', String(broker.pid), '--fsize=4096']);
      if (exitCode !== 0) throw new Error(`Cannot limit the files of the broker: ${stderr}`);
      await waitFor('the end of the broker', () => broker.pid === undefined, { timeoutMs: 60_000 });
      await broker.start();
    },
  },
  {
    name: 'the topics grow',
    moments: BUSY,
    inject: async (scene) => {
      scene.workload.start();
      scene.partitionCounts.push(GROWN_PARTITIONS);
      await cameBack(scene, async () => {
        for (const topic of scene.topics) await scene.kafka.setPartitions(topic, GROWN_PARTITIONS);
      });
      await scene.workload.advance(100);
    },
  },
];
