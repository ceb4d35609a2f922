import { describe, expect, test } from 'bun:test';
import { ByteWriter } from '../../../src/bytes/writer.ts';

describe('ByteWriter', () => {
  test('writes each integer size in big-endian order, signed and unsigned', () => {
    const out = new ByteWriter();
    out.u8(0xab).i16(-2).i16(0xfffe).u24(0x0b0001).i32(-3).i32(0xfffffffd).i64(-4n).i64(0x0102030405060708n).f64(1.5);
    expect(out.view().toString('hex')).toBe(
      'ab' +
        'fffe' +
        'fffe' +
        '0b0001' +
        'fffffffd' +
        'fffffffd' +
        'fffffffffffffffc' +
        '0102030405060708' +
        '3ff8000000000000',
    );
    expect(out.length).toBe(out.view().length);
  });

  test('i64 refuses what does not fit', () => {
    expect(() => new ByteWriter().i64(2n ** 63n)).toThrow(RangeError);
  });

  test('copy accepts any range of a Buffer or a Uint8Array, short or long', () => {
    for (const size of [0, 1, 23, 24, 25, 26, 100, 5000]) {
      const plain = Uint8Array.from({ length: size + 20 }, (_, i) => i * 7);
      for (const source of [plain, Buffer.from(plain)]) {
        for (const [start, end] of [
          [0, size],
          [3, size],
          [size, size + 20],
          [0, size + 20],
        ] as const) {
          if (start > end) continue;
          const out = new ByteWriter(16).u8(0xff).copy(source, start, end);
          expect(out.toBuffer()).toEqual(Buffer.from([0xff, ...plain.subarray(start, end)]));
        }
        expect(new ByteWriter().copy(source).toBuffer()).toEqual(Buffer.from(plain));
      }
    }
  });

  test('sized writes the length and the bytes', () => {
    expect(new ByteWriter().sized(Buffer.from('abc')).view().toString('hex')).toBe('00000003616263');
  });

  test('keeps its contents when it grows, at every alignment of the capacity', () => {
    const out = new ByteWriter(1);
    const expected: number[] = [];
    for (let i = 0; i < 5000; i++) {
      out.u8(i).i32(i);
      expected.push(i & 0xff, 0, 0, (i >> 8) & 0xff, i & 0xff);
    }
    expect(out.toBuffer()).toEqual(Buffer.from(expected));
  });

  test('reset forgets the contents and keeps the storage', () => {
    const out = new ByteWriter().copy(Buffer.alloc(1000));
    const storage = out.bytes;
    expect(out.reset().length).toBe(0);
    out.u8(1);
    expect(out.bytes).toBe(storage);
    expect(out.toBuffer()).toEqual(Buffer.of(1));
  });

  test('setI32 overwrites in place and changes nothing else', () => {
    const out = new ByteWriter().u8(9).i32(0).u8(9);
    out.setI32(1, -2);
    expect(out.view().toString('hex')).toBe('09fffffffe09');
  });

  test('view shares memory, toBuffer does not', () => {
    const out = new ByteWriter().i32(1);
    const view = out.view();
    const copy = out.toBuffer();
    out.setI32(0, 2);
    expect(view.readInt32BE()).toBe(2);
    expect(copy.readInt32BE()).toBe(1);
  });
});
