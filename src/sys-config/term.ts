/** Erlang terms as written in a configuration file, and their conversion to text and lists. */

import type { PathStep } from '../config/config-error.ts';

/** One term. `offset` is its start in the text, in UTF-16 units. */
export type Term = { readonly offset: number } & (
  | { readonly kind: 'atom'; readonly name: string }
  | { readonly kind: 'integer'; readonly value: bigint }
  | { readonly kind: 'float'; readonly value: number }
  /** `"..."`: a list of characters in Erlang */
  | { readonly kind: 'string'; readonly text: string }
  | { readonly kind: 'binary'; readonly bytes: Uint8Array }
  | { readonly kind: 'tuple'; readonly items: readonly Term[] }
  | { readonly kind: 'list'; readonly items: readonly Term[] }
  /** In the order of the text, duplicate keys included */
  | { readonly kind: 'map'; readonly entries: readonly (readonly [key: Term, value: Term])[] }
  /** `fun module:name/arity` */
  | { readonly kind: 'fun' }
);

/** A term with its path from the top of the old file. */
export interface Setting {
  readonly term: Term;
  readonly steps: readonly PathStep[];
}

/** The text of a string, a UTF-8 binary, an atom or a list of characters; undefined for anything else. */
export function textOf(term: Term): string | undefined {
  switch (term.kind) {
    case 'atom':
      return term.name;
    case 'string':
      return term.text;
    case 'binary':
      return utf8Text(term.bytes);
    case 'list':
      return charactersText(term.items);
    default:
      return undefined;
  }
}

/** True for the atom of this name. */
export function isAtom(term: Term, name: string): boolean {
  return term.kind === 'atom' && term.name === name;
}

/** The items of a list; an empty string is an empty list in Erlang. Undefined for anything else. */
export function itemsOf(term: Term): readonly Term[] | undefined {
  if (term.kind === 'list') return term.items;
  return term.kind === 'string' && term.text === '' ? [] : undefined;
}

function utf8Text(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function charactersText(items: readonly Term[]): string | undefined {
  let text = '';
  for (const item of items) {
    if (item.kind !== 'integer' || !isCharacter(item.value)) return undefined;
    text += String.fromCodePoint(Number(item.value));
  }
  return text;
}

/** True for a Unicode scalar value. */
export function isCharacter(value: bigint | number): boolean {
  return (value >= 0 && value < 0xd800) || (value > 0xdfff && value <= 0x10ffff);
}
