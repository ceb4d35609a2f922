import { expect, test } from 'bun:test';
import { propertyLines } from './node.ts';

test('propertyLines escapes backslashes and line ends', () => {
  expect(propertyLines({ a: '1', b: 'x\\y\nz' })).toBe('a=1\nb=x\\\\y\\nz\n');
});
