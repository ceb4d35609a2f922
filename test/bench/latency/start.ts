/** Duration of a restart: from the start of the program until the broker has appended the first record, a waiting event. */

import { tablesOf } from '../../support/progressor/tables.ts';
import type { Environment } from '../environment.ts';
import { median } from '../report/statistics.ts';
import { startNotifier } from '../service/notifier.ts';
import { dropSlot, endOfWal, waitUntilConfirmed } from '../service/replication-slots.ts';
import { createTopics, deleteTopics } from '../service/slot-topics.ts';
import { eventBacklog, NAMESPACE } from '../workload/workloads.ts';

/** Seconds of each restart, and their median. */
export interface StartResult {
  readonly readings: readonly number[];
  readonly seconds: number;
}

const DATABASE = 'bench_start';
const SLOT = 'bench_start';
/** The broker truncates append times to milliseconds */
const CLOCK_RESOLUTION_MS = 1;

/** Restarts the service `repeatCount` times. */
export async function measureStart(environment: Environment, repeatCount: number): Promise<StartResult> {
  const { postgres, kafka, progress } = environment;
  await postgres.createDatabase(DATABASE);
  const sql = postgres.sql(DATABASE, { max: 2 });
  try {
    progress('start to first record: preparing');
    const payloadBytes = 270;
    const tables = { id: 'start', title: 'tables alone', eventCount: 1, eventsPerTransaction: 1, payloadBytes };
    await eventBacklog(tables).prepare(sql);
    const config = { 'message.timestamp.type': 'LogAppendTime' };
    const target = await createTopics(environment, { database: DATABASE, slot: SLOT }, { config });
    {
      await using program = await startNotifier(environment, target);
      await program.stop();
    }
    const spawnedMs: number[] = [];
    for (let turn = 1; turn <= repeatCount; turn++) {
      await sql`
        INSERT INTO ${sql(tablesOf(NAMESPACE).events)} (process_id, task_id, event_id, "timestamp", metadata, payload)
        SELECT bench_process_id(0), 1, ${turn}::int, now(), '{"format_version": 1}', payload
        FROM bench_payloads WHERE variant = 0`;
      const end = await endOfWal(sql);
      spawnedMs.push(Date.now());
      await using program = await startNotifier(environment, target);
      await program.while(waitUntilConfirmed(sql, SLOT, end));
      await program.stop();
    }
    const records = await kafka.readTopic(target.eventsTopic);
    if (records.length !== repeatCount) throw new Error(`${records.length} records arrived, not ${repeatCount}`);
    const readings = records.map(
      ({ timestampMs }, index) => (timestampMs + CLOCK_RESOLUTION_MS - (spawnedMs[index] as number)) / 1000,
    );
    progress(`start to first record: ${readings.map((seconds) => seconds.toFixed(2)).join(', ')} s`);
    await deleteTopics(environment, target);
    return { readings, seconds: median(readings) };
  } finally {
    await dropSlot(sql, SLOT);
    await sql.end({ timeout: 1 });
  }
}
