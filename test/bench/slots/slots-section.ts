/** The figures of many slots in one process. */

import { atLeast, atMost, type Section, type Verdict } from '../report/section.ts';
import { count, megabytes, table } from '../report/text-table.ts';
import type { SlotReading, SlotsBacklog, SlotsReading } from './many-slots.ts';

const MINIMUM_FAIRNESS = 0.5;
const MAXIMUM_MB_PER_SLOT = 5;
/** Two equal runs differ by so much */
const MINIMUM_RATE_BESIDE_STUCK = 0.8;

/** Readings of the same backlog. */
export interface SlotsResult {
  readonly backlog: SlotsBacklog;
  readonly together: SlotsReading;
  /** Only the first slot */
  readonly alone: SlotsReading;
  /** All slots while the cluster of the first one is stuck */
  readonly besideStuck: SlotsReading | undefined;
}

/** Fairness, memory, and the effect of a stuck slot on the others. */
export function slotsSection(result: SlotsResult): Section {
  const { backlog, together, alone, besideStuck } = result;
  const rows = [
    row('one slot alone', alone),
    row('all slots', together),
    ...(besideStuck === undefined ? [] : [row('all slots, the cluster of one of them stuck', besideStuck)]),
  ];
  return {
    name: 'slots',
    lines: [
      `${backlog.slotCount} slots over ${backlog.databaseCount} databases in one process, ${count(backlog.eventsPerSlot)} events of ${backlog.payloadBytes} bytes each`,
      ...table([['', 's', 'rows/s of all', 'slowest', 'fastest', 'CPU us/row', 'peak MB'], ...rows]),
      'All slots stream, and then one transaction in each database is committed: rates from there to the confirmation.',
    ],
    verdicts: verdictsOf(result),
    figures: result,
  };
}

/** Rate of the slowest slot divided by that of the fastest. */
function fairnessOf(slots: readonly SlotReading[]): number {
  return slowest(slots) / fastest(slots);
}

function slowest(slots: readonly SlotReading[]): number {
  return Math.min(...slots.map(({ rowsPerSecond }) => rowsPerSecond));
}

function fastest(slots: readonly SlotReading[]): number {
  return Math.max(...slots.map(({ rowsPerSecond }) => rowsPerSecond));
}

function row(name: string, { seconds, rowCount, slots, cpuMicros, peakRssBytes }: SlotsReading): string[] {
  return [
    name,
    seconds.toFixed(2),
    count(rowCount / seconds),
    count(slowest(slots)),
    count(fastest(slots)),
    (cpuMicros / rowCount).toFixed(2),
    megabytes(peakRssBytes),
  ];
}

function verdictsOf({ backlog, together, alone, besideStuck }: SlotsResult): Verdict[] {
  const label = `${backlog.slotCount} slots`;
  const perSlot = (together.peakRssBytes - alone.peakRssBytes) / (backlog.slotCount - 1) / 1e6;
  const verdicts = [
    atLeast(`${label}: slowest, of the fastest's rate`, fairnessOf(together.slots), MINIMUM_FAIRNESS, ''),
    atMost(`${label}: memory for each further one`, perSlot, MAXIMUM_MB_PER_SLOT, 'MB', 1),
  ];
  if (besideStuck !== undefined) {
    const others = new Set(besideStuck.slots.map(({ slot }) => slot));
    const before = together.slots.filter(({ slot }) => others.has(slot));
    const ratio = slowest(besideStuck.slots) / slowest(before);
    verdicts.push(
      atLeast(`${label}, one stuck: slowest other, of its rate before`, ratio, MINIMUM_RATE_BESIDE_STUCK, ''),
    );
  }
  return verdicts;
}
