import { expect, test } from 'bun:test';
import { createSlotMemory, noteStreamEnd, type SlotMemory } from '../../../src/slot/memory.ts';

/** What this process knows of the slot after it confirmed this LSN. */
function remember(memory: SlotMemory, confirmedLsn: bigint): void {
  memory.remembered = { confirmedLsn } as NonNullable<SlotMemory['remembered']>;
}

test('silent ends are counted as long as they follow each other at one position', () => {
  const memory = createSlotMemory();
  const counts: number[] = [];
  const end = (isSilent: boolean) => {
    noteStreamEnd(memory, isSilent);
    counts.push(memory.silentEnds.count);
  };
  remember(memory, 100n);
  end(true);
  end(true);
  remember(memory, 200n);
  end(true);
  end(true);
  end(false);
  end(true);
  expect(counts).toEqual([1, 2, 1, 2, 0, 1]);
});
