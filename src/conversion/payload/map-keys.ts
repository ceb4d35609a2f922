/**
 * Finds repeated keys of an obj among their Thrift encodings. Equal bytes are equal terms. Equal terms may differ in bytes
 * in two cases, and such keys are brought to one form first: `-0.0 =:= 0.0` (OTP before 27), and a map inside a key, whose
 * order has no meaning.
 *
 * Cost: a few comparisons for a small obj, one hash a key for a larger one (3 times cheaper than a Set of texts). A Set is
 * used where hashes collide, by chance or by intent, and where bytes do not decide. It holds only keys that share their
 * length with another key, so a byte within nested keys is read once for each doubling of the obj around it: n log n in
 * the size of the payload at worst, however deep the nesting.
 */
import { VALUE_ARR, VALUE_B, VALUE_FLT, VALUE_I, VALUE_NL, VALUE_OBJ } from '../thrift/mg-proto.ts';
import { MAX_KEY_DEPTH } from './nesting-limits.ts';

/** Up to so many keys, each is compared with each other. */
const PAIRWISE_KEYS = 8;
/** Least number of places in the table for each key */
const TABLE_SPARSITY = 2;
const LEAST_TABLE_SIZE = 64;
/** Largest obj whose keys are put into the table, because the table is never freed */
const MAX_TABLE_KEYS = 4096;
/** Occupied places that are probed before the table is given up */
const MAX_PROBES = 16;
/** Numbers that describe a key: start, end (in `bytes`), and 1 when its bytes alone do not decide equality, otherwise 0 */
const STRIDE = 3;

/**
 * What is wrong with the keys that `keys[from..]` describes, or undefined. `bytes` holds their Thrift encodings; each key
 * is three numbers: its start, its end, and 1 when its bytes alone do not decide equality, otherwise 0.
 */
export function findMapKeyFault(bytes: Buffer, keys: readonly number[], from: number): string | undefined {
  const count = (keys.length - from) / STRIDE;
  if (count < 2) return undefined;
  if (count <= PAIRWISE_KEYS) return comparePairs(bytes, keys, from);
  return areDistinctByHash(bytes, keys, from) ? undefined : compareBySet(bytes, keys, from);
}

const REPEATED = 'repeated key of a map';
const TOO_DEEP = `key of a map is nested deeper than ${MAX_KEY_DEPTH} levels`;

function comparePairs(bytes: Buffer, keys: readonly number[], from: number): string | undefined {
  for (let i = from; i < keys.length; i += STRIDE) {
    const length = keys[i + 1]! - keys[i]!;
    for (let j = i + STRIDE; j < keys.length; j += STRIDE) {
      if (keys[j + 1]! - keys[j]! !== length) continue;
      if (keys[i + 2] === 0 && keys[j + 2] === 0) {
        if (sameBytes(bytes, keys[i]!, keys[j]!, length)) return REPEATED;
      } else {
        const left = canonicalKey(bytes, keys, i);
        const right = canonicalKey(bytes, keys, j);
        if (left === undefined || right === undefined) return TOO_DEEP;
        if (left.equals(right)) return REPEATED;
      }
    }
  }
  return undefined;
}

/** For each place 1 + the index in `keys` of its key, 0 for none. One table serves all calls: a call is synchronous. */
let table = new Int32Array(LEAST_TABLE_SIZE);

/** True when no two keys are equal; false when two are, or when the table cannot decide. */
function areDistinctByHash(bytes: Buffer, keys: readonly number[], from: number): boolean {
  const count = (keys.length - from) / STRIDE;
  if (count > MAX_TABLE_KEYS) return false;
  let size = LEAST_TABLE_SIZE;
  while (size < count * TABLE_SPARSITY) size *= 2;
  if (size > table.length) table = new Int32Array(size);
  else table.fill(0, 0, size);
  const mask = size - 1;
  for (let i = from; i < keys.length; i += STRIDE) {
    if (keys[i + 2] !== 0) return false;
    const start = keys[i]!;
    const end = keys[i + 1]!;
    let place = hashOf(bytes, start, end) & mask;
    for (let probe = 0; ; probe++) {
      const other = table[place]! - 1;
      if (other < 0) break;
      if (probe === MAX_PROBES) return false;
      const length = end - start;
      if (keys[other + 1]! - keys[other]! === length && sameBytes(bytes, keys[other]!, start, length)) return false;
      place = (place + 1) & mask;
    }
    table[place] = i + 1;
  }
  return true;
}

/** FNV-1a with its high bits mixed into the low ones. */
function hashOf(bytes: Buffer, start: number, end: number): number {
  let hash = 0x811c_9dc5;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ bytes[i]!, 0x0100_0193);
  return hash ^ (hash >>> 15);
}

function compareBySet(bytes: Buffer, keys: readonly number[], from: number): string | undefined {
  const keysOfLength = new Map<number, number>();
  for (let i = from; i < keys.length; i += STRIDE) {
    const length = keys[i + 1]! - keys[i]!;
    keysOfLength.set(length, (keysOfLength.get(length) ?? 0) + 1);
  }
  const seen = new Set<string>();
  let distinct = 0;
  for (let i = from; i < keys.length; i += STRIDE) {
    if (keysOfLength.get(keys[i + 1]! - keys[i]!) === 1) continue;
    const key =
      keys[i + 2] === 0
        ? bytes.toString('latin1', keys[i], keys[i + 1])
        : canonicalKey(bytes, keys, i)?.toString('latin1');
    if (key === undefined) return TOO_DEEP;
    distinct++;
    if (seen.add(key).size !== distinct) return REPEATED;
  }
  return undefined;
}

function sameBytes(bytes: Buffer, left: number, right: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (bytes[left + i] !== bytes[right + i]) return false;
  return true;
}

/** A copy of the key in the form that all equal terms share; undefined when it is nested deeper than MAX_KEY_DEPTH. */
function canonicalKey(bytes: Buffer, keys: readonly number[], index: number): Buffer | undefined {
  const copy = Buffer.from(bytes.subarray(keys[index], keys[index + 1]));
  if (keys[index + 2] === 0) return copy;
  return canonicalize(copy, 0, 0) < 0 ? undefined : copy;
}

/** Rewrites in place the encoded Value at `at`; returns its end, or -1 when it is nested deeper than MAX_KEY_DEPTH. */
function canonicalize(value: Buffer, at: number, depth: number): number {
  if (depth > MAX_KEY_DEPTH) return -1;
  const contents = at + 3;
  switch (value.readUIntBE(at, 3)) {
    case VALUE_NL:
    case VALUE_B:
      return contents + 2;
    case VALUE_I:
      return contents + 9;
    case VALUE_FLT:
      if (value.readDoubleBE(contents) === 0) value.writeDoubleBE(0, contents);
      return contents + 9;
    case VALUE_ARR: {
      let end = contents + 5;
      for (let left = value.readUInt32BE(contents + 1); left > 0 && end >= 0; left--) {
        end = canonicalize(value, end, depth + 1);
      }
      return end < 0 ? end : end + 1;
    }
    case VALUE_OBJ:
      return canonicalizeMap(value, contents + 6, value.readUInt32BE(contents + 2), depth);
    default: // str, bin: i32 length, bytes, stop
      return contents + 4 + value.readUInt32BE(contents) + 1;
  }
}

/** Sorts the `count` entries at `at` by their bytes, in place; returns the end of the Value, or -1 as `canonicalize`. */
function canonicalizeMap(value: Buffer, at: number, count: number, depth: number): number {
  const entries: { readonly start: number; readonly end: number }[] = [];
  let end = at;
  for (let i = 0; i < count; i++) {
    const start = end;
    const keyEnd = canonicalize(value, start, depth + 1);
    end = keyEnd < 0 ? keyEnd : canonicalize(value, keyEnd, depth + 1);
    if (end < 0) return end;
    entries.push({ start, end });
  }
  if (count > 1) {
    const before = Buffer.from(value.subarray(at, end));
    entries.sort((left, right) => value.compare(value, right.start, right.end, left.start, left.end));
    let to = at;
    for (const entry of entries) to += before.copy(value, to, entry.start - at, entry.end - at);
  }
  return end + 1;
}
