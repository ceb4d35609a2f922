/** The fast path gives the bytes of the decoder, or leaves the term to it. */
import { describe, expect, test } from 'bun:test';
import { ByteReader } from '../../../../src/bytes/reader.ts';
import { ByteWriter } from '../../../../src/bytes/writer.ts';
import { decodeValue } from '../../../../src/conversion/payload/decoder.ts';
import { tryFastPath } from '../../../../src/conversion/payload/fast-path.ts';
import { MAX_FAST_PATH_DEPTH } from '../../../../src/conversion/payload/nesting-limits.ts';
import {
  type AtomForm,
  encodeValue,
  int,
  randomValue,
  seededRandom,
  str,
  type Value,
} from '../../../support/codecs/etf.ts';

/** Follows every term, as the next row does: the fast path leaves the last Value of a buffer to the decoder. */
const NEIGHBOUR = Buffer.alloc(64, 109);

/** Bytes of the fast path; undefined when it leaves the term to the decoder. */
function convertFast(term: Buffer): Buffer | undefined {
  const out = new ByteWriter(16).i32(7);
  const isConverted = tryFastPath(Buffer.concat([NEIGHBOUR, term, NEIGHBOUR]), 64, 64 + term.length, out);
  if (isConverted) return Buffer.from(out.view().subarray(4));
  expect(out.toBuffer()).toEqual(Buffer.from([0, 0, 0, 7]));
  return undefined;
}

/** Bytes of the decoder; undefined when it refuses the term. */
function decode(term: Buffer): Buffer | undefined {
  const out = new ByteWriter(16);
  try {
    decodeValue(new ByteReader('ETF', term), out);
    return out.toBuffer();
  } catch {
    return undefined;
  }
}

const FORMS: readonly AtomForm[] = ['smallUtf8', 'atom'];
const text = (length: number): Value => str('x'.repeat(length));
const obj = (...keys: Value[]): Value => ({ obj: keys.map((key) => [key, int(1)] as const) });

describe('tryFastPath', () => {
  test.each<[string, Value]>([
    ['texts, short and long', { arr: [str(''), text(1), text(24), text(25), text(300), str('я')] }],
    ['bytes', { bin: Buffer.from([0, 255, 1]) }],
    ['small and large integers', { arr: [0n, 255n, 256n, -1n, 2n ** 31n, -(2n ** 31n) - 1n, 2n ** 55n].map(int) }],
    ['negative integers of seven bytes', { arr: [-(2n ** 32n), -(2n ** 55n), 1n - 2n ** 56n].map(int) }],
    ['booleans, nil, floats', { arr: [{ b: true }, { b: false }, { nl: {} }, { flt: 1.5 }, { flt: -0 }] }],
    ['empty containers', { arr: [{ arr: [] }, { obj: [] }] }],
    ['nested containers', { obj: [[str('a'), { arr: [obj(str('b'), int(2)), { arr: [int(3)] }] }]] }],
    ['many keys', obj(...Array.from({ length: 200 }, (_, index) => str(`key ${index}`)))],
  ])('converts %s', (_, value) => {
    for (const atoms of FORMS) {
      const term = encodeValue(value, { atoms });
      expect(decode(term)).toBeDefined();
      expect(convertFast(term)).toEqual(decode(term)!);
    }
  });

  test.each<[string, Buffer]>([
    ['a key that is neither text nor integer', encodeValue(obj({ b: true }))],
    ['a repeated key', encodeValue(obj(str('a'), str('b'), str('a')))],
    ['a repeated key among many', encodeValue(obj(...Array.from({ length: 100 }, (_, i) => str(`k${i % 99}`))))],
    ['an integer of eight bytes', encodeValue(int(2n ** 62n))],
    ['nesting deeper than MAX_FAST_PATH_DEPTH', encodeValue(nested(MAX_FAST_PATH_DEPTH + 1))],
    ['an infinite float', Buffer.from('6802770366 6c7446 7ff0000000000000'.replaceAll(' ', ''), 'hex')],
    ['a name that is longer than its length', Buffer.from('68027703006e6c68', 'hex')],
    ['no bytes', Buffer.alloc(0)],
  ])('leaves %s alone', (_, term) => {
    expect(convertFast(term)).toBeUndefined();
  });

  test.each<[string, Value]>([
    ['a container', { arr: [obj(str('key'), int(5)), { flt: 1 }, { b: false }, { nl: {} }, text(40)] }],
    ['an integer', int(-70_000n)],
    ['a big integer', int(2n ** 40n)],
    ['a float', { flt: 1 }],
    ['a boolean', { b: true }],
    ['nil', { nl: {} }],
    ['a text', text(40)],
  ])('leaves %s alone when it is cut short anywhere, whatever bytes follow it', (_, value) => {
    const term = encodeValue(value);
    expect(convertFast(term)).toBeDefined();
    for (let length = 0; length < term.length; length++) {
      const cut = Buffer.from(term.subarray(0, length));
      // The rest follows, but is not part of the payload.
      const whole = Buffer.concat([term, NEIGHBOUR]);
      const out = new ByteWriter();
      expect([length, convertFast(cut), tryFastPath(whole, 0, length, out)]).toEqual([length, undefined, false]);
    }
  });

  test('leaves the last Value of a buffer alone', () => {
    const term = encodeValue(int(1));
    const out = new ByteWriter();
    expect([tryFastPath(term, 0, term.length, out), out.length]).toEqual([false, 0]);
  });

  test('gives the bytes of the decoder for random values, and converts most of them', () => {
    const random = seededRandom(0x5eed);
    let convertedCount = 0;
    for (let round = 0; round < 3_000; round++) {
      const term = encodeValue(randomValue(random));
      const bytes = convertFast(term);
      if (bytes === undefined) continue;
      convertedCount++;
      expect(bytes).toEqual(decode(term)!);
    }
    expect(convertedCount).toBeGreaterThan(500);
  });

  test('converts nothing that the decoder refuses', () => {
    const random = seededRandom(0xbad);
    let convertedCount = 0;
    for (let round = 0; round < 20_000; round++) {
      const term = Buffer.from(encodeValue(randomValue(random)));
      for (let change = 0; change < 2; change++) {
        if (term.length > 0) term[Math.floor(random() * term.length)] = Math.floor(random() * 256);
      }
      const bytes = convertFast(term);
      if (bytes === undefined) continue;
      convertedCount++;
      if (!bytes.equals(decode(term) ?? Buffer.alloc(0))) throw new Error(`differs for ${term.toString('hex')}`);
    }
    expect(convertedCount).toBeGreaterThan(1_000);
  });
});

function nested(depth: number): Value {
  return depth === 0 ? int(1) : { arr: [nested(depth - 1)] };
}
