/**
 * Call stacks as a flame graph: one SVG without scripts and other files. The outermost functions are at the top; width is
 * time; the tooltip of a box has name, time and share.
 */
import type { Stack } from './profile-samples.ts';

/** Title and groups of a flame graph. */
export interface FlameGraphOptions {
  readonly title: string;
  /** The group of a function, given with its callers: it decides the color */
  readonly groupOf: (frames: Stack['frames']) => string;
  /** In the order of the legend; functions of other groups are gray */
  readonly groups: readonly string[];
}

/** A node of the call tree. */
interface Call {
  readonly label: string;
  readonly group: string;
  readonly calls: Map<string, Call>;
  micros: number;
}

const WIDTH = 1400;
const MARGIN = 10;
const BOX_HEIGHT = 17;
const HEADING_HEIGHT = 60;
/** Narrower boxes are omitted with their callees. */
const MIN_BOX_WIDTH = 0.6;
const CHARACTER_WIDTH = 6.7;
const SWATCH_WIDTH = 12;

/** Returns the SVG of the stacks. */
export function flameGraph(stacks: readonly Stack[], { title, groupOf, groups }: FlameGraphOptions): string {
  const root = callTree(stacks, groupOf);
  const scale = (WIDTH - 2 * MARGIN) / Math.max(1, root.micros);
  const boxes: string[] = [];
  let deepest = 0;
  const draw = (call: Call, x: number, level: number): void => {
    const width = call.micros * scale;
    if (width < MIN_BOX_WIDTH) return;
    deepest = Math.max(deepest, level);
    boxes.push(box(call, { x, y: HEADING_HEIGHT + level * BOX_HEIGHT, width }, { total: root.micros, groups }));
    let next = x;
    for (const called of [...call.calls.values()].sort((one, other) => other.micros - one.micros)) {
      draw(called, next, level + 1);
      next += called.micros * scale;
    }
  };
  draw(root, MARGIN, 0);
  const height = HEADING_HEIGHT + (deepest + 1) * BOX_HEIGHT + MARGIN;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}">`,
    '<style>text { font: 11px monospace; fill: #1b1b1b } rect { stroke: #fff; stroke-width: 0.5 }</style>',
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    `<text x="${MARGIN}" y="20" style="font-size: 14px">${escaped(title)}</text>`,
    ...legend(groups),
    ...boxes,
    '</svg>',
    '',
  ].join('\n');
}

function callTree(stacks: readonly Stack[], groupOf: FlameGraphOptions['groupOf']): Call {
  const root: Call = { label: 'all', group: '', calls: new Map(), micros: 0 };
  for (const { frames, micros } of stacks) {
    root.micros += micros;
    let at = root;
    for (const [index, { label }] of frames.entries()) {
      let call = at.calls.get(label);
      if (call === undefined) {
        call = { label, group: groupOf(frames.slice(0, index + 1)), calls: new Map(), micros: 0 };
        at.calls.set(label, call);
      }
      call.micros += micros;
      at = call;
    }
  }
  return root;
}

function box(
  { label, group, micros }: Call,
  { x, y, width }: { readonly x: number; readonly y: number; readonly width: number },
  { total, groups }: { readonly total: number; readonly groups: readonly string[] },
): string {
  const share = `${(micros / 1000).toFixed(1)} ms, ${((100 * micros) / total).toFixed(1)} %`;
  const name = group === '' ? label : `${label} (${group})`;
  const shown = label.slice(0, Math.max(0, Math.floor((width - 4) / CHARACTER_WIDTH)));
  const at = `x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${BOX_HEIGHT}"`;
  const text = shown.length < 3 ? '' : `<text x="${(x + 3).toFixed(1)}" y="${y + 12}">${escaped(shown)}</text>`;
  return `<g><title>${escaped(`${name}: ${share}`)}</title><rect ${at} fill="${colour(group, groups)}"/>${text}</g>`;
}

function legend(groups: readonly string[]): string[] {
  let x = MARGIN;
  return groups.map((group) => {
    const swatch = `<rect x="${x}" y="34" width="${SWATCH_WIDTH}" height="${SWATCH_WIDTH}" fill="${colour(group, groups)}"/>`;
    const text = `<text x="${x + SWATCH_WIDTH + 4}" y="44">${escaped(group)}</text>`;
    x += SWATCH_WIDTH + 4 + Math.ceil((group.length + 2) * CHARACTER_WIDTH);
    return swatch + text;
  });
}

/** Hues at equal distances. */
function colour(group: string, groups: readonly string[]): string {
  const index = groups.indexOf(group);
  return index < 0 ? '#ddd' : `hsl(${Math.round((index * 360) / groups.length)}, 65%, 75%)`;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
