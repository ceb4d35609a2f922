import { expect, test } from 'bun:test';
import { settingLines } from './server.ts';

test('settingLines doubles quotes and backslashes', () => {
  expect(settingLines({ fsync: 'off', log_line_prefix: "it's \\ " })).toBe(
    "\nfsync = 'off'\nlog_line_prefix = 'it''s \\\\ '\n",
  );
});
