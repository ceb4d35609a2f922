import { LineCounter } from 'yaml';
import { type ConfigIssue, formatIssue, formatPath } from '../config/config-error.ts';
import type { Setting } from './term.ts';
import type { Position } from './term-reader.ts';

/**
 * Collects what an import could not carry over: open questions and dropped settings, each with its position in the old
 * file, none with a value from it.
 */
export class ImportReport {
  readonly #lines = new LineCounter();
  readonly #fileName: string;
  readonly #questions: ConfigIssue[] = [];
  readonly #dropped: ConfigIssue[] = [];
  readonly #explained = new Set<string>();

  /** @param text the old file */
  constructor(text: string, fileName: string) {
    this.#lines.addNewLine(0);
    for (const { index } of text.matchAll(/\n/g)) this.#lines.addNewLine(index + 1);
    this.#fileName = fileName;
  }

  /**
   * Adds an open question: something to decide or to add by hand.
   * @param target the path in the new file whose absence it explains
   */
  addQuestion(setting: Setting, message: string, target?: readonly string[]): void {
    this.#questions.push({ path: formatPath(setting.steps), ...this.#positionOf(setting), message });
    if (target !== undefined) this.#explained.add(formatPath(target));
  }

  /** Adds a setting that has no counterpart and needs none. */
  addDropped(setting: Setting, message: string): void {
    this.#dropped.push({ path: formatPath(setting.steps), ...this.#positionOf(setting), message });
  }

  /**
   * Adds a mistake in the new file at `path` as an open question, unless another question explains it.
   * @param setting the setting that the path was converted from, if there is one
   */
  addRejected(path: string, message: string, setting: Setting | undefined): void {
    const isExplained = [...this.#explained].some((target) => path === target || path.startsWith(`${target}.`));
    if (isExplained) return;
    this.#questions.push({ path, ...this.#positionOf(setting), message: `${message} (in the new file)` });
  }

  /** True when there is no open question. */
  get isComplete(): boolean {
    return this.#questions.length === 0;
  }

  /** Returns the position of a setting: `sys.config:12:5`. */
  placeOf(setting: Setting): string {
    const { line, column } = this.#positionOf(setting);
    return `${this.#fileName}:${line}:${column}`;
  }

  /**
   * Formats the report: open questions and dropped settings in the order of the old file, and environment variables.
   * @param variables environment variables of the new file, each with the path of a key that reads it
   */
  format(variables: ReadonlyMap<string, string>): string[] {
    const paragraphs: [title: string, lines: readonly string[]][] = [
      ['Open questions:', this.#formatIssues(this.#questions)],
      ['Dropped, not needed:', this.#formatIssues(this.#dropped)],
      [
        'Secrets are not copied. Set these environment variables, or use {file: PATH} instead:',
        [...variables].map(([name, path]) => `${name}: ${path}`),
      ],
    ];
    return paragraphs
      .filter(([, lines]) => lines.length > 0)
      .flatMap(([title, lines]) => ['', title, ...lines.map((line) => `  ${line}`)])
      .slice(1);
  }

  #formatIssues(issues: readonly ConfigIssue[]): string[] {
    const inFileOrder = [...issues].sort((a, b) => a.line - b.line || a.column - b.column);
    return inFileOrder.map((issue) => formatIssue(this.#fileName, issue));
  }

  #positionOf(setting: Setting | undefined): Position {
    const { line, col } = this.#lines.linePos(setting?.term.offset ?? 0);
    return { line, column: col };
  }
}
