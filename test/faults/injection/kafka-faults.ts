/** Faults of a single broker and its topics. */
import { waitFor } from '../../support/process/wait.ts';
import { ALWAYS, BUSY, type Fault } from './fault.ts';
import { cameBack, noticed } from './steps.ts';

const GROWN_PARTITIONS = 5;

/** Stop, kill, freeze, a full disk, and more partitions. */
export const KAFKA_FAULTS: readonly Fault[] = [
  {
    name: 'the broker is stopped and started again',
    side: 'Kafka',
    moments: ALWAYS,
    inject: async ({ servers: { broker } }) => {
      await broker.stop();
      await broker.start();
    },
  },
  {
    name: 'the broker is killed',
    side: 'Kafka',
    moments: ALWAYS,
    inject: async ({ servers: { broker } }) => {
      await broker.kill();
      await broker.start();
    },
  },
  {
    name: 'the broker is frozen until the service gives up',
    side: 'Kafka',
    moments: BUSY,
    settings: { max_retries: 1 },
    inject: (fixture) =>
      cameBack(fixture, async (since) => {
        fixture.workload.start();
        fixture.servers.broker.pause();
        try {
          await noticed(fixture, since);
          await fixture.saysNotReady();
        } finally {
          fixture.servers.broker.resume();
        }
      }),
  },
  {
    name: 'the disk of the broker is full',
    side: 'Kafka',
    moments: BUSY,
    inject: async ({ servers: { broker }, workload }) => {
      workload.start();
      // As on a full disk, the first write that does not fit fails; the broker then takes its only log directory offline and ends.
      const { exitCode, stderr } = Bun.spawnSync(['prlimit', '--pid', String(broker.pid), '--fsize=4096']);
      if (exitCode !== 0) throw new Error(`Cannot limit the files of the broker: ${stderr}`);
      await waitFor('the end of the broker', () => broker.pid === undefined, { timeoutMs: 60_000 });
      await broker.start();
    },
  },
  {
    name: 'the topics get more partitions',
    moments: BUSY,
    inject: async (fixture) => {
      fixture.workload.start();
      fixture.partitionCounts.push(GROWN_PARTITIONS);
      await cameBack(fixture, async () => {
        for (const topic of fixture.topics) await fixture.kafka.setPartitions(topic, GROWN_PARTITIONS);
      });
      await fixture.workload.advance(100);
    },
  },
];
