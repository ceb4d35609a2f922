/**
 * Holds the papers to the project and to each other: tables to the schema, links to files and headings, guarantees to
 * tests, Russian to English. Papers are found, not listed: every Markdown file of the folders below is one.
 */
import { describe, expect, test } from 'bun:test';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, normalize } from 'node:path';
import { Glob } from 'bun';
import packageJson from '../package.json' with { type: 'json' };
import { type ConfigurationKey, describeConfiguration } from '../src/config/schema.ts';
import supportPackageJson from './support/package.json' with { type: 'json' };

const PROJECT = join(import.meta.dirname, '..');

/** Of the service and its tools, and of the workspace with what demo and tests need besides. */
const PACKAGES = [packageJson, supportPackageJson];

/** In bytes; a paper that grows above it has to lose something to the paper next to it. */
const LARGEST: Readonly<Record<string, number>> = { 'README.md': 8 * 1024 };

const PAPERS = ['*.md', '.github/**/*.md', 'config/**/*.md', 'src/**/*.md', 'test/**/*.md']
  .flatMap((pattern) => [...new Glob(pattern).scanSync({ cwd: PROJECT, dot: true })])
  .sort();

/** What an operator reads is there in Russian too. */
const OPERATORS_PAPERS = PAPERS.filter(
  (paper) => /^(?:README|config\/README|config\/guide\/[^/]+)\.md$/.test(paper) && !paper.endsWith('.ru.md'),
);

const RUSSIAN_README = 'config/guide/README.ru.md';

/** Beside the English file, but for the top level's README: its Russian file lies with the other guides. */
function russianOf(english: string): string {
  return english === 'README.md' ? RUSSIAN_README : english.replace(/\.md$/, '.ru.md');
}

function englishOf(russian: string): string {
  return russian === RUSSIAN_README ? 'README.md' : russian.replace(/\.ru\.md$/, '.md');
}

const RUSSIAN_PAPERS = PAPERS.filter((paper) => paper.endsWith('.ru.md'));

function read(path: string): string {
  return readFileSync(join(PROJECT, path), 'utf8');
}

/** What lies between the marks of a part that other tests or programs read. */
function findPart(paper: string, name: string): string | undefined {
  return new RegExp(`<!-- ${name} -->\n(.*?)<!-- /${name} -->`, 's').exec(read(paper))?.[1]?.trim();
}

/** The papers that have such a part. */
function holdersOf(name: string): string[] {
  return PAPERS.filter((paper) => findPart(paper, name) !== undefined);
}

function part(paper: string, name: string): string {
  const found = findPart(paper, name);
  if (found === undefined) throw new Error(`${paper} has no part ${name}`);
  return found;
}

function row({ path, type, default: byDefault, unit, meaning }: ConfigurationKey): string {
  const cell = (text: string) => text.replaceAll('|', '\\|');
  return `| \`${path}\` | ${cell(type)}${unit === undefined ? '' : `, ${unit}`} | ${cell(byDefault)} | ${cell(meaning)} |`;
}

/** The cells of a table's rows, without its head. */
function cells(table: string): string[][] {
  const rows = table.split('\n').slice(2);
  return rows.map((line) => line.replaceAll('\\|', '\u0000').split('|').slice(1, -1));
}

const CODE_BLOCK = /^ *```(\w*)\n(.*?)^ *```$/gms;

/** Blocks of code, without their comments, which are translated. */
function codeBlocks(paper: string): string[] {
  return [...read(paper).matchAll(CODE_BLOCK)].map(([, language, code]) => {
    if (language === '') return '';
    const comment = language === 'sql' ? /--.*$/gm : /#.*$/gm;
    return `${language}\n${code!
      .replace(comment, '')
      .replace(/'[^']* [^']*'/g, "'...'")
      .replace(/[^\S\n]+/g, ' ')
      .trim()}`;
  });
}

function withoutCodeBlocks(paper: string): string {
  return read(paper).replace(CODE_BLOCK, '');
}

function headings(paper: string): string[] {
  return [...withoutCodeBlocks(paper).matchAll(/^#+ .*$/gm)].map(([heading]) => heading);
}

/** As GitHub makes them of headings, and those that are written out as `<a id="...">`. */
function anchors(paper: string): Set<string> {
  const found = new Set([...withoutCodeBlocks(paper).matchAll(/<a (?:id|name)="([^"]+)"/g)].map(([, id]) => id!));
  for (const heading of headings(paper)) {
    const plain = heading
      .replace(/^#+ /, '')
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_\- ]/gu, '')
      .replaceAll(' ', '-');
    let anchor = plain;
    for (let count = 1; found.has(anchor); count++) anchor = `${plain}-${count}`;
    found.add(anchor);
  }
  return found;
}

interface Link {
  /** As the paper spells it. */
  readonly target: string;
  /** From the project's directory; a folder stands for its README.md, as forges show it. */
  readonly path: string;
  readonly anchor: string | undefined;
}

/** Links to files of the project, inline and by reference; code is none. */
function linksOf(paper: string): Link[] {
  const text = withoutCodeBlocks(paper).replace(/`[^`\n]*`/g, (code) => code.replace(/[^`]/g, 'x'));
  const found = text.matchAll(/\]\(\s*<?([^\s)>]+)>?[^)]*\)|^\[[^\]]+\]: +(\S+)/gm);
  return Array.from(found, (match) => match[1] ?? match[2]!)
    .filter((target) => !/^[a-z][a-z+.-]*:/i.test(target))
    .map((target) => {
      const [file = '', anchor] = decodeURIComponent(target).split('#');
      const path = file === '' ? paper : normalize(join(dirname(paper), file)).replace(/\/$/, '');
      const readme = join(path, 'README.md');
      return { target, path: PAPERS.includes(readme) ? readme : path, anchor };
    });
}

function leadsSomewhere({ path, anchor }: Link): boolean {
  if (path.startsWith('..') || !existsSync(join(PROJECT, path))) return false;
  return anchor === undefined || (path.endsWith('.md') && anchors(path).has(anchor));
}

const SOURCE_NAMES = new Set(
  ['src/**/*', 'test/**/*.ts'].flatMap((pattern) =>
    [...new Glob(pattern).scanSync({ cwd: PROJECT })].map((path) => basename(path)),
  ),
);

/**
 * Files that are named in code letters: by their path from the project's directory or from the paper's own, and the
 * TypeScript files by their name alone.
 */
function missingFiles(paper: string): string[] {
  const named = [...read(paper).matchAll(/`((?:src|test|config|\.ci|\.github)\/[\w./-]*|[\w./-]+\.ts)`/g)];
  return named
    .map(([, path]) => path!)
    .filter((path) => {
      const candidates = [join(PROJECT, path), join(PROJECT, dirname(paper), path)];
      return !candidates.some(existsSync) && !SOURCE_NAMES.has(path);
    });
}

test('there is one configuration table, and it is what the schema says, key by key', () => {
  const holders = holdersOf('configuration').filter((paper) => !paper.endsWith('.ru.md'));
  expect(holders).toHaveLength(1);
  const table = ['| key | type, unit | default | meaning |', '|---|---|---|---|', ...describeConfiguration().map(row)];
  // To correct it: put the expected text between the marks.
  expect(part(holders[0]!, 'configuration')).toBe(table.join('\n'));
});

test.each(holdersOf('configuration').filter((paper) => paper.endsWith('.ru.md')))(
  'the configuration table of %s has the keys and defaults of the English one, with a meaning for each',
  (russian) => {
    const columns = cells(part(russian, 'configuration'));
    const expected = cells(part(englishOf(russian), 'configuration'));
    expect(columns.map(([key, , byDefault]) => [key, byDefault])).toEqual(
      expected.map(([key, , byDefault]) => [key, byDefault]),
    );
    for (const [key, type, , meaning] of columns) expect([key, type!.trim(), meaning!.trim()]).not.toContain('');
  },
);

test('every event that Monitoring names is logged', () => {
  const sources = [...new Glob('src/**/*.ts').scanSync({ cwd: PROJECT })].map(read).join('\n');
  const events = cells(part('config/guide/monitoring.md', 'events')).flatMap(([names]) =>
    [...names!.matchAll(/`(\w+)`/g)].map(([, event]) => event!),
  );
  expect(events.length).toBeGreaterThan(10);
  expect(events.filter((event) => !sources.includes(`event: '${event}'`))).toEqual([]);
});

test('every test that a guarantee names exists', () => {
  const holders = holdersOf('guarantees').filter((paper) => !paper.endsWith('.ru.md'));
  expect(holders).toHaveLength(1);
  const rows = part(holders[0]!, 'guarantees').split('\n').slice(2);
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
  test('links to files and headings that exist', () => {
    const broken = linksOf(paper).filter((link) => !leadsSomewhere(link));
    expect(broken.map(({ target }) => target)).toEqual([]);
  });

  test('names files that exist', () => {
    expect(missingFiles(paper)).toEqual([]);
  });

  test('names make targets that exist', () => {
    const named = new Set(
      [...read(paper).matchAll(/`make ([a-z][a-z0-9-]*)|^make ([a-z][a-z0-9-]*)\b/gm)].map((m) => m[1] ?? m[2]!),
    );
    const missing = [...named].filter((target) => !new RegExp(`^${target}:`, 'm').test(read('Makefile')));
    expect(missing).toEqual([]);
  });
});

test('every dependency has its line of reason, and no other package has one', () => {
  const rows = cells(part('src/README.md', 'dependencies'));
  const named = rows.flatMap(([names]) => [...names!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!));
  const needed = PACKAGES.flatMap(({ dependencies, devDependencies }) =>
    Object.keys({ ...dependencies, ...devDependencies }),
  );
  expect(named.sort()).toEqual(needed.sort());
  for (const [names, reason] of rows) expect([names, reason!.trim()]).not.toContain('');
});

test('every room of src is in the list of the design', () => {
  const files = [...new Glob('src/**/*.ts').scanSync({ cwd: PROJECT })];
  const rooms = new Set(files.map((path) => (dirname(path) === 'src' ? basename(path) : `${dirname(path).slice(4)}/`)));
  const [, list = ''] = /^## Rooms\n(.*?)^## /ms.exec(read('src/README.md')) ?? [];
  const named = new Set([...list.matchAll(/`([^`]+)`/g)].map(([, name]) => name!));
  // A room within a listed room needs no line of its own.
  const isListed = (room: string) =>
    [...named].some((name) => name === room || (name.endsWith('/') && room.startsWith(name)));
  expect([...rooms].filter((room) => !isListed(room))).toEqual([]);
  expect([...named].filter((name) => name.endsWith('/') && !existsSync(join(PROJECT, 'src', name)))).toEqual([]);
});

test('every paper is reached from README.md by links', () => {
  const reached = new Set<string>();
  const waiting = ['README.md'];
  for (let paper = waiting.pop(); paper !== undefined; paper = waiting.pop()) {
    if (reached.has(paper)) continue;
    reached.add(paper);
    waiting.push(...linksOf(paper).flatMap(({ path }) => (PAPERS.includes(path) ? [path] : [])));
  }
  expect(PAPERS.filter((paper) => !reached.has(paper))).toEqual([]);
});

test.each(Object.entries(LARGEST))('%s has at most %i bytes', (paper, largest) => {
  expect(statSync(join(PROJECT, paper)).size).toBeLessThanOrEqual(largest);
});

test('everything that operators read is there in Russian', () => {
  expect(OPERATORS_PAPERS.filter((paper) => !PAPERS.includes(russianOf(paper)))).toEqual([]);
});

describe.each(RUSSIAN_PAPERS)('%s', (russian) => {
  const english = englishOf(russian);

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
