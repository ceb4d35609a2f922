import { expect, test } from 'bun:test';
import { shellWord } from './guardian.ts';

test('shellWord keeps every byte', () => {
  const word = 'a b\'c$d`e"';
  expect(Bun.spawnSync(['sh', '-c', `printf %s ${shellWord(word)}`]).stdout.toString()).toBe(word);
});
