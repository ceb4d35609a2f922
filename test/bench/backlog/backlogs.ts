/** The backlogs, and the figures required of the service. */
import { deepPayloads, meanBytes } from '../workload/payload.ts';
import { type Backlog, eventBacklog, stepBacklog } from '../workload/workloads.ts';
import type { ReaderName } from './reading.ts';

/** A backlog and how it is read. */
export interface PlannedBacklog {
  readonly backlog: Backlog;
  readonly readers: readonly ReaderName[];
  readonly repeatCount: number;
  readonly idleSeconds?: number | undefined;
}

/** Of an ordinary event. */
export const PAYLOAD_BYTES = 270;

/** Names of the backlogs. */
export const BACKLOG_IDS = ['a', 'b', 'c', 'd', 'e', 'f'] as const;

const ALL_READERS: readonly ReaderName[] = ['pg_recvlogical', 'throw-away', 'cdc-notifier'];
const MINIMUM_RATIO_OF_LARGE_PAYLOADS = 0.8;

/**
 * Warm up broker and file cache; their figures are discarded. A broker that has just started spends half of its CPU on
 * compilation, and again at its first large batch.
 */
export const WARM_UPS: readonly PlannedBacklog[] = [
  warmUp({ id: 'small', eventCount: 200_000, eventsPerTransaction: 10_000, payloadBytes: PAYLOAD_BYTES }),
  warmUp({ id: 'large', eventCount: 10_000, eventsPerTransaction: 1_000, payloadBytes: 20_000 }),
];

function warmUp(size: { id: string; eventCount: number; eventsPerTransaction: number; payloadBytes: number }) {
  const backlog = eventBacklog({ ...size, id: `warmup${size.id}`, title: `warm-up, ${size.id}` });
  return { backlog, readers: ['cdc-notifier'], repeatCount: 1 } as const;
}

/** All backlogs; smaller and read once in a quick run. */
export function planBacklogs(quick: boolean): readonly PlannedBacklog[] {
  const repeatCount = quick ? 1 : 3;
  const compared = { readers: ALL_READERS, repeatCount };
  const idleSeconds = quick ? 8 : 60;
  const deep = deepPayloads();
  const large = (id: string, title: string, eventCount: number, payloads: { bytes: number; all?: readonly Buffer[] }) =>
    eventBacklog({
      id,
      title,
      eventCount,
      eventsPerTransaction: Math.ceil(eventCount / 10),
      payloadBytes: payloads.bytes,
      payloads: payloads.all,
      targets: { minimumRatio: MINIMUM_RATIO_OF_LARGE_PAYLOADS },
    });
  const eventCount = quick ? 150_000 : 500_000;
  return [
    {
      backlog: eventBacklog({
        id: 'a',
        title: 'events in transactions of 50,000',
        eventCount,
        eventsPerTransaction: 50_000,
        payloadBytes: PAYLOAD_BYTES,
        targets: { minimumRatio: 1.1, maximumCpuMicrosPerRow: 4 },
      }),
      ...compared,
      idleSeconds,
    },
    {
      backlog: stepBacklog({
        id: 'b',
        title: 'transactions of one event and one irrelevant update',
        transactionCount: quick ? 20_000 : 100_000,
        payloadBytes: PAYLOAD_BYTES,
        targets: { minimumRatio: 1, maximumCpuMicrosPerTransaction: 15 },
      }),
      ...compared,
    },
    {
      backlog: eventBacklog({
        id: 'c',
        title: 'one transaction',
        eventCount: quick ? 200_000 : 2_000_000,
        eventsPerTransaction: 2_000_000,
        payloadBytes: PAYLOAD_BYTES,
      }),
      readers: ['cdc-notifier'],
      repeatCount: 1,
      ...(quick ? {} : { idleSeconds }),
    },
    { backlog: large('d', 'payloads of 2 KB', quick ? 20_000 : 200_000, { bytes: 2_000 }), ...compared },
    { backlog: large('e', 'payloads of 20 KB', quick ? 3_000 : 45_000, { bytes: 20_000 }), ...compared },
    {
      backlog: large('f', 'deep obj payloads, 3 levels of 40 keys', quick ? 10_000 : 100_000, {
        bytes: meanBytes(deep),
        all: deep,
      }),
      ...compared,
    },
  ];
}
