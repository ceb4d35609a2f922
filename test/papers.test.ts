/** What the papers say of the project is held against it, and the Russian ones against the English ones. */
import { describe, expect, test } from 'bun:test';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type ConfigurationKey, describeConfiguration } from '../src/config/schema.ts';

const PROJECT = join(import.meta.dirname, '..');
const TRANSLATED = ['README', 'OPERATIONS'];
const PAPERS = [...TRANSLATED.flatMap((name) => [`${name}.md`, `${name}.ru.md`]), 'CHANGELOG.md', 'SECURITY.md'];

function read(path: string): string {
  return readFileSync(join(PROJECT, path), 'utf8');
}

/** What stands between the marks of a generated part. */
function part(paper: string, name: string): string {
  const found = new RegExp(`<!-- ${name} -->\n(.*?)<!-- /${name} -->`, 's').exec(read(paper));
  if (found === null) throw new Error(`${paper} has no part ${name}`);
  return found[1]!.trim();
}

function row({ path, type, default: byDefault, unit, meaning }: ConfigurationKey): string {
  const cell = (text: string) => text.replaceAll('|', '\\|');
  return `| \`${path}\` | ${cell(type)}${unit === undefined ? '' : `, ${unit}`} | ${cell(byDefault)} | ${cell(meaning)} |`;
}

/** The cells of a table's rows, its head left out. */
function cells(table: string): string[][] {
  const rows = table.split('\n').slice(2);
  return rows.map((line) => line.replaceAll('\\|', '\u0000').split('|').slice(1, -1));
}

/** Blocks of code, without what is said in comments. */
function codeBlocks(paper: string): string[] {
  return [...read(paper).matchAll(/^ *```(\w*)\n(.*?)^ *```$/gms)].map(([, language, code]) => {
    if (language === '') return '';
    const comment = language === 'sql' ? /--.*$/gm : /#.*$/gm;
    return `${language}\n${code!
      .replace(comment, '')
      .replace(/'[^']* [^']*'/g, "'...'")
      .replace(/[^\S\n]+/g, ' ')
      .trim()}`;
  });
}

/** Headings without the code around them. */
function headings(paper: string): string[] {
  return [
    ...read(paper)
      .replace(/^ *```.*?^ *```$/gms, '')
      .matchAll(/^#+ .*$/gm),
  ].map(([heading]) => heading);
}

/** As the common renderers make them of headings. */
function anchors(paper: string): string[] {
  return headings(paper).map((heading) =>
    heading
      .replace(/^#+ /, '')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_\- ]/gu, '')
      .replaceAll(' ', '-'),
  );
}

test('the configuration table of the README is what the schema says, key by key', () => {
  const table = ['| key | type, unit | default | meaning |', '|---|---|---|---|', ...describeConfiguration().map(row)];
  // To mend: put the expected text between the marks.
  expect(part('README.md', 'configuration')).toBe(table.join('\n'));
});

test('every test that a guarantee of the README names exists', () => {
  const rows = part('README.md', 'guarantees').split('\n').slice(2);
  expect(rows.length).toBeGreaterThan(10);
  for (const row of rows) {
    const [, promise, proofs, needs] = row.split('|').map((cell) => cell.trim());
    expect([promise, needs]).not.toContain('');
    const files = proofs!.split('<br>').map((proof) => {
      const [, path, names] = /^`([^`]+)`: (.*)$/.exec(proof) ?? [];
      return { path: path ?? proof, names: [...(names ?? '').matchAll(/“([^”]+)”/g)].map(([, name]) => name!) };
    });
    for (const { path, names } of files) {
      const source = existsSync(join(PROJECT, path)) ? read(path) : '';
      const missing = names.filter((name) => !source.includes(name));
      expect({ promise, path, count: names.length > 0, missing }).toEqual({ promise, path, count: true, missing: [] });
    }
  }
});

describe.each(PAPERS)('%s', (paper) => {
  test('names files and headings that exist', () => {
    const text = read(paper);
    const files = [...text.matchAll(/`((?:src|test|config)\/[\w./-]+)`|\]\(([\w./-]+)(?:#[^)]*)?\)/g)]
      .map((match) => match[1] ?? match[2]!)
      .filter((path) => !existsSync(join(PROJECT, path)));
    const links = [...text.matchAll(/\]\(([\w.]*)#([^)]+)\)/g)]
      .filter(([, other, anchor]) => !anchors(other === '' ? paper : other!).includes(anchor!))
      .map(([link]) => link);
    expect({ files, links }).toEqual({ files: [], links: [] });
  });

  test('names make targets that exist', () => {
    const named = new Set(
      [...read(paper).matchAll(/`make ([a-z][a-z0-9-]*)|^make ([a-z][a-z0-9-]*)\b/gm)].map((m) => m[1] ?? m[2]!),
    );
    const missing = [...named].filter((target) => !new RegExp(`^${target}:`, 'm').test(read('Makefile')));
    expect(missing).toEqual([]);
  });
});

describe.each(TRANSLATED)('%s in Russian', (name) => {
  const [english, russian] = [`${name}.md`, `${name}.ru.md`] as const;

  test('has the structure of the English one', () => {
    const levels = (paper: string) => headings(paper).map((heading) => heading.indexOf(' '));
    expect(levels(russian)).toEqual(levels(english));
  });

  test('has its commands, statements and settings', () => {
    expect(codeBlocks(russian)).toEqual(codeBlocks(english));
  });

  test('has its tables, with the names in code letters', () => {
    const names = (paper: string) =>
      [...read(paper).matchAll(/^ *\|.*$/gm)].map(([line]) =>
        [...line.matchAll(/`[^`]+`/g)].map(([code]) => code).sort(),
      );
    expect(names(russian)).toEqual(names(english));
  });
});

test('the configuration table in Russian has the keys and defaults of the schema, with a meaning for each', () => {
  const columns = cells(part('README.ru.md', 'configuration'));
  const expected = cells(part('README.md', 'configuration'));
  expect(columns.map(([key, , byDefault]) => [key, byDefault])).toEqual(
    expected.map(([key, , byDefault]) => [key, byDefault]),
  );
  for (const [key, type, , meaning] of columns) expect([key, type!.trim(), meaning!.trim()]).not.toContain('');
});
