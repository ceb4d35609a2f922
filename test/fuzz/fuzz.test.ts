import { expect, test } from 'bun:test';
import { NotifierError } from '../../src/errors.ts';
import { seededRandom } from '../support/codecs/etf.ts';
import { type FuzzTarget, runCampaign } from './campaign.ts';
import { mutateBytes, mutateText } from './mutate.ts';
import { runFuzz } from './run.ts';
import { TARGETS } from './targets.ts';

const SEED = 20_160_322;
const MUTATION_COUNT = 60_000;
/** Far above what a campaign takes on a busy machine */
const CAMPAIGN_LIMIT_MS = 120_000;
/** Several times the largest payload that may inflate, and the runtime: memory must not grow to a gigabyte */
const PEAK_RSS_BYTES = 600 * 1024 * 1024;

test.each(Object.keys(TARGETS))(
  'damaged input of %s ends in a typed error or a result, in bounded time and memory',
  async (target) => {
    const options = { seed: SEED, mutationCount: MUTATION_COUNT, limitMs: CAMPAIGN_LIMIT_MS };
    const [report] = await runFuzz({ ...options, targets: [target] });
    console.log(JSON.stringify(report));
    const outcomeCounts = Object.values(report!.outcomes);
    expect(outcomeCounts.reduce((sum, count) => sum + count, 0)).toBe(report!.mutationCount);
    // Input that is always refused, or never, would test nothing after the first check.
    expect(outcomeCounts.length).toBeGreaterThan(1);
    expect(report!.peakRssBytes).toBeLessThan(PEAK_RSS_BYTES);
  },
  CAMPAIGN_LIMIT_MS + 10_000,
);

test('the shares of all targets add up to 1', () => {
  expect(Object.values(TARGETS).reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1);
});

test('mutations depend on the seed alone, and most of them have an effect', () => {
  const bytes = Buffer.from('the quick brown fox jumps over the lazy dog');
  const words = ['one', 'two'];
  const mutate = (seed: number) => [
    mutateBytes(bytes, seededRandom(seed)),
    mutateText('a: 1\nb: 2', seededRandom(seed), words),
  ];
  const seeds = Array.from({ length: 200 }, (_, seed) => seed);
  expect(seeds.map(mutate)).toEqual(seeds.map(mutate));
  expect(seeds.filter((seed) => !mutateBytes(bytes, seededRandom(seed)).equals(bytes)).length).toBeGreaterThan(180);
  expect(bytes.toString()).toBe('the quick brown fox jumps over the lazy dog');
});

function target(run: FuzzTarget['run'], slowestMs?: number): FuzzTarget {
  return { name: 'target', run, slowestMs };
}

test('runCampaign counts typed errors and results, and can run each mutation again by itself', async () => {
  const drawn: number[] = [];
  const draw = target((random) => {
    drawn.push(random());
    if (drawn.at(-1)! < 0.5) throw new NotifierError('refused', { code: 'x' });
    return 'result';
  });
  const report = await runCampaign(draw, { seed: 1, mutationCount: 100 });
  expect(report.outcomes.NotifierError! + report.outcomes.result!).toBe(100);
  const ninth = drawn[9];
  drawn.length = 0;
  await runCampaign(draw, { seed: 1, mutationCount: 1, from: 9 });
  expect(drawn).toEqual([ninth!]);
});

test('runCampaign fails for an error that is no NotifierError, and names the mutation', async () => {
  const failing = target((random) => {
    if (random() < 0.01) throw new TypeError('undefined is not an object');
    return 'result';
  });
  const again =
    /TypeError: undefined is not an object.*again: bun test\/fuzz\/main.ts --target target --seed 5 --from \d+ --mutations 1/s;
  await expect(runCampaign(failing, { seed: 5, mutationCount: 1_000 })).rejects.toThrow(again);
});

test('runCampaign fails for a mutation that takes too long', async () => {
  const slow = target(() => {
    Bun.sleepSync(5);
    return 'result';
  }, 1);
  await expect(runCampaign(slow, { seed: 1, mutationCount: 1 })).rejects.toThrow(/A mutation took \d+ ms \(result\)/);
});
