/** Reads a backlog with each reader in turn, each time from a new copy of one slot. */
import type { Environment } from '../environment.ts';
import { startNotifier } from '../service/notifier.ts';
import { dropSlot, endOfWal, withSlotCopy } from '../service/replication-slots.ts';
import { createTopics, deleteTopics } from '../service/slot-topics.ts';
import { type Backlog, WRITER_CONNECTIONS } from '../workload/workloads.ts';
import { type NotifierReadingOptions, readByNotifier } from './notifier-reading.ts';
import type { BacklogResult, ReaderName, Reading, ReadingPlace } from './reading.ts';
import { readByRecvLogical } from './recvlogical-reading.ts';
import { GULPS, type Gulp, readByThrowAway } from './throw-away-reading.ts';

/** The readers of a backlog, and how often each reads. */
export interface BacklogRunOptions extends NotifierReadingOptions {
  readonly readers: readonly ReaderName[];
  readonly repeatCount: number;
}

const BASE_SLOT = 'bench';

/** Writes the backlog and reads it `repeatCount` times with each reader that exists on this machine. */
export async function measureBacklog(
  environment: Environment,
  backlog: Backlog,
  { readers, repeatCount, idleSeconds, partitions }: BacklogRunOptions,
): Promise<BacklogResult> {
  const { postgres, progress } = environment;
  const database = `bench_${backlog.id}`;
  await postgres.createDatabase(database);
  const sql = postgres.sql(database, {
    max: WRITER_CONNECTIONS,
    connection: { synchronous_commit: 'off' },
  });
  try {
    progress(`${backlog.title}: preparing`);
    await backlog.prepare(sql);
    await prepareSlot(environment, database);
    progress(`${backlog.title}: writing`);
    const startedMs = performance.now();
    const before = await endOfWal(sql);
    await backlog.write(sql);
    const end = await endOfWal(sql);
    const [row] = await sql`SELECT (${end}::pg_lsn - ${before}::pg_lsn)::float8 AS bytes`;
    const walBytes = Number(row?.bytes);
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    progress(`${backlog.title}: written in ${seconds} s, ${Math.round(walBytes / 1e6)} MB of WAL`);

    const readings = new Map<ReaderName, Reading[]>(readers.map((reader) => [reader, []]));
    for (let turn = 1; turn <= repeatCount; turn++) {
      for (const reader of readers) {
        const copy = `${BASE_SLOT}_${reader.replaceAll('-', '_')}_${turn}`;
        const read = readBy(environment, backlog, reader, {
          gulp: GULPS[(turn - 1) % GULPS.length] as Gulp,
          partitions,
          idleSeconds: turn === repeatCount ? idleSeconds : undefined,
        });
        if (read === undefined) continue;
        const reading = await withSlotCopy(sql, { base: BASE_SLOT, copy }, (slot) =>
          read({ sql, database, slot, end }),
        );
        readings.get(reader)?.push(reading);
        progress(`${backlog.title}: ${turn} of ${repeatCount}: ${reader} ${rate(backlog, reading)}`);
      }
    }
    return { backlog, walBytes, readings };
  } finally {
    await dropSlot(sql, BASE_SLOT);
    await sql.end({ timeout: 1 });
  }
}

/** One reading by a reader; undefined when it does not exist on this machine. */
function readBy(
  environment: Environment,
  backlog: Backlog,
  reader: ReaderName,
  { gulp, ...options }: NotifierReadingOptions & { readonly gulp: Gulp },
): ((place: ReadingPlace) => Promise<Reading>) | undefined {
  const { recvLogical } = environment;
  switch (reader) {
    case 'cdc-notifier':
      return (place) => readByNotifier(environment, backlog, place, options);
    case 'throw-away':
      return (place) => readByThrowAway(environment, gulp, place);
    case 'pg_recvlogical':
      if ('missing' in recvLogical) return undefined;
      return (place) => readByRecvLogical(environment, recvLogical, place);
  }
}

/** Lets the service create publication, replica identity and slot, and stops it before anything is written. */
async function prepareSlot(environment: Environment, database: string): Promise<void> {
  const target = await createTopics(environment, { database, slot: BASE_SLOT });
  {
    await using program = await startNotifier(environment, target);
    await program.stop();
  }
  await deleteTopics(environment, target);
}

function rate(backlog: Backlog, { seconds, setting }: Reading): string {
  const options = setting === undefined ? '' : ` (${setting})`;
  return `${seconds.toFixed(2)} s, ${Math.round(backlog.rowCount / seconds)} rows/s${options}`;
}
