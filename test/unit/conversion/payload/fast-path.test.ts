/** The quick way gives what the careful way gives, or leaves it alone. */
import { describe, expect, test } from 'bun:test';
import { ByteReader } from '../../../../src/bytes/reader.ts';
import { ByteWriter } from '../../../../src/bytes/writer.ts';
import { writeCarefulValue } from '../../../../src/conversion/payload/decoder.ts';
import { writeUsualValue } from '../../../../src/conversion/payload/fast-path.ts';
import {
  type AtomForm,
  encodeValue,
  int,
  randomValue,
  seededRandom,
  str,
  type Value,
} from '../../../support/codecs/etf.ts';

/** Stands behind every term, as the next row does: without it the last value of a chunk would be left alone. */
const NEIGHBOUR = Buffer.alloc(64, 109);

/** Bytes of the quick way; undefined when it leaves the term alone. */
function usually(term: Buffer): Buffer | undefined {
  const out = new ByteWriter(16).i32(7);
  const isUsual = writeUsualValue(Buffer.concat([NEIGHBOUR, term, NEIGHBOUR]), 64, 64 + term.length, out);
  if (isUsual) return Buffer.from(out.view().subarray(4));
  expect(out.toBuffer()).toEqual(Buffer.from([0, 0, 0, 7]));
  return undefined;
}

/** Bytes of the careful way; undefined when it refuses the term. */
function carefully(term: Buffer): Buffer | undefined {
  const out = new ByteWriter(16);
  try {
    writeCarefulValue(new ByteReader('ETF', term), out);
    return out.toBuffer();
  } catch {
    return undefined;
  }
}

const FORMS: readonly AtomForm[] = ['smallUtf8', 'atom'];
const text = (length: number): Value => str('x'.repeat(length));
const obj = (...keys: Value[]): Value => ({ obj: keys.map((key) => [key, int(1)] as const) });

describe('writeUsualValue', () => {
  test.each<[string, Value]>([
    ['texts, short and long', { arr: [str(''), text(1), text(24), text(25), text(300), str('я')] }],
    ['bytes', { bin: Buffer.from([0, 255, 1]) }],
    ['small and large integers', { arr: [0n, 255n, 256n, -1n, 2n ** 31n, -(2n ** 31n) - 1n, 2n ** 55n].map(int) }],
    ['negative integers of seven bytes', { arr: [-(2n ** 32n), -(2n ** 55n), 1n - 2n ** 56n].map(int) }],
    ['truths, nothing, floats', { arr: [{ b: true }, { b: false }, { nl: {} }, { flt: 1.5 }, { flt: -0 }] }],
    ['nothing in containers', { arr: [{ arr: [] }, { obj: [] }] }],
    ['containers in each other', { obj: [[str('a'), { arr: [obj(str('b'), int(2)), { arr: [int(3)] }] }]] }],
    ['many keys', obj(...Array.from({ length: 200 }, (_, index) => str(`key ${index}`)))],
  ])('knows %s', (_, value) => {
    for (const atoms of FORMS) {
      const term = encodeValue(value, { atoms });
      expect(carefully(term)).toBeDefined();
      expect(usually(term)).toEqual(carefully(term)!);
    }
  });

  test.each<[string, Buffer]>([
    ['a key that is no text and no integer', encodeValue(obj({ b: true }))],
    ['a repeated key', encodeValue(obj(str('a'), str('b'), str('a')))],
    ['a repeated key among many', encodeValue(obj(...Array.from({ length: 100 }, (_, i) => str(`k${i % 99}`))))],
    ['an integer of eight bytes', encodeValue(int(2n ** 62n))],
    ['what is nested deeper than usual', encodeValue(nested(65))],
    ['an infinite float', Buffer.from('6802770366 6c7446 7ff0000000000000'.replaceAll(' ', ''), 'hex')],
    ['a name that is longer than it says', Buffer.from('68027703006e6c68', 'hex')],
    ['nothing at all', Buffer.alloc(0)],
  ])('leaves %s alone', (_, term) => {
    expect(usually(term)).toBeUndefined();
  });

  test.each<[string, Value]>([
    ['a container', { arr: [obj(str('key'), int(5)), { flt: 1 }, { b: false }, { nl: {} }, text(40)] }],
    ['an integer', int(-70_000n)],
    ['a big integer', int(2n ** 40n)],
    ['a float', { flt: 1 }],
    ['a truth', { b: true }],
    ['nothing', { nl: {} }],
    ['a text', text(40)],
  ])('leaves %s alone that is cut short, wherever, though other bytes stand behind it', (_, value) => {
    const term = encodeValue(value);
    expect(usually(term)).toBeDefined();
    for (let length = 0; length < term.length; length++) {
      const cut = Buffer.from(term.subarray(0, length));
      // As if the rest were there, but belonged to somebody else.
      const whole = Buffer.concat([term, NEIGHBOUR]);
      const out = new ByteWriter();
      expect([length, usually(cut), writeUsualValue(whole, 0, length, out)]).toEqual([length, undefined, false]);
    }
  });

  test('leaves the last value alone when the buffer ends with it', () => {
    const term = encodeValue(int(1));
    const out = new ByteWriter();
    expect([writeUsualValue(term, 0, term.length, out), out.length]).toEqual([false, 0]);
  });

  test('gives the bytes of the careful way for random values, and takes most of them', () => {
    const random = seededRandom(0x5eed);
    let usualCount = 0;
    for (let round = 0; round < 3_000; round++) {
      const term = encodeValue(randomValue(random));
      const bytes = usually(term);
      if (bytes === undefined) continue;
      usualCount++;
      expect(bytes).toEqual(carefully(term)!);
    }
    expect(usualCount).toBeGreaterThan(500);
  });

  test('takes nothing that the careful way refuses', () => {
    const random = seededRandom(0xbad);
    let takenCount = 0;
    for (let round = 0; round < 20_000; round++) {
      const term = Buffer.from(encodeValue(randomValue(random)));
      for (let change = 0; change < 2; change++) {
        if (term.length > 0) term[Math.floor(random() * term.length)] = Math.floor(random() * 256);
      }
      const bytes = usually(term);
      if (bytes === undefined) continue;
      takenCount++;
      if (!bytes.equals(carefully(term) ?? Buffer.alloc(0))) throw new Error(`differs for ${term.toString('hex')}`);
    }
    expect(takenCount).toBeGreaterThan(1_000);
  });
});

function nested(depth: number): Value {
  return depth === 0 ? int(1) : { arr: [nested(depth - 1)] };
}
