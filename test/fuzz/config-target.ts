/** Configuration files with careless or hostile edits. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig } from '../../src/config/load.ts';
import type { FuzzTarget } from './campaign.ts';
import { below, mutateText, pick } from './mutate.ts';

const EXAMPLE = readFileSync(join(import.meta.dirname, '../../config/cdc-notifier.example.yaml'), 'utf8');

/** The example, the example with all commented-out options enabled, and the example without comments. */
const SEEDS = [
  EXAMPLE,
  EXAMPLE.replace(/^( *)# ([\w]+: .*)$/gm, '$1$2'),
  EXAMPLE.replace(/ *#.*$/gm, '').replace(/\n{2,}/g, '\n'),
];

const DICTIONARY = [
  ...['&a', '*a', '<<: *a', '!!binary', '!!float 1', '? ', '- ', '{', '}', '[', ']', '"', "'", '|', '>', '---', '...'],
  ...[
    '%YAML 1.1',
    '\t',
    '\u0000',
    '\ufeff',
    '\ud800',
    '~',
    'null',
    'yes',
    '0123',
    '0x10',
    '1e400',
    '.inf',
    '-1',
    '65536',
  ],
  ...['__proto__', 'constructor', 'toString', 'databases', 'slots', 'streams', 'hosts', 'host', 'env', 'file', 'a/b'],
  ...['{env: HOME}', '{file: /nowhere}', '-----BEGIN', '[::1]:5432', ':5432', 'a:', '0/0', 'ж', '😀', 'x'.repeat(300)],
];

/** Aliases that grow exponentially with their lines, and nesting that overflows a call stack. */
const BOMBS = [
  `a: &a [x, x]\n${Array.from({ length: 40 }, (_, at) => `${'b'.repeat(at + 1)}: &${'b'.repeat(at + 1)} [*a, *a]`).join('\n')}`,
  ['a: &l0 [x]', ...Array.from({ length: 30 }, (_, at) => `k${at}: &l${at + 1} [*l${at}, *l${at}, *l${at}]`)].join(
    '\n',
  ),
  `databases: ${'['.repeat(5_000)}`,
  `databases: ${'{a: '.repeat(5_000)}`,
  Array.from({ length: 2_000 }, (_, depth) => `${' '.repeat(depth)}a:`).join('\n'),
];

/** Whole configuration files: the outcome is a configuration, or all its mistakes with their places. */
export function config(): FuzzTarget {
  const readFile = (path: string): Uint8Array => {
    throw Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' });
  };
  const environment = { HOME: '/root', PROGRESSOR_DB_PASSWORD: 'secret', KAFKA_PASSWORD: 'secret' };
  return {
    name: 'config',
    run(random) {
      const seed = random() < 0.002 ? pick(random, BOMBS) : pick(random, SEEDS);
      const text = mutateText(seed, random, DICTIONARY).slice(
        0,
        below(random, 20) === 0 ? below(random, seed.length) : undefined,
      );
      parseConfig(text, { fileName: 'config.yaml', environment, readFile });
      return 'configuration';
    },
  };
}
