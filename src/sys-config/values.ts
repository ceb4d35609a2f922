/** Single values of the old configuration: text, hosts, whole numbers, and environment variables in place of them. */

import type { ImportReport } from './import-report.ts';
import { isAtom, type Setting, type Term, textOf } from './term.ts';

/** `${NAME}` alone, with or without a default as shells write it. */
const PLACEHOLDER = /^\$\{([A-Za-z_]\w*)(:?-[^}]*)?\}$/;
/** A template of any kind, alone or within text. */
const ANY_PLACEHOLDER = /\$\{[^}]*\}|\{\{[^}]*\}\}/;

/** The environment variable used instead of a value: `"${NAME}"`, `{env, "NAME"}`. Undefined for anything else. */
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

/** Converts one value, or reports why it cannot; `target` is the key of the new file that is then missing. */
export type ValueReader<Value> = (
  setting: Setting,
  report: ImportReport,
  target: readonly string[],
) => Value | undefined;

/** Text that is not a secret. */
export const plainText: ValueReader<string> = (setting, report, target) => {
  const text = textOf(setting.term);
  if (text !== undefined && text !== '' && !ANY_PLACEHOLDER.test(text)) return text;
  report.addQuestion(setting, text === '' ? 'is empty and was dropped' : insteadOf('text', setting.term), target);
  return undefined;
};

/** A host name, or an address as text or as Erlang's tuple: `{127, 0, 0, 1}`. */
export const hostText: ValueReader<string> = (setting, report, target) =>
  addressText(setting.term) ?? plainText(setting, report, target);

/** A whole number. */
export const wholeNumber: ValueReader<number> = (setting, report, target) => {
  if (setting.term.kind === 'integer') return Number(setting.term.value);
  report.addQuestion(setting, insteadOf('a whole number', setting.term), target);
  return undefined;
};

function insteadOf(wanted: string, term: Term): string {
  const isPlaceholder = variableOf(term) !== undefined || ANY_PLACEHOLDER.test(textOf(term) ?? '');
  return `${isPlaceholder ? 'contains a placeholder, which only a secret may,' : `is not ${wanted}`} and was dropped`;
}

/** Four numbers of 8 bits or eight of 16; undefined for anything else. */
function addressText(term: Term): string | undefined {
  if (term.kind !== 'tuple' || (term.items.length !== 4 && term.items.length !== 8)) return undefined;
  const isShort = term.items.length === 4;
  const numbers = term.items.map((item) => (item.kind === 'integer' ? Number(item.value) : -1));
  if (numbers.some((number) => number < 0 || number > (isShort ? 255 : 65_535))) return undefined;
  return isShort ? numbers.join('.') : numbers.map((number) => number.toString(16)).join(':');
}
