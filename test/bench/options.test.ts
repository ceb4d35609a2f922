import { expect, test } from 'bun:test';
import { MEASUREMENTS, readOptions } from './options.ts';

test('measures everything by default', () => {
  expect([...readOptions([]).only]).toEqual([...MEASUREMENTS]);
});

test('a quick run omits growth unless it is named', () => {
  expect([...readOptions(['--quick']).only]).toEqual(MEASUREMENTS.filter((name) => name !== 'growth'));
  expect([...readOptions(['--quick', '--only', 'growth']).only]).toEqual(['growth']);
});

test('the last of two equal options counts, because the Makefile sets one', () => {
  expect(readOptions(['--json', 'a.json', '--json', 'b.json']).jsonFile).toBe('b.json');
});

test('rejects an unknown measurement', () => {
  expect(() => readOptions(['--only', 'a,nothing'])).toThrow('There is no measurement "nothing"');
});
