import { describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { type Command, HELP_TEXT, parseArguments } from '../../src/cli.ts';

test.each<[args: string[], command: Command]>([
  [['c.yaml'], { command: 'run', configPath: 'c.yaml' }],
  [['--', '--check'], { command: 'run', configPath: '--check' }],
  [['--check', 'c.yaml'], { command: 'check', configPath: 'c.yaml' }],
  [['c.yaml', '--check'], { command: 'check', configPath: 'c.yaml' }],
  [['--import', 'sys.config'], { command: 'import', configPath: 'sys.config' }],
  [['--import', '--help'], { command: 'help' }],
  [['--help'], { command: 'help' }],
  [['-h'], { command: 'help' }],
  [['--check', '--help'], { command: 'help' }],
  [['--version'], { command: 'version' }],
  [['-V'], { command: 'version' }],
  [['--reference'], { command: 'reference' }],
  [[], { command: 'usage-error', message: 'The configuration file is missing' }],
  [[''], { command: 'usage-error', message: 'The configuration file is missing' }],
  [['--check'], { command: 'usage-error', message: 'The configuration file is missing' }],
  [['--import'], { command: 'usage-error', message: 'The configuration file is missing' }],
  [['--import', '--check', 'c'], { command: 'usage-error', message: '--check and --import cannot be combined' }],
  [['a', 'b'], { command: 'usage-error', message: 'Expected one configuration file, got 2' }],
])('parseArguments of %p', (args, command) => {
  expect(parseArguments(args)).toEqual(command);
});

test.each([['--verbose'], ['-x'], ['--check=c.yaml'], ['--help=1']])('parseArguments refuses %s', (option) => {
  const command = parseArguments([option, 'c.yaml']);
  expect(command.command).toBe('usage-error');
  expect(command.command === 'usage-error' && command.message).toContain(option.split('=')[0] ?? '');
});

describe('HELP_TEXT', () => {
  test('fits a terminal', () => {
    expect(HELP_TEXT.split('\n').filter((line) => line.length > 80)).toEqual([]);
  });

  test('shows the minimal configuration', () => {
    const lines = HELP_TEXT.split('\n');
    const first = lines.indexOf('  databases:');
    const shown = parse(lines.slice(first, lines.indexOf('', first)).join('\n'));
    const minimal = readFileSync(join(import.meta.dirname, '../../config/minimal.yaml'), 'utf8');
    expect(shown).toEqual(parse(minimal));
  });

  test('names the exit codes and where the reference is', () => {
    expect(HELP_TEXT).toMatch(/\n {2}0 .*\n(?: {4}.*\n)* {2}1 .*\n(?: {4}.*\n)* {2}2 .*\n(?: {4}.*\n)* {2}3 /);
    expect(HELP_TEXT).toContain('Full reference: config/cdc-notifier.example.yaml\n');
  });
});
