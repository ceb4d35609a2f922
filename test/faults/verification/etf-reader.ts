/**
 * Decodes the payload of an event: the inverse of `test/support/codecs/etf.ts`, for exactly the terms that it writes, from the
 * same specification and without the code under test.
 * https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
 */
import { inflateSync } from 'node:zlib';
import type { Value } from '../../support/codecs/etf.ts';

/** The Erlang terms of which a Value consists; tuples and lists are arrays, a map is its entries. */
type Term =
  | { readonly atom: string }
  | { readonly binary: Buffer }
  | { readonly map: readonly (readonly [Term, Term])[] }
  | readonly Term[]
  | bigint
  | number;

/** The Value in a payload, compressed or not. */
export function decodePayload(payload: Buffer): Value {
  const compressed = payload[1] === 80;
  return toValue(new TermReader(compressed ? inflateSync(payload.subarray(6)) : payload.subarray(1)).term());
}

class TermReader {
  readonly #bytes: Buffer;
  #offset = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  term(): Term {
    const tag = this.#number(1);
    switch (tag) {
      case 70:
        return this.#take(8).readDoubleBE();
      case 97:
        return BigInt(this.#number(1));
      case 98:
        return BigInt(this.#take(4).readInt32BE());
      case 99:
        return Number(this.#take(31).toString('latin1').replaceAll('\0', ''));
      case 100:
      case 118:
        return { atom: this.#take(this.#number(2)).toString() };
      case 115:
      case 119:
        return { atom: this.#take(this.#number(1)).toString() };
      case 104:
        return this.#terms(this.#number(1));
      case 105:
        return this.#terms(this.#number(4));
      case 106:
        return [];
      case 108: {
        const elements = this.#terms(this.#number(4));
        this.term(); // the tail, an empty list
        return elements;
      }
      case 109:
        return { binary: this.#take(this.#number(4)) };
      case 110:
        return this.#big(this.#number(1));
      case 111:
        return this.#big(this.#number(4));
      case 116:
        return { map: Array.from({ length: this.#number(4) }, () => [this.term(), this.term()] as const) };
      default:
        throw new Error(`Cannot decode ETF tag ${tag} at offset ${this.#offset - 1}`);
    }
  }

  #terms(count: number): Term[] {
    return Array.from({ length: count }, () => this.term());
  }

  #big(size: number): bigint {
    const negative = this.#number(1) === 1;
    const magnitude = this.#take(size).reduceRight((sum, digit) => (sum << 8n) | BigInt(digit), 0n);
    return negative ? -magnitude : magnitude;
  }

  #number(size: number): number {
    return this.#take(size).readUIntBE(0, size);
  }

  #take(size: number): Buffer {
    this.#offset += size;
    return this.#bytes.subarray(this.#offset - size, this.#offset);
  }
}

/** Decodes `{Tag, Contents}` of mg_msgpack. */
function toValue(term: Term): Value {
  const [head, contents] = term as [{ readonly atom: string }, Term];
  switch (head.atom) {
    case 'nl':
      return { nl: {} };
    case 'b':
      return { b: (contents as { readonly atom: string }).atom === 'true' };
    case 'i':
      return { i: contents as bigint };
    case 'flt':
      return { flt: contents as number };
    case 'str':
      return { str: (contents as { readonly binary: Buffer }).binary };
    case 'bin':
      return { bin: (contents as { readonly binary: Buffer }).binary };
    case 'obj': {
      const { map } = contents as { readonly map: readonly (readonly [Term, Term])[] };
      return { obj: map.map(([key, value]) => [toValue(key), toValue(value)] as const) };
    }
    case 'arr':
      return { arr: (contents as Term[]).map(toValue) };
    default:
      throw new Error(`Cannot decode a Value of variant ${head.atom}`);
  }
}
