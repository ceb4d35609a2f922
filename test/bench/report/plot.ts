/** Line plots as one SVG file: panels side by side over the same logarithmic axis. */

/** A line over the common axis. */
export interface Panel {
  /** Label of the vertical axis, with the unit */
  readonly title: string;
  readonly points: readonly PlotPoint[];
}

/** `x` is positive, `y` not negative. */
export interface PlotPoint {
  readonly x: number;
  readonly y: number;
}

/** Contents of a plot. */
export interface Plot {
  readonly panels: readonly Panel[];
  readonly xTitle: string;
  /** The constant quantities */
  readonly note: string;
}

const PANEL = { width: 380, height: 250 } as const;
const MARGIN = { left: 48, right: 26, top: 40, bottom: 58 } as const;
const INNER = {
  width: PANEL.width - MARGIN.left - MARGIN.right,
  height: PANEL.height - MARGIN.top - MARGIN.bottom,
} as const;
/** Keeps the labels of the first and the last point off the edges */
const INSET = 16;
const COLOURS = ['#1f6feb', '#c2410c', '#15803d'] as const;
/** Maximum number above the axis */
const GRID_LINES = 5;
/** Room for the label above the highest point */
const HEADROOM = 1.12;

/** The text of the SVG file. */
export function plotPanels({ panels, xTitle, note }: Plot): string {
  const width = panels.length * PANEL.width;
  const parts = panels.map((panel, index) => drawPanel(panel, { xTitle, index }));
  const height = PANEL.height;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="11" fill="#3d4650">`,
    `<title>${escapeText(panels.map(({ title }) => title).join(', '))} by ${escapeText(xTitle)}</title>`,
    // A background of its own: pages are light or dark.
    `<rect width="${width}" height="${height}" rx="8" fill="#ffffff" stroke="#d8dee4"/>`,
    ...parts.flat(),
    `<text x="${width / 2}" y="${height - 10}" text-anchor="middle" fill="#6e7781" font-size="10">${escapeText(note)}</text>`,
    '</svg>',
    '',
  ].join('\n');
}

/** The smallest of 1, 2, 2.5, 5 times a power of ten from which `count` steps reach `limit`. */
export function niceStep(limit: number, count: number): number {
  const rough = limit / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= rough * (1 - 1e-9)) ?? 10 * power;
}

function drawPanel(
  { title, points }: Panel,
  { xTitle, index }: { readonly xTitle: string; readonly index: number },
): string[] {
  const highest = Math.max(...points.map(({ y }) => y));
  const step = niceStep(highest * HEADROOM, GRID_LINES);
  const lineCount = Math.ceil((highest * HEADROOM) / step);
  const top = step * lineCount;
  const logs = points.map(({ x }) => Math.log(x));
  const [low, high] = [Math.min(...logs), Math.max(...logs)];
  const left = (x: number): number =>
    INSET + (high === low ? 0.5 : (Math.log(x) - low) / (high - low)) * (INNER.width - 2 * INSET);
  const above = (y: number): number => INNER.height * (1 - y / top);
  const colour = COLOURS[index % COLOURS.length] as string;
  const places = points.map(({ x, y }) => `${figure(left(x))},${figure(above(y))}`);

  const grid = Array.from({ length: lineCount + 1 }, (_, line) => {
    const y = figure(above(line * step));
    return [
      `<line x1="0" x2="${INNER.width}" y1="${y}" y2="${y}" stroke="${line === 0 ? '#8c959f' : '#e6eaee'}"/>`,
      `<text x="-8" y="${y}" dy="0.35em" text-anchor="end">${figure(line * step)}</text>`,
    ].join('');
  });
  const labels = points.map(({ x, y }) => {
    const [atX, atY] = [figure(left(x)), figure(above(y))];
    return [
      `<line x1="${atX}" x2="${atX}" y1="${INNER.height}" y2="${INNER.height + 4}" stroke="#8c959f"/>`,
      `<text x="${atX}" y="${INNER.height + 17}" text-anchor="middle">${x.toLocaleString('en-US')}</text>`,
      `<circle cx="${atX}" cy="${atY}" r="3.5" fill="${colour}"/>`,
      `<text x="${atX}" y="${figure(above(y) - 8)}" text-anchor="middle" fill="${colour}" font-weight="600">${labelOf(y)}</text>`,
    ].join('');
  });
  return [
    `<g transform="translate(${index * PANEL.width + MARGIN.left} ${MARGIN.top})">`,
    `<text x="-36" y="-20" font-size="12" font-weight="600" fill="#1f2328">${escapeText(title)}</text>`,
    ...grid,
    `<polyline points="${places.join(' ')}" fill="none" stroke="${colour}" stroke-width="2" stroke-linejoin="round"/>`,
    ...labels,
    `<text x="${INNER.width / 2}" y="${INNER.height + 33}" text-anchor="middle">${escapeText(xTitle)}</text>`,
    '</g>',
  ];
}

function labelOf(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(2);
}

/** At most two decimals. */
function figure(value: number): string {
  return String(Math.round(value * 100) / 100);
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
