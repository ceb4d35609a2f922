import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { firstThatWorks } from '../../../../src/postgres/setup/publication-start.ts';

async function search(from: bigint, to: bigint, works: (lsn: bigint) => boolean) {
  const probes: bigint[] = [];
  const found = await firstThatWorks({ from, to }, async (lsn) => {
    probes.push(lsn);
    return works(lsn);
  });
  return { found, probes };
}

describe('firstThatWorks', () => {
  test('finds the turn to within one aligned record, with few probes', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.bigInt(0n, 2n ** 40n),
        fc.bigInt(0n, 2n ** 40n),
        fc.bigInt(0n, 2n ** 40n),
        async (start, length, offset) => {
          const [from, to] = [start, start + length];
          const turn = from + (length === 0n ? 0n : offset % (length + 1n));
          const { found, probes } = await search(from, to, (lsn) => lsn >= turn);
          expect(found >= turn).toBe(true);
          expect(found - turn).toBeLessThan(8);
          expect(probes.length).toBeLessThan(70);
          expect(probes.every((lsn) => lsn >= from && lsn < to)).toBe(true);
        },
      ),
    );
  });

  test('asks once when the beginning works, and not at all when there is nothing to stream', async () => {
    expect(await search(100n, 1_000n, () => true)).toEqual({ found: 100n, probes: [100n] });
    expect(await search(100n, 100n, () => false)).toEqual({ found: 100n, probes: [] });
  });

  test('prefers the turn that is nearest to the beginning', async () => {
    const works = (lsn: bigint) => (lsn >= 4_000n && lsn < 900_000n) || lsn >= 950_000n;
    expect((await search(0n, 1_000_000n, works)).found).toBe(4_000n);
  });

  test('passes on what a probe raises', () => {
    const failing = firstThatWorks({ from: 0n, to: 8n }, () => Promise.reject(new Error('gone')));
    expect(failing).rejects.toThrow('gone');
  });
});
