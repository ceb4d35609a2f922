import { describe, expect, test } from 'bun:test';
import { FormatVersionReader } from '../../../src/conversion/format-version.ts';
import { InvalidRowError } from '../../../src/errors.ts';
import { seededRandom } from '../../support/codecs/etf.ts';

const reader = new FormatVersionReader();

/** Reads the text between bytes that would change the result if they were read. */
function read(text: string): number | undefined {
  const bytes = Buffer.from(`\x01${text}9}`);
  return reader.read(bytes, 1, bytes.length - 2);
}

const NOT_AN_INTEGER = 'format_version in column "metadata" is not an integer';
const TOO_LARGE = 'format_version in column "metadata" does not fit 32 bits';
const NOT_JSON = 'column "metadata" is not JSON';

describe('FormatVersionReader', () => {
  test.each([
    ['{"format_version": 1}', 1],
    ['{"a": 1, "format_version": 0}', 0],
    ['{"format_version": -5, "z": [1, {"format_version": 2}]}', -5],
    ['{"format_version": 2147483647}', 2147483647],
    ['{"format_version": -2147483648}', -2147483648],
    ['{"format_version": -0}', 0],
    ['{"a": {"format_version": 3}, "format_version": 7, "b": {"format_version": 4}}', 7],
    ['{"a": "\\"format_version\\": 3", "format_version": 8}', 8],
    ['{"a": "\\\\", "format_version": 9}', 9],
    ['{"a": ["}", "{", "]"], "format_version": 10}', 10],
    ['{"format\\u005fversion": 11}', 11],
    ['{"ключ": "значение", "format_version": 12}', 12],
    [' \n{\t"format_version"\r:\n13 } ', 13],
    ['{"a": {}, "b": [], "c": [[], {}], "d": -1.5e+10, "e": true, "f": false, "g": null, "format_version": 14}', 14],
  ])('finds the top-level key in %p', (text, version) => {
    expect(read(text)).toBe(version);
  });

  test.each([
    '{}',
    '{"format_version": null}',
    '{"format_versions": 1, "format_versio": 1, "format_versioN": 1, "format\\\\version": 1}',
    '{"a": {"format_version": 1}, "b": [{"format_version": "x"}]}',
    '{"a": "format_version"}',
    'null',
    'true',
    '1',
    '-1.5E-3',
    '"format_version"',
    '[]',
    '["format_version", 1]',
    '[{"format_version": 1}]',
    '[[{"format_version": 1.5}]]',
  ])('gives undefined for %p', (text) => {
    expect(read(text)).toBeUndefined();
  });

  test.each([
    ['{"format_version": "1"}', NOT_AN_INTEGER],
    ['{"format_version": 1.0}', NOT_AN_INTEGER],
    ['{"format_version": 1e3}', NOT_AN_INTEGER],
    ['{"format_version": 1E0}', NOT_AN_INTEGER],
    ['{"format_version": true}', NOT_AN_INTEGER],
    ['{"format_version": {}}', NOT_AN_INTEGER],
    ['{"format_version": [1]}', NOT_AN_INTEGER],
    ['{"format_version": 2147483648}', TOO_LARGE],
    ['{"format_version": -2147483649}', TOO_LARGE],
    [`{"format_version": 1${'0'.repeat(100_000)}}`, TOO_LARGE],
    ['{"format_version": 1, "format_version": 2}', 'column "metadata" has format_version twice'],
  ])('refuses the value in %p', (text, message) => {
    expect(() => read(text)).toThrow(expect.objectContaining({ name: 'InvalidRowError', message: message }));
  });

  test.each([
    '',
    ' ',
    '{',
    '}',
    '[',
    '{]',
    '[}',
    '[1,]',
    '[,1]',
    '{"a":1,}',
    '{,}',
    '{"a"}',
    '{"a":}',
    '{a:1}',
    '{"a":1 "b":2}',
    '{1:2}',
    '1 2',
    '{} {}',
    '01',
    '-',
    '1.',
    '.5',
    '1e',
    '+1',
    'nul',
    'nulll',
    'NaN',
    '"a',
    '"\\x"',
    '"\\u12g4"',
    '"\\u12',
    '"\\',
    '"\n"',
    '{"format_version": 1',
    '{"format_version": 1}}',
    '{"format_version": 01}',
    '{"format_version": -}',
    '{"format_version": nulll}',
  ])('refuses %p, which is not JSON', (text) => {
    expect(() => read(text)).toThrow(expect.objectContaining({ name: 'InvalidRowError', message: NOT_JSON }));
  });

  test('takes no call stack for nesting, and linear time', () => {
    const deep = `${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}`;
    expect(read(deep)).toBeUndefined();
    expect(read(`{"a": ${'{"a":'.repeat(500_000)}1${'}'.repeat(500_000)}, "format_version": 3}`)).toBe(3);
    expect(() => read('{"a":['.repeat(500_000))).toThrow(InvalidRowError);
    expect(() => read(`"${'\\u0041'.repeat(500_000)}`)).toThrow(InvalidRowError);
  });

  test('remembers the last text, and never takes another one for it', () => {
    for (const version of [1, 2, 1, 1]) expect(read(`{"format_version": ${version}}`)).toBe(version);
    expect(read('{"format_version": null}')).toBeUndefined();
    expect(read('{"format_versio_": 11}')).toBeUndefined();
    expect(read('{"format_version": 11}')).toBe(11);
    expect(() => read('{"format_version": 11')).toThrow(InvalidRowError);
    expect(() => read('{"format_version": 1.}')).toThrow(InvalidRowError);
    expect(read('{"format_version": 11}')).toBe(11);
    expect(() => read('{"format_version": 11} 1')).toThrow(InvalidRowError);
  });

  test('refuses every truncation of an object', () => {
    const text = '{"a": [1, {"b": "\\u0041"}], "format_version": 12, "c": -1.5e3, "d": null}';
    expect(read(text)).toBe(12);
    for (let length = 0; length < text.length; length++)
      expect(() => read(text.slice(0, length))).toThrow(InvalidRowError);
  });

  test('agrees with JSON.parse on which texts are JSON, under random mutation', () => {
    const random = seededRandom(1);
    const seeds = [
      '{"a": [1, {"b": "\\u0041\\n"}], "format_version": 12, "c": -1.5e3, "d": null}',
      '[{}, [], "x", 0.5]',
    ];
    const alphabet = '{}[]",:\\0123456789-+.eEtrufalsn ';
    for (let run = 0; run < 20_000; run++) {
      let text = seeds[run % 2]!;
      for (let edits = 1 + Math.floor(random() * 3); edits > 0; edits--) {
        const at = Math.floor(random() * text.length);
        const letter = alphabet[Math.floor(random() * alphabet.length)]!;
        text = text.slice(0, at) + (random() < 0.7 ? letter : '') + text.slice(at + (random() < 0.5 ? 1 : 0));
      }
      let parsed: unknown;
      let isJson = true;
      try {
        parsed = JSON.parse(text);
      } catch {
        isJson = false;
      }
      let result: number | undefined;
      let failure: unknown;
      try {
        result = read(text);
      } catch (error) {
        failure = error;
      }
      if (failure !== undefined) {
        expect(failure).toBeInstanceOf(InvalidRowError);
        // A wrong value of the key is refused before the rest of the text is read.
        if (isJson) expect((failure as Error).message).not.toBe(NOT_JSON);
      } else {
        expect({ text, isJson }).toEqual({ text, isJson: true });
        const value =
          parsed !== null && !Array.isArray(parsed) ? (parsed as { format_version?: unknown }).format_version : null;
        expect({ text, result: result ?? null }).toEqual({ text, result: (value ?? null) as number | null });
      }
    }
  });
});
