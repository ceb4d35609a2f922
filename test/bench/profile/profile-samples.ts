/** Reads a V8 CPU profile of Bun as call stacks with durations. */
import { basename } from 'node:path';

/** The used parts of a V8 CPU profile; times in microseconds. */
export interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
    readonly children?: readonly number[];
  }[];
  readonly samples: readonly number[];
  /** Time between each sample and the one before it */
  readonly timeDeltas: readonly number[];
}

/** A function on the stack. */
export interface Frame {
  /** With file and line, except for native code */
  readonly label: string;
  /** Empty for native code */
  readonly url: string;
}

/** A stack, outermost function first, and its time. */
export interface Stack {
  readonly frames: readonly Frame[];
  readonly micros: number;
}

/** The part of a profile in which the service streamed. */
export interface Sampling {
  readonly stacks: readonly Stack[];
  readonly durationMicros: number;
  /** Time without samples */
  readonly gapMicros: number;
}

/** A stack with this function works on the stream: samples before the first are start-up, after the last shutdown. */
const STREAMING = '/src/flow/flow.ts';

/** A sample counts for at most so many usual intervals; the rest of a longer interval is a gap. */
const LONGEST_SAMPLE = 2;

/**
 * Reads the streaming part of a profile, or all of it without one. Bun samples only while JavaScript is on the stack and gives
 * the time since the previous sample: only a usual interval of it belongs to the sample.
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
