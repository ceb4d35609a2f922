import { describe, expect, test } from 'bun:test';
import { flameGraph } from './flame-graph.ts';

const stack = (micros: number, ...labels: string[]) => ({
  frames: labels.map((label) => ({ label, url: '' })),
  micros,
});

const OPTIONS = {
  title: 'a & b',
  groupOf: (frames: readonly { label: string }[]) => (frames.at(-1)?.label === 'leaf' ? 'leaves' : 'other'),
  groups: ['leaves'],
};

/** Drawn boxes: tooltip, left edge, top edge, width. */
function boxesOf(svg: string) {
  const found = svg.matchAll(/<title>(.*?)<\/title><rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"/g);
  return [...found].map(([, title, x, y, width]) => ({ title, x: Number(x), y: Number(y), width: Number(width) }));
}

describe('flameGraph', () => {
  test('adds stacks up to a tree, callers above callees, the most expensive first', () => {
    const svg = flameGraph([stack(1_000, 'a', 'leaf'), stack(3_000, 'b'), stack(1_000, 'a')], OPTIONS);
    expect(boxesOf(svg)).toEqual([
      { title: 'all: 5.0 ms, 100.0 %', x: 10, y: 60, width: 1380 },
      { title: 'b (other): 3.0 ms, 60.0 %', x: 10, y: 77, width: 828 },
      { title: 'a (other): 2.0 ms, 40.0 %', x: 838, y: 77, width: 552 },
      { title: 'leaf (leaves): 1.0 ms, 20.0 %', x: 838, y: 94, width: 276 },
    ]);
  });

  test('paints a group in one color, also in the legend, and everything else gray', () => {
    const svg = flameGraph([stack(1_000, 'a', 'leaf'), stack(1_000, 'leaf')], OPTIONS);
    expect(svg.match(/fill="hsl\(0, 65%, 75%\)"/g)).toHaveLength(3);
    expect(svg.match(/fill="#ddd"/g)).toHaveLength(2);
  });

  test('omits boxes that are too narrow to see', () => {
    const svg = flameGraph([stack(1_000_000, 'a'), stack(1, 'b')], OPTIONS);
    expect(boxesOf(svg).map(({ title }) => title)).toEqual([
      'all: 1000.0 ms, 100.0 %',
      'a (other): 1000.0 ms, 100.0 %',
    ]);
  });

  test('escapes names', () => {
    const svg = flameGraph([stack(1_000, '<anonymous> "x"')], OPTIONS);
    expect(svg).toContain('&lt;anonymous&gt; &quot;x&quot;');
    expect(svg).toContain('a &amp; b');
    expect(svg).not.toContain('<anonymous>');
  });

  test('has no box without a stack', () => {
    expect(boxesOf(flameGraph([], OPTIONS))).toEqual([]);
  });
});
