/** The measurements of a run in their order, and their sizes. */
import { startKafka } from '../support/kafka/server.ts';
import { measureBacklog } from './backlog/backlog-run.ts';
import { backlogSection } from './backlog/backlog-section.ts';
import { PAYLOAD_BYTES, planBacklogs, WARM_UPS } from './backlog/backlogs.ts';
import type { BacklogResult } from './backlog/reading.ts';
import type { Environment } from './environment.ts';
import { type Growth, measureGrowth } from './growth/growth.ts';
import { growthSection } from './growth/growth-section.ts';
import { measureLatency } from './latency/latency.ts';
import { latencySection } from './latency/latency-section.ts';
import { measureStart } from './latency/start.ts';
import { startSection } from './latency/start-section.ts';
import type { BenchOptions } from './options.ts';
import type { Section } from './report/section.ts';
import { ManySlots, type SlotsBacklog } from './slots/many-slots.ts';
import { slotsSection } from './slots/slots-section.ts';

/** Results of a run. */
export interface Measured {
  readonly sections: readonly Section[];
  readonly growth: readonly Growth[];
}

type Extent = Pick<BenchOptions, 'quick' | 'only'>;

/** Rates, and the number of connections that write each. */
const LATENCY_RATES = [
  { transactionsPerSecond: 100, laneCount: 4 },
  { transactionsPerSecond: 1_000, laneCount: 4 },
  { transactionsPerSecond: 5_000, laneCount: 8 },
] as const;
const LATENCY_SECONDS = { full: 60, quick: 6 } as const;
const LATENCY_WARM_UP_SECONDS = { full: 5, quick: 1 } as const;
const START_COUNT = { full: 5, quick: 3 } as const;

/** Runs every chosen measurement. */
export async function measureAll(environment: Environment, extent: Extent): Promise<Measured> {
  const { only, quick } = extent;
  const size = quick ? 'quick' : 'full';
  const sections: Section[] = [];
  const planned = planBacklogs(quick).filter(({ backlog }) => only.has(backlog.id));
  for (const { backlog, ...how } of quick ? WARM_UPS.slice(0, 1) : WARM_UPS)
    await measureBacklog(environment, backlog, how);
  if (planned.length > 0) {
    const results: BacklogResult[] = [];
    for (const { backlog, ...how } of planned) results.push(await measureBacklog(environment, backlog, how));
    const { recvLogical } = environment;
    sections.push(backlogSection(results, 'missing' in recvLogical ? recvLogical.missing : undefined));
  }
  if (only.has('start')) sections.push(startSection(await measureStart(environment, START_COUNT[size])));
  if (only.has('latency')) {
    const results = [];
    for (const rate of LATENCY_RATES) {
      const steps = { ...rate, seconds: LATENCY_SECONDS[size], payloadBytes: PAYLOAD_BYTES };
      results.push(await measureLatency(environment, steps, LATENCY_WARM_UP_SECONDS[size]));
    }
    sections.push(latencySection(results));
  }
  if (only.has('slots')) sections.push(await measureSlots(environment, quick));
  const growth = only.has('growth') ? await measureGrowth(environment) : [];
  if (growth.length > 0) sections.push(growthSection(growth));
  return { sections, growth };
}

async function measureSlots(environment: Environment, quick: boolean): Promise<Section> {
  const { progress } = environment;
  const backlog: SlotsBacklog = {
    id: 'slots',
    slotCount: quick ? 8 : 20,
    databaseCount: 4,
    eventsPerSlot: quick ? 5_000 : 20_000,
    payloadBytes: PAYLOAD_BYTES,
  };
  await using slots = await ManySlots.prepare(environment, backlog);
  progress('slots: one alone');
  const alone = await slots.read('alone', 1);
  progress(`slots: ${backlog.slotCount} side by side`);
  const together = await slots.read('together', backlog.slotCount);
  if (quick) return slotsSection({ backlog, together, alone, besideStuck: undefined });
  progress('slots: the cluster of one of them gets stuck');
  await using kafka = await startKafka();
  const besideStuck = await slots.read('stuck', backlog.slotCount, {
    bootstrap: kafka.bootstrap,
    createTopic: kafka.createTopic,
    freeze: () => kafka.pause(),
  });
  return slotsSection({ backlog, together, alone, besideStuck });
}
