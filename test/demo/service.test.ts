import { expect, test } from 'bun:test';
import { readLogLine } from './service.ts';

test.each([
  ['{"level":"info","msg":"streaming"}', 'other', 'streaming'],
  ['{"level":"warn","msg":"slow"}', 'warn', 'slow'],
  ['{"level":"error","msg":"cannot","error":{"message":"why"}}', 'error', 'cannot: why'],
  ['{"level":"fatal","msg":"cannot"}', 'error', 'cannot'],
  ['{"level":40,"msg":"slow"}', 'warn', 'slow'],
  ['{"level":50,"msg":"bad"}', 'error', 'bad'],
  ['{"level":30,"msg":"fine"}', 'other', 'fine'],
  ['panic: out of memory', 'error', 'panic: out of memory'],
  ['', 'other', ''],
])('readLogLine %p', (line, level, text) => {
  expect(readLogLine(line)).toEqual({ level: level as 'warn', text });
});
