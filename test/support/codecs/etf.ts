/**
 * Encoder of msgpack.Value as Erlang's `term_to_binary` writes it, in every form that the service must read, and a seeded
 * generator of such values. Written from the description of the format, without the code under test.
 * https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
 */
import { deflateSync } from 'node:zlib';

/** A Value as plain data: what the independent Thrift reader returns too. Texts are bytes; integers are bigint. */
export type Value =
  | { readonly nl: Record<string, never> }
  | { readonly b: boolean }
  | { readonly i: bigint }
  | { readonly flt: number }
  | { readonly str: Buffer }
  | { readonly bin: Buffer }
  | { readonly obj: readonly (readonly [Value, Value])[] }
  | { readonly arr: readonly Value[] };

/** Which of the four atom tags to write: ATOM_EXT, SMALL_ATOM_EXT, ATOM_UTF8_EXT, SMALL_ATOM_UTF8_EXT */
export type AtomForm = 'atom' | 'small' | 'utf8' | 'smallUtf8';

/** Options of the encoder, where the format has several forms; the defaults are those of a current OTP. */
export interface EtfOptions {
  readonly atoms?: AtomForm | undefined;
  /** SMALL_TUPLE_EXT or LARGE_TUPLE_EXT */
  readonly tuples?: 'small' | 'large' | undefined;
  /** The shortest form, or always SMALL_BIG_EXT, or always LARGE_BIG_EXT */
  readonly integers?: 'shortest' | 'small-big' | 'large-big' | undefined;
  /** NEW_FLOAT_EXT or the 31-byte text of FLOAT_EXT */
  readonly floats?: 'new' | 'text' | undefined;
}

/** A Value of text. */
export function str(text: string): Value {
  return { str: Buffer.from(text) };
}

/** A Value of an integer. */
export function int(value: number | bigint): Value {
  return { i: BigInt(value) };
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function atom(name: string, form: AtomForm): Buffer {
  const text = Buffer.from(name, 'latin1');
  switch (form) {
    case 'atom':
      return Buffer.concat([Buffer.of(100), u16(text.length), text]);
    case 'small':
      return Buffer.concat([Buffer.of(115, text.length), text]);
    case 'utf8':
      return Buffer.concat([Buffer.of(118), u16(text.length), text]);
    case 'smallUtf8':
      return Buffer.concat([Buffer.of(119, text.length), text]);
  }
}

function bigInteger(value: bigint, large: boolean): Buffer {
  const magnitude: number[] = [];
  for (let rest = value < 0n ? -value : value; rest > 0n; rest >>= 8n) magnitude.push(Number(rest & 0xffn));
  const sign = value < 0n ? 1 : 0;
  const head = large ? [Buffer.of(111), u32(magnitude.length)] : [Buffer.of(110, magnitude.length)];
  return Buffer.concat([...head, Buffer.of(sign), Buffer.from(magnitude)]);
}

function integer(value: bigint, options: EtfOptions): Buffer {
  const form = options.integers ?? 'shortest';
  if (form !== 'shortest') return bigInteger(value, form === 'large-big');
  if (value >= 0n && value < 256n) return Buffer.of(97, Number(value));
  if (value >= -0x8000_0000n && value < 0x8000_0000n) return Buffer.concat([Buffer.of(98), u32(Number(value) >>> 0)]);
  return bigInteger(value, false);
}

function float(value: number, options: EtfOptions): Buffer {
  const bytes = Buffer.alloc(options.floats === 'text' ? 32 : 9);
  if (options.floats === 'text') {
    // C's "%.20e": at least two digits of exponent, where JavaScript writes one; and JavaScript loses the sign of -0
    const text = `${Object.is(value, -0) ? '-' : ''}${value.toExponential(20)}`.replace(/e([+-])(\d)$/, 'e$10$2');
    bytes[0] = 99;
    bytes.write(text, 1, 'latin1');
  } else {
    bytes[0] = 70;
    bytes.writeDoubleBE(value, 1);
  }
  return bytes;
}

/** The term of a Value without the version byte, as inside other terms. */
export function encodeValue(value: Value, options: EtfOptions = {}): Buffer {
  const atoms = options.atoms ?? 'smallUtf8';
  const variant = (name: string, ...contents: Buffer[]) => Buffer.concat([pair, atom(name, atoms), ...contents]);
  const tuple = (arity: number) =>
    options.tuples === 'large' ? Buffer.concat([Buffer.of(105), u32(arity)]) : Buffer.of(104, arity);
  const pair = tuple(2);
  if ('nl' in value) return variant('nl', tuple(1), atom('mg_msgpack_Nil', atoms));
  if ('b' in value) return variant('b', atom(String(value.b), atoms));
  if ('i' in value) return variant('i', integer(value.i, options));
  if ('flt' in value) return variant('flt', float(value.flt, options));
  if ('str' in value) return variant('str', Buffer.of(109), u32(value.str.length), value.str);
  if ('bin' in value) return variant('bin', Buffer.of(109), u32(value.bin.length), value.bin);
  if ('obj' in value) {
    const entries = value.obj.flatMap(([key, entry]) => [encodeValue(key, options), encodeValue(entry, options)]);
    return variant('obj', Buffer.of(116), u32(value.obj.length), ...entries);
  }
  if (value.arr.length === 0) return variant('arr', Buffer.of(106));
  const elements = value.arr.map((element) => encodeValue(element, options));
  return variant('arr', Buffer.of(108), u32(value.arr.length), ...elements, Buffer.of(106));
}

/** `term_to_binary(Value)`, or with `compressed` what `term_to_binary(Value, [compressed])` can give. */
export function encodePayload(value: Value, options: EtfOptions & { readonly compressed?: boolean } = {}): Buffer {
  const term = encodeValue(value, options);
  return options.compressed === true ? compressTerm(term) : Buffer.concat([Buffer.of(131), term]);
}

/** The compressed form of a term, with the size that it declares (the real one unless given). */
export function compressTerm(term: Buffer, declaredBytes = term.length): Buffer {
  return Buffer.concat([Buffer.of(131, 80), u32(declaredBytes), deflateSync(term)]);
}

/** Numbers from 0 to 1 that depend on the seed alone (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

const I64_EDGES = [0n, 1n, -1n, 255n, 256n, -256n, 2n ** 31n, -(2n ** 31n), -(2n ** 31n) - 1n, 2n ** 53n + 1n];
const I64_LIMITS = [2n ** 32n, -(2n ** 32n), 2n ** 63n - 1n, -(2n ** 63n), -(2n ** 63n) + 1n];
const FLOAT_EDGES = [0, -0, 1.5, -1e300, 5e-324, Number.MAX_VALUE, 0.1, -2.5e-10];

/** A random Value, nested at most `depth` levels. Keys of an obj are distinct. */
export function randomValue(random: () => number, depth = 4): Value {
  const below = (limit: number) => Math.floor(random() * limit);
  const pick = <T>(choices: readonly T[]) => choices[below(choices.length)] as T;
  const bytes = () => Buffer.from(Array.from({ length: below(40) }, () => below(256)));
  const any64 = () => BigInt.asIntN(64, (BigInt(below(2 ** 32)) << 32n) | BigInt(below(2 ** 32)));
  switch (below(depth > 0 ? 8 : 6)) {
    case 0:
      return { nl: {} };
    case 1:
      return { b: random() < 0.5 };
    case 2:
      return { i: random() < 0.5 ? pick([...I64_EDGES, ...I64_LIMITS]) : any64() };
    case 3:
      return { flt: random() < 0.5 ? pick(FLOAT_EDGES) : (random() - 0.5) * 10 ** (below(600) - 300) };
    case 4:
      return { str: bytes() };
    case 5:
      return { bin: bytes() };
    case 6: {
      const size = random() < 0.1 ? below(60) : below(5);
      const entry = (index: number) => [str(`${index}:${below(1000)}`), randomValue(random, depth - 1)] as const;
      return { obj: Array.from({ length: size }, (_, index) => entry(index)) };
    }
    default: {
      return { arr: Array.from({ length: below(6) }, () => randomValue(random, depth - 1)) };
    }
  }
}
