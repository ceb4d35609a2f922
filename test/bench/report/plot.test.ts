import { describe, expect, test } from 'bun:test';
import { niceStep, plotPanels } from './plot.ts';

describe('niceStep', () => {
  test.each([
    [4, 1],
    [7, 2],
    [9, 2.5],
    [17, 5],
    [0.7, 0.2],
    [330, 100],
  ])('reaches %p in four steps of %p', (limit, step) => {
    expect(niceStep(limit, 4)).toBeCloseTo(step, 9);
  });
});

describe('plotPanels', () => {
  const points = [
    { x: 1, y: 10 },
    { x: 10, y: 20 },
    { x: 100, y: 40 },
  ];
  const svg = plotPanels({ panels: [{ title: 'CPU & memory', points }], xTitle: 'rows < columns', note: 'the rest' });

  test('returns one SVG with escaped texts', () => {
    expect(svg).toStartWith('<svg xmlns="http://www.w3.org/2000/svg"');
    expect(svg).toEndWith('</svg>\n');
    expect(svg).toContain('CPU &amp; memory');
    expect(svg).toContain('rows &lt; columns');
  });

  test('spaces a logarithmic axis evenly', () => {
    const places = /points="([^"]*)"/
      .exec(svg)![1]!
      .split(' ')
      .map((place) => Number(place.split(',')[0]));
    expect(places[1]! - places[0]!).toBeCloseTo(places[2]! - places[1]!, 1);
    expect(places[1]!).toBeGreaterThan(places[0]!);
  });

  test('labels each point with its value', () => {
    expect([...svg.matchAll(/font-weight="600">(\d+)</g)].map(([, label]) => label)).toEqual(['10', '20', '40']);
  });

  test('centers a single point', () => {
    expect(plotPanels({ panels: [{ title: '', points: [{ x: 5, y: 1 }] }], xTitle: '', note: '' })).not.toContain(
      'NaN',
    );
  });
});
