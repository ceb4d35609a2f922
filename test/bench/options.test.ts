import { expect, test } from 'bun:test';
import { MEASUREMENTS, readOptions } from './options.ts';

test('measures everything unless it is told otherwise', () => {
  expect([...readOptions([]).only]).toEqual([...MEASUREMENTS]);
});

test('a quick run leaves growth out unless it is named', () => {
  expect([...readOptions(['--quick']).only]).toEqual(MEASUREMENTS.filter((name) => name !== 'growth'));
  expect([...readOptions(['--quick', '--only', 'growth']).only]).toEqual(['growth']);
});

test('the last of two equal options counts: the Makefile has one already', () => {
  expect(readOptions(['--json', 'a.json', '--json', 'b.json']).jsonFile).toBe('b.json');
});

test('refuses a measurement that does not exist', () => {
  expect(() => readOptions(['--only', 'a,nothing'])).toThrow('There is no measurement "nothing"');
});
