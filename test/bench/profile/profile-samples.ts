/** A V8 CPU profile, as Bun writes it, as call stacks and the time that each was seen. */
import { basename } from 'node:path';

/** The parts of a V8 CPU profile that are used here; times are in microseconds. */
export interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
    readonly children?: readonly number[];
  }[];
  readonly samples: readonly number[];
  /** Between a sample and the one before it */
  readonly timeDeltas: readonly number[];
}

/** A function on the stack. */
export interface Frame {
  /** With file and line, except for what is not written in JavaScript */
  readonly label: string;
  /** Empty for what is not written in JavaScript */
  readonly url: string;
}

/** A stack, outermost function first, and how long it was seen. */
export interface Stack {
  readonly frames: readonly Frame[];
  readonly micros: number;
}

/** What a profile tells about the time in which the service streamed. */
export interface Sampling {
  readonly stacks: readonly Stack[];
  readonly durationMicros: number;
  /** What of it no sample stands for */
  readonly gapMicros: number;
}

/** Whoever has this on the stack works on the stream: everything before is start-up, everything after is the end. */
const STREAMING = '/src/flow/flow.ts';

/** A sample stands for no more than so many usual distances between samples; in a longer one nobody looked. */
const LONGEST_SAMPLE = 2;

/**
 * Reads the streaming part of a profile, or all of one that has none. The sampler looks only while JavaScript is on the
 * stack, and tells the time since the sample before: that time belongs to the sample only as far as it is usual.
 */
export function readSampling({ nodes, samples, timeDeltas }: CpuProfile): Sampling {
  const framesOf = readStacks(nodes);
  const stacks = samples.map((id) => framesOf.get(id) ?? []);
  const streams = (frames: readonly Frame[]): boolean => frames.some(({ url }) => url.endsWith(STREAMING));
  const first = Math.max(0, stacks.findIndex(streams));
  const last = stacks.findLastIndex(streams);
  const end = last < 0 ? stacks.length : last + 1;
  const deltas = timeDeltas.slice(first, end);
  const sorted = deltas.toSorted((one, other) => one - other);
  const usualMicros = sorted[Math.floor(sorted.length / 2)] ?? 0;
  const durationMicros = deltas.reduce((sum, micros) => sum + micros, 0);
  const seen = stacks.slice(first, end).map((frames, index) => {
    return { frames, micros: Math.min(deltas[index] as number, usualMicros * LONGEST_SAMPLE) };
  });
  const seenMicros = seen.reduce((sum, { micros }) => sum + micros, 0);
  return { stacks: seen, durationMicros, gapMicros: durationMicros - seenMicros };
}

/** The stack of each node, without the root. */
function readStacks(nodes: CpuProfile['nodes']): Map<number, readonly Frame[]> {
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)));
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, frameOf(callFrame)]));
  const stackOf = (id: number): Frame[] => {
    const stack: Frame[] = [];
    for (let at: number | undefined = id; at !== undefined && parents.has(at); at = parents.get(at)) {
      stack.push(frames.get(at) as Frame);
    }
    return stack.reverse();
  };
  return new Map(nodes.map(({ id }) => [id, stackOf(id)]));
}

function frameOf({ functionName, url, lineNumber }: CpuProfile['nodes'][number]['callFrame']): Frame {
  const name = functionName || '(anonymous)';
  return { label: url === '' ? name : `${name} ${basename(url)}:${lineNumber + 1}`, url };
}
