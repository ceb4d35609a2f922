/** The figures of growth, as a table and as plots. */

import { type Panel, plotPanels } from '../report/plot.ts';
import type { Section } from '../report/section.ts';
import { count, table } from '../report/text-table.ts';
import type { Growth } from './growth.ts';

/** The table of all quantities. */
export function growthSection(growths: readonly Growth[]): Section {
  const rows = growths.flatMap(({ quantity, points }) =>
    points.map(({ value, rowsPerSecond, cpuMicrosPerRow }, index) => [
      index === 0 ? quantity : '',
      count(value),
      count(rowsPerSecond),
      cpuMicrosPerRow.toFixed(2),
    ]),
  );
  return {
    name: 'growth',
    lines: [
      ...table([['what grows', 'value', 'rows/s', 'CPU us/row'], ...rows]),
      ...growths.map(({ quantity, fixed }) => `${quantity}: ${fixed}; one reading a point`),
      'CPU includes what a short reading spends on compiling.',
    ],
    verdicts: [],
    figures: growths,
  };
}

/** SVG texts by file name. */
export function growthPlots(growths: readonly Growth[]): ReadonlyMap<string, string> {
  return new Map(
    growths.map(({ id, quantity, fixed, points }) => {
      const panel = (title: string, y: (point: Growth['points'][number]) => number): Panel => ({
        title,
        points: points.map((point) => ({ x: point.value, y: y(point) })),
      });
      const panels = [
        panel('CPU of the service, us a row', ({ cpuMicrosPerRow }) => cpuMicrosPerRow),
        panel('thousand rows a second', ({ rowsPerSecond }) => rowsPerSecond / 1000),
      ];
      return [`${id}.svg`, plotPanels({ panels, xTitle: quantity, note: fixed })];
    }),
  );
}
