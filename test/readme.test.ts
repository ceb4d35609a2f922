import { expect, test } from 'bun:test';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ConfigurationKey, describeConfiguration } from '../src/config/schema.ts';

const PROJECT = join(import.meta.dirname, '..');
const README = readFileSync(join(PROJECT, 'README.md'), 'utf8');

/** What stands between the marks of a generated part. */
function part(name: string): string {
  const found = new RegExp(`<!-- ${name} -->\n(.*?)<!-- /${name} -->`, 's').exec(README);
  if (found === null) throw new Error(`README.md has no part ${name}`);
  return found[1]!;
}

function row({ path, type, default: byDefault, unit, meaning }: ConfigurationKey): string {
  const cell = (text: string) => text.replaceAll('|', '\\|');
  return `| \`${path}\` | ${cell(type)}${unit === undefined ? '' : `, ${unit}`} | ${cell(byDefault)} | ${cell(meaning)} |`;
}

test('the configuration table of the README is what the schema says, key by key', () => {
  const table = ['| key | type, unit | default | meaning |', '|---|---|---|---|', ...describeConfiguration().map(row)];
  // To mend: put the expected text between the marks.
  expect(part('configuration').trim()).toBe(table.join('\n'));
});

test('every file that the README names exists', () => {
  const named = README.matchAll(/`((?:src|test|config|release)\/[\w./-]+)`|\]\(([\w./-]+)\)/g);
  const missing = [...named].map((match) => match[1] ?? match[2]!).filter((path) => !existsSync(join(PROJECT, path)));
  expect(missing).toEqual([]);
});

test('every make target that the README names exists', () => {
  const makefile = readFileSync(join(PROJECT, 'Makefile'), 'utf8');
  const named = new Set([...README.matchAll(/\bmake ([a-z][a-z0-9-]*)\b/g)].map((match) => match[1]!));
  named.delete('and'); // "make and git"
  const missing = [...named].filter((target) => !new RegExp(`^${target}:`, 'm').test(makefile));
  expect(missing).toEqual([]);
});

test('every test that a guarantee of the README names exists', () => {
  const rows = part('guarantees').trim().split('\n').slice(2);
  expect(rows.length).toBeGreaterThan(10);
  for (const row of rows) {
    const [, promise, proofs, needs] = row.split('|').map((cell) => cell.trim());
    expect([promise, needs]).not.toContain('');
    const files = proofs!.split('<br>').map((proof) => {
      const [, path, names] = /^`([^`]+)`: (.*)$/.exec(proof) ?? [];
      return { path: path ?? proof, names: [...(names ?? '').matchAll(/“([^”]+)”/g)].map(([, name]) => name!) };
    });
    for (const { path, names } of files) {
      const source = existsSync(join(PROJECT, path)) ? readFileSync(join(PROJECT, path), 'utf8') : '';
      const missing = names.filter((name) => !source.includes(name));
      expect({ promise, path, count: names.length > 0, missing }).toEqual({ promise, path, count: true, missing: [] });
    }
  }
});
