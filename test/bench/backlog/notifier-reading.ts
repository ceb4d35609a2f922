/** Reads a backlog with the service and counts every record. */

import { cpuMicros, ProcessWatch, peakRssBytes, rssBytes } from '../../support/process/process-usage.ts';
import type { Environment } from '../environment.ts';
import { startNotifier } from '../service/notifier.ts';
import { waitUntilConfirmed, walsenderPid } from '../service/replication-slots.ts';
import { createTopics, deleteTopics } from '../service/slot-topics.ts';
import type { Backlog } from '../workload/workloads.ts';
import type { Reading, ReadingPlace } from './reading.ts';

/** Options of a reading by the service. */
export interface NotifierReadingOptions {
  /** Partitions of each topic; default `PARTITION_COUNT` */
  readonly partitions?: number | undefined;
  /** Idle time after the backlog before its memory is measured; default: it is not measured */
  readonly idleSeconds?: number | undefined;
}

/** Reads the backlog into topics of its own, which are deleted afterwards. */
export async function readByNotifier(
  environment: Environment,
  backlog: Backlog,
  place: ReadingPlace,
  { partitions, idleSeconds }: NotifierReadingOptions = {},
): Promise<Reading> {
  const { sql, slot, end } = place;
  const brokerPid = environment.kafka.pid as number;
  const target = await createTopics(environment, place, { partitions });
  await using program = await startNotifier(environment, target);
  const startedMs = performance.now();
  const cpuBefore = cpuMicros(program.pid) as number;
  const brokerBefore = cpuMicros(brokerPid) as number;
  using walsender = new ProcessWatch(await walsenderPid(sql, slot));
  await program.while(waitUntilConfirmed(sql, slot, end));
  const reading: Reading = {
    seconds: (performance.now() - startedMs) / 1000,
    cpuMicros: (cpuMicros(program.pid) as number) - cpuBefore,
    walsenderCpuMicros: walsender.cpuMicros,
    brokerCpuMicros: (cpuMicros(brokerPid) as number) - brokerBefore,
    peakRssBytes: peakRssBytes(program.pid) as number,
  };
  let idleRssBytes: number | undefined;
  if (idleSeconds !== undefined) {
    environment.progress(`${backlog.title}: idle for ${idleSeconds} s`);
    await program.while(Bun.sleep(idleSeconds * 1000));
    idleRssBytes = rssBytes(program.pid);
  }
  await program.stop();
  const [events, lifecycle] = await environment.kafka.countRecords([target.eventsTopic, target.lifecycleTopic]);
  if (events !== backlog.recordCount || lifecycle !== 0) {
    throw new Error(
      `${backlog.title}: ${events} events and ${lifecycle} lifecycle records arrived, not ${backlog.recordCount} and 0`,
    );
  }
  await deleteTopics(environment, target);
  return { ...reading, idleRssBytes };
}
