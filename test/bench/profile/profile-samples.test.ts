import { describe, expect, test } from 'bun:test';
import { type CpuProfile, readSampling } from './profile-samples.ts';

const node = (id: number, functionName: string, url: string, children: number[] = []) => ({
  id,
  callFrame: { functionName, url, lineNumber: 9 },
  children,
});

const NODES: CpuProfile['nodes'] = [
  node(1, '(root)', '', [2, 3]),
  node(2, 'start', 'file:///p/src/main.ts'),
  node(3, 'onChunk', 'file:///p/src/flow/flow.ts', [4]),
  node(4, 'copy', ''),
];

describe('readSampling', () => {
  test('gives the stack of each sample, outermost first, without the root', () => {
    const { stacks } = readSampling({ nodes: NODES, samples: [4], timeDeltas: [1_000] });
    expect(stacks).toEqual([
      {
        frames: [
          { label: 'onChunk flow.ts:10', url: 'file:///p/src/flow/flow.ts' },
          { label: 'copy', url: '' },
        ],
        micros: 1_000,
      },
    ]);
  });

  test('omits samples before the first and after the last sample of the stream', () => {
    const { stacks } = readSampling({ nodes: NODES, samples: [2, 3, 2, 4, 2], timeDeltas: [1, 2, 3, 4, 5] });
    expect(stacks.map(({ micros }) => micros)).toEqual([2, 3, 4]);
  });

  test('uses all samples of a profile without streaming', () => {
    const { stacks } = readSampling({ nodes: NODES, samples: [2, 2], timeDeltas: [1_000, 1_000] });
    expect(stacks).toHaveLength(2);
  });

  test('counts the time before a sample as a gap beyond twice the usual interval', () => {
    const profile = { nodes: NODES, samples: [3, 3, 3, 3], timeDeltas: [1_000, 1_000, 50_000, 1_000] };
    const { stacks, durationMicros, gapMicros } = readSampling(profile);
    expect(stacks.map(({ micros }) => micros)).toEqual([1_000, 1_000, 2_000, 1_000]);
    expect([durationMicros, gapMicros]).toEqual([53_000, 48_000]);
  });
});
