import { expect, test } from 'bun:test';
import { propertyLines } from './kafka/node/node.ts';
import { settingLines } from './postgres/server.ts';
import { shellWord } from './process/guardian.ts';

test('settingLines doubles quotes and backslashes', () => {
  expect(settingLines({ fsync: 'off', log_line_prefix: "it's \\ " })).toBe(
    "\nfsync = 'off'\nlog_line_prefix = 'it''s \\\\ '\n",
  );
});

test('propertyLines escapes backslashes and line ends', () => {
  expect(propertyLines({ a: '1', b: 'x\\y\nz' })).toBe('a=1\nb=x\\\\y\\nz\n');
});

test('shellWord keeps every byte', () => {
  const word = 'a b\'c$d`e"';
  expect(Bun.spawnSync(['sh', '-c', `printf %s ${shellWord(word)}`]).stdout.toString()).toBe(word);
});
