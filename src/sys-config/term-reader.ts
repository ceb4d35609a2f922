/**
 * Reads one Erlang term from text, as `file:consult/1` does: literals only, `%` comments, a full stop at the end.
 * Template placeholders `${NAME}` and `${NAME:-default}` are read as if they were quoted.
 * Source: Erlang Reference Manual, "Data Types" and "Bit Syntax Expressions".
 *
 * Errors give position and cause, and never quote the text, any part of which may be a secret.
 */

import { NotifierError } from '../errors.ts';
import { isCharacter, type Term } from './term.ts';

/** A configuration nests a dozen levels; thousands would overflow the stack. */
const MAX_DEPTH = 128;
/** No setting is longer, and the time to read a number grows faster than its length. */
const MAX_DIGITS = 100;

/** Text that is not an Erlang term, or a term that a configuration file cannot contain. */
export class TermError extends NotifierError {
  override readonly name = 'TermError';
  /** Counted from 1 */
  readonly line: number;
  /** Counted from 1, in UTF-16 units */
  readonly column: number;
  readonly detail: string;

  constructor({ line, column }: Position, detail: string) {
    super(`Cannot read Erlang term: ${detail} at line ${line}, column ${column}`, { code: 'erlang_term' });
    this.line = line;
    this.column = column;
    this.detail = detail;
  }
}

/** A position in a text, counted from 1; columns in UTF-16 units. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** Where an offset is, for people. */
export function positionAt(text: string, offset: number): Position {
  const before = text.slice(0, offset);
  const lineStart = before.lastIndexOf('\n') + 1;
  return { line: before.split('\n').length, column: offset - lineStart + 1 };
}

/**
 * Reads the only term of a text.
 * @throws TermError
 */
export function readTerm(text: string): Term {
  return new TermReader(text).wholeText();
}

/** Characters by the letter after a backslash; source: Reference Manual, "Escape Sequences". */
const ESCAPES: Readonly<Record<string, number>> = { b: 8, d: 127, e: 27, f: 12, n: 10, r: 13, s: 32, t: 9, v: 11 };

const BLANK = /(?:[\s\u0080-\u00a0]|%[^\n]*)*/y;
const PLACEHOLDER = /\$\{[A-Za-z_]\w*(?::?-[^}\n]*)?\}/y;
const FLOAT = /\d+(?:_\d+)*\.\d+(?:_\d+)*(?:[eE][+-]?\d+)?/y;
const INTEGER = /\d+(?:_\d+)*(?:#[0-9A-Za-z]+(?:_[0-9A-Za-z]+)*)?/y;
const BARE_ATOM = /\p{Ll}[\p{L}\p{N}_@]*/uy;

class TermReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  wholeText(): Term {
    if (this.#text.startsWith('\uFEFF')) this.#at = 1;
    const term = this.#term(0);
    this.#skipBlank();
    // A full stop ends a term only before white space, a comment or the end.
    if (!this.#take('.') || !/^(?:[\s%]|$)/.test(this.#text.slice(this.#at, this.#at + 1))) {
      this.#fail('the full stop after the term is missing');
    }
    this.#skipBlank();
    if (this.#at < this.#text.length) this.#fail('a second term begins here');
    return term;
  }

  #term(depth: number): Term {
    this.#skipBlank();
    if (depth > MAX_DEPTH) this.#fail('terms are nested too deeply');
    const offset = this.#at;
    const next = this.#text[offset] ?? '';
    if (this.#take('{')) return { kind: 'tuple', offset, items: this.#items('}', depth) };
    if (this.#take('[')) return { kind: 'list', offset, items: this.#items(']', depth) };
    if (this.#take('#{')) return { kind: 'map', offset, entries: this.#mapEntries(depth) };
    if (this.#take('<<')) return { kind: 'binary', offset, bytes: this.#segments(depth) };
    if (next === '"') return { kind: 'string', offset, text: this.#adjacentStrings() };
    if (next === "'") return { kind: 'atom', offset, name: this.#quoted("'", 'quoted atom') };
    if (next === '$') return this.#placeholderOrCharacter(offset);
    if (/[0-9+-]/.test(next)) return this.#number(offset);
    const name = this.#match(BARE_ATOM);
    if (name === 'fun') return this.#fun(offset);
    if (name !== undefined) return { kind: 'atom', offset, name };
    return this.#failAt(offset, insteadOfTerm(next));
  }

  #items(close: string, depth: number): Term[] {
    const items: Term[] = [];
    this.#skipBlank();
    if (this.#take(close)) return items;
    do items.push(this.#term(depth + 1));
    while (this.#continues(close));
    return items;
  }

  #mapEntries(depth: number): (readonly [Term, Term])[] {
    const entries: (readonly [Term, Term])[] = [];
    this.#skipBlank();
    if (this.#take('}')) return entries;
    do {
      const key = this.#term(depth + 1);
      this.#skipBlank();
      if (!this.#take('=>')) this.#fail('=> is missing after the key of a map');
      entries.push([key, this.#term(depth + 1)]);
    } while (this.#continues('}'));
    return entries;
  }

  /** True after a comma, false after the closing delimiter. */
  #continues(close: string): boolean {
    this.#skipBlank();
    if (this.#take(',')) return true;
    if (this.#take(close)) return false;
    return this.#fail(
      this.#text[this.#at] === '|' ? 'lists with | are not supported' : `a comma or ${close} is missing`,
    );
  }

  #adjacentStrings(): string {
    let text = '';
    do {
      if (this.#text.startsWith('"""', this.#at)) this.#fail('triple-quoted strings are not supported; write "..."');
      text += this.#quoted('"', 'string');
      this.#skipBlank();
    } while (this.#text[this.#at] === '"');
    return text;
  }

  #quoted(quote: string, what: string): string {
    const start = this.#at;
    this.#at += 1;
    let text = '';
    while (!this.#take(quote)) {
      if (this.#at >= this.#text.length) this.#failAt(start, `the end of a ${what} that begins here is missing`);
      text += this.#character();
    }
    return text;
  }

  /** One character of a string, a quoted atom or a `$` literal, as text. */
  #character(): string {
    const codePoint = this.#text.codePointAt(this.#at);
    if (codePoint === undefined) return this.#fail('a character is missing');
    const character = String.fromCodePoint(codePoint);
    if (character !== '\\') {
      this.#at += character.length;
      return character;
    }
    const start = this.#at;
    this.#at += 1;
    const value = this.#escape();
    return isCharacter(value)
      ? String.fromCodePoint(value)
      : this.#failAt(start, 'this is not the number of a character');
  }

  #escape(): number {
    const octal = this.#match(/[0-7]{1,3}/y);
    if (octal !== undefined) return Number.parseInt(octal, 8);
    const hexadecimal = this.#match(/x(?:[0-9A-Fa-f]{2}|\{[0-9A-Fa-f]{1,8}\})/y);
    if (hexadecimal !== undefined) return Number.parseInt(hexadecimal.replace(/[x{}]/g, ''), 16);
    const control = this.#match(/\^[@-_a-z]/y);
    if (control !== undefined) return control.charCodeAt(1) & 0x1f;
    const codePoint = this.#text.codePointAt(this.#at);
    if (codePoint === undefined || this.#text[this.#at] === 'x') return this.#fail('this escape sequence is malformed');
    const character = String.fromCodePoint(codePoint);
    this.#at += character.length;
    return ESCAPES[character] ?? codePoint;
  }

  /** `<<"text", "text"/utf8, 1, 16#ff, $a>>`: without `/utf8` each character is the low byte of its number. */
  #segments(depth: number): Uint8Array {
    const bytes: number[] = [];
    this.#skipBlank();
    if (this.#take('>>')) return new Uint8Array();
    do {
      this.#skipBlank();
      if (this.#text[this.#at] === '"') {
        const text = this.#adjacentStrings();
        const isUtf8 = this.#match(/\/\s*utf8\b/y) !== undefined;
        for (const byte of isUtf8 ? Buffer.from(text, 'utf8') : lowBytes(text)) bytes.push(byte);
      } else {
        const term = this.#term(depth + 1);
        if (term.kind !== 'integer') return this.#failAt(term.offset, 'only binaries of text and bytes are supported');
        bytes.push(Number(BigInt.asUintN(8, term.value)));
      }
      this.#skipBlank();
      if (/[:/]/.test(this.#text[this.#at] ?? ''))
        this.#fail('sizes and types other than "..."/utf8 are not supported');
    } while (this.#continues('>>'));
    return Uint8Array.from(bytes);
  }

  #placeholderOrCharacter(offset: number): Term {
    const placeholder = this.#match(PLACEHOLDER);
    if (placeholder !== undefined) return { kind: 'string', offset, text: placeholder };
    this.#at += 1;
    return { kind: 'integer', offset, value: BigInt(this.#character().codePointAt(0) ?? 0) };
  }

  #number(offset: number): Term {
    const sign = this.#match(/[+-]\s*/y)?.startsWith('-') === true ? -1 : 1;
    const float = this.#match(FLOAT);
    if (float !== undefined) return { kind: 'float', offset, value: sign * Number(float.replaceAll('_', '')) };
    const integer = this.#match(INTEGER)?.replaceAll('_', '');
    if (integer === undefined) return this.#fail('a number is missing after its sign');
    if (integer.length > MAX_DIGITS) return this.#failAt(offset, 'this number is too long');
    const value = integerValue(integer);
    if (value === undefined) return this.#failAt(offset, 'these are not digits of this base (2 to 36)');
    return { kind: 'integer', offset, value: BigInt(sign) * value };
  }

  #fun(offset: number): Term {
    if (this.#match(/\s+(?:\w+|'[^'\n]*'):(?:\w+|'[^'\n]*')\/\d+/y) === undefined) {
      this.#failAt(offset, 'only functions of the form fun module:name/arity are supported');
    }
    return { kind: 'fun', offset };
  }

  #skipBlank(): void {
    this.#match(BLANK);
  }

  #take(literal: string): boolean {
    if (!this.#text.startsWith(literal, this.#at)) return false;
    this.#at += literal.length;
    return true;
  }

  #match(sticky: RegExp): string | undefined {
    sticky.lastIndex = this.#at;
    const found = sticky.exec(this.#text)?.[0];
    this.#at += found?.length ?? 0;
    return found;
  }

  #fail(detail: string): never {
    return this.#failAt(this.#at, detail);
  }

  #failAt(offset: number, detail: string): never {
    throw new TermError(positionAt(this.#text, offset), detail);
  }
}

function insteadOfTerm(next: string): string {
  if (next === '') return 'a term is missing at the end of the text';
  if (next === '#') return 'records are not supported, maps begin with #{';
  if (next === '~') return 'sigils are not supported; write "..." or <<"...">>';
  if (/[\p{Lu}_]/u.test(next)) return 'variables are not supported; an atom that begins like this needs quotes';
  return 'a term is missing';
}

/** `255`, `16#ff`; undefined when the base or a digit is invalid. */
function integerValue(text: string): bigint | undefined {
  const [first = '', digits] = text.split('#');
  if (digits === undefined) return BigInt(first);
  const base = Number(first);
  if (base < 2 || base > 36) return undefined;
  let value = 0n;
  for (const character of digits) {
    const digit = Number.parseInt(character, 36);
    if (digit >= base) return undefined;
    value = value * BigInt(base) + BigInt(digit);
  }
  return value;
}

function lowBytes(text: string): number[] {
  return Array.from(text, (character) => (character.codePointAt(0) ?? 0) & 0xff);
}
