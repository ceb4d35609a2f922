/** What an import could not carry over: each with its place in the old file, none with a value of it. */

import { LineCounter } from 'yaml';
import { type ConfigIssue, formatPath, type PathStep } from '../config/config-error.ts';
import type { Term } from './term.ts';
import type { Position } from './term-reader.ts';

/** A term and the keys that lead to it from the top of the old file. */
export interface Setting {
  readonly term: Term;
  readonly steps: readonly PathStep[];
}

/** Collects findings about one old file. */
export class Findings {
  readonly #lines = new LineCounter();
  readonly #fileName: string;
  readonly #open: ConfigIssue[] = [];
  readonly #dropped: ConfigIssue[] = [];
  readonly #explained = new Set<string>();

  constructor(text: string, fileName: string) {
    this.#lines.addNewLine(0);
    for (const { index } of text.matchAll(/\n/g)) this.#lines.addNewLine(index + 1);
    this.#fileName = fileName;
  }

  /** Something to decide, or to add by hand. `target`: what this explains the absence of in the new file. */
  open(setting: Setting, message: string, target?: readonly string[]): void {
    this.#open.push({ path: formatPath(setting.steps), ...this.#positionOf(setting), message });
    if (target !== undefined) this.#explained.add(formatPath(target));
  }

  /** Something left out that nobody needs to look at: nothing here corresponds to it, and nothing has to. */
  drop(setting: Setting, message: string): void {
    this.#dropped.push({ path: formatPath(setting.steps), ...this.#positionOf(setting), message });
  }

  /** A mistake of the new file at `path`; `setting` is what that was made of, undefined when there was nothing. */
  refuse(path: string, message: string, setting: Setting | undefined): void {
    const isExplained = [...this.#explained].some((target) => path === target || path.startsWith(`${target}.`));
    if (isExplained) return;
    this.#open.push({ path, ...this.#positionOf(setting), message: `${message} (in the new file)` });
  }

  /** `sys.config:12:5` */
  placeOf(setting: Setting): string {
    const { line, column } = this.#positionOf(setting);
    return `${this.#fileName}:${line}:${column}`;
  }

  /** What needs somebody's eye, in the order of the old file. */
  get toLookAt(): readonly ConfigIssue[] {
    return inFileOrder(this.#open);
  }

  /** What was left out without any need for it, in the order of the old file. */
  get notNeeded(): readonly ConfigIssue[] {
    return inFileOrder(this.#dropped);
  }

  #positionOf(setting: Setting | undefined): Position {
    const { line, col } = this.#lines.linePos(setting?.term.offset ?? 0);
    return { line, column: col };
  }
}

function inFileOrder(issues: readonly ConfigIssue[]): ConfigIssue[] {
  return [...issues].sort((a, b) => a.line - b.line || a.column - b.column);
}
