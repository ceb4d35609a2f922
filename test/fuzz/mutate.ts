/** Damages bytes and texts in the ways that usually break parsers. Everything depends on the given random alone. */

/** Numbers from 0 to 1, as `Math.random`; a seeded one repeats the same mutations. */
export type Random = () => number;

const EDGE_BYTES = [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff];
const EDGE_NUMBERS = [0, 1, -1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, -0x8000_0000, 0x0100_0000];

/** An integer from 0 to `limit`, exclusive. */
export function below(random: Random, limit: number): number {
  return Math.floor(random() * limit);
}

/** One of these. */
export function pick<T>(random: Random, choices: readonly T[]): T {
  return choices[below(random, choices.length)]!;
}

const BYTE_MUTATIONS: readonly ((bytes: Buffer, random: Random) => Buffer)[] = [
  flipBit,
  flipBit,
  (bytes, random) => setByte(bytes, random, pick(random, EDGE_BYTES)),
  (bytes, random) => setByte(bytes, random, below(random, 256)),
  // Counts and lengths: an edge value, or a little more or less than the true one.
  (bytes, random) => setNumber(bytes, random, () => pick(random, EDGE_NUMBERS)),
  (bytes, random) => setNumber(bytes, random, (before) => before + below(random, 9) - 4),
  (bytes, random) => bytes.subarray(0, below(random, bytes.length + 1)),
  (bytes, random) => {
    const [start, end] = range(bytes, random);
    return Buffer.concat([bytes.subarray(0, start), bytes.subarray(end)]);
  },
  (bytes, random) => {
    const [start, end] = range(bytes, random);
    return Buffer.concat([bytes.subarray(0, end), bytes.subarray(start, end), bytes.subarray(end)]);
  },
  (bytes, random) => {
    const at = below(random, bytes.length + 1);
    const inserted = Buffer.from(Array.from({ length: 1 + below(random, 12) }, () => below(random, 256)));
    return Buffer.concat([bytes.subarray(0, at), inserted, bytes.subarray(at)]);
  },
];

/** A damaged copy: one to four mutations, rarely without an effect. */
export function mutateBytes(bytes: Buffer, random: Random): Buffer {
  let mutated: Buffer = Buffer.from(bytes);
  for (let left = 1 + below(random, 4); left > 0; left--) mutated = pick(random, BYTE_MUTATIONS)(mutated, random);
  return mutated;
}

function flipBit(bytes: Buffer, random: Random): Buffer {
  const at = below(random, bytes.length);
  return setByteAt(bytes, at, (bytes[at] ?? 0) ^ (1 << below(random, 8)));
}

function setByte(bytes: Buffer, random: Random, value: number): Buffer {
  return setByteAt(bytes, below(random, bytes.length), value);
}

function setByteAt(bytes: Buffer, at: number, value: number): Buffer {
  if (at < bytes.length) bytes[at] = value;
  return bytes;
}

function setNumber(bytes: Buffer, random: Random, change: (before: number) => number): Buffer {
  const size = pick(random, [2, 4]);
  if (bytes.length < size) return bytes;
  const at = below(random, bytes.length - size + 1);
  const value = change(bytes.readIntBE(at, size));
  if (size === 2) bytes.writeUInt16BE(value & 0xffff, at);
  else bytes.writeInt32BE(value | 0, at);
  return bytes;
}

function range(bytes: { readonly length: number }, random: Random): [start: number, end: number] {
  const start = below(random, bytes.length + 1);
  return [start, Math.min(bytes.length, start + 1 + below(random, 24))];
}

/** A damaged copy of a text: lines and tokens are removed, duplicated and replaced, and words of `dictionary` inserted. */
export function mutateText(text: string, random: Random, dictionary: readonly string[]): string {
  let mutated = text;
  for (let left = 1 + below(random, 4); left > 0; left--) mutated = mutateOnce(mutated, random, dictionary);
  return mutated;
}

function mutateOnce(text: string, random: Random, dictionary: readonly string[]): string {
  const lines = text.split('\n');
  const line = below(random, lines.length);
  const [start, end] = range(text, random);
  switch (below(random, 8)) {
    case 0:
      return lines.toSpliced(line, 1).join('\n');
    case 1:
      return lines.toSpliced(below(random, lines.length), 0, lines[line]!).join('\n');
    case 2:
      return lines.with(line, `${' '.repeat(below(random, 7))}${lines[line]!.trimStart()}`).join('\n');
    case 3:
      return lines.with(line, lines[line]!.replace(/:.*/, `: ${pick(random, dictionary)}`)).join('\n');
    case 4:
      return lines.with(line, lines[line]!.replace(/[\w-]+/, pick(random, dictionary))).join('\n');
    case 5:
      return text.slice(0, start) + pick(random, dictionary) + text.slice(start);
    case 6:
      return text.slice(0, start) + String.fromCharCode(below(random, 128)) + text.slice(end);
    default:
      return text.slice(0, start) + text.slice(end);
  }
}
