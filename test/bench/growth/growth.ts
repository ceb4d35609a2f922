/** How cost grows with one quantity: one reading by the service at each point. */
import { measureBacklog } from '../backlog/backlog-run.ts';
import { PAYLOAD_BYTES } from '../backlog/backlogs.ts';
import { summaryOf } from '../backlog/reading.ts';
import { type Environment, PARTITION_COUNT } from '../environment.ts';
import { count } from '../report/text-table.ts';
import { ManySlots } from '../slots/many-slots.ts';
import { eventBacklog } from '../workload/workloads.ts';

/** One quantity and its measured points. */
export interface Growth {
  /** Also names its plot */
  readonly id: string;
  /** The varied quantity, with its unit */
  readonly quantity: string;
  /** The constant quantities */
  readonly fixed: string;
  readonly points: readonly GrowthPoint[];
}

/** Figures at one value of the quantity. */
export interface GrowthPoint {
  readonly value: number;
  readonly rowsPerSecond: number;
  readonly cpuMicrosPerRow: number;
}

const PAYLOAD_SIZES = [100, 270, 1_000, 2_000, 5_000, 20_000];
const BYTES_PER_POINT = 150_000_000;
const TRANSACTION_SIZES = [1, 10, 100, 1_000, 50_000];
const MAXIMUM_TRANSACTIONS_PER_POINT = 50_000;
const PARTITION_COUNTS = [1, 8, 64];
const SLOT_COUNTS = [1, 5, 20];
const MAXIMUM_DATABASES = 4;
const ROWS_PER_POINT = 200_000;
const ROWS_PER_TRANSACTION = 10_000;

/** Measures every point of every quantity. */
export async function measureGrowth(environment: Environment): Promise<Growth[]> {
  return [
    {
      id: 'row-size',
      quantity: 'payload, bytes',
      fixed: `transactions of ${count(ROWS_PER_TRANSACTION)} rows, ${PARTITION_COUNT} partitions`,
      points: await pointsOf(PAYLOAD_SIZES, (payloadBytes) => {
        const rowCount = Math.min(ROWS_PER_POINT, BYTES_PER_POINT / payloadBytes);
        return readEvents(environment, `growth_bytes_${payloadBytes}`, { payloadBytes, rowCount });
      }),
    },
    {
      id: 'transaction-size',
      quantity: 'rows of a transaction',
      fixed: `payloads of ${PAYLOAD_BYTES} bytes, ${PARTITION_COUNT} partitions`,
      points: await pointsOf(TRANSACTION_SIZES, (rowsPerTransaction) => {
        const rowCount = Math.min(ROWS_PER_POINT, rowsPerTransaction * MAXIMUM_TRANSACTIONS_PER_POINT);
        return readEvents(environment, `growth_rows_${rowsPerTransaction}`, { rowsPerTransaction, rowCount });
      }),
    },
    {
      id: 'partitions',
      quantity: 'partitions of the topic',
      fixed: `payloads of ${PAYLOAD_BYTES} bytes, transactions of ${count(ROWS_PER_TRANSACTION)} rows`,
      points: await pointsOf(PARTITION_COUNTS, (partitions) =>
        readEvents(environment, `growth_partitions_${partitions}`, { partitions }),
      ),
    },
    {
      id: 'slots',
      quantity: 'slots of one process',
      fixed: `${count(ROWS_PER_POINT)} rows in all, payloads of ${PAYLOAD_BYTES} bytes, one transaction for each database`,
      points: await pointsOf(SLOT_COUNTS, (slotCount) => readSlots(environment, slotCount)),
    },
  ];
}

async function pointsOf(
  values: readonly number[],
  measure: (value: number) => Promise<Omit<GrowthPoint, 'value'>>,
): Promise<GrowthPoint[]> {
  const points: GrowthPoint[] = [];
  for (const value of values) points.push({ value, ...(await measure(value)) });
  return points;
}

async function readEvents(
  environment: Environment,
  id: string,
  {
    payloadBytes = PAYLOAD_BYTES,
    rowsPerTransaction = ROWS_PER_TRANSACTION,
    rowCount = ROWS_PER_POINT,
    partitions,
  }: { payloadBytes?: number; rowsPerTransaction?: number; rowCount?: number; partitions?: number },
): Promise<Omit<GrowthPoint, 'value'>> {
  const title = id.replaceAll('_', ' ');
  const backlog = eventBacklog({
    ...{ id, title, payloadBytes },
    eventCount: rowCount,
    eventsPerTransaction: rowsPerTransaction,
  });
  const result = await measureBacklog(environment, backlog, { readers: ['cdc-notifier'], repeatCount: 1, partitions });
  const summary = summaryOf(result, 'cdc-notifier');
  if (summary === undefined) throw new Error(`Cannot measure ${title}: no reader has read it`);
  return { rowsPerSecond: summary.rowsPerSecond, cpuMicrosPerRow: summary.cpuMicrosPerRow };
}

async function readSlots(environment: Environment, slotCount: number): Promise<Omit<GrowthPoint, 'value'>> {
  await using slots = await ManySlots.prepare(environment, {
    id: `growth_slots_${slotCount}`,
    slotCount,
    databaseCount: Math.min(MAXIMUM_DATABASES, slotCount),
    eventsPerSlot: ROWS_PER_POINT / slotCount,
    payloadBytes: PAYLOAD_BYTES,
  });
  const { rowCount, seconds, cpuMicros } = await slots.read('growth', slotCount);
  environment.progress(`growth slots ${slotCount}: ${seconds.toFixed(2)} s, ${Math.round(rowCount / seconds)} rows/s`);
  return { rowsPerSecond: rowCount / seconds, cpuMicrosPerRow: cpuMicros / rowCount };
}
