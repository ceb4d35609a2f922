import { describe, expect, test } from 'bun:test';
import { referenceText } from '../../../src/config/reference.ts';
import { describeConfiguration } from '../../../src/config/schema.ts';

const plain = (markdown: string) => markdown.replaceAll('`', '').replace(/\[(.*?)\]\((.*?)#.*?\)/, '"$1" in config/$2');

describe('referenceText', () => {
  const text = referenceText();

  test('has every key with its type, default and meaning', () => {
    const paragraphs = text.trimEnd().split('\n\n');
    const described = describeConfiguration().map(({ path, type, unit, default: byDefault, meaning }) => {
      const state = { required: 'required', none: 'optional' }[byDefault] ?? `default: ${byDefault}`;
      return `${path} ${type}${unit === undefined ? '' : ` in ${unit}`}; ${state} ${meaning}`;
    });
    expect(paragraphs.map((paragraph) => paragraph.replaceAll(/\s+/g, ' '))).toEqual(described.map(plain));
  });

  test('fits a terminal', () => {
    expect(text.split('\n').filter((line) => line.length > 80)).toEqual([]);
    expect(text).toEndWith('\n');
  });

  test('has the paths of links', () => {
    expect(text.replaceAll(/\s+/g, ' ')).toContain('see "Reducing WAL and network volume" in config/guide/prepare.md');
  });

  test('starts as expected', () => {
    expect(text).toStartWith(`databases
    mapping; required
    PostgreSQL databases, each under a name of your choice (db_ref)

databases.<db_ref>.host
    text; required
`);
  });
});
