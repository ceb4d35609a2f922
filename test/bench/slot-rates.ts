/** How fast each of several slots is while all of them are at work, by how far they are confirmed from time to time. */

/** How far every slot is at one moment: parts of its backlog, from 0 to 1, in the order of the slots. */
export interface SlotsSample {
  readonly atMs: number;
  readonly parts: readonly number[];
}

/**
 * Parts a second of each slot between the moment when the last of them streams and the one when the first is done: before
 * and after that, some have the machine more for themselves. Where there is no such time, each by its own whole time.
 * @param startsMs when each slot began to stream
 */
export function slotRates(samples: readonly SlotsSample[], startsMs: readonly number[]): number[] {
  const endsMs = slotEnds(samples);
  const from = samples.find(({ atMs }) => atMs >= Math.max(...startsMs));
  const to = samples.find(({ atMs }) => atMs >= Math.min(...endsMs));
  return endsMs.map((endMs, slot) => {
    const startMs = startsMs[slot] as number;
    if (from === undefined || to === undefined || to.atMs <= from.atMs) return 1000 / (endMs - startMs);
    return (1000 * ((to.parts[slot] as number) - (from.parts[slot] as number))) / (to.atMs - from.atMs);
  });
}

/** When each slot was done, in the order of the slots; Infinity for one that is not. */
export function slotEnds(samples: readonly SlotsSample[]): number[] {
  const slots = samples[0]?.parts.keys() ?? [];
  return Array.from(slots, (slot) => samples.find(({ parts }) => (parts[slot] as number) >= 1)?.atMs ?? Infinity);
}
