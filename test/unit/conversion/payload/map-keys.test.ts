import { describe, expect, test } from 'bun:test';
import { findMapKeyFault } from '../../../../src/conversion/payload/map-keys.ts';

/** The fault of these keys, one after the other in one buffer; their bytes decide equality. */
function faultOf(texts: readonly string[]): string | undefined {
  const keys: number[] = [];
  let at = 0;
  for (const text of texts) {
    keys.push(at, at + text.length, 0);
    at += text.length;
  }
  return findMapKeyFault(Buffer.from(texts.join(''), 'latin1'), keys, 0);
}

/** Texts whose hashes (FNV-1a, folded) share their low 16 bits: the same place in a table of any size. */
function collidingTexts(count: number): string[] {
  const texts: string[] = [];
  for (let number = 0; texts.length < count; number++) {
    const text = number.toString(36).padStart(6, '0');
    let hash = 0x811c_9dc5;
    for (const letter of text) hash = Math.imul(hash ^ letter.charCodeAt(0), 0x0100_0193);
    if (((hash ^ (hash >>> 15)) & 0xffff) === 7) texts.push(text);
  }
  return texts;
}

describe('findMapKeyFault', () => {
  test.each([2, 8, 9, 40, 64, 1_000, 4_096, 4_097, 6_000])(
    'accepts %d distinct keys, and finds the one that is repeated',
    (count) => {
      const texts = Array.from({ length: count }, (_, index) => `key${index}`);
      expect(faultOf(texts)).toBeUndefined();
      for (const [from, to] of [
        [0, count - 1],
        [count - 1, 0],
        [Math.floor(count / 2), 0],
      ] as const) {
        if (from === to) continue;
        expect(faultOf(texts.with(to, texts[from]!))).toBe('repeated key of a map');
      }
    },
  );

  test('clears the table between a large obj and a small one', () => {
    const texts = Array.from({ length: 4_000 }, (_, index) => `key${index}`);
    expect([faultOf(texts), faultOf(texts.slice(0, 20)), faultOf(texts)]).toEqual([undefined, undefined, undefined]);
  });

  test('decides for keys whose hashes collide, too', () => {
    const texts = collidingTexts(40);
    expect(faultOf(texts)).toBeUndefined();
    expect(faultOf(texts.with(39, texts[0]!))).toBe('repeated key of a map');
  });
});
