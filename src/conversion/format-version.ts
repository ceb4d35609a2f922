import { InvalidRowError } from '../errors.ts';

const KEY = 'format_version';
const INT32_MIN = -0x8000_0000;
const INT32_MAX = 0x7fff_ffff;
/** Length of `-2147483648`. jsonb writes no leading zeros, so every longer integer is out of range */
const MAX_INT32_CHARACTERS = 11;

const QUOTE = 0x22; // "
const PLUS = 0x2b;
const COMMA = 0x2c;
const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const LOWER_E = 0x65;
const LOWER_U = 0x75;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
/** Bit that is set in a lower-case letter of ASCII, and not in its capital */
const LOWER_CASE = 0x20;

/** Longer metadata holds more than a version and hardly ever repeats: it is not remembered. */
const MAX_REMEMBERED_BYTES = 64;

/**
 * Finds `format_version` in the text of a metadata column. The text is scanned, not parsed into values: `1.0`, which jsonb
 * keeps as it was written, must not pass for `1`, and the rest of the object is not needed.
 *
 * One reader serves one table and remembers the last text and its answer: all events of a namespace that one release wrote
 * have the same metadata, and comparing its few bytes costs a tenth of scanning them.
 */
export class FormatVersionReader {
  #text = Buffer.alloc(0);
  #version: number | undefined;

  /**
   * The top-level `format_version` of `jsonText[start..end)`; undefined when the text is not an object, or when the key is
   * absent or null. Takes linear time, and no call stack for nesting.
   * @throws InvalidRowError when the value is not an integer of 32 bits written without fraction and exponent, when the key
   *   is repeated, or when the text is not JSON
   */
  read(jsonText: Buffer, start: number, end: number): number | undefined {
    if (this.#isRemembered(jsonText, start, end)) return this.#version;
    const version = new FormatVersionScanner(jsonText, start, end).scan();
    if (end - start <= MAX_REMEMBERED_BYTES) {
      this.#text = Buffer.from(jsonText.subarray(start, end));
      this.#version = version;
    }
    return version;
  }

  #isRemembered(jsonText: Buffer, start: number, end: number): boolean {
    const text = this.#text;
    const length = end - start;
    if (length === 0 || length !== text.length) return false;
    for (let i = 0; i < length; i++) if (jsonText[start + i] !== text[i]) return false;
    return true;
  }
}

function malformed(): never {
  throw new InvalidRowError('column "metadata" is not JSON', { code: 'metadata_malformed' });
}

/** One pass over a text: JSON of RFC 8259, checked whole. */
class FormatVersionScanner {
  readonly #text: Buffer;
  readonly #end: number;
  /** Index of the next byte to read */
  #at: number;
  /** Closing brackets of the open containers, the innermost last */
  readonly #open: number[] = [];

  constructor(text: Buffer, start: number, end: number) {
    this.#text = text;
    this.#at = start;
    this.#end = end;
  }

  scan(): number | undefined {
    let version: number | undefined;
    let found = false;
    let opened: boolean;
    do {
      opened = false;
      if (this.#open.at(-1) === CLOSE_BRACE && this.#key() && this.#open.length === 1) {
        if (found) {
          throw new InvalidRowError('column "metadata" has format_version twice', { code: 'format_version_repeated' });
        }
        found = true;
        version = this.#version();
      } else {
        opened = this.#value();
      }
    } while (this.#next(opened));
    return version;
  }

  /** Skips white space; returns the byte that follows, or -1 at the end. */
  #peek(): number {
    for (; this.#at < this.#end; this.#at++) {
      const byte = this.#text[this.#at]!;
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return byte;
    }
    return -1;
  }

  /** Reads a key of an object and its colon; true for `format_version`. */
  #key(): boolean {
    if (this.#peek() !== QUOTE) malformed();
    const from = this.#at;
    const escaped = this.#string();
    const length = this.#at - from;
    if (this.#peek() !== COLON) malformed();
    this.#at++;
    if (!escaped && length !== KEY.length + 2) return false;
    const quoted = this.#text.toString('utf8', from, from + length);
    return escaped ? JSON.parse(quoted) === KEY : quoted === `"${KEY}"`;
  }

  /** Reads a whole scalar, or the opening bracket of a container; true for the latter. */
  #value(): boolean {
    const first = this.#peek();
    if (first === OPEN_BRACE || first === OPEN_BRACKET) {
      this.#at++;
      this.#open.push(first + 2); // } and ] are two code points after { and [
      return true;
    }
    if (first === QUOTE) {
      this.#string();
    } else if (first === MINUS || isDigit(first)) {
      this.#number();
    } else if (!this.#literal('true') && !this.#literal('false') && !this.#literal('null')) {
      malformed();
    }
    return false;
  }

  /** After a value or an opening bracket: moves to the next element; false at the end of the text. */
  #next(opened: boolean): boolean {
    if (opened && this.#peek() !== this.#open.at(-1)) return true;
    for (;;) {
      const byte = this.#peek();
      const closing = this.#open.at(-1);
      if (closing === undefined) return byte === -1 ? false : malformed();
      this.#at++;
      if (byte === COMMA) return true;
      if (byte !== closing) malformed();
      this.#open.pop();
    }
  }

  /** Reads a string with its quotes; true when it has escapes. */
  #string(): boolean {
    let escaped = false;
    for (this.#at++; this.#at < this.#end; this.#at++) {
      const byte = this.#text[this.#at]!;
      if (byte === QUOTE) {
        this.#at++;
        return escaped;
      }
      if (byte < 0x20) malformed();
      if (byte === BACKSLASH) {
        escaped = true;
        this.#at++;
        this.#escape();
      }
    }
    return malformed();
  }

  /** Checks the byte after a backslash, and the four digits after `u`; ends on the last byte of the escape. */
  #escape(): void {
    if (this.#at >= this.#end) malformed();
    const byte = this.#text[this.#at]!;
    if (byte === LOWER_U) {
      for (let i = 0; i < 4; i++) if (++this.#at >= this.#end || !isHexDigit(this.#text[this.#at]!)) malformed();
    } else if (!'"\\/bfnrt'.includes(String.fromCharCode(byte))) {
      malformed();
    }
  }

  /** Reads a number; true when it is written as an integer. */
  #number(): boolean {
    if (this.#byte() === MINUS) this.#at++;
    if (this.#byte() === ZERO) this.#at++;
    else this.#digits();
    let isInteger = true;
    if (this.#byte() === POINT) {
      isInteger = false;
      this.#at++;
      this.#digits();
    }
    if ((this.#byte() | LOWER_CASE) === LOWER_E) {
      isInteger = false;
      this.#at++;
      if (this.#byte() === PLUS || this.#byte() === MINUS) this.#at++;
      this.#digits();
    }
    return isInteger;
  }

  #byte(): number {
    return this.#at < this.#end ? this.#text[this.#at]! : -1;
  }

  #digits(): void {
    if (!isDigit(this.#byte())) malformed();
    while (isDigit(this.#byte())) this.#at++;
  }

  #literal(word: string): boolean {
    if (this.#end - this.#at < word.length) return false;
    for (let i = 0; i < word.length; i++) if (this.#text[this.#at + i] !== word.charCodeAt(i)) return false;
    this.#at += word.length;
    return true;
  }

  /** Reads the value of `format_version`. */
  #version(): number | undefined {
    const first = this.#peek();
    if (this.#literal('null')) return undefined;
    const from = this.#at;
    if ((first !== MINUS && !isDigit(first)) || !this.#number()) {
      throw new InvalidRowError('format_version in column "metadata" is not an integer', {
        code: 'format_version_type',
      });
    }
    const value =
      this.#at - from > MAX_INT32_CHARACTERS ? Number.NaN : Number(this.#text.toString('latin1', from, this.#at));
    if (!(value >= INT32_MIN && value <= INT32_MAX)) {
      throw new InvalidRowError('format_version in column "metadata" does not fit 32 bits', {
        code: 'format_version_range',
      });
    }
    return value + 0; // -0 becomes 0
  }
}

function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= NINE;
}

function isHexDigit(byte: number): boolean {
  const lower = byte | LOWER_CASE;
  return isDigit(byte) || (lower >= 0x61 && lower <= 0x66);
}
