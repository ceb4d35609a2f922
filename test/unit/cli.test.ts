import { describe, expect, test } from 'bun:test';
import { type Command, HELP_TEXT, parseArguments } from '../../src/cli.ts';
import { parseConfig } from '../../src/config/load.ts';
import { describeConfiguration } from '../../src/config/schema.ts';

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
  [[], { command: 'usage-error', message: 'The configuration file is missing' }],
  [[''], { command: 'usage-error', message: 'The configuration file is missing' }],
  [['--check'], { command: 'usage-error', message: 'The configuration file is missing' }],
  [['--import'], { command: 'usage-error', message: 'The configuration file is missing' }],
  [['--import', '--check', 'c'], { command: 'usage-error', message: '--check and --import exclude each other' }],
  [['a', 'b'], { command: 'usage-error', message: 'One configuration file is expected, not 2' }],
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

  test('shows a configuration that is complete', () => {
    const lines = HELP_TEXT.split('\n');
    const first = lines.indexOf('  databases:');
    const example = lines.slice(first, lines.indexOf('', first)).join('\n');
    const readFile = () => Buffer.from('password\n');
    expect(parseConfig(example, { fileName: 'help', environment: {}, readFile }).streams).toHaveLength(1);
  });

  test('names every key that has a default, with it', () => {
    const words = HELP_TEXT.replaceAll(/\s+/g, ' ');
    for (const { path, default: fallback } of describeConfiguration()) {
      const key = path.split('.').at(-1);
      if (/^`[\w-]+`$/.test(fallback) && !/\.(tls|log)\./.test(`.${path}`)) {
        expect(words).toContain(`${key} (${fallback.slice(1, -1)})`);
      }
    }
  });
});
