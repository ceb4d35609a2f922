import type { ImportReport } from './import-report.ts';
import { itemsOf, type Setting, type Term, textOf } from './term.ts';

/** The entries of a map or property list in the old file. Each converter takes the ones it knows; the rest is reported. */
export class Settings {
  readonly #entries = new Map<string, Setting>();
  readonly #report: ImportReport;

  private constructor(report: ImportReport) {
    this.#report = report;
  }

  /** Reads a map or property list; reports anything else and returns undefined. */
  static read(from: Setting, report: ImportReport): Settings | undefined {
    const settings = new Settings(report);
    if (from.term.kind === 'map') {
      for (const [key, value] of from.term.entries) settings.#add(from, { key, value, counting: 'last' });
      return settings;
    }
    const items = itemsOf(from.term);
    if (items === undefined) {
      report.addQuestion(from, 'is neither a map nor a list of {Key, Value}');
      return undefined;
    }
    for (const [index, item] of items.entries()) {
      const [key, value, ...others] = item.kind === 'tuple' ? item.items : [];
      if (item.kind === 'atom') {
        settings.#add(from, { key: item, value: { ...item, name: 'true' }, counting: 'first' });
      } else if (key !== undefined && value !== undefined && others.length === 0) {
        settings.#add(from, { key, value, counting: 'first' });
      } else {
        report.addQuestion({ term: item, steps: [...from.steps, index] }, 'is not {Key, Value}');
      }
    }
    return settings;
  }

  /** Of equal keys, Erlang uses the last one in a map and the first one in a property list. */
  #add(from: Setting, { key, value, counting }: { key: Term; value: Term; counting: 'first' | 'last' }): void {
    const name = textOf(key);
    if (name === undefined || name === '') {
      this.#report.addQuestion({ term: key, steps: from.steps }, 'has a key that is not text');
      return;
    }
    const added = { term: value, steps: [...from.steps, name] };
    const isRepeated = this.#entries.has(name);
    if (isRepeated) this.#report.addQuestion(added, `is given twice; the ${counting} one was used`);
    if (!isRepeated || counting === 'last') this.#entries.set(name, added);
  }

  /** Removes a key from the rest and returns its value. */
  take(key: string): Setting | undefined {
    const setting = this.#entries.get(key);
    this.#entries.delete(key);
    return setting;
  }

  /** Drops keys that have no counterpart and need none. */
  drop(keys: readonly string[], message: string): void {
    for (const key of keys) {
      const setting = this.take(key);
      if (setting !== undefined) this.#report.addDropped(setting, message);
    }
  }

  /** The entries not taken yet, with their keys. */
  rest(): readonly (readonly [key: string, setting: Setting])[] {
    return [...this.#entries];
  }

  /** Reports the entries not taken yet as open questions. */
  reportRest(): void {
    for (const [, setting] of this.#entries) this.#report.addQuestion(setting, 'is unknown and was dropped');
  }
}
