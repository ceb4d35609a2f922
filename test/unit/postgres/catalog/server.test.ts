import { expect, test } from 'bun:test';
import { majorOf } from '../../../../src/postgres/catalog/server.ts';

test('majorOf cuts the minor version off', () => {
  expect([140_023, 170_010, 180_004].map(majorOf)).toEqual([14, 17, 18]);
});
