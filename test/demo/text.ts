/** Text for terminals: colors, widths, numbers. */

/** Wraps text in an ANSI style. */
export type Style = (text: string) => string;

/** The styles of the demo; without colors they return the text unchanged. */
export interface Palette {
  readonly bold: Style;
  readonly dim: Style;
  readonly red: Style;
  readonly green: Style;
  readonly yellow: Style;
  readonly blue: Style;
  readonly magenta: Style;
  readonly cyan: Style;
}

/** Creates the palette. */
export function palette(colors: boolean): Palette {
  const style =
    (open: number, close: number): Style =>
    (text) =>
      colors ? `\x1b[${open}m${text}\x1b[${close}m` : text;
  return {
    bold: style(1, 22),
    dim: style(2, 22),
    red: style(31, 39),
    green: style(32, 39),
    yellow: style(33, 39),
    blue: style(34, 39),
    magenta: style(35, 39),
    cyan: style(36, 39),
  };
}

/** Replaces characters that could move the cursor, change colors or reverse the text: records may contain any text. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\u2028\u2029]/gu, '·');
}

/** Cuts text without styles to a width in columns, and ends it with an ellipsis when it was cut. */
export function fit(text: string, columns: number): string {
  if (columns <= 0) return '';
  if (Bun.stringWidth(text) <= columns) return text;
  let fitted = '';
  let width = 0;
  for (const character of text) {
    const next = Bun.stringWidth(character);
    if (width + next > columns - 1) break;
    fitted += character;
    width += next;
  }
  return `${fitted}…`;
}

/** Pads or cuts text without styles to a width in columns. */
export function pad(text: string, columns: number): string {
  const fitted = fit(text, columns);
  return fitted + ' '.repeat(Math.max(0, columns - Bun.stringWidth(fitted)));
}

/** `1,234,567` */
export function grouped(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** `512 B`, `1.2 kB`, `3.4 MB`: decimal units */
export function byteSize(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** `0:07`, `12:34`, `1:02:03` */
export function clock(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const parts = [Math.floor(seconds / 60) % 60, seconds % 60].map((part) => String(part).padStart(2, '0'));
  const hours = Math.floor(seconds / 3600);
  return hours > 0 ? `${hours}:${parts.join(':')}` : parts.join(':').replace(/^0/, '');
}
