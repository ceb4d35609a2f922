/**
 * Runs mutations against one target and checks their outcome: a NotifierError or a result, in bounded time. Each mutation
 * depends on seed and index alone, so that one that failed can be run again by itself.
 */
import { setImmediate } from 'node:timers/promises';
import { NotifierError } from '../../src/errors.ts';
import { seededRandom } from '../support/codecs/etf.ts';
import type { Random } from './mutate.ts';

/** A parser or protocol under attack. */
export interface FuzzTarget {
  readonly name: string;
  /** Number of mutations that run at once; default 1. More only where each waits for a socket. */
  readonly lanes?: number | undefined;
  /** Longest time that one mutation may take, in ms; default `SLOWEST_MS` */
  readonly slowestMs?: number | undefined;
  /**
   * Makes one input and processes it. Returns the outcome in a word, or throws: a NotifierError is an outcome, every other
   * error ends the campaign.
   */
  run(random: Random): string | Promise<string>;
  close?(): Promise<void>;
}

/** Options of `runCampaign`. */
export interface CampaignOptions {
  readonly seed: number;
  readonly mutationCount: number;
  /** Index of the first; default 0 */
  readonly from?: number | undefined;
  /** Called with the index of each mutation before it runs: it shows where a campaign hangs */
  readonly onMutation?: ((index: number) => void) | undefined;
}

/** Result of a campaign in which every mutation passed. */
export interface CampaignReport {
  readonly target: string;
  readonly seed: number;
  readonly mutationCount: number;
  /** Number of mutations by outcome: a class of errors, or a result that the target names */
  readonly outcomes: Readonly<Record<string, number>>;
  readonly slowestMs: number;
  readonly durationMs: number;
}

/** Generous: it must distinguish milliseconds from minutes, on a busy machine. */
const SLOWEST_MS = 5_000;

const TURN_EVERY = 256;

/** A mutation that did harm. Its message says how to run it again. */
export class FuzzFailure extends Error {
  override readonly name = 'FuzzFailure';

  constructor(
    what: string,
    place: { readonly target: string; readonly seed: number; readonly index: number },
    cause?: unknown,
  ) {
    const { target, seed, index } = place;
    super(`${what}; again: bun test/fuzz/main.ts --target ${target} --seed ${seed} --from ${index} --mutations 1`, {
      cause,
    });
  }
}

/** Runs a campaign. Throws FuzzFailure for the first mutation that ends in no allowed outcome, or too late. */
export async function runCampaign(target: FuzzTarget, options: CampaignOptions): Promise<CampaignReport> {
  const { seed, mutationCount, from = 0 } = options;
  const limitMs = target.slowestMs ?? SLOWEST_MS;
  const outcomes: Record<string, number> = {};
  const startMs = performance.now();
  let slowestMs = 0;
  let next = from;
  const runLane = async (): Promise<void> => {
    while (next < from + mutationCount) {
      const index = next++;
      const place = { target: target.name, seed, index };
      options.onMutation?.(index);
      // The runtime frees native memory only between turns of the event loop, and the service has such turns too.
      if (index % TURN_EVERY === 0) await setImmediate();
      const beganMs = performance.now();
      const outcome = await outcomeOf(target, randomOf(seed, index), place);
      const tookMs = performance.now() - beganMs;
      if (tookMs > limitMs) throw new FuzzFailure(`A mutation took ${tookMs.toFixed(0)} ms (${outcome})`, place);
      slowestMs = Math.max(slowestMs, tookMs);
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    }
  };
  try {
    await Promise.all(Array.from({ length: target.lanes ?? 1 }, runLane));
  } finally {
    next = Number.POSITIVE_INFINITY;
    await target.close?.();
  }
  return {
    target: target.name,
    seed,
    mutationCount,
    outcomes,
    slowestMs: Math.ceil(slowestMs),
    durationMs: Math.ceil(performance.now() - startMs),
  };
}

async function outcomeOf(
  target: FuzzTarget,
  random: Random,
  place: { readonly target: string; readonly seed: number; readonly index: number },
): Promise<string> {
  try {
    const outcome = target.run(random);
    // A needless microtask for each of a million mutations costs the time of thousands of mutations.
    return typeof outcome === 'string' ? outcome : await outcome;
  } catch (error) {
    if (error instanceof NotifierError) return error.name;
    throw new FuzzFailure(`A mutation raised ${error instanceof Error ? error.stack : String(error)}`, place, error);
  }
}

/** Consecutive indexes must not give consecutive states of the generator. */
function randomOf(seed: number, index: number): Random {
  return seededRandom(Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) ^ Math.imul(index + 1, 0xc2b2_ae35));
}
