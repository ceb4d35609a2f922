/** Ways into the old configuration: maps and property lists, and what single values can be taken for. */

import type { Findings, Setting } from './import-report.ts';
import { isAtom, itemsOf, type Term, textOf } from './term.ts';

/** `${NAME}` alone, with or without a default as shells write it. */
const PLACEHOLDER = /^\$\{([A-Za-z_]\w*)(:?-[^}]*)?\}$/;
/** A template of any kind, alone or within text. */
const ANY_PLACEHOLDER = /\$\{[^}]*\}|\{\{[^}]*\}\}/;

/** The environment variable that stands in place of a value: `"${NAME}"`, `{env, "NAME"}`. Undefined for all else. */
export function variableOf(term: Term): { readonly name: string; readonly hasDefault: boolean } | undefined {
  if (term.kind === 'tuple') {
    const [tag, name, ...others] = term.items;
    const text = name === undefined ? undefined : textOf(name);
    const isEnvironment = tag !== undefined && ['env', 'os_env', 'system'].some((word) => isAtom(tag, word));
    if (!isEnvironment || text === undefined || others.length > 0 || !/^[A-Za-z_]\w*$/.test(text)) return undefined;
    return { name: text, hasDefault: false };
  }
  const [, name, fallback] = PLACEHOLDER.exec(textOf(term) ?? '') ?? [];
  return name === undefined ? undefined : { name, hasDefault: fallback !== undefined };
}

/** The entries of a map or property list, each to be taken by the one who understands it. */
export class Settings {
  readonly #entries = new Map<string, Setting>();
  readonly #findings: Findings;

  private constructor(findings: Findings) {
    this.#findings = findings;
  }

  /** Undefined, and reported, when it is neither a map nor a property list. */
  static read(from: Setting, findings: Findings): Settings | undefined {
    const settings = new Settings(findings);
    if (from.term.kind === 'map') {
      for (const [key, value] of from.term.entries) settings.#add(from, { key, value, counting: 'last' });
      return settings;
    }
    const items = itemsOf(from.term);
    if (items === undefined) {
      findings.open(from, 'is neither a map nor a list of {Key, Value}');
      return undefined;
    }
    for (const [index, item] of items.entries()) {
      const [key, value, ...others] = item.kind === 'tuple' ? item.items : [];
      if (item.kind === 'atom') {
        settings.#add(from, { key: item, value: { ...item, name: 'true' }, counting: 'first' });
      } else if (key !== undefined && value !== undefined && others.length === 0) {
        settings.#add(from, { key, value, counting: 'first' });
      } else {
        findings.open({ term: item, steps: [...from.steps, index] }, 'is not {Key, Value}');
      }
    }
    return settings;
  }

  /** Of equal keys the last counts in a map, and the first in a property list. */
  #add(from: Setting, { key, value, counting }: { key: Term; value: Term; counting: 'first' | 'last' }): void {
    const name = textOf(key);
    if (name === undefined || name === '') {
      this.#findings.open({ term: key, steps: from.steps }, 'has a key that is not text');
      return;
    }
    const added = { term: value, steps: [...from.steps, name] };
    const isRepeated = this.#entries.has(name);
    if (isRepeated) this.#findings.open(added, `is given twice; the ${counting} was taken`);
    if (!isRepeated || counting === 'last') this.#entries.set(name, added);
  }

  /** The value of a key, which is then not left over. */
  take(key: string): Setting | undefined {
    const setting = this.#entries.get(key);
    this.#entries.delete(key);
    return setting;
  }

  /** Leaves keys out that nothing here has to correspond to. */
  drop(keys: readonly string[], message: string): void {
    for (const key of keys) {
      const setting = this.take(key);
      if (setting !== undefined) this.#findings.drop(setting, message);
    }
  }

  /** All that nobody took, with their keys. */
  rest(): readonly (readonly [key: string, setting: Setting])[] {
    return [...this.#entries];
  }

  /** Reports all that nobody took. */
  reportRest(): void {
    for (const [, setting] of this.#entries) this.#findings.open(setting, 'is not known here and was left out');
  }
}

/** Reads one value, or reports why not; `target` is the key of the new file that is left out then. */
export type ValueReader<Value> = (setting: Setting, findings: Findings, target: readonly string[]) => Value | undefined;

/** Text that is no secret. */
export const plainText: ValueReader<string> = (setting, findings, target) => {
  const text = textOf(setting.term);
  if (text !== undefined && text !== '' && !ANY_PLACEHOLDER.test(text)) return text;
  findings.open(setting, text === '' ? 'is empty and was left out' : insteadOf('text', setting.term), target);
  return undefined;
};

/** A host name, or an address as text or as Erlang's tuple: `{127, 0, 0, 1}`. */
export const hostText: ValueReader<string> = (setting, findings, target) =>
  addressText(setting.term) ?? plainText(setting, findings, target);

/** A whole number. */
export const wholeNumber: ValueReader<number> = (setting, findings, target) => {
  if (setting.term.kind === 'integer') return Number(setting.term.value);
  findings.open(setting, insteadOf('a whole number', setting.term), target);
  return undefined;
};

function insteadOf(wanted: string, term: Term): string {
  const isPlaceholder = variableOf(term) !== undefined || ANY_PLACEHOLDER.test(textOf(term) ?? '');
  return `${isPlaceholder ? 'holds a placeholder, which only a secret can be here,' : `is not ${wanted}`} and was left out`;
}

/** Four numbers of 8 bits or eight of 16; undefined for all else. */
function addressText(term: Term): string | undefined {
  if (term.kind !== 'tuple' || (term.items.length !== 4 && term.items.length !== 8)) return undefined;
  const isShort = term.items.length === 4;
  const numbers = term.items.map((item) => (item.kind === 'integer' ? Number(item.value) : -1));
  if (numbers.some((number) => number < 0 || number > (isShort ? 255 : 65_535))) return undefined;
  return isShort ? numbers.join('.') : numbers.map((number) => number.toString(16)).join(':');
}
