import { describe, expect, test } from 'bun:test';
import { ByteReader } from '../../../src/bytes/reader.ts';
import { MalformedError } from '../../../src/errors.ts';

const SIZES = { u8: 1, u16: 2, u32: 4, i32: 4, u64: 8, i64: 8, f64: 8 } as const;

describe('ByteReader', () => {
  test('reads each size in big-endian order, signed and unsigned', () => {
    const bytes = Buffer.from(`fefffe${'fffffffe'.repeat(2)}${'fffffffffffffffe'.repeat(2)}3ff8000000000000`, 'hex');
    const reader = new ByteReader('x', bytes);
    expect([reader.u8(), reader.u16(), reader.u32(), reader.i32()]).toEqual([0xfe, 0xfffe, 0xfffffffe, -2]);
    expect([reader.u64(), reader.i64(), reader.f64()]).toEqual([2n ** 64n - 2n, -2n, 1.5]);
    expect(reader.remaining).toBe(0);
  });

  test('never reads past its end, although the buffer continues, and leaves the offset unchanged', () => {
    for (const [method, size] of Object.entries(SIZES)) {
      const reader = new ByteReader('x', Buffer.alloc(32), 5, 5 + size - 1);
      expect(() => reader[method as keyof typeof SIZES]()).toThrow(MalformedError);
      expect(reader.offset).toBe(5);
    }
  });

  test('counts the offset of an error from the start of the message', () => {
    const reader = new ByteReader('pgoutput', Buffer.alloc(10), 4);
    reader.skip(3);
    try {
      reader.fail('bad news');
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(MalformedError);
      expect(error).toMatchObject({
        format: 'pgoutput',
        offset: 3,
        detail: 'bad news',
        message: 'Cannot decode pgoutput: bad news at offset 3',
      });
    }
  });

  test('bytes shares memory; it refuses more than is left, and negative lengths', () => {
    const buffer = Buffer.from([1, 2, 3, 4, 5]);
    const reader = new ByteReader('x', buffer, 1, 4);
    expect(() => reader.bytes(4)).toThrow(MalformedError);
    expect(() => reader.bytes(-1)).toThrow(MalformedError);
    expect(() => reader.skip(-1)).toThrow(MalformedError);
    const part = reader.bytes(3);
    expect(part).toEqual(Buffer.from([2, 3, 4]));
    buffer[1] = 9;
    expect(part[0]).toBe(9);
    expect(reader.bytes(0).length).toBe(0);
  });

  test('cstring reads UTF-8 up to the zero byte, which must lie within the message', () => {
    const bytes = Buffer.from('я\0\0ab\0');
    const reader = new ByteReader('x', bytes, 0, bytes.length - 1);
    expect([reader.cstring(), reader.cstring()]).toEqual(['я', '']);
    expect(() => reader.cstring()).toThrow(MalformedError);
    expect(reader.offset).toBe(4);
  });
});
