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
    inject: async ({ servers: { broker } }) => {
      await broker.stop();
      await broker.start();
    },
  },
  {
    name: 'the broker is killed',
    strikes: 'Kafka',
    moments: ALWAYS,
    inject: async ({ servers: { broker } }) => {
      await broker.kill();
      await broker.start();
    },
  },
  {
    name: 'the broker is frozen until the service gives up',
    strikes: 'Kafka',
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
    strikes: 'Kafka',
    moments: BUSY,
    inject: async ({ servers: { broker }, workload }) => {
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
