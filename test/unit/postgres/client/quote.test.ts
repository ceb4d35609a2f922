import { describe, expect, test } from 'bun:test';
import { publicationNames, quoteIdentifier, quoteLiteral, quoteTable } from '../../../../src/postgres/client/quote.ts';

describe('quote', () => {
  test.each([
    ['invoice', '"invoice"'],
    ['default/default', '"default/default"'],
    ['In"voice', '"In""voice"'],
    [`it's`, `"it's"`],
    ['счёт', '"счёт"'],
    ['back\\slash', '"back\\slash"'],
  ])('quoteIdentifier doubles only double quotes: %s', (name, quoted) => {
    expect(quoteIdentifier(name)).toBe(quoted);
    expect(quoteTable(name)).toBe(`public.${quoted}`);
  });

  test.each([
    ['plain', `'plain'`],
    [`it's`, `'it''s'`],
    ['a"b\\', `'a"b\\'`],
    ['', `''`],
  ])('quoteLiteral doubles only single quotes: %s', (text, quoted) => {
    expect(quoteLiteral(text)).toBe(quoted);
  });

  test('publicationNames quotes every name and joins them by commas', () => {
    expect(publicationNames(['a', 'b/"c"', 'd,e'])).toBe('"a","b/""c""","d,e"');
  });
});
