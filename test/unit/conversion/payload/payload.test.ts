import { describe, expect, test } from 'bun:test';
import { constants, deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import { ByteWriter } from '../../../../src/bytes/writer.ts';
import { MAX_NESTING_DEPTH } from '../../../../src/conversion/payload/nesting-limits.ts';
import { EventPayload, MAX_INFLATED_BYTES } from '../../../../src/conversion/payload/payload.ts';
import { MalformedError } from '../../../../src/errors.ts';
import {
  type AtomForm,
  compressTerm,
  type EtfOptions,
  encodePayload,
  encodeValue,
  int,
  randomValue,
  seededRandom,
  str,
  type Value,
} from '../../../support/codecs/etf.ts';
import { decodeValue } from '../../../support/codecs/thrift-reader.ts';

/** Converts a payload between other bytes; the output must follow what `out` held before. */
function convert(payload: Buffer): Buffer {
  const padded = Buffer.concat([Buffer.of(131, 104), payload, Buffer.of(106, 106)]);
  const out = new ByteWriter().i32(0x01020304);
  new EventPayload(padded, 2, padded.length - 2).writeTo(out);
  expect(out.bytes.readInt32BE(0)).toBe(0x01020304);
  return Buffer.from(out.view().subarray(4));
}

function failure(payload: Buffer): MalformedError {
  const out = new ByteWriter().u8(7);
  try {
    new EventPayload(payload, 0, payload.length).writeTo(out);
  } catch (error) {
    expect(error).toBeInstanceOf(MalformedError);
    expect((error as MalformedError).format).toBe('ETF');
    expect(out.toBuffer()).toEqual(Buffer.of(7));
    return error as MalformedError;
  }
  throw new Error(`accepted ${payload.toString('hex').slice(0, 100)}`);
}

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');
/** A payload of one variant: its name, and its contents in hexadecimal. */
const variant = (name: string, contents: string) =>
  Buffer.concat([Buffer.of(131, 104, 2, 119, name.length), Buffer.from(name), hex(contents)]);
const floatText = (text: string) => variant('flt', `63${Buffer.from(text.padEnd(31, '\0')).toString('hex')}`);
const flt = (value: number): Value => ({ flt: value });
const arr = (...values: Value[]): Value => ({ arr: values });
const obj = (...keys: Value[]): Value => ({ obj: keys.map((key) => [key, { nl: {} }] as const) });

const SAMPLES: readonly Value[] = [
  { nl: {} },
  { b: true },
  { b: false },
  ...[0n, 1n, 255n, 256n, -1n, -256n, 2n ** 31n - 1n, 2n ** 31n, -(2n ** 31n), -(2n ** 31n) - 1n].map(int),
  ...[2n ** 32n, -(2n ** 32n), 2n ** 53n + 1n, -(2n ** 53n) - 1n, 2n ** 63n - 1n, -(2n ** 63n), 1n - 2n ** 63n].map(
    int,
  ),
  ...[0, -0, 1.5, -1.5, 0.1, 5e-324, Number.MAX_VALUE, -1e-300, 123456789.125].map(flt),
  str(''),
  str('текст\0'),
  { bin: Buffer.from([0, 255, 254, 128]) },
  { str: Buffer.from([0xff, 0xfe]) },
  { bin: Buffer.alloc(100_000, 7) },
  { obj: [] },
  arr(),
  obj(str('a'), { bin: Buffer.from('a') }, int(1), flt(1), { b: true }, { nl: {} }, arr(), { obj: [] }),
  arr(arr(arr(int(1)), obj(str('x'))), str('tail')),
  { obj: [[obj(str('k')), arr(int(1), int(2))]] },
];

const FORMS: readonly (EtfOptions & { readonly compressed?: boolean })[] = [
  {},
  { compressed: true },
  ...(['atom', 'small', 'utf8', 'smallUtf8'] as const).map((atoms: AtomForm) => ({ atoms })),
  { tuples: 'large' },
  { integers: 'small-big' },
  { integers: 'large-big' },
  { floats: 'text' },
  { atoms: 'utf8', tuples: 'large', integers: 'large-big', floats: 'text', compressed: true },
];

describe('EventPayload', () => {
  test.each(FORMS.map((form) => [JSON.stringify(form), form] as const))(
    'converts every variant written with %s',
    (_, form) => {
      for (const value of SAMPLES) expect(decodeValue(convert(encodePayload(value, form)))).toEqual(value);
    },
  );

  test('writes these bytes for each variant', () => {
    const bytes = (value: Value) => convert(encodePayload(value)).toString('hex');
    expect(bytes({ nl: {} })).toBe('0c00010000');
    expect(bytes({ b: true })).toBe('0200020100');
    expect(bytes(int(-2))).toBe('0a0003fffffffffffffffe00');
    expect(bytes(flt(1.5))).toBe('0400043ff800000000000000');
    expect(bytes(str('ab'))).toBe('0b000500000002616200');
    expect(bytes({ bin: Buffer.of(1) })).toBe('0b0006000000010100');
    expect(bytes(obj(str('')))).toBe('0d00070c0c000000010b00050000000000' + '0c00010000' + '00');
    expect(bytes(arr({ b: false }))).toBe('0f00080c00000001' + '0200020000' + '00');
  });

  test('ignores bytes after the term, and after the zlib data', () => {
    for (const value of SAMPLES) {
      for (const form of [{}, { compressed: true }]) {
        const payload = Buffer.concat([encodePayload(value, form), Buffer.from([106, 0, 131, 255])]);
        expect(decodeValue(convert(payload))).toEqual(value);
      }
    }
  });

  test('joins a list and the list in its tail, as Erlang does', () => {
    const element = encodeValue(int(1)).toString('hex');
    const spliced = variant('arr', `6c00000001${element}6c00000002${element}${element}6c000000006a`);
    expect(decodeValue(convert(spliced))).toEqual(arr(int(1), int(1), int(1)));
    expect(decodeValue(convert(variant('arr', '6c000000006a')))).toEqual(arr());
  });

  test('accepts integers with redundant high zero bytes, within 64 bits', () => {
    expect(decodeValue(convert(variant('i', '6e0c00050000000000000000000000')))).toEqual(int(5));
    expect(decodeValue(convert(variant('i', '6e0901000000000000008000')))).toEqual(int(-(2n ** 63n)));
    expect(decodeValue(convert(variant('i', '6e0000')))).toEqual(int(0));
    expect(decodeValue(convert(variant('i', '6e020100 00')))).toEqual(int(0));
  });

  test.each([
    ['integer of 2^63', variant('i', '6e08000000000000000080'), 'integer does not fit 64 bits', 6],
    ['integer of -2^63 - 1', variant('i', '6e08010100000000000080'), 'integer does not fit 64 bits', 6],
    ['integer of 2^64', variant('i', '6e0900000000000000000001'), 'integer does not fit 64 bits', 6],
    ['integer of -2^64', variant('i', '6f0000000901000000000000000001'), 'integer does not fit 64 bits', 6],
    ['integer of 2^64 - 1', variant('i', '6e0800ffffffffffffffff'), 'integer does not fit 64 bits', 6],
    ['a sign of 2', variant('i', '6e010205'), 'sign 2 of an integer is neither 0 nor 1', 8],
    ['a float as an integer', variant('i', '463ff0000000000000'), 'integer expected, tag 70 met', 6],
    ['NaN', variant('flt', '467ff8000000000000'), 'float is not finite', 8],
    ['infinity', variant('flt', '467ff0000000000000'), 'float is not finite', 8],
    ['minus infinity', variant('flt', '46fff0000000000000'), 'float is not finite', 8],
    ['an integer as a float', variant('flt', '6101'), 'float expected, tag 97 met', 8],
    ['a list of characters as a text', variant('str', '6b000161'), 'binary expected, tag 107 met', 8],
    ['nil as a text', variant('str', '6a'), 'binary expected, tag 106 met', 8],
    ['a bitstring', variant('bin', '4d000000010320'), 'binary expected, tag 77 met', 8],
    ['STRING_EXT as a list', variant('arr', '6b000101'), 'list expected, tag 107 met', 8],
    ['an empty STRING_EXT as a list', variant('arr', '6b0000'), 'list expected, tag 107 met', 8],
    [
      'an improper list',
      variant('arr', '6c0000000168027701696101680277016961ff'),
      'improper list, its tail has tag 104',
      20,
    ],
    ['a list without elements and a tail', variant('arr', '6c000000006101'), 'improper list, its tail has tag 97', 13],
    ['a map as a list', variant('arr', '7400000000'), 'list expected, tag 116 met', 8],
    ['nil as a map', variant('obj', '6a'), 'map expected, tag 106 met', 8],
    ['an atom other than true and false', variant('b', '7705547275652e'), 'neither true nor false', 6],
    ['an upper-case True', variant('b', '770454727565'), 'neither true nor false', 6],
    ['undefined as a boolean', variant('b', '7709756e646566696e6564'), 'neither true nor false', 6],
    ['nil without its record', variant('nl', '77036e696c'), 'tuple expected, tag 119 met', 7],
    ['the record name alone', variant('nl', '770e6d675f6d73677061636b5f4e696c'), 'tuple expected, tag 119 met', 7],
    ['another record', variant('nl', '6801770e6d675f6d73677061636b5f4e696d'), 'nl is not a mg_msgpack_Nil', 9],
    ['a record of two', variant('nl', '6802770e6d675f6d73677061636b5f4e696c6101'), 'tuple of 1 expected, of 2 met', 7],
    ['a variant with a capital', variant('Str', '6d00000000'), 'unknown variant of Value', 1],
    ['a variant with an empty name', variant('', '6d00000000'), 'unknown variant of Value', 1],
    ['a variant with a zero byte before its name', variant('\0i', '6101'), 'unknown variant of Value', 1],
    ['a variant of four bytes', variant('strr', '6d00000000'), 'unknown variant of Value', 1],
    ['a variant that is not an atom', hex('83 6802 6d00000001 69 6101'), 'atom expected, tag 109 met', 3],
    ['a cached atom', hex('83 6802 5200 6101'), 'atom expected, tag 82 met', 3],
    ['a bare list', hex('83 6a'), 'tuple expected, tag 106 met', 1],
    ['a triple', hex('83 6803 770169 6101 6101'), 'tuple of 2 expected, of 3 met', 1],
    ['a large triple', hex('83 6900000003 770169 6101 6101'), 'tuple of 2 expected, of 3 met', 1],
    ['no bytes', hex(''), 'needs 1 more bytes, 0 left', 0],
    ['a version byte alone', hex('83'), 'needs 1 more bytes, 0 left', 1],
    ['version 130', hex('82 6802 770169 6101'), 'unknown version', 0],
    ['two version bytes', hex('83 83 6802 770169 6101'), 'tuple expected, tag 131 met', 1],
    ['a map of 4 billion', variant('obj', '74ffffffff'), '8589934590 values cannot fit the bytes left', 8],
    ['a list of 4 billion', variant('arr', '6cffffffff6a'), '4294967295 values cannot fit the bytes left', 8],
    ['a binary of 4 billion', variant('bin', '6dffffffff00'), 'needs 4294967295 more bytes, 1 left', 13],
    ['an integer of 4 billion bytes', variant('i', '6fffffffff0001'), 'needs 4294967295 more bytes, 1 left', 12],
  ])('refuses %s', (_, payload, detail, offset) => {
    expect(failure(payload)).toMatchObject({ detail, offset });
  });

  test.each([
    '1.5',
    '+1.50000000000000000000e+00',
    '-0.00000000000000000000e+00',
    '2.5E-3',
    '4.94065645841246544177e-324',
  ])('accepts the float text %p', (text) => {
    expect(decodeValue(convert(floatText(text)))).toEqual(flt(Number(text)));
  });

  test.each([
    '',
    '1',
    '1e5',
    '.5',
    '1.',
    '1.e3',
    '0x1.8p0',
    'inf',
    '-inf',
    'nan',
    ' 1.5',
    '1.5 ',
    '1.5x',
    '1,5',
    '1.5e',
    '1.5e+',
  ])('refuses the float text %p', (text) => {
    expect(failure(floatText(text)).detail).toBe('text is not a finite float');
  });

  test('refuses a float text that overflows, and one without its zero byte', () => {
    expect(failure(floatText('1.00000000000000000000e+999')).detail).toBe('text is not a finite float');
    expect(failure(floatText(`1.${'0'.repeat(29)}`)).detail).toBe('text is not a finite float');
  });

  test('refuses every truncation of every form of every variant', () => {
    for (const value of SAMPLES) {
      for (const form of FORMS) {
        const payload = encodePayload(value, form);
        const step = payload.length > 1000 ? 997 : 1;
        for (let length = 0; length < payload.length; length += step) failure(payload.subarray(0, length));
        failure(payload.subarray(0, -1));
      }
    }
  });
});

describe('EventPayload, compressed', () => {
  const term = encodeValue(arr(...SAMPLES));

  test.each([
    ['one byte more than there is', compressTerm(term, term.length + 1)],
    ['one byte less than there is', compressTerm(term, term.length - 1)],
    ['nothing', compressTerm(term, 0)],
    ['more than the limit', compressTerm(term, MAX_INFLATED_BYTES + 1)],
    ['4 GB', compressTerm(term, 0xffffffff)],
  ])('refuses a payload that declares %s', (_, payload) => {
    failure(payload);
  });

  test('refuses raw deflate, gzip, a dictionary, a damaged checksum and a compressed term within', () => {
    const wrap = (data: Buffer) => Buffer.concat([compressTerm(term).subarray(0, 6), data]);
    expect(decodeValue(convert(wrap(deflateSync(term))))).toEqual(arr(...SAMPLES));
    failure(wrap(deflateRawSync(term)));
    failure(wrap(gzipSync(term)));
    failure(wrap(deflateSync(term, { dictionary: Buffer.from('mg_msgpack_Nil') })));
    const damaged = wrap(deflateSync(term));
    damaged[damaged.length - 1]! ^= 1;
    failure(damaged);
    failure(wrap(Buffer.alloc(0)));
    const inner = compressTerm(term).subarray(1);
    expect(failure(compressTerm(inner)).detail).toBe('in the inflated term, tuple expected, tag 80 met');
    expect(failure(compressTerm(Buffer.concat([Buffer.of(131), term]))).detail).toContain('tag 131 met');
  });

  test('accepts any level and window of zlib', () => {
    for (const level of [0, 1, 9]) {
      for (const windowBits of [9, 15]) {
        const data = deflateSync(term, { level, windowBits, strategy: constants.Z_DEFAULT_STRATEGY });
        expect(decodeValue(convert(Buffer.concat([compressTerm(term).subarray(0, 6), data])))).toEqual(arr(...SAMPLES));
      }
    }
  });

  test('does not inflate a bomb past the size that it declares', () => {
    const bomb = deflateSync(Buffer.alloc(128 * 1024 * 1024), { level: 9 });
    const payload = Buffer.concat([Buffer.of(131, 80, 0, 0, 16, 0), bomb]);
    Bun.gc(true);
    const before = process.memoryUsage.rss();
    expect(failure(payload).detail).toContain('longer than the declared 4096 bytes');
    expect(process.memoryUsage.rss() - before).toBeLessThan(32 * 1024 * 1024);
  });
});

describe('EventPayload, nesting', () => {
  const OPEN_LIST = encodeValue(arr({ nl: {} })).subarray(0, 12);
  const LEAF = encodeValue(int(1));
  const lists = (depth: number) =>
    Buffer.concat([Buffer.of(131), ...Array(depth).fill(OPEN_LIST), LEAF, Buffer.alloc(depth, 106)]);

  test('accepts 100,000 nested lists, and refuses one more', () => {
    const written = convert(lists(MAX_NESTING_DEPTH));
    expect(written.length).toBe(MAX_NESTING_DEPTH * 9 + 12);
    expect(failure(lists(MAX_NESTING_DEPTH + 1)).detail).toBe('nested deeper than 100000 levels');
  });

  test('accepts 50,000 maps nested in values, and in keys', () => {
    const leaf = LEAF.toString('hex');
    const one = `68027703${Buffer.from('obj').toString('hex')}7400000001`;
    const depth = 50_000;
    const asValues = Buffer.from(`83${(one + leaf).repeat(depth)}${leaf}`, 'hex');
    const asKeys = Buffer.from(`83${one.repeat(depth)}${leaf}${leaf.repeat(depth)}`, 'hex');
    expect(convert(asValues).length).toBe(depth * 22 + 12);
    expect(convert(asKeys).length).toBe(depth * 22 + 12);
  });

  test('refuses nesting without end', () => {
    for (const depth of [1, 10, 10_000, 2_000_000]) {
      failure(Buffer.concat([Buffer.of(131), ...Array(depth).fill(OPEN_LIST)]));
      failure(Buffer.concat([Buffer.of(131), Buffer.alloc(depth * 2, Buffer.of(104, 2))]));
    }
  });
});

describe('EventPayload, repeated keys', () => {
  const accepts = (value: Value) => decodeValue(convert(encodePayload(value)));
  const filler = (count: number) => Array.from({ length: count }, (_, i) => str(`filler ${i}`));

  // Few keys are compared pair by pair, many by hash or Set.
  test.each([0, 15, 40])('refuses equal keys, with %d others between them', (others) => {
    const refuse = (left: Value, right: Value) => {
      const error = failure(encodePayload(obj(left, ...filler(others), right)));
      expect(error.detail).toBe('repeated key of a map');
    };
    const accept = (left: Value, right: Value) => {
      expect(accepts(obj(left, ...filler(others), right))).toEqual(obj(left, ...filler(others), right));
    };
    refuse(str('a'), str('a'));
    refuse(str(''), str(''));
    refuse({ nl: {} }, { nl: {} });
    refuse(flt(0), flt(-0));
    refuse(arr(flt(-0), int(1)), arr(flt(0), int(1)));
    refuse(obj(flt(-0)), obj(flt(0)));
    refuse(obj(str('x'), str('y')), obj(str('y'), str('x')));
    refuse(arr(obj(str('x'), flt(0)), obj()), arr(obj(flt(-0), str('x')), obj()));
    refuse(obj(obj(int(1), int(2)), str('z')), obj(str('z'), obj(int(2), int(1))));
    accept(str('a'), str('b'));
    accept(str('a'), { bin: Buffer.from('a') });
    accept(int(1), flt(1));
    accept(int(1), int(-1));
    accept(flt(1), flt(-1));
    accept(arr(flt(-0), int(1)), arr(flt(0), int(2)));
    accept(obj(str('x'), str('y')), obj(str('x'), str('z')));
    accept(
      {
        obj: [
          [str('x'), int(1)],
          [str('y'), int(2)],
        ],
      },
      {
        obj: [
          [str('y'), int(1)],
          [str('x'), int(2)],
        ],
      },
    );
  });

  test('treats one integer under two tags as one key', () => {
    const one = '680277016961' + '01';
    const alsoOne = '680277016962' + '00000001';
    const bigOne = '68027701696e' + '010001';
    const leaf = encodeValue({ nl: {} }).toString('hex');
    for (const other of [alsoOne, bigOne]) {
      expect(failure(variant('obj', `7400000002${one}${leaf}${other}${leaf}`)).detail).toBe('repeated key of a map');
    }
  });

  test('keeps -0.0 and the order of maps within keys as they came', () => {
    const value: Value = {
      obj: [
        [obj(str('y'), flt(-0), str('x')), flt(-0)],
        [obj(str('y'), flt(1), str('x')), int(1)],
      ],
    };
    expect(accepts(value)).toEqual(value);
  });

  test('compares keys within one map only', () => {
    const value: Value = {
      obj: [
        [str('a'), obj(str('a'), str('b'))],
        [str('b'), obj(str('a'), str('b'))],
      ],
    };
    expect(accepts(arr(value, value))).toEqual(arr(value, value));
    failure(
      encodePayload({
        obj: [
          [str('a'), obj(str('a'), str('b'))],
          [str('a'), obj(str('c'))],
        ],
      }),
    );
  });

  test('takes time in proportion to the size: 200,000 keys, and nested keys', () => {
    const many = Array.from({ length: 200_000 }, (_, i) => str(String(i).padStart(6, '0')));
    const leaf = encodeValue({ nl: {} });
    const manyPayload = (keys: Value[]) =>
      Buffer.concat([variant('obj', '74'), uint32(keys.length), ...keys.flatMap((key) => [encodeValue(key), leaf])]);
    convert(manyPayload(many));
    failure(manyPayload([...many.slice(0, -1), many[0]!]));

    // Each level has a map of two keys, one of which holds all deeper levels: 20,000 levels, over 1 MB.
    const depth = 20_000;
    const level = `68027703${Buffer.from('obj').toString('hex')}7400000002`;
    const rest = `${leaf.toString('hex')}${encodeValue(flt(-0)).toString('hex')}${leaf.toString('hex')}`;
    convert(Buffer.from(`83${level.repeat(depth)}${leaf.toString('hex')}${rest.repeat(depth)}`, 'hex'));
  });

  test('refuses compared keys that are nested too deep, without a stack overflow', () => {
    const depth = 5_000;
    const list = encodeValue(arr({ nl: {} }))
      .subarray(0, 12)
      .toString('hex');
    const deep = `${list.repeat(depth)}${encodeValue(flt(-0)).toString('hex')}${'6a'.repeat(depth)}`;
    const leaf = encodeValue({ nl: {} }).toString('hex');
    const payload = variant('obj', `7400000002${deep}${leaf}${deep}${leaf}`);
    expect(failure(payload).detail).toBe('key of a map is nested deeper than 256 levels');
  });
});

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

describe('EventPayload, random values', () => {
  test('converts 2,000 random values in random forms to what an independent reader reads', () => {
    const random = seededRandom(20_260_101);
    for (let run = 0; run < 2_000; run++) {
      const value = randomValue(random);
      const form = FORMS[Math.floor(random() * FORMS.length)]!;
      expect(decodeValue(convert(encodePayload(value, form)))).toEqual(value);
    }
  });

  test('agrees with the equality of terms on which keys repeat', () => {
    const random = seededRandom(7);
    const below = (limit: number) => Math.floor(random() * limit);
    const small = (depth: number): Value => {
      switch (below(depth > 0 ? 5 : 3)) {
        case 0:
          return int(below(2));
        case 1:
          return flt(random() < 0.5 ? 0 : -0);
        case 2:
          return { b: random() < 0.5 };
        case 3:
          return arr(...Array.from({ length: below(3) }, () => small(depth - 1)));
        default: {
          const keys = Array.from({ length: below(3) }, () => small(depth - 1));
          const distinct = keys.filter((key, i) => keys.findIndex((other) => equal(key, other)) === i);
          return { obj: distinct.map((key) => [key, small(depth - 1)] as const) };
        }
      }
    };
    let repeats = 0;
    for (let run = 0; run < 3_000; run++) {
      const keys = Array.from({ length: 2 + below(run % 3 === 0 ? 20 : 3) }, () => small(2));
      const value = obj(...keys);
      if (keys.some((key, i) => keys.findIndex((other) => equal(key, other)) !== i)) {
        repeats++;
        expect(failure(encodePayload(value)).detail).toBe('repeated key of a map');
      } else {
        expect(accepts(value)).toEqual(value);
      }
    }
    expect(repeats).toBeGreaterThan(300);
    expect(repeats).toBeLessThan(2_700);
  });

  const accepts = (value: Value) => decodeValue(convert(encodePayload(value)));
});

/** Erlang's `=:=` on terms of Values (OTP 25: zero has one value, maps have no order). */
function equal(left: Value, right: Value): boolean {
  if ('flt' in left) return 'flt' in right && left.flt === right.flt;
  if ('arr' in left) {
    return (
      'arr' in right && left.arr.length === right.arr.length && left.arr.every((each, i) => equal(each, right.arr[i]!))
    );
  }
  if ('obj' in left) {
    if (!('obj' in right) || left.obj.length !== right.obj.length) return false;
    return left.obj.every(([key, value]) =>
      right.obj.some(([other, entry]) => equal(key, other) && equal(value, entry)),
    );
  }
  return Bun.deepEquals(left, right);
}
