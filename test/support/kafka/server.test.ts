import { expect, test } from 'bun:test';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PROJECT_DIRECTORY } from '../process/directories.ts';
import { KAFKA_VERSION, KAFKA_VERSIONS } from './server.ts';

test('the Makefile fetches the versions of Kafka that the tests and the demo use', async () => {
  const makefile = await readFile(join(PROJECT_DIRECTORY, 'Makefile'), 'utf8');
  const variable = (name: string) => new RegExp(`^${name} := (.*)$`, 'm').exec(makefile)?.[1];
  expect(variable('KAFKA_VERSIONS')?.split(' ')).toEqual([...KAFKA_VERSIONS]);
  expect(variable('DEMO_KAFKA_VERSION')).toBe(KAFKA_VERSION);
});
