import { fit, type Palette, palette } from './text.ts';

/** A part of the status line. */
export interface StatusPart {
  readonly text: string;
  readonly style?: ((text: string) => string) | undefined;
}

const PLAIN_STATUS_PERIOD_MS = 2_000;
const SEPARATOR = ' │ ';
const HIDE_CURSOR = '\x1b[?25l';
const SHOW_CURSOR = '\x1b[?25h';
const CLEAR_TO_END = '\x1b[J';

/**
 * The demo's output: lines that scroll, and on a terminal a status that stays below them. Without a terminal the status
 * is printed as a line of its own every two seconds.
 */
export class Screen {
  readonly isTerminal: boolean;
  readonly style: Palette;
  #status: readonly StatusPart[] = [];
  #statusHeight = 0;
  #lastPlainStatus = 0;

  constructor() {
    this.isTerminal = process.stdout.isTTY === true && process.env.TERM !== 'dumb';
    this.style = palette(this.isTerminal && process.env.NO_COLOR === undefined);
    if (this.isTerminal) {
      process.stdout.write(HIDE_CURSOR);
      process.on('exit', () => process.stdout.write(SHOW_CURSOR));
    }
  }

  /** Width of a line; without a terminal only very long lines are cut. */
  get columns(): number {
    return this.isTerminal ? Math.max(40, process.stdout.columns || 80) : 200;
  }

  /** Prints lines above the status. Lines may contain styles and must fit into `columns`. */
  print(...lines: readonly string[]): void {
    const output = lines.map((line) => `${line}\n`).join('');
    process.stdout.write(this.#erased() + output + this.#drawn());
  }

  /** Shows a new status. */
  status(parts: readonly StatusPart[]): void {
    this.#status = parts;
    if (this.isTerminal) {
      process.stdout.write(this.#erased() + this.#drawn());
      return;
    }
    const now = performance.now();
    if (parts.length === 0 || now - this.#lastPlainStatus < PLAIN_STATUS_PERIOD_MS) return;
    this.#lastPlainStatus = now;
    process.stdout.write(`-- ${parts.map(({ text }) => text).join(SEPARATOR)}\n`);
  }

  /** Moves the cursor to where the status begins and clears it. */
  #erased(): string {
    if (this.#statusHeight === 0) return '';
    const up = this.#statusHeight;
    this.#statusHeight = 0;
    return `\r\x1b[${up}A${CLEAR_TO_END}`;
  }

  #drawn(): string {
    if (!this.isTerminal || this.#status.length === 0) return '';
    const rows = this.#statusRows();
    this.#statusHeight = rows.length + 1;
    return `${[this.style.dim('─'.repeat(this.columns)), ...rows].join('\n')}\n`;
  }

  /** Breaks the status into rows between its parts; a part is cut only when it is wider than a row. */
  #statusRows(): string[] {
    const rows: string[] = [];
    let row = '';
    let width = 0;
    for (const part of this.#status) {
      const text = fit(part.text, this.columns - 2);
      const partWidth = Bun.stringWidth(text);
      const styled = part.style === undefined ? text : part.style(text);
      if (width > 0 && width + SEPARATOR.length + partWidth > this.columns - 1) {
        rows.push(row);
        row = '';
        width = 0;
      }
      row += width === 0 ? ` ${styled}` : this.style.dim(SEPARATOR) + styled;
      width += (width === 0 ? 1 : SEPARATOR.length) + partWidth;
    }
    return [...rows, row];
  }
}

/** Runs a step, printing its name and how long it took; a terminal shows the running time. */
export async function step<T>(screen: Screen, what: string, work: () => Promise<T>): Promise<T> {
  const started = performance.now();
  const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(1)} s`;
  const show = (): void => screen.status([{ text: `… ${what} (${seconds()})` }]);
  if (!screen.isTerminal) screen.print(`... ${what}`);
  else show();
  const timer = screen.isTerminal ? setInterval(show, 100) : undefined;
  try {
    const result = await work();
    clearInterval(timer);
    screen.status([]);
    screen.print(`${screen.style.green('✓')} ${what} ${screen.style.dim(`(${seconds()})`)}`);
    return result;
  } catch (error) {
    clearInterval(timer);
    screen.status([]);
    screen.print(`${screen.style.red('✗')} ${what} ${screen.style.dim(`(${seconds()})`)}`);
    throw error;
  }
}
