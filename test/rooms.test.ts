/**
 * The rooms of src and their one direction, read from the imports: a room imports only rooms to its left. The order is
 * that of src/README.md, "Rooms".
 */
import { describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { Glob } from 'bun';

const PROJECT = join(import.meta.dirname, '..');

/** From left to right; a file of src itself is a room of its own, named without its ending. */
const ROOMS = [
  'errors',
  'lsn',
  'deadline',
  'bytes',
  'progressor',
  'config',
  'log',
  'credentials',
  'postgres/client',
  'failure-policy',
  'postgres/replication',
  'postgres/catalog',
  'postgres/hazards',
  'postgres/continuity',
  'postgres/setup',
  'postgres/availability',
  'kafka/client',
  'kafka/produce',
  'kafka/read',
  'kafka/fence',
  'kafka/inspect',
  'conversion/thrift',
  'conversion/payload',
  'conversion',
  'records',
  'status',
  'flow',
  'slot',
  'audit',
  'trace',
  'resend',
  'shadow',
  'sys-config',
  'commands',
  'service',
  'cli',
  'main',
];

/** Run by make, never part of the program: it may import what it likes, and nothing of the program imports it. */
const APART = /^build(\/|$)/;

const LARGEST_ROOM = 13;

interface Import {
  readonly from: string;
  readonly to: string;
}

function sources(pattern: string): string[] {
  return [...new Glob(pattern).scanSync({ cwd: PROJECT })].filter((path) => !path.includes('/fixtures/')).sort();
}

/** Relative imports of a file, as paths from the project's directory; type imports count like all others. */
function importsOf(path: string): Import[] {
  const text = readFileSync(join(PROJECT, path), 'utf8');
  const found = text.matchAll(
    /^(?:import|export)\b[^;]*?from '(\.[^']+)'|^import '(\.[^']+)'|\bimport\('(\.[^']+)'\)/gms,
  );
  return Array.from(found, (match) => {
    const target = resolve(PROJECT, dirname(path), (match[1] ?? match[2] ?? match[3])!);
    return { from: path, to: relative(PROJECT, target) };
  });
}

/** `src/postgres/client/connect.ts` is in `postgres/client`, `src/lsn.ts` in `lsn`. */
function roomOf(path: string): string {
  const folder = relative('src', dirname(path));
  return folder === '' ? basename(path, '.ts') : folder;
}

const IMPORTS = sources('src/**/*.ts')
  .flatMap(importsOf)
  .filter(({ to }) => to.startsWith('src/'));

describe('the rooms of src', () => {
  test('are all in the list', () => {
    const rooms = new Set(sources('src/**/*.ts').map(roomOf));
    expect([...rooms].filter((room) => !ROOMS.includes(room) && !APART.test(room))).toEqual([]);
  });

  test('import only rooms to their left', () => {
    const wrong = IMPORTS.filter(({ from, to }) => {
      const [importer, imported] = [roomOf(from), roomOf(to)];
      if (importer === imported || APART.test(importer)) return false;
      return APART.test(imported) || ROOMS.indexOf(imported) > ROOMS.indexOf(importer);
    });
    expect(wrong.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
  });

  test(`hold at most ${LARGEST_ROOM} files each, like those of test`, () => {
    const files = [...sources('src/**/*'), ...sources('test/**/*.ts')];
    const counts = Map.groupBy(files, dirname);
    const full = [...counts].filter(([folder, { length }]) => folder !== 'src' && length > LARGEST_ROOM);
    expect(full.map(([folder, { length }]) => `${folder}: ${length}`)).toEqual([]);
  });
});

/** What only some rooms may send to a server, by how it is written in the sources. */
const RESERVED: readonly { readonly what: string; readonly pattern: RegExp; readonly allowed: RegExp }[] = [
  {
    what: 'DDL',
    pattern: /\b(?:CREATE|ALTER|DROP|COMMENT ON) (?:PUBLICATION|TABLE|ROLE|INDEX|UNIQUE INDEX)\b|\bLOCK TABLE\b/,
    allowed: /^src\/postgres\/(?:setup\/|continuity\/ledger\.ts)/,
  },
  {
    what: 'functions that create, copy, move or drop slots',
    pattern:
      /pg_(?:create_logical|copy_logical|drop)_replication_slot|pg_replication_slot_advance|ALTER_REPLICATION_SLOT/,
    allowed: /^src\/postgres\/setup\//,
  },
  {
    what: 'commands of a walsender',
    pattern: /START_REPLICATION (?:SLOT)|IDENTIFY_SYSTEM'|encodeStandbyStatusUpdate\(/,
    allowed: /^src\/postgres\/replication\//,
  },
];

describe('what changes something on a server', () => {
  test.each(RESERVED)('$what: only where it belongs', ({ pattern, allowed }) => {
    const users = sources('src/**/*.ts').filter((path) => {
      // Comments and the advice of errors may name a statement; code that sends one holds it in a string of its own.
      const code = readFileSync(join(PROJECT, path), 'utf8').replace(/\/\*\*?.*?\*\/|\/\/.*$/gms, '');
      return pattern.test(code);
    });
    expect(users.filter((path) => !allowed.test(path))).toEqual([]);
  });

  test('the catalog is only read: it runs no statement but SELECT', () => {
    const writing = sources('src/postgres/catalog/*.ts').filter((path) =>
      /\.unsafe\(|runTransaction|`\s*(?:INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|SET|DO|COMMENT|LOCK)\b/.test(
        readFileSync(join(PROJECT, path), 'utf8'),
      ),
    );
    expect(writing).toEqual([]);
  });
});

/** Calls in a source, from the parenthesis on: what follows decides about the first argument. */
function callsOf(source: string, callee: RegExp): string[] {
  return Array.from(source.matchAll(callee), ({ index, 0: call }) => source.slice(index + call.length, index + 400));
}

describe('what operators search for', () => {
  test('every log line begins with its event', () => {
    const nameless = sources('src/**/*.ts').flatMap((path) => {
      const source = readFileSync(join(PROJECT, path), 'utf8');
      return callsOf(source, /\blog\??\.(?:info|warn|error|fatal)\(\s*/g)
        .filter((call) => {
          const name = /^(\w+),/.exec(call)?.[1];
          const named = name === undefined ? undefined : new RegExp(`const ${name} = \\{\\s*event: '`);
          return !/^\{\s*event: '[a-z0-9_]+'/.test(call) && named?.test(source) !== true;
        })
        .map((call) => `${path}: ${call.slice(0, 60)}`);
    });
    expect(nameless).toEqual([]);
  });

  test('codes of errors and events of the log are in snake case', () => {
    // Raises an error of the Kafka library, under the library's own code.
    const ours = sources('src/**/*.ts').filter((path) => !path.endsWith('/library-patches.ts'));
    const names = ours.flatMap((path) =>
      Array.from(
        readFileSync(join(PROJECT, path), 'utf8').matchAll(/\b(?:code|event): '([^']+)'/g),
        ([, name]) => name!,
      ),
    );
    expect(names.length).toBeGreaterThan(100);
    expect(names.filter((name) => !/^[a-z0-9]+(?:_[a-z0-9]+)*$/.test(name))).toEqual([]);
  });
});

describe('the tests', () => {
  test('of test/unit mirror src: a file has the name of what it tests, or that name and an aspect', () => {
    const missing = sources('test/unit/**/*.ts').filter((path) => {
      const [name] = basename(path).split('.');
      const folder = relative('test/unit', dirname(path));
      return sources(`src/${folder === '' ? '' : `${folder}/`}${name}.ts`).length === 0;
    });
    expect(missing).toEqual([]);
  });

  test('of a suite import src and support, never another suite', () => {
    const suiteOf = (path: string) => /^test\/([^/]+)\//.exec(path)?.[1] ?? '';
    const wrong = sources('test/**/*.ts')
      .flatMap(importsOf)
      .filter(({ from, to }) => {
        const suite = suiteOf(from);
        if (!to.startsWith('test/') || suite === '') return false;
        const imported = suiteOf(to);
        return imported !== suite && imported !== 'support';
      });
    expect(wrong.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
  });
});
