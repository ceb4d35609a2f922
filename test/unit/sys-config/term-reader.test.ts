import { describe, expect, test } from 'bun:test';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Term, textOf } from '../../../src/sys-config/term.ts';
import { positionAt, readTerm, TermError } from '../../../src/sys-config/term-reader.ts';

const FIXTURES = join(import.meta.dirname, '../../fixtures/sys-config');
const FIXTURE_TEXTS = readdirSync(FIXTURES)
  .filter((name) => name.endsWith('.config'))
  .map((name) => readFileSync(join(FIXTURES, name), 'utf8'));

/** A term in words of its own, without places. */
function plain(term: Term): unknown {
  switch (term.kind) {
    case 'atom':
      return `'${term.name}'`;
    case 'integer':
    case 'float':
      return term.value;
    case 'string':
      return term.text;
    case 'binary':
      return new Uint8Array(term.bytes);
    case 'tuple':
      return { tuple: term.items.map(plain) };
    case 'list':
      return term.items.map(plain);
    case 'map':
      return { map: term.entries.map((pair) => pair.map(plain)) };
    case 'fun':
      return 'fun';
  }
}

const bytes = (...values: number[]) => Uint8Array.from(values);

describe('readTerm reads', () => {
  test.each<[text: string, value: unknown]>([
    ['ok', "'ok'"],
    ['default_kafka@host1', "'default_kafka@host1'"],
    ['égal', "'égal'"],
    ["'default/default'", "'default/default'"],
    ["'it\\'s \\\\ here'", "'it's \\ here'"],
    ["''", "''"],
    ["'строка'", "'строка'"],
    ['0', 0n],
    ['5432', 5432n],
    ['-7', -7n],
    ['+7', 7n],
    ['- 7', -7n],
    ['1_000_000', 1_000_000n],
    ['16#ff', 255n],
    ['16#FF_FF', 65_535n],
    ['-2#101', -5n],
    ['36#Zz', 1295n],
    ['9223372036854775808', 9_223_372_036_854_775_808n],
    ['1.5', 1.5],
    ['-0.25', -0.25],
    ['1.0e3', 1000],
    ['1_0.0E-1', 1],
    ['$a', 97n],
    ['$ ', 32n],
    ['$%', 37n],
    ['$\\n', 10n],
    ['$\\\\', 92n],
    ['$\\s', 32n],
    ['$ж', 0x436n],
    ['${', 123n],
    ['""', ''],
    ['"a%b"', 'a%b'],
    ['"two\nlines"', 'two\nlines'],
    ['"one" "two"\n%\n"three"', 'onetwothree'],
    ['"\\b\\d\\e\\f\\n\\r\\s\\t\\v\\"\\\'\\q"', '\b\x7f\x1b\f\n\r \t\v"\'q'],
    ['"\\0\\101\\x41\\x{1F600}\\^a"', '\0AA😀\u0001'],
    ['"пароль 😀"', 'пароль 😀'],
    ['<<>>', bytes()],
    ['<<"abc">>', bytes(97, 98, 99)],
    ['<<"é">>', bytes(0xe9)],
    ['<<"é"/utf8>>', bytes(0xc3, 0xa9)],
    ['<<"ж">>', bytes(0x36)],
    ['<<"😀"/utf8>>', bytes(0xf0, 0x9f, 0x98, 0x80)],
    ['<<"a" "b", 0, 255, 16#41, $z, -1, 256>>', bytes(97, 98, 0, 255, 65, 122, 255, 0)],
    ['{}', { tuple: [] }],
    ['{a}', { tuple: ["'a'"] }],
    ['{a,"b",{c}}', { tuple: ["'a'", 'b', { tuple: ["'c'"] }] }],
    ['[]', []],
    ['[1,2 , 3]', [1n, 2n, 3n]],
    ['#{}', { map: [] }],
    [
      '#{a=>1,"b" => #{<<"c">> => []}}',
      {
        map: [
          ["'a'", 1n],
          ['b', { map: [[bytes(99), []]] }],
        ],
      },
    ],
    [
      '#{a => 1, a => 2}',
      {
        map: [
          ["'a'", 1n],
          ["'a'", 2n],
        ],
      },
    ],
    ["fun 'my mod':f/2", 'fun'],
    ['[fun lists:map/2]', ['fun']],
    ['funny', "'funny'"],
    ['\x24{PG_PORT}', '\x24{PG_PORT}'],
    ['\x24{PG_PORT:-5432}', '\x24{PG_PORT:-5432}'],
    ['%% comment\n\t a %\n', "'a'"],
    ['\uFEFFa', "'a'"],
  ])('%j', (text, value) => {
    expect(plain(readTerm(`${text}.`))).toEqual(value);
    expect(plain(readTerm(` ${text} . % end\n%\n`))).toEqual(value);
  });

  test('the offset of each term', () => {
    const text = '[a,\n  {"b", <<"c">>},\r\n\t#{d => -1}].\n';
    const term = readTerm(text);
    const offsets = term.kind === 'list' ? term.items.map(({ offset }) => positionAt(text, offset)) : [];
    expect(offsets).toEqual([
      { line: 1, column: 2 },
      { line: 2, column: 3 },
      { line: 3, column: 2 },
    ]);
  });

  test('as many levels as any configuration has, and no more', () => {
    const nested = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}.`;
    expect(readTerm(nested(100)).kind).toBe('list');
    for (const open of ['[', '{', '#{a=>', '#{', '<<', '[{<<']) {
      expect(() => readTerm(open.repeat(200_000))).toThrow(TermError);
    }
    expect(() => readTerm(nested(100_000))).toThrow('terms are nested too deeply at line 1, column 130');
  });
});

describe('readTerm refuses', () => {
  test.each<[text: string, place: string, detail: string]>([
    ['', '1:1', 'a term is missing at the end of the text'],
    [' % only\n', '2:1', 'a term is missing at the end of the text'],
    ['a', '1:2', 'the full stop after the term is missing'],
    ['[a]\n', '2:1', 'the full stop after the term is missing'],
    ['a.b', '1:3', 'the full stop after the term is missing'],
    ['a.\nb.', '2:1', 'a second term begins here'],
    ['[a,]. ', '1:4', 'a term is missing'],
    ['[a\n b].', '2:2', 'a comma or ] is missing'],
    ['{a]. ', '1:3', 'a comma or } is missing'],
    ['[a|b].', '1:3', 'lists with | are not supported'],
    ['#{a => 1, b}.', '1:12', '=> is missing after the key of a map'],
    ['#{a := 1}.', '1:5', '=> is missing after the key of a map'],
    ['#record{a = 1}.', '1:1', 'records are not supported, maps begin with #{'],
    ['Variable.', '1:1', 'variables are not supported; an atom that begins like this needs quotes'],
    ['[_].', '1:2', 'variables are not supported; an atom that begins like this needs quotes'],
    ['fun() -> ok end.', '1:1', 'only functions of the form fun module:name/arity are supported'],
    ['~"sigil".', '1:1', 'sigils are not supported; write "..." or <<"...">>'],
    ['"""\ntext\n""".', '1:1', 'triple-quoted strings are not supported; write "..."'],
    ['\n "Secret', '2:2', 'the end of a string that begins here is missing'],
    ["'Secret", '1:1', 'the end of a quoted atom that begins here is missing'],
    ['"\\x4"', '1:3', 'this escape sequence is malformed'],
    ['"\\x{D800}"', '1:2', 'this is not the number of a character'],
    ['"\\x{110000}"', '1:2', 'this is not the number of a character'],
    ['$', '1:2', 'a character is missing'],
    ['-a.', '1:2', 'a number is missing after its sign'],
    ['37#1.', '1:1', 'these are not digits of this base (2 to 36)'],
    ['1#0.', '1:1', 'these are not digits of this base (2 to 36)'],
    ['2#12.', '1:1', 'these are not digits of this base (2 to 36)'],
    [`${'9'.repeat(101)}.`, '1:1', 'this number is too long'],
    ['12abc.', '1:3', 'the full stop after the term is missing'],
    ['<<"a":16>>.', '1:6', 'sizes and types other than "..."/utf8 are not supported'],
    ['<<"a"/utf16>>.', '1:6', 'sizes and types other than "..."/utf8 are not supported'],
    ['<<1/float>>.', '1:4', 'sizes and types other than "..."/utf8 are not supported'],
    ['<<a>>.', '1:3', 'only binaries of text and bytes are supported'],
    ['<<1 2>>.', '1:5', 'a comma or >> is missing'],
    ['1 + 1.', '1:3', 'the full stop after the term is missing'],
    ['?MACRO.', '1:1', 'a term is missing'],
  ])('%j', (text, place, detail) => {
    let thrown: unknown;
    try {
      readTerm(text);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(TermError);
    const error = thrown as TermError;
    expect([`${error.line}:${error.column}`, error.detail]).toEqual([place, detail]);
    expect(error.message).not.toContain('Secret');
  });

  test('every truncation of every fixture', () => {
    for (const text of FIXTURE_TEXTS) {
      const whole = text.trimEnd();
      for (let length = 0; length < whole.length; length++) {
        expect(() => readTerm(whole.slice(0, length))).toThrow(TermError);
      }
    }
  });

  test('a randomly edited text, or reads it, in bounded time', () => {
    const pieces = [
      '{',
      '}',
      '[',
      ']',
      '<<',
      '>>',
      '"',
      "'",
      '$',
      '\\',
      '%',
      '#{',
      '=>',
      ',',
      '.',
      '16#',
      '1.0e',
      'fun ',
    ];
    let seed = 42;
    const below = (limit: number) => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((seed / 2 ** 32) * limit);
    };
    for (let round = 0; round < 3000; round++) {
      const text = FIXTURE_TEXTS[below(FIXTURE_TEXTS.length)] ?? '';
      const [from, length] = [below(text.length), below(4)];
      const edited = text.slice(0, from) + pieces[below(pieces.length)] + text.slice(from + length);
      try {
        readTerm(edited);
      } catch (error) {
        expect(error).toBeInstanceOf(TermError);
      }
    }
  });
});

describe('textOf', () => {
  test.each<[text: string, value: string | undefined]>([
    ['name', 'name'],
    ['"text"', 'text'],
    ['<<"text">>', 'text'],
    ['<<"é">>', undefined],
    ['<<"é"/utf8>>', 'é'],
    ['[$a, 98, 16#436]', 'abж'],
    ['[]', ''],
    ['[16#D800]', undefined],
    ['[-1]', undefined],
    ['["a"]', undefined],
    ['1', undefined],
    ['{a}', undefined],
  ])('of %s', (text, value) => {
    expect(textOf(readTerm(`${text}.`))).toBe(value);
  });
});
