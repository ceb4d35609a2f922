import { expect, test } from 'bun:test';
import { crc32c as libraryCrc32c } from '@platformatic/kafka';
import { crc32c } from '../../../src/bytes/crc32c.ts';
import { seededRandom } from '../../support/codecs/etf.ts';

const MIB = 1024 * 1024;

test('crc32c of the check value and of nothing', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe306_9283);
  expect(crc32c(Buffer.alloc(0))).toBe(0);
});

test.each([1, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 12_345, 5 * MIB - 1])(
  'crc32c of %d bytes is that of the whole',
  (length) => {
    const random = seededRandom(length);
    const bytes = Buffer.alloc(length, 0x5a);
    for (let at = 0; at < length; at += 1 + Math.floor(random() * 50)) bytes[at] = Math.floor(random() * 256);
    expect(crc32c(bytes)).toBe(libraryCrc32c(bytes));
  },
);
